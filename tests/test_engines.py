"""Whoever computes a shard, its bytes are the same: ranks of a job and Ray workers, killed and continued."""

import functools
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import killing
import pytest

from activation_cache import engines
from activation_cache.engines import EngineConfig, Rank, own_tokens, rank_of, record_with
from activation_cache.errors import UserError
from activation_cache.places import place
from activation_cache.record import record
from activation_cache.shards import ActivationCache

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra `ray`")
torchrun = functools.partial(record_with, EngineConfig("torchrun"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A plan of several shards, and the bytes that one process makes of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
        plan = killing.planned(folder, 60)
    assert plan.manifest.n_shards > 5
    list(record(plan, folder / "c"))
    return plan, killing.content(folder / "c")


def rank(number: int, of: int, then=lambda: None):
    """What makes a forked process this rank."""

    def become() -> None:
        os.environ.update(RANK=str(number), WORLD_SIZE=str(of))
        then()

    return become


def started(plan, out, number: int, of: int, then=lambda: None) -> killing.Child:
    return killing.start(plan, out, rank(number, of, then), torchrun)


@pytest.mark.parametrize("of", [1, 2, 5])
def test_ranks_started_at_once_write_what_one_process_would(undisturbed, tmp_path, of):
    plan, expected = undisturbed
    ended = [killing.end(child) for child in [started(plan, tmp_path / "c", number, of) for number in range(of)]]
    assert [code for code, _ in ended] == [0] * of
    assert sum(len(words) for _, words in ended) == plan.manifest.n_shards
    assert killing.content(tmp_path / "c") == expected


def test_a_rank_killed_half_way_is_started_again_and_the_bytes_are_the_same(undisturbed, tmp_path):
    plan, expected = undisturbed
    out = tmp_path / "c"
    killed = started(plan, out, 1, 2, killing.halting_after(3))
    other = started(plan, out, 0, 2)
    killing.wait_for_words(killed, 1)
    killing.kill(killed)
    assert killing.end(killed)[0] == -signal.SIGKILL
    assert killing.end(other)[0] == 0
    with pytest.raises(UserError, match=r"is incomplete, shards/00003\.safetensors is missing"):
        ActivationCache(out)
    code, words = killing.end(started(plan, out, 1, 2))
    assert code == 0 and words == "k" + "c" * (len(Rank(1, 2, 0).shards(plan.manifest.n_shards)) - 1)
    assert killing.content(out) == expected


@pytest.mark.parametrize("point", killing.POINTS)
@pytest.mark.parametrize("number", [2, 7])
def test_a_rank_killed_before_a_step_of_a_write_leaves_what_others_continue(undisturbed, tmp_path, point, number):
    plan, expected = undisturbed
    out = tmp_path / "c"
    assert killing.end(started(plan, out, 1, 2, killing.dies_at(point, number)))[0] == -signal.SIGKILL
    for child in [started(plan, out, n, 3) for n in range(3)]:
        assert killing.end(child)[0] == 0
    assert killing.content(out) == expected


def test_one_process_goes_on_with_what_ranks_left_and_ranks_with_what_one_left(undisturbed, tmp_path):
    plan, expected = undisturbed
    assert killing.end(started(plan, tmp_path / "a", 1, 2))[0] == 0
    n_own = len(Rank(1, 2, 0).shards(plan.manifest.n_shards))
    assert killing.end(killing.start(plan, tmp_path / "a"))[1].count("k") == n_own
    running = record(plan, tmp_path / "b")
    next(running)
    running.close()
    assert [killing.end(started(plan, tmp_path / "b", number, 2))[1][0] for number in (0, 1)] == ["k", "c"]
    assert killing.content(tmp_path / "a") == killing.content(tmp_path / "b") == expected


def test_ranks_and_a_process_of_its_own_do_not_write_one_folder_together(undisturbed, tmp_path, monkeypatch):
    plan, _ = undisturbed
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    alone = record(plan, tmp_path / "c")
    next(alone)
    with pytest.raises(UserError, match="another process is writing"):
        next(torchrun(plan, tmp_path / "c"))
    alone.close()
    together = torchrun(plan, tmp_path / "c")
    next(together)
    with pytest.raises(UserError, match="another process is writing"):
        next(record(plan, tmp_path / "c", resume=True))
    together.close()


def test_ranks_write_to_a_url_in_any_order(undisturbed, monkeypatch):
    plan, expected = undisturbed
    out = f"memory://{uuid.uuid4().hex}"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for number in (1, 0):
        monkeypatch.setenv("RANK", str(number))
        steps = list(torchrun(plan, out))
        assert steps[-1].n_tokens == steps[-1].total == own_tokens(EngineConfig("torchrun"), plan)
    assert {file: (place(out) / file).read_bytes() for file in expected} == expected


def test_a_rank_of_another_recording_is_refused(undisturbed, tmp_path, monkeypatch):
    plan, _ = undisturbed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
        other = killing.planned(tmp_path, 20)
    assert killing.end(started(plan, tmp_path / "c", 0, 2))[0] == 0
    code, words = killing.end(started(other, tmp_path / "c", 1, 2))
    assert code == 2 and "holds another recording, which differs in dataset_identity" in words
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UserError, match="--overwrite is not for --engine torchrun"):
        next(torchrun(plan, tmp_path / "c", overwrite=True))


def test_the_rank_is_torchruns_or_slurms():
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
    assert rank_of(slurm) == Rank(3, 8, 1)
    assert rank_of(slurm | {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == Rank(1, 2, 1)
    assert rank_of({"RANK": "1", "WORLD_SIZE": "2"}) == Rank(1, 2, 0)
    for wrong in ({"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "one", "WORLD_SIZE": "2"}):
        with pytest.raises(UserError, match="are no rank and number of processes"):
            rank_of(wrong)
    with pytest.raises(UserError, match="start it with `torchrun"):
        rank_of({"RANK": "1"})


def test_the_stripes_of_ranks_are_all_shards_each_once():
    for of in (1, 2, 3, 12):
        stripes = [Rank(number, of, 0).shards(10) for number in range(of)]
        assert sorted(index for stripe in stripes for index in stripe) == list(range(10))


def test_an_unknown_engine_and_idle_options_are_refused(undisturbed, tmp_path):
    plan, _ = undisturbed
    with pytest.raises(UserError, match="unknown engine 'rya': choose one of local, torchrun, ray"):
        record_with(EngineConfig("rya"), plan, tmp_path / "c")
    with pytest.raises(UserError, match="--workers and --ray-address go with --engine ray"):
        record_with(EngineConfig("local", workers=2), plan, tmp_path / "c")


def test_ray_that_is_not_installed_is_asked_for(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'sae-translate\[ray\]'"):
        next(record_with(EngineConfig("ray"), undisturbed[0], tmp_path / "c"))
    assert not (tmp_path / "c").exists()


@needs_ray
def test_ray_workers_one_killed_half_way_continue_what_was_broken_off_to_the_same_bytes(
    undisturbed, tmp_path, monkeypatch
):
    plan, expected = undisturbed
    broken_off = record(plan, tmp_path / "c")
    next(broken_off)
    broken_off.close()
    monkeypatch.setattr(engines, "ShardWriter", killing.DiesOnce)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the workers find it
    steps = list(record_with(EngineConfig("ray", workers=2), plan, tmp_path / "c", resume=True))
    assert (tmp_path / "died").exists()
    assert [step.kept for step in steps] == [True] + [False] * (plan.manifest.n_shards - 1)
    assert steps[-1].n_tokens == plan.manifest.n_tokens
    assert killing.content(tmp_path / "c") == expected


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of this machine that is there already: its address as it tells it, and its process."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it is "token" where its user has one
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--disable-usage-stats",
               "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=4", "--include-dashboard=false",
               "--object-store-memory=100000000"]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # the paths of its sockets must be short
        child = subprocess.Popen([*command, f"--temp-dir={folder}"], stdout=subprocess.PIPE, text=True,
                                 start_new_session=True)  # fmt: skip
        told = (re.search(r"--address='(\S+)'", line) for line in child.stdout)
        yield next(found[1] for found in told if found), child
        os.killpg(child.pid, signal.SIGKILL)  # its processes are a group of their own; to end by itself takes it longer
        child.wait()


@needs_ray
def test_a_ray_cluster_that_is_there_is_joined_by_its_address_and_left_there(undisturbed, tmp_path, cluster):
    """By the command, in a process of its own: Ray remembers how the clusters before authenticated."""
    (plan, expected), (address, child) = undisturbed, cluster
    of = plan.manifest
    smaller = "from activation_cache import plan; plan.TOKENS_PER_SHARD = 160; from sae_translate.cli import __main__"
    subprocess.run([
        sys.executable, "-c", smaller, "cache", "--model", of.model, "--sae", of.saes[0].source, "--activations",
        "--dataset", of.dataset, "--out", tmp_path / "c", "--engine", "ray", "--ray-address", address, "--workers", "2",
        "--cooccurrence", "--lags", ",".join(map(str, of.cooccurrence.lags)),
    ], check=True)  # fmt: skip
    assert killing.content(tmp_path / "c") == expected
    assert child.poll() is None


@needs_ray
def test_an_address_where_no_ray_cluster_answers_is_told(undisturbed, tmp_path):
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        list(record_with(EngineConfig("ray", ray_address="127.0.0.1:1"), undisturbed[0], tmp_path / "c"))
    assert not (tmp_path / "c").exists()
