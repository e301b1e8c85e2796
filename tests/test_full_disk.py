"""A disk that is full or may not be written: one line says so, nothing is torn, --resume goes on to equal bytes."""

import errno
import os
import resource
import subprocess
from pathlib import Path

import killing
import pytest

from activation_cache import layout, places
from activation_cache.errors import UserError
from activation_cache.record import record

NOBODY = 65534


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A plan of several shards, and the bytes it makes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
        plan = killing.planned(folder, 60)
    list(record(plan, folder / "c"))
    return plan, killing.content(folder / "c")


def files_may_have(n_bytes: int):
    """For `killing.start`: writing beyond so many bytes of a file fails, as it does where a quota is used up."""

    def arm() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return arm


def fills_up_at(call: int):
    """For `killing.start`: from the so-manyth file on, half of what is written goes to disk and then it is full."""

    def arm() -> None:
        calls, real = [0], open

        class Filling:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *failure):
                self.file.close()

            def write(self, content: bytes):
                self.file.write(content[: len(content) // 2])
                self.file.flush()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def opening(path, mode="r", *rest, **more):
            file = real(path, mode, *rest, **more)
            calls[0] += mode == "wb"
            return Filling(file) if mode == "wb" and calls[0] >= call else file

        places.open = opening

    return arm


@pytest.mark.parametrize("call", range(1, 20, 3))
def test_a_disk_that_fills_up_at_any_file_leaves_nothing_torn_and_is_resumed(undisturbed, tmp_path, call):
    plan, expected = undisturbed
    out = tmp_path / "c"
    code, words = killing.end(killing.start(plan, out, fills_up_at(call)))
    assert code == 2 and "No space left on device" in words and "continue with --resume" in words
    assert "\n" not in words and not list(out.rglob("*.tmp"))
    told = len(words) - len(words.lstrip("c"))
    killing.nothing_is_torn(out, told)
    assert killing.end(killing.start(plan, out))[0] == 0
    assert killing.content(out) == expected


def test_a_file_beyond_the_limit_is_told_and_the_recording_goes_on_when_there_is_room(undisturbed, tmp_path):
    plan, expected = undisturbed
    shard = max(len(content) for file, content in expected.items() if file.startswith(layout.SHARDS))
    code, words = killing.end(killing.start(plan, tmp_path / "c", files_may_have(shard - 1)))
    assert code == 2 and "File too large" in words and "--resume" in words
    assert killing.end(killing.start(plan, tmp_path / "c"))[0] == 0
    assert killing.content(tmp_path / "c") == expected


def as_nobody(folder: Path):
    """For `killing.start`: the child works in this folder and may write it no more than anyone, be it even root's."""

    def arm() -> None:
        os.chdir(folder)
        if os.getuid() == 0:
            os.setuid(NOBODY)

    return arm


MODES = {"read-only": (0o555, "c cannot be written (Permission denied)"),
         "unreadable": (0o000, "c cannot be read (Permission denied)")}  # fmt: skip


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("kind", MODES)
def test_a_folder_that_may_not_be_written_or_read_is_told_and_left_as_it_was(undisturbed, tmp_path, kind, begun):
    plan, expected = undisturbed
    mode, says = MODES[kind]
    out = tmp_path / "c"
    out.mkdir()
    if begun:
        running = record(plan, out, resume=True)
        next(running)
        running.close()
    before = killing.content(out)
    tmp_path.chmod(0o755)
    rooms = [out, *(path for path in out.rglob("*") if path.is_dir())]
    for room in reversed(rooms):
        room.chmod(mode)
    code, words = killing.end(killing.start(plan, Path("c"), as_nobody(tmp_path)))
    for room in rooms:
        room.chmod(0o755)
    assert code == 2 and (says in words or (begun and "could not be written (Permission denied)" in words))
    assert killing.content(out) == before
    assert killing.end(killing.start(plan, out))[0] == 0
    assert killing.content(out) == expected


@pytest.mark.skipif(os.getuid() != 0 or not Path("/proc/self/mounts").exists(), reason="only root mounts a small disk")
def test_a_disk_of_half_the_size_fills_and_a_larger_one_takes_the_rest(undisturbed, tmp_path):
    plan, expected = undisturbed
    total = sum(-(-len(content) // 4096) * 4096 for content in expected.values())
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={total // 2}", "none", str(disk)])
    if mounted.returncode:
        pytest.skip("this root may not mount")
    try:
        told = []
        with pytest.raises(UserError, match=r"No space left on device.*continue with --resume"):
            told.extend(record(plan, disk / "c"))
        killing.nothing_is_torn(disk / "c", len(told))
        subprocess.run(["mount", "-o", f"remount,size={4 * total}", str(disk)], check=True)
        assert sum(step.kept for step in record(plan, disk / "c", resume=True)) == len(told) > 0
        assert killing.content(disk / "c") == expected
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_temporary_folder_is_told_as_such(undisturbed, tmp_path):
    plan, expected = undisturbed
    code, words = killing.end(killing.start(plan, tmp_path / "c", files_may_have(2000)))
    assert code == 2 and "File too large" in words and "TMPDIR" in words
    assert killing.end(killing.start(plan, tmp_path / "c"))[0] == 0
    assert killing.content(tmp_path / "c") == expected
