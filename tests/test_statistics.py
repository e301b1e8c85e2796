"""Lagged co-occurrence: what it counts, and what it must never count."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sae_translate.align.statistics import fold, lagged_cooccurrence, lagged_counts, share_positions, statistics_of
from sae_translate.languages.language import Corpus

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch was built without MKL")


def corpus_of(documents: list[list[int]], n_items: int) -> Corpus:
    flat = np.array([item for document in documents for item in document])
    matrix = sparse.csr_array(
        (np.ones(len(flat), np.float32), (np.arange(len(flat)), flat)), shape=(len(flat), n_items)
    )
    offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents])])
    return Corpus(matrix, offsets, np.arange(len(documents)))


def test_a_pair_is_counted_once_for_each_time_it_stands_a_lag_apart():
    statistics = statistics_of(corpus_of([[0, 1, 2, 0, 1]], 3), lags=(1, 2))
    assert np.array_equal(statistics.lagged[0].toarray(), [[0, 2, 0], [0, 0, 1], [1, 0, 0]])
    assert np.array_equal(statistics.lagged[1].toarray(), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert np.array_equal(statistics.counts, [2, 2, 1])


def test_nothing_crosses_the_end_of_a_segment():
    together = statistics_of(corpus_of([[0, 0, 0], [1, 1, 1]], 2), lags=(1, 2, 3))
    for lag, joint in zip((1, 2, 3), together.lagged, strict=True):
        assert np.array_equal(joint.toarray(), np.eye(2) * max(0, 3 - lag))


def test_a_position_counts_once_however_many_items_it_holds():
    weights = sparse.csr_array(np.array([[3.0, 1.0], [0.0, 5.0], [0.0, 0.0]], np.float32))
    corpus = Corpus(weights, np.array([0, 3]), np.array([0]))
    statistics = statistics_of(corpus, lags=(1,))
    assert np.allclose(statistics.counts, [0.75, 1.25])
    assert np.allclose(statistics.lagged[0].toarray(), [[0, 0.75], [0, 0.25]])


def test_a_negative_lag_is_the_transpose_of_the_positive_one():
    corpus = corpus_of([[0, 1, 2, 2], [1, 0, 1]], 3)
    ahead = lagged_cooccurrence(corpus.matrix, corpus.matrix, corpus.segments, 2).toarray()
    behind = lagged_cooccurrence(corpus.matrix, corpus.matrix, corpus.segments, -2).toarray()
    assert np.array_equal(ahead, behind.T)


@pytest.mark.parametrize("mkl", [False, pytest.param(True, marks=needs_mkl)])
@pytest.mark.parametrize("at_once", [1, 7, 32_768])
def test_pairs_counted_densely_and_in_blocks_are_the_same_pairs(at_once, mkl, monkeypatch):
    monkeypatch.setattr("sae_translate.align.statistics.AT_ONCE", at_once)
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: mkl)
    rng = np.random.default_rng(0)
    held = np.where(rng.random((40, 7)) < 0.4, rng.random((40, 7)), 0).astype(np.float32)
    rows, columns = sparse.csr_array(held), sparse.csr_array(held[:, :3])
    segments = np.array([0, 15, 15, 40])
    for lag in (1, -1, 3, 30):
        expected = lagged_cooccurrence(rows, columns, segments, lag).toarray()
        assert np.allclose(lagged_counts(rows, columns, segments, lag), expected, atol=1e-5)
        assert (lag == 30) == (expected.sum() == 0)


@pytest.mark.parametrize("weighed", [False, True])
def test_pairs_of_positions_that_hold_one_item_or_none_are_the_same_pairs(weighed):
    rng = np.random.default_rng(1)
    held = np.zeros((60, 7), np.float32)
    held[np.arange(60), rng.integers(7, size=60)] = rng.random(60) if weighed else 1
    held[::9] = 0
    rows, columns = sparse.csr_array(held), sparse.csr_array(held[:, :4])
    segments = np.array([0, 25, 25, 60])
    for lag in (1, -2, 3, 40):
        expected = lagged_cooccurrence(rows, columns, segments, lag).toarray()
        assert np.allclose(lagged_counts(rows, columns, segments, lag), expected, atol=1e-5)


def test_what_the_kept_items_leave_out_stands_in_the_other_column():
    shared = share_positions(corpus_of([[0, 1, 2, 0]], 3).matrix)
    assert np.array_equal(fold(shared, np.array([2, 0]), True).toarray(), [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_the_caller_s_corpus_is_left_as_it_was():
    corpus = corpus_of([[0, 1, 2, 0]], 3)
    doubled = Corpus(corpus.matrix * 2, corpus.segments, corpus.documents)
    before = doubled.matrix.toarray().copy()
    statistics_of(doubled)
    assert np.array_equal(doubled.matrix.toarray(), before)
