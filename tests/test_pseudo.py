"""Pseudo-parallel text stands position by position beside its source; refining mends what language models can see."""

import numpy as np
import pytest
from scipy import sparse

from sae_translate.languages.hmm import bijective, random_transitions, sample, symbol_language
from sae_translate.languages.language import Corpus
from sae_translate.languages.text import one_item_per_position
from sae_translate.translate.adapters import AdapterSpec, spec_of
from sae_translate.translate.lm import fit_ngrams
from sae_translate.translate.pseudo import (
    as_sets,
    candidates_of,
    heaviest_items,
    part_of,
    pseudo_parallel,
    refine,
    texts_of,
    word_by_word,
)

SIZE = 24


@pytest.fixture(scope="module")
def cipher():
    """Two ciphers of one chain, and the joint weights of the true key."""
    rng = np.random.default_rng(0)
    chain = random_transitions(SIZE, rng)
    one, other = bijective(chain, rng), bijective(chain, rng)
    languages = tuple(symbol_language(sample(each, 250, 40, rng)[1], SIZE, "cipher") for each in (one, other))
    truth = (one.emissions.T * one.start) @ other.emissions
    return languages, truth.astype(np.float32)


def corpus(items: list[int], size: int = 4) -> Corpus:
    bounds = np.array([0, min(3, len(items)), len(items)])
    return Corpus(one_item_per_position(np.array(items), size), bounds, np.arange(2))


def test_heaviest_items_are_those_and_minus_one_where_there_is_none():
    assert heaviest_items(corpus([2, -1, 0, 3])).tolist() == [2, -1, 0, 3]
    matrix = sparse.csr_array(np.array([[1, 3, 0], [0, 0, 0], [2, 0, 1]], np.float32))
    assert heaviest_items(Corpus(matrix, np.array([0, 3]), np.array([0]))).tolist() == [1, -1, 0]
    assert [text.tolist() for text in texts_of(corpus([2, -1, 0, 3]), np.array([1, 0]))] == [[3], [2, 0]]


def test_the_candidates_of_text_are_ranked_by_how_likely_each_is_to_be_told_by_the_item():
    rng = np.random.default_rng(1)
    coupling = rng.dirichlet(np.full(5, 0.5), size=4).astype(np.float32) / 4
    best, score = candidates_of(corpus([2, 1, 0, 3, -1]), coupling, k=3)
    items = np.array([2, 1, 0, 3])
    assert np.array_equal(best[:4], np.argsort(-coupling[items], axis=1)[:, :3])
    told = np.log(coupling / coupling.sum(0))
    shift = score[:4] - np.take_along_axis(told[items], best[:4], axis=1)
    assert np.allclose(shift, shift[:, :1], atol=1e-5), "they are log P(item | target), up to a constant a position"
    assert (best[4] == -1).all() and np.isneginf(score[4]).all()


def test_without_a_language_model_a_position_gets_the_likeliest_target_however_frequent():
    coupling = np.array([[0.3, 0.2], [0.5, 0.0]], np.float32)
    model = fit_ngrams([np.array([1, 1, 1, 0])], 2, 2)
    rare_wins, frequent_wins = (
        heaviest_items(word_by_word(corpus([0], 2), coupling, model, weight)).tolist() for weight in (1.0, 0.0)
    )
    assert (rare_wins, frequent_wins) == ([1], [0])


def test_a_position_of_two_items_stands_for_the_mixture():
    coupling = np.array([[0.4, 0.1, 0.0], [0.0, 0.1, 0.4]], np.float32)
    matrix = sparse.csr_array(np.array([[4.0, 1.0]], np.float32))
    best, score = candidates_of(Corpus(matrix, np.array([0, 1]), np.array([0])), coupling, k=3)
    chance = 0.8 * coupling[0] / 0.5 + 0.2 * coupling[1] / 0.5
    expected = np.log(chance) - np.log(coupling.sum(0))
    assert best[0].tolist() == np.argsort(-chance, kind="stable").tolist()
    assert np.allclose(score[0], expected[best[0]], atol=1e-5)


