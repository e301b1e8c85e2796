"""Decipherment against ciphers whose key is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from activation_cache.errors import UserError
from sae_translate.align.core import core_of, shrink, smooth, start_emission
from sae_translate.align.decipher import MOST, WIDE, DecipherConfig, decipher, settle
from sae_translate.align.emission import explained_information, maximise
from sae_translate.languages.language import Corpus, Language

QUICK = DecipherConfig(null_surrogates=0)


def chain_language(n_items: int, n_positions: int, chain_seed: int, text_seed: int, key=None) -> Language:
    """Text of a random Markov chain over `n_items`, each written as key[item]; documents of 500 positions."""
    chain = np.random.default_rng(chain_seed)
    step = chain.dirichlet(np.full(n_items, 0.1), size=n_items) * 0.9 + 0.1 * chain.dirichlet(np.full(n_items, 0.5))
    edges = (step / step.sum(1, keepdims=True)).cumsum(1)
    draw = np.random.default_rng(text_seed).random(n_positions)
    text = np.empty(n_positions, np.int64)
    state = 0
    for i, u in enumerate(draw):
        state = min(int(np.searchsorted(edges[state], u)), n_items - 1)
        text[i] = state
    if key is not None:
        text = key[text]
    matrix = sparse.csr_array(
        (np.ones(n_positions, np.float32), (np.arange(n_positions), text)), shape=(n_positions, n_items)
    )
    segments = np.arange(0, n_positions + 1, 500)
    return Language(f"chain {chain_seed}", tuple(map(str, range(n_items))), Corpus(matrix, segments, segments[:-1]))


@pytest.fixture(scope="module")
def key():
    return np.random.default_rng(9).permutation(64)


@pytest.fixture(scope="module")
def cipher(key):
    return chain_language(64, 40_000, 0, 1, key)


@pytest.fixture(scope="module")
def plain():
    return chain_language(64, 40_000, 0, 2)


def rate(alignment, key) -> float:
    """Share of plain items whose cipher item reads as them."""
    return float((alignment(key) == np.arange(len(key))).mean())


def test_a_substitution_cipher_of_a_markov_language_is_read_without_error(cipher, plain, key):
    for seed in range(3):
        alignment = decipher(cipher, plain, DecipherConfig(null_surrogates=0, seed=seed))
        assert rate(alignment, key) == 1.0
        assert alignment.objective > 0.7


def test_renaming_the_items_renames_the_answer_and_changes_nothing_else(cipher, plain, key):
    order = np.random.default_rng(5).permutation(64)
    corpus = cipher.corpus
    renamed = Language("renamed", cipher.items, Corpus(corpus.matrix[:, order], corpus.segments, corpus.documents))
    found, again = decipher(cipher, plain, QUICK), decipher(renamed, plain, QUICK)
    assert np.array_equal(again.best()[:, 0], found.best()[:, 0][order])
    assert np.allclose(again.coupling, found.coupling[order], atol=1e-4)


def test_the_same_seed_gives_the_same_bits(cipher, plain):
    first, second = decipher(cipher, plain, QUICK), decipher(cipher, plain, QUICK)
    assert np.array_equal(first.coupling, second.coupling)
    assert np.array_equal(first.confidence, second.confidence)


def test_the_objective_never_falls_however_far_a_step_reaches(cipher, plain):
    a, b = core_of(cipher, 64, QUICK), core_of(plain, 64, QUICK)
    start = start_emission(a, b, QUICK, torch.Generator().manual_seed(0))
    fit = maximise(a.joint, b.joint, start, steps=80, tolerance=0.0, acceleration=1.5)
    assert np.all(np.diff(fit.trace) >= 0) and len(fit.trace) < fit.steps, "over-relaxation was never taken back"
    assert fit.trace[-1] == pytest.approx(explained_information(a.joint, b.joint, fit.emission), abs=1e-4)


def test_the_true_key_explains_everything_and_frequencies_alone_explain_nothing(plain):
    core = core_of(plain, 64, QUICK)
    assert explained_information(core.joint, core.joint, torch.eye(64)) == pytest.approx(1.0, abs=1e-4)
    frequencies = core.frequency.expand(64, 64)
    assert explained_information(core.joint, core.joint, frequencies) == pytest.approx(0.0, abs=1e-2)


def test_the_coupling_is_a_joint_distribution_with_the_source_s_frequencies(cipher, plain):
    alignment = decipher(cipher, plain, QUICK)
    assert alignment.coupling.min() >= 0
    assert alignment.coupling.sum() == pytest.approx(1.0, abs=1e-4)
    assert np.allclose(alignment.coupling.sum(1), cipher.counts / cipher.counts.sum(), atol=5e-3)


def test_what_lies_outside_the_core_is_grown_from_it(cipher, plain, key):
    config = DecipherConfig(null_surrogates=0, max_source_core=40, max_target_core=40)
    alignment = decipher(cipher, plain, config)
    outside = np.argsort(-plain.counts)[44:]
    assert rate(alignment, key) > 0.9
    assert (alignment(key[outside]) == outside).mean() > 0.8


def test_a_wide_core_is_read_from_its_heaviest_items_outwards(cipher, plain, key):
    config = DecipherConfig(null_surrogates=0, coarse_cores=(30, 40))
    core = core_of(plain, 64, config)
    assert core.frequency[:40].sum() > MOST and WIDE * 40 < 64, "the whole core would be fitted at once"
    found, at_once = decipher(cipher, plain, config), decipher(cipher, plain, QUICK)
    assert rate(found, key) == 1.0
    assert found.objective == pytest.approx(at_once.objective, abs=0.02)
    grown = decipher(cipher, plain, replace(config, settling_iterations=1))
    assert grown.objective < found.objective < at_once.objective, "not grown and then settled"


def test_what_was_found_otherwise_is_brought_back_to_what_co_occurrence_bears_out(cipher, plain, key):
    found = decipher(cipher, plain, QUICK)
    wrong = found.coupling.copy()
    one, other = key[:2]
    wrong[[one, other]] = 0.3 * wrong[[one, other]] + 0.7 * wrong[[other, one]]
    doubtful = replace(found, coupling=wrong)
    assert rate(doubtful, key) < 1.0
    mended = settle(doubtful, cipher, plain, QUICK)
    assert rate(mended, key) == 1.0
    held = wrong.sum(1)
    assert np.allclose(mended.coupling.sum(1), held, rtol=1e-3)
    part = settle(doubtful, cipher, plain, DecipherConfig(max_source_core=40, max_target_core=40))
    outside = np.argsort(-cipher.counts)[40:]
    assert np.array_equal(part.coupling[outside], wrong[outside]), "what lies outside the core stays as it is"


def test_a_core_keeps_all_mass_when_it_is_cut(plain):
    core = core_of(plain, 64, QUICK)
    cut = shrink(core, 10)
    assert torch.allclose(cut.joint.sum((1, 2)), torch.ones(6), atol=1e-5)
    assert torch.allclose(cut.joint[:, :10, :10], core.joint[:, :10, :10], atol=1e-6)


def test_a_lag_counts_by_what_it_tells_beyond_the_topic():
    generator = np.random.default_rng(0)
    topics = np.repeat(generator.integers(2, size=200), 100)
    text = 10 * topics + generator.integers(10, size=len(topics))
    text[1::2] = 10 * topics[1::2] + (text[::2] + 1) % 10  # every other item follows from the one before it
    matrix = sparse.csr_array((np.ones(len(text), np.float32), (np.arange(len(text)), text)))
    segments = np.arange(0, len(text) + 1, 100)
    language = Language("topics", tuple(map(str, range(20))), Corpus(matrix, segments, segments[:-1]))
    near, far = core_of(language, 20, DecipherConfig(lags=(1, 2))).local
    assert near == 1 and far < 0.1
    assert core_of(language, 20, DecipherConfig(lags=(1, 2), far_lag=0)).local == (1, 1)
    assert core_of(language, 20, DecipherConfig(lags=(1, 2), far_lag=100)).local == (1, 1)


def test_smoothing_brings_a_short_text_nearer_to_a_long_one_and_keeps_its_counts():
    long, short = (core_of(chain_language(64, n, 0, 4), 64, DecipherConfig(min_count=1.0)) for n in (200_000, 4_000))
    smoothed = smooth(short)
    assert torch.allclose(smoothed.frequency, short.frequency, atol=1e-6)
    order = [torch.from_numpy(np.argsort(core.items)) for core in (long, short)]
    truth, raw, mixed = (
        joint[:, rows][:, :, rows]
        for joint, rows in ((long.joint, order[0]), (short.joint, order[1]), (smoothed.joint, order[1]))
    )
    loss = [float(-(truth * guess.clamp_min(1e-12).log()).sum()) for guess in (raw, mixed)]
    assert loss[1] < loss[0]
    assert (smooth(long).joint - long.joint).abs().sum() < (smoothed.joint - short.joint).abs().sum() / 3


def test_a_dead_source_item_gets_no_answer_and_no_confidence(plain, cipher):
    corpus = cipher.corpus
    dead = Corpus(corpus.matrix[:, :63], corpus.segments, corpus.documents)
    matrix = sparse.csr_array(sparse.hstack([dead.matrix, sparse.csr_array((dead.n_positions, 1), dtype=np.float32)]))
    source = Language("with a dead item", cipher.items, Corpus(matrix, corpus.segments, corpus.documents))
    alignment = decipher(source, plain, QUICK)
    assert alignment.coupling[63].sum() == 0 and alignment.confidence[63] == 0


def test_too_little_text_is_an_error_that_names_the_figures(plain):
    little = plain.__class__("a scrap", plain.items, plain.corpus.select_documents(np.array([0])))
    with pytest.raises(UserError, match=r"too little text to decipher: a scrap has 500 positions, in which .* of 64"):
        decipher(little, plain, DecipherConfig(min_count=200.0))


def test_segments_shorter_than_a_lag_are_an_error(plain):
    matrix = plain.corpus.matrix[:1000]
    short = Language("pairs", plain.items, Corpus(matrix, np.arange(0, 1001, 2), np.arange(500)))
    with pytest.raises(UserError, match="no segment of pairs is longer than 2 positions"):
        decipher(short, plain, QUICK)
