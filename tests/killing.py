"""Recordings in processes of their own, which are killed at any moment and continued."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tiny

from activation_cache import layout, shards
from activation_cache.engines import ShardWriter
from activation_cache.errors import UserError
from activation_cache.plan import RecordingConfig, RecordingPlan, plan_recording
from activation_cache.record import record

HOOK = "blocks.1.hook_resid_post"
POINTS = ("open", "fsync", "replace")
"Calls of a write before which a child may kill itself."


@dataclass(frozen=True)
class Child:
    """A forked process that records."""

    pid: int
    told: int
    "File descriptor from which its words are read: a byte a shard, then its error if there was one."


def planned(folder: Path, n_documents: int) -> RecordingPlan:
    """A plan over a tiny model, an SAE and a text, which are written to this folder."""
    tiny.model_folder(folder / "model", tiny.llama())
    tiny.sae_folder(folder / "sae", hook_name=HOOK, context_size=16, prepend_bos=True, model_name="model")
    (folder / "text.json").write_text(json.dumps(tiny.documents(n=n_documents)))
    return plan_recording(RecordingConfig(model=str(folder / "model"), saes=(str(folder / "sae"),), activations=True,
                                          dataset=str(folder / "text.json"),
                                          cooccurrence=layout.CooccurrenceEntry((1, 2))))


def start(
    plan: RecordingPlan, out: Path, before: Callable[[], None] = lambda: None, recording: Callable = record
) -> Child:
    """A process that records with --resume; it calls `before` first. It is forked, so that everything is loaded."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writes)
        return Child(pid, reads)
    code = 1
    try:
        os.close(reads)
        before()
        for step in recording(plan, out, resume=True):
            os.write(writes, b"k" if step.kept else b"c")
        code = 0
    except UserError as error:
        os.write(writes, str(error).encode())
        code = 2
    finally:
        os._exit(code)


class DiesOnce(ShardWriter):
    """A Ray worker that is killed before it renames the third shard, the first time."""

    def __call__(self, row: dict) -> dict:
        if row["shard"] == 2 and not (died := self.folder.with_name("died")).exists():
            died.touch()
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)


def kill(child: Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)


def end(child: Child) -> tuple[int, str]:
    """Wait for it; its exit code, negative where a signal ended it, and its words."""
    words = b""
    while more := os.read(child.told, 1 << 16):
        words += more
    os.close(child.told)
    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]), words.decode()


def dies_at(point: str, number: int) -> Callable[[], None]:
    """For `start`: the child is killed just before its call of this number at this point of a write."""
    def arm() -> None:
        import builtins

        calls, owner = 0, builtins if point == "open" else os
        real = getattr(owner, point)

        def counting(*args, **kwargs):
            nonlocal calls
            if point != "open" or (len(args) > 1 and args[1] == "wb"):
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(owner, point, counting)

    return arm


def halting_after(n_shards: int) -> Callable[[], None]:
    """For `start`: the child stops itself (SIGSTOP) when it begins to compute the shard after so many."""
    def arm() -> None:
        from activation_cache import record as recording

        real = recording.compute_shard

        def halting(plan: RecordingPlan, index: int):
            if index == n_shards:
                os.kill(os.getpid(), signal.SIGSTOP)
            return real(plan, index)

        recording.compute_shard = halting

    return arm


def wait_for_words(child: Child, n: int) -> None:
    """Return when it has told of so many shards, of which `end` then does not tell again."""
    while n:
        if not (words := os.read(child.told, n)):
            raise AssertionError("the recording ended before it told of so many shards")
        n -= len(words)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def go_on(child: Child) -> None:
    os.kill(child.pid, signal.SIGCONT)


def seconds_undisturbed(plan: RecordingPlan, out: Path) -> float:
    """How long a whole recording takes."""
    began = time.monotonic()
    if (ended := end(start(plan, out)))[0]:
        raise AssertionError(f"the undisturbed recording failed: {ended}")
    return time.monotonic() - began


def kill_until_done(plan: RecordingPlan, out: Path, seconds: float, draw: random.Random, most: int) -> int:
    """Kill recordings of one folder at random moments, at most so often, until one is done; the number of kills.

    After each kill, what is there must be whole, and every shard that was told of must be there.
    """
    kills = there = 0
    while True:
        child = start(plan, out)
        if kills < most:
            time.sleep(draw.uniform(0, seconds))
            kill(child)
        code, words = end(child)
        if code == 0:
            return kills
        if code != -signal.SIGKILL:
            raise AssertionError(f"a recording that was to be continued ended with {code}: {words}")
        kills += 1
        there = nothing_is_torn(out, max(there, len(words)))


def nothing_is_torn(out: Path, known: int) -> int:
    """Every file of a killed recording is whole or not there, and all shards known of are there; the number of them."""
    if not (out / layout.MANIFEST).exists():
        assert known == 0
        return 0
    found = dict(shards.check(out))
    assert all(wrong is None or "the recording was interrupted" in wrong for wrong in found.values()), found
    whole = sum(wrong is None for file, wrong in found.items() if file.startswith(layout.SHARDS))
    assert known <= whole <= known + 1  # killed between the last shard's sidecar and its word, it is one more
    return whole


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
