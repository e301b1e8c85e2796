"""A folder and a URL answer alike: what is put there is whole, and what is not there says so."""

import os
import uuid
from pathlib import Path

import pytest

from activation_cache import places
from activation_cache.errors import UserError
from activation_cache.places import place


@pytest.fixture(params=["folder", "memory"])
def somewhere(request, tmp_path):
    return place(tmp_path if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def test_what_is_put_is_read_and_replaced(somewhere):
    places.make_folder(somewhere / "room")
    for content in (b"first", b"the second"):
        places.put(somewhere / "room/file", content)
        assert places.read(somewhere / "room/file") == content
        assert places.size(somewhere / "room/file") == len(content)
    assert [path.name for path in (somewhere / "room").iterdir()] == ["file"]


def test_what_is_not_there_says_so(somewhere):
    for look in (places.read, places.size):
        with pytest.raises(FileNotFoundError):
            look(somewhere / "nothing")


def test_a_removed_folder_is_gone_and_may_be_removed_again(somewhere):
    places.make_folder(somewhere / "room/inner")
    places.put(somewhere / "room/inner/file", b"x")
    for _ in range(2):
        places.remove_folder(somewhere / "room")
        assert not (somewhere / "room").exists()


def test_a_put_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    places.put(tmp_path / "file", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        places.put(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_whatever_a_store_raises_is_an_os_error(monkeypatch):
    path = place("memory://store/file")

    def refuse(*_):
        raise ValueError("no credentials")

    monkeypatch.setattr(path.fs, "pipe_file", refuse)
    with pytest.raises(OSError, match="ValueError: no credentials"):
        places.put(path, b"x")


def test_a_folder_is_held_by_one_process_or_shared_by_those_that_share(tmp_path):
    with places.locked(tmp_path):
        for shared in (False, True):
            with pytest.raises(UserError, match="another process is writing"), places.locked(tmp_path, shared):
                pass
    with places.locked(tmp_path, shared=True), places.locked(tmp_path, shared=True):  # noqa: SIM117
        with pytest.raises(UserError, match="another process is writing"), places.locked(tmp_path):
            pass
    with places.locked(tmp_path):
        pass


def test_names_of_folders_are_paths_and_urls_are_not():
    assert place("a/b") == Path("a/b") and place("file:///a/b") == Path("/a/b")
    assert str(place("memory://a/b") / "c") == "memory://a/b/c"
    assert place(place("memory://a/b")) == place("memory://a/b") and place(Path("a")) == Path("a")
    assert places.is_url("s3://a/b") and not places.is_url("./a") and not places.is_url("file:///a")


def test_a_url_that_cannot_be_read_here_says_what_to_do():
    with pytest.raises(UserError, match=r"nope://a/b cannot be reached: .*'nope'.*give a folder"):
        place("nope://a/b")


def test_the_package_that_a_url_needs_is_named(monkeypatch):
    from fsspec.registry import known_implementations

    absent = {"class": "no_such_package.FileSystem", "err": "Please install no_such_package"}
    monkeypatch.setitem(known_implementations, "s3", absent)
    with pytest.raises(UserError, match=r"s3://a/b cannot be reached: Please install no_such_package"):
        place("s3://a/b")
