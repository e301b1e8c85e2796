"""Hidden Markov languages drawn from the posterior: what is drawn follows it, and averaging beats the likeliest."""

from itertools import islice

import numpy as np
import pytest

from sae_translate.align.hidden import HiddenConfig, climb
from sae_translate.languages.hmm import (
    beliefs,
    ceiling,
    expected_accuracy,
    hidden_markov,
    random_transitions,
    sample,
    sample_states,
    translate_by_posterior,
)
from sae_translate.languages.hmm_samples import (
    SamplingConfig,
    draw_concentration,
    draw_distributions,
    log_evidence,
    sample_languages,
    translate_by_samples,
)

STATES, SYMBOLS = 6, 20


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    chain = random_transitions(STATES, rng)
    return hidden_markov(chain, SYMBOLS, rng), hidden_markov(chain, SYMBOLS, rng)


@pytest.fixture(scope="module")
def texts(pair):
    rng = np.random.default_rng(1)
    return [sample(language, 15, 50, rng)[1] for language in pair]


def test_drawn_states_come_as_often_as_the_posterior_says_one_by_one_and_in_a_row(pair, texts):
    text = np.repeat(texts[0][:1, :8], 4000, axis=0)
    states, seen = sample_states(pair[0], text, np.random.default_rng(2)), beliefs(pair[0], text)
    share = np.stack([(states == state).mean(axis=0) for state in range(STATES)], axis=1)
    assert np.allclose(share, seen.posterior[:8], atol=0.03)
    moves = np.zeros((STATES, STATES))
    np.add.at(moves, (states[:, :-1], states[:, 1:]), 1)
    assert np.allclose(moves / len(text), seen.moves / len(text), atol=0.05)


def test_the_evidence_of_counts_is_that_of_polya_s_urn():
    counts, one = np.array([[2.0, 0, 1], [0, 1, 0]]), 0.3
    by_hand = np.log([0.3 / 0.9, 1.3 / 1.9, 0.3 / 2.9, 0.3 / 0.9]).sum()
    assert log_evidence(counts, one) == pytest.approx(by_hand)


@pytest.mark.parametrize("truth", [0.03, 0.3, 1.0])
def test_the_concentration_that_made_the_counts_is_found(truth):
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.full(30, truth), size=40)
    counts = np.stack([rng.multinomial(200, row) for row in rows]).astype(float)
    assert {draw_concentration(counts, (0.01, 0.03, 0.1, 0.3, 1.0), rng) for _ in range(20)} == {truth}


def test_drawn_distributions_have_the_dirichlet_s_mean():
    counts, rng = np.array([[5.0, 0, 1], [0, 0, 0]]), np.random.default_rng(4)
    mean = np.mean([draw_distributions(counts, 0.5, rng) for _ in range(4000)], axis=0)
    assert np.allclose(mean, [[5.5 / 7.5, 0.5 / 7.5, 1.5 / 7.5], [1 / 3] * 3], atol=0.02)


def test_averaging_over_drawn_languages_translates_better_than_the_likeliest_and_does_not_beat_bayes():
    shares = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        chain = random_transitions(STATES, rng)
        pair = hidden_markov(chain, SYMBOLS, rng), hidden_markov(chain, SYMBOLS, rng)
        texts = [sample(language, 60, 50, rng)[1] for language in pair]
        test = sample(pair[0], 100, 50, rng)[1]
        likeliest, _ = climb(pair, texts, 100, HiddenConfig(states=STATES))
        samples = sample_languages(likeliest, texts, SamplingConfig(sweeps=120, burn=40))
        posterior, bound = beliefs(pair[0], test).posterior, ceiling(*pair, test).bayes
        shares.append([
            expected_accuracy(pair[1], posterior, told.ravel()) / bound
            for told in (translate_by_posterior(*likeliest, test), translate_by_samples(samples, test))
        ])  # fmt: skip
    point, averaged = np.mean(shares, axis=0)
    assert point + 0.001 < averaged < 1


def test_a_seed_draws_the_same_languages_and_gives_out_those_asked_for(pair, texts):
    config = SamplingConfig(sweeps=9, burn=2, every=3, seed=6)
    first, second = (list(sample_languages(pair, texts, config)) for _ in range(2))
    assert len(first) == 3
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(a.emissions, b.emissions) for a, b in zip(one, other, strict=True))
        assert one[0].transitions is one[1].transitions
    whole = list(islice(sample_languages(pair, texts, SamplingConfig(sweeps=9, burn=0, every=1, seed=6)), 3))
    assert np.array_equal(whole[2][0].emissions, first[0][0].emissions)
