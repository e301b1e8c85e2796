"""SIGKILL at any moment, then --resume: the same bytes. Real processes, really killed."""

import random
import signal

import killing
import pytest


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A plan of several shards, the bytes it makes, and how long that takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
        plan = killing.planned(folder, 60)
    assert plan.manifest.n_shards > 5
    seconds = killing.seconds_undisturbed(plan, folder / "c")
    return plan, killing.content(folder / "c"), seconds


@pytest.mark.parametrize("seed", range(3))
def test_recordings_killed_at_random_moments_continue_to_the_same_bytes(undisturbed, tmp_path, seed):
    plan, expected, seconds = undisturbed
    killing.kill_until_done(plan, tmp_path / "c", seconds, random.Random(seed), most=4)
    assert killing.content(tmp_path / "c") == expected


@pytest.mark.parametrize("point", killing.POINTS)
@pytest.mark.parametrize("number", [1, 4, 9, 16])
def test_a_recording_killed_before_any_step_of_a_write_continues_to_the_same_bytes(
    undisturbed, tmp_path, point, number
):
    plan, expected, _ = undisturbed
    code, words = killing.end(killing.start(plan, tmp_path / "c", killing.dies_at(point, number)))
    assert code == -signal.SIGKILL
    killing.nothing_is_torn(tmp_path / "c", len(words))
    code, resumed = killing.end(killing.start(plan, tmp_path / "c"))
    assert code == 0 and len(words) <= resumed.count("k") <= len(words) + 1
    assert killing.content(tmp_path / "c") == expected


def test_two_processes_never_write_one_cache_and_the_first_is_not_disturbed(undisturbed, tmp_path):
    plan, expected, _ = undisturbed
    first = killing.start(plan, tmp_path / "c", killing.halting_after(2))
    killing.wait_for_words(first, 2)
    code, words = killing.end(killing.start(plan, tmp_path / "c"))
    assert code == 2 and words.startswith(f"another process is writing {tmp_path / 'c'}: wait for it")
    killing.go_on(first)
    code, words = killing.end(first)
    assert code == 0 and words == "c" * (plan.manifest.n_shards - 2)
    assert killing.content(tmp_path / "c") == expected


def test_a_killed_process_leaves_no_lock_behind(undisturbed, tmp_path):
    plan, expected, _ = undisturbed
    first = killing.start(plan, tmp_path / "c", killing.halting_after(1))
    killing.wait_for_words(first, 1)
    killing.kill(first)
    assert killing.end(first)[0] == -signal.SIGKILL
    assert killing.end(killing.start(plan, tmp_path / "c"))[0] == 0
    assert killing.content(tmp_path / "c") == expected
