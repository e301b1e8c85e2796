"""A dry run's bytes are those of the files, and its time that of the work it did, extrapolated."""

import dataclasses

import killing
import numpy as np
import pytest

from activation_cache import estimate as estimating
from activation_cache import layout
from activation_cache.errors import UserError
from activation_cache.estimate import Estimate, estimate, tokens_there
from activation_cache.record import record
from activation_cache.shards import ActivationCache


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
        return killing.planned(tmp_path_factory.mktemp("inputs"), 60)


def test_the_bytes_of_every_shard_are_known_from_its_counts(plan, tmp_path):
    list(record(plan, tmp_path / "c"))
    cache = ActivationCache(tmp_path / "c")
    for index, shard in enumerate(cache.shards()):
        counts = len(shard["tokens"]), len(shard["context_lengths"]), [len(shard["latents.0.values"])]
        size = (tmp_path / "c" / layout.shard_file(index)).stat().st_size
        assert layout.shard_bytes(plan.manifest, *counts) == size
    found = estimate(plan)
    assert found.n_bytes == pytest.approx(cache.n_bytes, rel=0.02)
    gathered = sum((tmp_path / "c" / file).stat().st_size for file in plan.manifest.summary_files)
    assert found.n_bytes_gathered == pytest.approx(gathered, rel=0.05)


def test_what_is_gathered_over_many_times_the_tokens_needs_the_wider_types():
    arrays = {"top_positions": np.array([100, -1], np.int8), "token_ids": np.array([100], np.int8),
              "mean": np.zeros(3, np.float32)}  # fmt: skip
    assert [estimating.bytes_after(arrays, times) for times in (1.0, 10.0, 1e3)] == [15, 17, 21]


@pytest.mark.parametrize("width", [70_000, 65_536])
def test_the_bytes_of_wide_saes_and_empty_arrays_are_known(plan, width):
    import safetensors.numpy

    sae = dataclasses.replace(plan.manifest.saes[0], d_sae=width)
    manifest = dataclasses.replace(plan.manifest, saes=(sae,) * 11)
    kind = layout.index_dtype(width)
    for n, active in ((1, 0), (12345, 77)):
        arrays = {"tokens": np.zeros(n, np.int32), "context_lengths": np.zeros(3, np.int32),
                  "document_ids": np.zeros(3, np.int64), "activations.0": np.zeros((n, 32), np.float16)}  # fmt: skip
        for s in range(11):
            arrays |= {f"latents.{s}.indptr": np.zeros(n + 1, np.int64), f"latents.{s}.indices": np.zeros(active, kind),
                       f"latents.{s}.values": np.zeros(active, np.float16)}  # fmt: skip
        assert layout.shard_bytes(manifest, n, 3, [active] * 11) == len(safetensors.numpy.save(arrays))


def test_the_time_is_that_of_a_piece_in_proportion(plan, monkeypatch):
    """A clock that moves by a second a context: the estimate is a second a context."""
    now, real = [0.0], estimating.compute_shard

    def computing(piece, index):
        arrays, cut = real(piece, index)
        now[0] += len(arrays["tokens"]) / 100
        return arrays, cut

    monkeypatch.setattr(estimating, "compute_shard", computing)
    found = estimate(plan, clock=lambda: now[0])
    assert found.per_token == pytest.approx(1 / 100) and found.gather_per_token == found.finish == 0
    assert found.seconds("local") == pytest.approx(plan.manifest.n_tokens / 100)


def test_what_is_there_already_is_not_computed_again(plan, tmp_path):
    assert tokens_there(plan, tmp_path / "c") == 0
    steps = record(plan, tmp_path / "c")
    n = [next(steps).n_tokens for _ in range(2)][-1]
    steps.close()
    assert tokens_there(plan, tmp_path / "c") == n
    found = Estimate(0, 0, per_token=2.0, gather_per_token=0.5, finish=3.0, n_tokens=100, n_shards=10, n_there=40)
    assert found.seconds("local") == 60 * 2 + 53
    other = dataclasses.replace(plan.manifest, seed=1)
    other = dataclasses.replace(other, key=layout.run_key(other))
    with pytest.raises(UserError, match="differs in seed"):
        tokens_there(dataclasses.replace(plan, manifest=other), tmp_path / "c")


def test_workers_share_the_shards_but_not_the_gathering():
    found = Estimate(0, 0, per_token=2.0, gather_per_token=0.5, finish=3.0, n_tokens=100, n_shards=10)
    assert found.seconds("local") == 253
    assert found.seconds("torchrun", 5) == 200 / 5 + 53
    assert found.seconds("torchrun", 3) == 200 * 4 / 10 + 53  # somebody has four of ten
    assert found.seconds("torchrun", 64) == 200 / 10 + 53
    assert found.seconds("ray", 5) == found.seconds("torchrun", 5) + estimating.RAY_SECONDS


def test_a_long_recording_is_estimated_from_a_little_of_it(plan, monkeypatch):
    computed, real = [], estimating.compute_shard

    def counting(piece, index):
        arrays, cut = real(piece, index)
        computed.append(len(arrays["tokens"]))
        return arrays, cut

    monkeypatch.setattr(estimating, "compute_shard", counting)
    monkeypatch.setattr(estimating, "ENOUGH", 0.0)
    estimate(dataclasses.replace(plan, manifest=dataclasses.replace(plan.manifest, batch_size=2)))
    assert sum(computed) <= 2 * plan.manifest.context_size
