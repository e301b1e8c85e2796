"""Nothing is read that is not what was written."""

import os

import numpy as np
import pytest

from activation_cache import layout, shards
from activation_cache.errors import UserError

FILE = layout.shard_file(0)
ARRAYS = {"tokens": np.arange(100, dtype=np.int32), "values": np.arange(6, dtype=np.float16).reshape(2, 3)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / layout.SHARDS).mkdir()
    shards.write_arrays(tmp_path, FILE, ARRAYS, "key", 100, 5)
    return tmp_path


def test_arrays_come_back_as_they_were_written(folder):
    back = shards.read_arrays(folder, FILE, "key")
    assert back.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype and np.array_equal(back[name], array)


def test_equal_arrays_in_any_order_are_equal_bytes(folder, tmp_path):
    before = (folder / FILE).read_bytes()
    shards.write_arrays(folder, FILE, dict(reversed(ARRAYS.items())), "key", 100, 5)
    assert (folder / FILE).read_bytes() == before


@pytest.mark.parametrize("where", [0, 9, 60, -1])
def test_any_flipped_bit_is_found(folder, where):
    content = bytearray((folder / FILE).read_bytes())
    content[where] ^= 4
    (folder / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"00000\.safetensors does not match its sha256"):
        shards.read_arrays(folder, FILE, "key")


def test_truncation_is_found_before_anything_is_read(folder):
    os.truncate(folder / FILE, 100)
    with pytest.raises(UserError, match=r"00000\.safetensors has 100 bytes where .* truncated or altered"):
        shards.read_sidecar(folder, FILE, "key")


def test_a_file_of_another_recording_is_refused(folder):
    with pytest.raises(UserError, match="belongs to another recording"):
        shards.read_arrays(folder, FILE, "other")


def test_a_file_without_sidecar_is_not_there(folder):
    (folder / layout.sidecar_file(FILE)).unlink()
    assert shards.read_sidecar(folder, FILE, "key") is None
    with pytest.raises(UserError, match="is missing"):
        shards.read_arrays(folder, FILE, "key")


def test_a_sidecar_without_file_is_an_error(folder):
    (folder / FILE).unlink()
    with pytest.raises(UserError, match="is gone"):
        shards.read_sidecar(folder, FILE, "key")


def test_a_failed_write_leaves_the_old_file_whole_and_nothing_beside_it(folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in (folder / layout.SHARDS).iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*--resume"):
        shards.write_arrays(folder, FILE, {"tokens": np.zeros(7, np.int32)}, "key", 7, 1)
    assert {p.name: p.read_bytes() for p in (folder / layout.SHARDS).iterdir()} == before


def test_what_is_no_cache_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        shards.ActivationCache(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not an activation cache"):
        shards.ActivationCache(tmp_path)
