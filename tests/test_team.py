"""Training by several processes: they make one network, the one that a single process makes of all their batches."""

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import load_file
from steps import finished
from test_cli_translate import SMALL, sae_translate
from test_translator import CONFIG, EVERYTHING, alignment, chains, languages  # noqa: F401  (fixtures)

from activation_cache.errors import UserError
from sae_translate.cli import train as command
from sae_translate.cli.train import joined
from sae_translate.demo.stories import generate_documents
from sae_translate.translate.training import train

FORK = get_context("fork")


def together(size: int, work: Callable[[int], None]) -> None:
    """Let forked processes, started as `accelerate launch` starts them, do the same work; it is told their rank."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def become(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="localhost",
                          MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(size))  # fmt: skip
        work(rank)

    crowd = [FORK.Process(target=become, args=(rank,)) for rank in range(size)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(100)
    assert [one.exitcode for one in crowd] == [0] * size


@pytest.mark.parametrize("losses", [CONFIG.losses, EVERYTHING])
def test_two_processes_make_the_steps_of_one_that_accumulates_both_their_batches(
    languages, alignment, losses, tmp_path  # noqa: F811
):  # fmt: skip
    training = replace(CONFIG.training, steps=4, evaluate_every=2, batch_size=8)
    config = replace(CONFIG, losses=losses, training=training)

    def work(rank: int) -> None:
        with joined("cpu") as team:
            translator, seen = finished(train(*languages, alignment, config, team=team))
        told = [[step.losses, step.criterion and step.criterion.value] for step in seen]
        weights = {name: value.tolist() for name, value in translator.network.state_dict().items()}
        (tmp_path / f"{rank}.json").write_text(json.dumps([told, translator.record, weights]))

    together(2, work)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    alone, seen = finished(train(*languages, alignment, replace(config, training=replace(training, accumulate=2))))
    assert first[1]["history"] == [[step, pytest.approx(value, abs=1e-4)] for step, value in alone.record["history"]]
    assert first[0][-1][0] == pytest.approx(seen[-1].losses, rel=1e-3)
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(torch.tensor(first[2][name]), value, atol=1e-4, rtol=1e-3)


@pytest.fixture
def arguments(tmp_path) -> list:
    """A small training on the command line."""
    for name, seed in (("en", 1), ("de", 2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(list(generate_documents(name, 30, seed))))
    (tmp_path / "small.json").write_text(json.dumps(SMALL | {"start": "random"}))
    return ["train", tmp_path / "de.json", tmp_path / "en.json", "--vocabulary", 60, "--config",
            tmp_path / "small.json", "--log", tmp_path / "log.jsonl"]  # fmt: skip


def test_one_process_goes_on_from_what_two_have_saved(arguments, tmp_path, monkeypatch):
    save = command.write_state

    def write_and_end(*given):
        save(*given)
        os._exit(0)

    def interrupted(rank: int) -> None:
        command.write_state = write_and_end
        try:
            sae_translate(*arguments, "--out", tmp_path / "made")
        except RuntimeError:  # of the second, whose first is gone
            assert rank == 1

    together(2, interrupted)
    assert not (tmp_path / "made").exists()
    told = json.loads(sae_translate(*arguments, "--out", tmp_path / "made", "--resume", "--json"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4] and told["step"] == 4
    assert [step for step, _ in told["history"]] == [2, 4]


def test_the_first_of_two_processes_alone_writes(arguments, tmp_path):
    def work(rank: int) -> None:
        told = sae_translate(*arguments, "--out", tmp_path / "made", "--json")
        assert bool(told) == (rank == 0)

    together(2, work)
    assert load_file(tmp_path / "made" / "tensors.safetensors") and not (tmp_path / "made.state").exists()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]


def test_processes_that_cannot_be_joined_are_one_line(monkeypatch):
    from accelerate import PartialState

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were started for --device cuda, which"), joined("cuda"):
        pass
    PartialState._reset_state()
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match="several processes need accelerate: pip install"), joined("cpu"):
        pass
