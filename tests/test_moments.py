"""Lagged moments: correlations are those of the text, and they mend a coupling that knows only half."""

import numpy as np
import pytest
from scipy import sparse

from sae_translate.align.moments import MomentsConfig, correlations_of, expected_correlations, lagged_correlations
from sae_translate.languages.hmm import bijective, random_transitions, sample
from sae_translate.languages.language import Corpus

SIZE = 16


def told(states: np.ndarray, order: np.ndarray, rng: np.random.Generator) -> Corpus:
    """Latents of a text: one for each state, renamed by `order`, that stays silent at a quarter of its positions, and a
    random one at every tenth."""
    n = states.size
    weights = np.zeros((n, SIZE), np.float32)
    weights[np.arange(n), order[states.ravel()]] = rng.random(n) > 0.25
    weights[np.arange(0, n, 10), rng.integers(0, SIZE, len(range(0, n, 10)))] += 1
    return Corpus(sparse.csr_array(weights), np.arange(0, n + 1, states.shape[1]), np.arange(len(states)))


def test_correlations_are_those_of_two_positions_a_lag_apart_in_one_segment():
    rng = np.random.default_rng(0)
    weights = rng.random((400, 3)).astype(np.float32) * (rng.random((400, 3)) < 0.5)
    corpus = Corpus(sparse.csr_array(weights), np.array([0, 400]), np.array([0]))
    at_0, at_2 = lagged_correlations(corpus, (0, 2))
    assert np.allclose(at_0, np.corrcoef(weights.T), atol=1e-5)
    assert np.allclose(at_2, np.corrcoef(weights[:-2].T, weights[2:].T)[:3, 3:], atol=0.02)
    cut = Corpus(corpus.matrix, np.arange(0, 401, 2), np.arange(200))
    spread = weights.std(axis=0)
    assert np.allclose(lagged_correlations(cut, (2,))[0], -np.outer(weights.mean(0) / spread, weights.mean(0) / spread),
                       atol=1e-4), "no pair is two positions apart in segments of two"  # fmt: skip


def test_a_mixture_correlates_with_its_parts_as_the_text_says():
    rng = np.random.default_rng(1)
    parts = rng.standard_normal((5000, 3)) @ rng.standard_normal((3, 3))
    parts = (parts - parts.mean(0)) / parts.std(0)
    mixture = np.array([[1.0, 0, 0], [0.5, -2, 1], [0, 0, 0]])
    whole = np.corrcoef(np.hstack([parts @ mixture[:2].T, parts]).T)[:2, 2:]
    expected = correlations_of(mixture, parts.T @ parts / len(parts))
    assert np.allclose(expected[:2], whole, atol=1e-6) and not expected[2].any()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_coupling_blurred_by_noise_is_mended_on_texts_that_share_nothing(seed):
    rng = np.random.default_rng(seed)
    chain = bijective(random_transitions(SIZE, rng, 0.3), rng)
    order = rng.permutation(SIZE)
    states = [sample(chain, 250, 40, rng)[0] for _ in range(2)]
    source, target = (told(one, own, rng) for one, own in zip(states, (np.arange(SIZE), order), strict=True))
    coupling = (0.3 * np.eye(SIZE)[order] + rng.dirichlet(np.full(SIZE, 0.5), size=SIZE)).astype(np.float32)
    assert (coupling.argmax(axis=1) == order).mean() < 0.9
    config = MomentsConfig(lags=(0, 1, 2))
    found = expected_correlations(source, target, coupling / coupling.sum(), config)
    assert (found.argmax(axis=1) == order).mean() > 0.93 and found.max() <= 1.0 + 1e-3
