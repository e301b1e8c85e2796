"""Co-occurrence gathered shard by shard is that of the whole matrix, in memory that does not grow."""

import numpy as np
import pytest
import torch
from scipy import sparse

from activation_cache.cooccurrence import CooccurrenceCounter
from activation_cache.layout import Cooccurrence, CooccurrenceEntry
from sae_translate.align.core import DecipherConfig
from sae_translate.align.statistics import fold, lagged_cooccurrence, share_positions

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch was built without MKL")
N, WIDTH, LAGS = 4000, 30, (1, 3, 24, 70)


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    """Contexts of 1 to 60 positions."""
    ends = np.sort(np.random.default_rng(0).choice(np.arange(1, N), 150, replace=False))
    return np.diff(np.concatenate([[0], ends, [N]])).astype(np.int32)


@pytest.fixture(scope="module")
def latents() -> sparse.csr_array:
    """The higher the number the more active; latent 0 is dead, and some positions have none."""
    draw = np.random.default_rng(1)
    dense = draw.exponential(4, (N, WIDTH)) * (draw.random((N, WIDTH)) < np.arange(WIDTH) / 200)
    return sparse.csr_array(dense.astype(np.float16).astype(np.float32))


def counted(latents, lengths, n_shards: int, n_apart: int = WIDTH) -> dict[int, Cooccurrence]:
    counter = CooccurrenceCounter(latents.shape[1], LAGS, n_apart)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    for part in np.array_split(np.arange(len(lengths)), n_shards):
        counter.add(latents[offsets[part[0]] : offsets[part[-1] + 1]], lengths[part])
    return dict(counter.finished())


def expected(latents, lengths, apart: np.ndarray, lag: int) -> np.ndarray:
    """Position by position, from the whole matrix."""
    dense = latents.toarray().astype(np.float64)
    total = dense.sum(1, keepdims=True)
    shared = np.divide(dense, total, out=np.zeros_like(dense), where=total > 0)[:, apart]
    shared = np.hstack([shared, 1 - shared.sum(1, keepdims=True)])
    context = np.repeat(np.arange(len(lengths)), lengths)
    together = context[:-lag] == context[lag:]
    return shared[:-lag][together].T @ shared[lag:][together]


@pytest.mark.parametrize("n_apart", [WIDTH, 12])
@pytest.mark.parametrize("n_shards", [1, 7, 40])
@pytest.mark.parametrize("mkl", [False, pytest.param(True, marks=needs_mkl)])
def test_the_pairs_are_those_of_the_whole_matrix_and_what_is_not_told_apart_is_one_other(
    latents, lengths, n_shards, n_apart, mkl, monkeypatch
):
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: mkl)
    monkeypatch.setattr("activation_cache.cooccurrence.ROWS_AT_ONCE", 8)
    for lag, found in counted(latents, lengths, n_shards, n_apart).items():
        np.testing.assert_allclose(found.pairs, expected(latents, lengths, found.latents, lag), atol=2e-3, rtol=1e-5)
        assert found.pairs.sum() == pytest.approx(np.maximum(lengths - lag, 0).sum(), rel=1e-5)
        assert found.counts.sum() == pytest.approx(N, rel=1e-6) and len(found.latents) == min(n_apart, WIDTH - 1)


def test_decipherment_counts_the_same(latents, lengths):
    shared, bounds = share_positions(latents), np.concatenate([[0], np.cumsum(lengths)])
    for lag, found in counted(latents, lengths, 9).items():
        folded = fold(shared, found.latents, other=True)
        pairs = lagged_cooccurrence(folded, folded, bounds, lag).toarray()
        np.testing.assert_allclose(found.pairs, pairs, rtol=1e-5, atol=1e-5)


def test_the_lags_that_are_gathered_unasked_are_those_that_decipherment_reads():
    assert set(CooccurrenceEntry().lags) == {*DecipherConfig().lags, DecipherConfig().far_lag}


def test_the_heaviest_of_what_is_met_first_are_told_apart_and_places_left_go_to_those_met_later():
    first = sparse.csr_array(np.array([[0, 1, 3, 0], [0, 1, 4, 0]], np.float32))
    later = sparse.csr_array(np.array([[1, 1, 0, 8], [0, 0, 0, 1]], np.float32))
    other = {1: 0.25 + 0.2 + 2, 2: 0.9 + 1, 3: 0.1, 4: 0}
    for n_apart, told in ((1, [2]), (2, [2, 1]), (3, [2, 1, 3]), (4, [2, 1, 3, 0])):
        counter = CooccurrenceCounter(4, (1,), n_apart)
        counter.add(first, np.array([2]))
        counter.add(later, np.array([2]))
        _, found = next(counter.finished())
        assert found.latents.tolist() == told
        assert found.covered == pytest.approx(1 - other[n_apart] / 4, abs=1e-6)


def test_equal_shards_give_equal_bits_and_the_latents_are_left_as_they_were(latents, lengths):
    before = latents.copy()
    one, other = (counted(latents, lengths, 5, 12) for _ in range(2))
    for lag in LAGS:
        assert one[lag].pairs.tobytes() == other[lag].pairs.tobytes()
    assert (latents != before).nnz == 0


def test_memory_is_bounded_by_what_was_allowed_whatever_the_width_and_the_number_of_saes():
    for megabytes, d_sae, n_saes in ((1, 512, 1), (1, 16384, 2), (1024, 1 << 17, 3)):
        asked = CooccurrenceEntry(LAGS, megabytes)
        n = asked.n_apart(d_sae, n_saes)
        taken = 4 * len(LAGS) * n_saes * (n + 1) ** 2
        assert taken <= megabytes << 20 and (n == d_sae or taken > 0.98 * (megabytes << 20))
    small = CooccurrenceEntry((1, 2), 1).n_apart(16384, 1)
    assert CooccurrenceCounter(16384, (1, 2), small).tables.nbytes <= 1 << 20
