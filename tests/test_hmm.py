"""Hidden Markov languages against sums over all paths, and their estimation against the languages they came from."""

from itertools import pairwise, product

import numpy as np
import pytest

from activation_cache.errors import UserError
from sae_translate.align.hidden import HiddenConfig, climb, fit_tied, match_states, random_start, step, tie
from sae_translate.languages.hmm import (
    HiddenMarkov,
    beliefs,
    bijective,
    ceiling,
    expected_accuracy,
    hidden_markov,
    random_transitions,
    sample,
    stationary,
    symbol_language,
    translate_by_posterior,
)


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(2)
    chain = random_transitions(5, rng)
    return hidden_markov(chain, 20, rng), hidden_markov(chain, 16, rng)


def paths(language: HiddenMarkov, symbols) -> dict[tuple, float]:
    """The probability of every path of states together with these symbols."""
    found = {}
    for path in product(range(len(language.start)), repeat=len(symbols)):
        p = language.start[path[0]]
        for before, after in pairwise(path):
            p *= language.transitions[before, after]
        for state, symbol in zip(path, symbols, strict=True):
            p *= language.emissions[state, symbol]
        found[path] = p
    return found


def test_beliefs_are_sums_over_all_paths(pair):
    symbols = np.array([[3, 3, 7, 1], [0, 5, 5, 2]])
    seen = beliefs(pair[0], symbols)
    likelihood, posterior, moves = 0.0, [], np.zeros((5, 5))
    for row in symbols:
        weights = paths(pair[0], row)
        total = sum(weights.values())
        likelihood += np.log(total)
        marginal = np.zeros((4, 5))
        for path, p in weights.items():
            marginal[np.arange(4), path] += p / total
            np.add.at(moves, (path[:-1], path[1:]), p / total)
        posterior.append(marginal)
    assert seen.log_likelihood == pytest.approx(likelihood)
    assert np.allclose(seen.posterior, np.concatenate(posterior))
    assert np.allclose(seen.moves, moves)
    assert np.allclose(seen.starts, posterior[0][0] + posterior[1][0])


def test_the_stationary_distribution_is_left_as_it_is_by_a_step(pair):
    share = stationary(pair[0].transitions)
    assert share.sum() == pytest.approx(1) and np.allclose(share @ pair[0].transitions, share)


def test_samples_have_the_frequencies_of_the_chain(pair):
    states, symbols = sample(pair[0], 400, 50, np.random.default_rng(0))
    assert np.allclose(np.bincount(states.ravel(), minlength=5) / states.size, pair[0].start, atol=0.02)
    expected = pair[0].start @ pair[0].emissions
    assert np.allclose(np.bincount(symbols.ravel(), minlength=20) / symbols.size, expected, atol=0.02)


def test_the_bayes_ceiling_is_what_translation_by_the_true_languages_reaches_and_nothing_beats_it(pair):
    source, target = pair
    states, symbols = sample(source, 300, 40, np.random.default_rng(1))
    bound = ceiling(source, target, symbols)
    best = translate_by_posterior(source, target, symbols)
    posterior = beliefs(source, symbols).posterior
    assert expected_accuracy(target, posterior, best.ravel()) == pytest.approx(bound.bayes)
    told = np.random.default_rng(2).random(states.size)
    truth = (target.emissions.cumsum(1)[states.ravel()] < told[:, None]).sum(1)
    assert (best.ravel() == truth).mean() == pytest.approx(bound.bayes, abs=0.015)
    assert bound.frequency < bound.bayes
    other = np.random.default_rng(3).integers(0, 16, states.size)
    assert expected_accuracy(target, posterior, other) < bound.bayes


def test_a_bijective_pair_has_a_ceiling_of_one(pair):
    rng = np.random.default_rng(4)
    source, target = bijective(pair[0].transitions, rng), bijective(pair[0].transitions, rng)
    assert ceiling(source, target, sample(source, 20, 30, rng)[1]).bayes == pytest.approx(1.0)


def test_a_symbol_language_holds_the_sampled_symbols_a_document_a_segment(pair):
    symbols = sample(pair[0], 7, 9, np.random.default_rng(5))[1]
    language = symbol_language(symbols, 20, "symbols")
    assert np.array_equal(language.corpus.matrix.indices.reshape(7, 9), symbols)
    assert np.array_equal(language.corpus.segments, np.arange(0, 64, 9)) and len(language.items) == 20


def test_tied_em_never_loses_likelihood_without_smoothing(pair):
    rng = np.random.default_rng(6)
    texts = [sample(one, 30, 40, rng)[1] for one in pair]
    languages = tie(random_start(texts[0], 20, 5, rng), random_start(texts[1], 16, 5, rng))
    trace = []
    for _ in range(30):
        languages, likelihood = step(languages, texts, 0.0)
        trace.append(likelihood)
    assert np.all(np.diff(trace) > -1e-9)
    assert languages[0].transitions is languages[1].transitions


def test_matching_undoes_a_renumbering_of_the_states(pair):
    order = np.random.default_rng(7).permutation(5)
    one = pair[0]
    renumbered = HiddenMarkov(one.start[order], one.transitions[np.ix_(order, order)], one.emissions[order])
    found = match_states(one, renumbered, 5, np.random.default_rng(0))
    assert np.array_equal(found.emissions, one.emissions)


def test_two_languages_are_estimated_from_unpaired_texts_to_within_a_fiftieth_of_the_ceiling(pair):
    source, target = pair
    rng = np.random.default_rng(8)
    texts = [sample(one, 120, 60, rng)[1] for one in pair]
    config = HiddenConfig(states=5, restarts=5, kept=2, matches=5, start_positions=5000, start_iterations=80)
    fit = fit_tied(*texts, 20, 16, config)
    symbols = sample(source, 100, 60, rng)[1]
    found = translate_by_posterior(*fit.languages, symbols)
    reached = expected_accuracy(target, beliefs(source, symbols).posterior, found.ravel())
    assert reached > 0.98 * ceiling(source, target, symbols).bayes
    again = fit_tied(*texts, 20, 16, config)
    assert again.log_likelihood == fit.log_likelihood


def test_em_stops_where_a_step_gains_less_than_the_tolerance(pair):
    rng = np.random.default_rng(9)
    text = sample(pair[0], 20, 30, rng)[1]
    start = (random_start(text, 20, 5, rng),)
    once, _ = step(start, [text], 0.1)
    found, likelihood = climb(start, [text], 500, HiddenConfig(tolerance=10.0))
    assert np.array_equal(found[0].emissions, once[0].emissions)
    assert likelihood == step(once, [text], 0.1)[1]


def test_a_text_without_two_symbols_in_a_row_is_an_error():
    with pytest.raises(UserError, match="the target has 3 segments of 1 symbols"):
        fit_tied(np.zeros((2, 5), int), np.zeros((3, 1), int), 4, 4)
