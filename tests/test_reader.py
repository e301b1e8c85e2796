"""Readers: they weigh what a position holds, learn from their own translations, and doubt labels that do not agree."""

import numpy as np
import pytest
from scipy import sparse

from activation_cache.errors import UserError
from sae_translate.languages.hmm import bijective, random_transitions, sample
from sae_translate.translate.lm import fit_ngrams
from sae_translate.translate.reader import (
    ReaderConfig,
    discriminant,
    fitted_temperature,
    moments_of,
    teach_reader,
    windows,
)

SIZE, WIDTH = 20, 12


@pytest.fixture(scope="module")
def read_and_unread():
    """Two texts of one Markov chain, and activations around a centre for each item of the first."""
    rng = np.random.default_rng(0)
    chain = bijective(random_transitions(SIZE, rng, 0.2), rng)
    text, other = (sample(chain, 160, 30, rng)[1] for _ in range(2))
    centres = rng.standard_normal((SIZE, WIDTH))
    features = centres[text.ravel()] + 0.6 * rng.standard_normal((text.size, WIDTH))
    model = fit_ngrams(list(other), SIZE, 2)
    counts = np.bincount(other.ravel(), minlength=SIZE).astype(np.float32)
    return features.astype(np.float32), text.ravel(), np.arange(0, text.size + 1, 30), counts, model


def test_a_window_holds_the_neighbours_of_its_own_segment_and_nothing_beyond():
    features, segments = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32), np.array([0, 1, 4])
    expected = [[0, 1, 0], [0, 2, 3], [2, 3, 4], [3, 4, 0]]
    assert np.array_equal(windows(features, segments, (-1, 0, 1)), expected)
    assert np.array_equal(windows(sparse.csr_array(features), segments, (-1, 0, 1)).toarray(), expected)


def test_the_discriminant_is_that_of_gaussians_of_one_covariance():
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((3, 3))
    means = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 1]])
    labels = rng.integers(0, 3, 60_000)
    features = (means[labels] + rng.standard_normal((60_000, 3)) @ mix.T).astype(np.float32)
    weight, bias = discriminant(moments_of(features, labels, 3), ridge=0.0)
    exact = np.linalg.solve(mix @ mix.T, means.T)
    told, truth = ((w - w[:, :1]) for w in (weight, exact))
    assert np.allclose(told, truth, atol=0.1 * np.abs(truth).max())
    offset = -0.5 * (means.T * exact).sum(0)
    assert np.allclose(bias - bias[0], offset - offset[0], atol=0.1 * np.abs(offset).max())


def test_the_temperature_is_the_one_that_drew_the_labels_and_random_labels_count_for_nothing():
    rng = np.random.default_rng(2)
    scores = 5 * rng.standard_normal((4000, 6))
    chance = np.exp(0.3 * scores)
    labels = (chance.cumsum(1) / chance.sum(1, keepdims=True) < rng.random((4000, 1))).sum(1)
    even = np.full(6, -np.log(6))
    assert fitted_temperature(scores, even, labels)[0] == pytest.approx(0.3, abs=0.03)
    assert fitted_temperature(scores, even, rng.integers(0, 6, 4000))[0] < 0.02


def test_a_reader_reads_better_than_the_translations_that_taught_it(read_and_unread):
    features, truth, segments, counts, model = read_and_unread
    rng = np.random.default_rng(3)
    told = np.where(rng.random(len(truth)) < 0.4, rng.integers(0, SIZE, len(truth)), truth)
    told[rng.random(len(truth)) < 0.1] = -1
    readers = teach_reader(features, segments, told, counts, model, ReaderConfig(rounds=2, reach=0))
    right = [float((reader(features, segments, model) == truth).mean()) for reader in readers]
    assert (told == truth).mean() < 0.6 and right[0] > 0.8 and right[1] > right[0] + 0.01, right


def test_sparse_and_dense_features_are_read_alike(read_and_unread):
    features, truth, segments, counts, model = read_and_unread
    config = ReaderConfig(rounds=1)
    dense = teach_reader(features, segments, truth, counts, model, config)[0]
    thin = teach_reader(sparse.csr_array(features), segments, truth, counts, model, config)[0]
    assert np.allclose(dense.weight, thin.weight, atol=1e-3 * np.abs(dense.weight).max())
    told = dense(features, segments, model), thin(sparse.csr_array(features), segments, model)
    assert (told[0] == told[1]).mean() > 0.999


def test_without_a_second_segment_nothing_can_be_held_out(read_and_unread):
    features, truth, _, counts, model = read_and_unread
    with pytest.raises(UserError, match=r"needs two segments .* there are 1: give more text"):
        teach_reader(features[:30], np.array([0, 30]), truth[:30], counts, model)
