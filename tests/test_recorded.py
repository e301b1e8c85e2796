"""Co-occurrence recorded with a cache stands in for that counted from its latents, to rounding, or not at all."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from test_decipher import chain_language

from activation_cache.cooccurrence import CooccurrenceCounter
from sae_translate.align.core import core_of
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.align.recorded import Part, lagged_pairs, recorded_pairs
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


def part_of(corpus: Corpus, items: list[int], other: bool) -> Part:
    return Part(np.array(items), other, fold(share_positions(corpus.matrix), np.array(items), other))


@pytest.mark.parametrize("n_apart", [WIDTH, 20])
@pytest.mark.parametrize("rows", [([3, 0, 7], False), (list(range(12)), True)])
@pytest.mark.parametrize("columns", [([5], True), (list(range(12)), True), ([2, 1], False)])
def test_they_are_what_would_be_counted(n_apart, rows, columns):
    corpus = corpus_with(n_apart)
    rows, columns = part_of(corpus, *rows), part_of(corpus, *columns)
    for lag in (*LAGS, -1):
        counted = lagged_cooccurrence(rows.shared, columns.shared, corpus.segments, lag).toarray()
        recorded = recorded_pairs(corpus, rows, columns, lag)
        np.testing.assert_allclose(recorded, counted, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(lagged_pairs(corpus, rows, columns, lag), recorded)


def test_where_a_lag_or_an_item_was_not_recorded_they_are_counted():
    corpus = corpus_with(20)
    left_out = int(np.setdiff1d(np.arange(WIDTH), corpus.recorded.items)[0])
    without = replace(corpus, recorded=None)
    for items, lag, whole in (([0, 1], 2, corpus), ([0, left_out], 5, corpus), ([0, 1], 5, without)):
        part = part_of(whole, items, True)
        assert recorded_pairs(whole, part, part, lag) is None
        counted = lagged_cooccurrence(part.shared, part.shared, whole.segments, lag).toarray()
        np.testing.assert_allclose(lagged_pairs(whole, part, part, lag), counted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("core", [64, 24])
def test_the_dictionary_is_that_of_the_language_whose_latents_are_counted(core):
    """Also where items outside the core are grown from it."""
    key = np.random.default_rng(9).permutation(64)
    plain, cipher = chain_language(64, 20_000, 0, 2), chain_language(64, 20_000, 0, 1, key)
    config = DecipherConfig(null_surrogates=0, max_source_core=core, max_target_core=core)
    counter = CooccurrenceCounter(64, (*config.lags, config.far_lag), 64)
    counter.add(cipher.corpus.matrix, np.diff(cipher.corpus.segments))
    found, read = dict(counter.finished()), []
    pairs = RecordedPairs(found[1].latents, counter.lags, lambda lag: read.append(lag) or found[lag].pairs)
    recorded = replace(cipher, corpus=replace(cipher.corpus, recorded=pairs))
    np.testing.assert_allclose(
        core_of(recorded, core, config).joint, core_of(cipher, core, config).joint, rtol=1e-4, atol=1e-9)
    one, other = decipher(cipher, plain, config), decipher(recorded, plain, config)
    np.testing.assert_array_equal(one.best(1), other.best(1))
    np.testing.assert_allclose(one.coupling, other.coupling, atol=1e-4)
    assert set(read) == set(counter.lags) and len(read) >= len(counter.lags) * 2


def test_a_part_of_a_corpus_has_none():
    assert corpus_with(20).select_documents(np.arange(3)).recorded is None
