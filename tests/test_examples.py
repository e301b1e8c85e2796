"""The streaming statistics equal those of the whole matrix, however it was cut into shards."""

from dataclasses import fields

import numpy as np
import pytest
from scipy import sparse

from activation_cache import examples
from activation_cache.layout import HISTOGRAM_EDGES, N_TOP

N, WIDTH, SEED = 3000, 25, 7


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    draw = np.random.default_rng(0)
    ends = np.sort(draw.choice(np.arange(1, N), 260, replace=False))
    return np.diff(np.concatenate([[0], ends, [N]])).astype(np.int32)


@pytest.fixture(scope="module")
def latents() -> sparse.csr_array:
    """Latent 0 is dead, latent 1 is active 5 times, the others the more the higher their number; values have ties."""
    draw = np.random.default_rng(1)
    dense = np.round(draw.exponential(4, (N, WIDTH)), 1) * (draw.random((N, WIDTH)) < np.arange(WIDTH) / 30)
    dense[:, :2] = 0
    dense[[3, 500, 501, 1500, 2999], 1] = [1, 2000, 3, 0.001, 5]
    return sparse.csr_array(dense.astype(np.float16).astype(np.float32))


def gather(latents, lengths, n_shards, seed=SEED):
    state = examples.start(latents.shape[1])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    for part in np.array_split(np.arange(len(lengths)), n_shards):
        rows = slice(offsets[part[0]], offsets[part[-1] + 1])
        state = examples.update(state, latents[rows], lengths[part], seed)
    return examples.finish(state)


@pytest.fixture(scope="module")
def statistics(latents, lengths):
    return gather(latents, lengths, 9)


@pytest.mark.parametrize("n_shards", [1, 2, 50, 261])
def test_the_number_of_shards_changes_nothing(latents, lengths, statistics, n_shards):
    other = gather(latents, lengths, n_shards)
    for field in fields(statistics):
        np.testing.assert_allclose(getattr(other, field.name), getattr(statistics, field.name), rtol=1e-6)


def test_density_mean_and_max_are_exact(latents, statistics):
    dense = latents.toarray()
    active = dense > 0
    np.testing.assert_allclose(statistics.density, active.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.max, dense.max(0))
    mean = dense.sum(0, dtype=np.float64) / np.maximum(active.sum(0), 1)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-6)
    assert statistics.mean[0] == statistics.density[0] == 0


def test_the_histogram_counts_every_activation_once(latents, statistics):
    dense = latents.toarray()
    for latent in range(WIDTH):
        values = dense[:, latent][dense[:, latent] > 0]
        inside = np.clip(values, HISTOGRAM_EDGES[0], np.nextafter(HISTOGRAM_EDGES[-1], 0))
        expected, _ = np.histogram(inside, HISTOGRAM_EDGES)
        assert np.array_equal(statistics.histogram[latent], expected)


def context_of(lengths):
    return np.repeat(np.arange(len(lengths)), lengths)


def test_top_contexts_are_the_best_positions_of_the_best_contexts(latents, lengths, statistics):
    dense, context = latents.toarray(), context_of(lengths)
    for latent in range(WIDTH):
        order = np.lexsort((np.arange(N), -dense[:, latent]))
        order = order[dense[order, latent] > 0]
        _, first = np.unique(context[order], return_index=True)
        expected = order[np.sort(first)][:N_TOP]
        found = statistics.top_positions[latent]
        assert np.array_equal(found[: len(expected)], expected) and (found[len(expected) :] == -1).all()
        np.testing.assert_array_equal(statistics.top_values[latent][: len(expected)], dense[expected, latent])


def test_quantile_contexts_are_active_distinct_contexts_in_rising_order(latents, lengths, statistics):
    dense, context = latents.toarray(), context_of(lengths)
    for latent in range(WIDTH):
        positions, values = statistics.quantile_positions[latent].ravel(), statistics.quantile_values[latent].ravel()
        there = positions >= 0
        n_contexts = len(np.unique(context[dense[:, latent] > 0]))
        assert there.sum() == min(20, n_contexts)
        assert np.array_equal(dense[positions[there], latent], values[there]) and (values[there] > 0).all()
        assert (np.diff(values[there]) >= 0).all()
        assert len(np.unique(context[positions[there]])) == there.sum()


def test_the_sample_behind_the_quantiles_is_uniform_over_contexts():
    """A latent active in every one of 2,000 contexts, over 60 seeds: every quarter is drawn a quarter of the time."""
    n = 2000
    latents = sparse.csr_array(np.linspace(1, 2, n, dtype=np.float32)[:, None])
    lengths = np.ones(n, np.int32)
    drawn = np.concatenate([gather(latents, lengths, 1, seed).quantile_positions.ravel() for seed in range(60)])
    quarters = np.bincount(drawn * 4 // n, minlength=4) / len(drawn)
    np.testing.assert_allclose(quarters, 0.25, atol=0.03)


def test_a_context_is_drawn_as_often_as_another_however_often_it_is_active():
    """Even contexts are active on all their 9 positions, odd ones on one: half of what is drawn is of each."""
    n = 1000
    dense = np.zeros((n, 9), np.float32)
    dense[::2], dense[1::2, 4] = 1, 1
    latents, lengths = sparse.csr_array(dense.reshape(-1, 1)), np.full(n, 9, np.int32)
    drawn = np.concatenate([gather(latents, lengths, 3, seed).quantile_positions.ravel() for seed in range(60)])
    even = drawn[drawn // 9 % 2 == 0]
    np.testing.assert_allclose(len(even) / len(drawn), 0.5, atol=0.04)
    np.testing.assert_allclose(np.bincount(even % 9, minlength=9) / len(even), 1 / 9, atol=0.05)


def test_the_seed_draws_another_sample_and_nothing_else(latents, lengths, statistics):
    other = gather(latents, lengths, 9, seed=8)
    assert not np.array_equal(other.quantile_positions, statistics.quantile_positions)
    assert np.array_equal(other.top_positions, statistics.top_positions)


def test_latents_that_never_fire_have_statistics_of_nothing(lengths):
    silent = gather(sparse.csr_array((N, WIDTH), dtype=np.float32), lengths, 3)
    assert not silent.density.any() and not silent.histogram.any() and not silent.max.any()
    assert (silent.top_positions == -1).all() and (silent.quantile_positions == -1).all()


def test_an_update_leaves_the_state_it_was_given_alone(latents, lengths):
    state = examples.start(WIDTH)
    examples.update(state, latents, lengths, 0)
    assert state.n_positions == 0 and state.counts.max() == 0 and not len(state.top.best.keys) and not state.top.since