def test_the_true_key_translates_a_cipher_without_error_and_refining_leaves_it_so(cipher):
    languages, truth = cipher
    corpora = languages[0].corpus, languages[1].corpus
    specs = spec_of(languages[0]), spec_of(languages[1])
    models = tuple(fit_ngrams(texts_of(each, np.arange(250)), SIZE, 2) for each in corpora)
    refined = refine(truth, corpora, specs, models, 0.5, 2)
    key = truth.argmax(1)
    assert np.array_equal(refined.argmax(1), key)
    told = pseudo_parallel(corpora, specs, refined, models, 0.5)
    assert np.array_equal(heaviest_items(told[0]), key[heaviest_items(corpora[0])])
    assert np.array_equal(key[heaviest_items(told[1])], heaviest_items(corpora[1]))
    assert np.array_equal(told[0].segments, corpora[0].segments)


def test_refining_mends_a_dictionary_that_is_wrong_in_places(cipher):
    languages, truth = cipher
    corpora = languages[0].corpus, languages[1].corpus
    specs = spec_of(languages[0]), spec_of(languages[1])
    models = tuple(fit_ngrams(texts_of(each, np.arange(250)), SIZE, 2) for each in corpora)
    rng = np.random.default_rng(2)
    noisy = truth + 4.0 * truth.sum(1, keepdims=True) * rng.dirichlet(np.full(SIZE, 0.1), size=SIZE)
    noisy = (noisy / noisy.sum()).astype(np.float32)
    key, share = truth.argmax(1), truth.sum(1)
    before, after = (
        float(share[coupling.argmax(1) == key].sum())
        for coupling in (noisy, refine(noisy, corpora, specs, models, 1.0, 6))
    )
    assert before < 0.95 and after > before


def test_a_translation_into_sets_holds_what_each_item_stands_for():
    coupling = np.array([[0.3, 0.2, 0.0], [0.0, 0.005, 0.495]], np.float32)
    told = as_sets(corpus([0, 1, 1, -1], 2), coupling, AdapterSpec("weighted_sets", 3, 2, 5.0)).matrix.toarray()
    assert np.allclose(told, [[6, 4, 0], [0, 0, 9.9], [0, 0, 9.9], [0, 0, 0]], atol=1e-4)


def test_word_by_word_leaves_a_position_empty_where_nothing_is_known():
    coupling = np.array([[0.5, 0.0], [0.0, 0.0], [0.0, 0.5], [0.0, 0.0]], np.float32)
    model = fit_ngrams([np.array([0, 1, 1, 0])], 2, 2)
    told = word_by_word(corpus([0, 1, 2, 3]), coupling, model, 0.5)
    assert np.diff(told.matrix.indptr).tolist() == [1, 0, 1, 0] and heaviest_items(told)[[0, 2]].tolist() == [0, 1]


def test_drawn_translations_tell_every_target_as_often_as_it_is_meant_and_the_likeliest_only_one():
    coupling = np.array([[0.75, 0.25]], np.float32)
    rng = np.random.default_rng(0)
    model = fit_ngrams([rng.choice(2, size=20_000, p=[0.75, 0.25])], 2, 1)
    drawn, likeliest = (
        heaviest_items(word_by_word(corpus([0] * 4000, 1), coupling, model, 1.0, each)) for each in (rng, None)
    )
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.03) and not likeliest.any()


def test_a_part_is_whole_segments():
    whole = corpus([0, 1, 2, 3])
    part = part_of(whole, 1, np.random.default_rng(0))
    assert heaviest_items(part).tolist() in ([0, 1, 2], [3]) and part.segments[-1] == part.n_positions
    assert heaviest_items(part_of(whole, 99, np.random.default_rng(0))).tolist() == [0, 1, 2, 3]
