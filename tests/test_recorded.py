"""Co-occurrence recorded with a cache stands in for that counted from its latents, to rounding, or not at all."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from activation_cache.cooccurrence import CooccurrenceCounter
from sae_translate.align.recorded import recorded_pairs
from sae_translate.align.statistics import fold, lagged_cooccurrence, share_positions
from sae_translate.languages.language import Corpus, RecordedPairs

N, WIDTH, LAGS = 3000, 40, (1, 5)


def corpus_with(n_apart: int) -> Corpus:
    """Up to 9 items a position, none on some, contexts of 30; what a counter with so many places recorded of them."""
    draw = np.random.default_rng(0)
    dense = draw.exponential(1, (N, WIDTH)) * (draw.random((N, WIDTH)) < np.arange(WIDTH)[::-1] / 300)
    matrix, bounds = sparse.csr_array(dense.astype(np.float32)), np.arange(0, N + 1, 30)
    counter = CooccurrenceCounter(WIDTH, LAGS, n_apart)
    for begin in range(0, N, 600):
        counter.add(matrix[begin : begin + 600], np.full(20, 30))
    found = dict(counter.finished())
    recorded = RecordedPairs(found[1].latents, LAGS, lambda lag: found[lag].pairs)
    return Corpus(matrix, bounds, np.arange(len(bounds) - 1), recorded)


@pytest.mark.parametrize("n_apart", [WIDTH, 20])
@pytest.mark.parametrize("items", [[3, 0, 7], list(range(12))])
@pytest.mark.parametrize("other", [False, True])
def test_they_are_what_would_be_counted(n_apart, items, other):
    corpus, items = corpus_with(n_apart), np.array(items)
    folded = fold(share_positions(corpus.matrix), items, other)
    for lag in LAGS:
        counted = lagged_cooccurrence(folded, folded, corpus.segments, lag).toarray()
        np.testing.assert_allclose(recorded_pairs(corpus, items, other, lag), counted, rtol=1e-4, atol=1e-4)


def test_where_a_lag_or_an_item_was_not_recorded_there_is_nothing():
    corpus = corpus_with(20)
    apart = np.sort(corpus.recorded.items)
    assert recorded_pairs(corpus, apart, True, 5) is not None
    assert recorded_pairs(corpus, apart, True, 2) is None
    assert recorded_pairs(corpus, np.setdiff1d(np.arange(WIDTH), apart)[:1], True, 5) is None
    assert recorded_pairs(replace(corpus, recorded=None), apart, True, 5) is None


def test_a_part_of_a_corpus_has_none():
    assert corpus_with(20).select_documents(np.arange(3)).recorded is None
