"""The streaming statistics equal those of the whole matrix, however it was cut into shards."""

from dataclasses import fields

import numpy as np
import pytest
from scipy import sparse

from activation_cache import examples
from activation_cache.layout import HISTOGRAM_EDGES, N_RANDOM, N_TOKENS, N_TOP

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


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """Up to 100 tokens of a large vocabulary, few of them often."""
    return np.minimum(np.random.default_rng(2).zipf(1.5, N), 100).astype(np.int32) * 2503


def gathered(latents, tokens, lengths, n_shards, seed=SEED):
    state = examples.start(latents.shape[1])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    for part in np.array_split(np.arange(len(lengths)), n_shards):
        rows = slice(offsets[part[0]], offsets[part[-1] + 1])
        state = examples.update(state, latents[rows], tokens[rows], lengths[part], seed)
    return state


def gather(latents, lengths, n_shards, seed=SEED, tokens=None):
    tokens = np.zeros(latents.shape[0], np.int32) if tokens is None else tokens
    return examples.finish(gathered(latents, tokens, lengths, n_shards, seed))


@pytest.fixture(scope="module")
def statistics(latents, tokens, lengths):
    return gather(latents, lengths, 9, tokens=tokens)


@pytest.mark.parametrize("n_shards", [1, 2, 50, 261])
def test_the_number_of_shards_changes_nothing(latents, tokens, lengths, statistics, n_shards):
    other = gather(latents, lengths, n_shards, tokens=tokens)
    for field in fields(statistics):
        np.testing.assert_allclose(getattr(other, field.name), getattr(statistics, field.name), rtol=1e-6)


def test_density_moments_and_max_are_exact(latents, statistics):
    dense = latents.toarray()
    active = dense > 0
    np.testing.assert_allclose(statistics.density, active.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.max, dense.max(0))
    mean = dense.sum(0, dtype=np.float64) / np.maximum(active.sum(0), 1)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-6)
    squares = np.square(dense, dtype=np.float64).sum(0) / np.maximum(active.sum(0), 1)
    np.testing.assert_allclose(statistics.second_moment, squares, rtol=1e-6)
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


def test_random_contexts_are_active_and_distinct_and_other_than_those_of_quantiles_where_there_are_enough(
    latents, lengths, statistics
):
    dense, context = latents.toarray(), context_of(lengths)
    for latent in range(WIDTH):
        positions, values = statistics.random_positions[latent], statistics.random_values[latent]
        there = positions >= 0
        n_contexts = len(np.unique(context[dense[:, latent] > 0]))
        assert there.sum() == min(N_RANDOM, n_contexts)
        assert np.array_equal(dense[positions[there], latent], values[there]) and (values[there] > 0).all()
        drawn = set(context[positions[there]])
        assert len(drawn) == there.sum()
        quantiles = statistics.quantile_positions[latent].ravel()
        if n_contexts >= N_RANDOM + len(quantiles):
            assert not drawn & set(context[quantiles])


@pytest.mark.parametrize("kind", ["quantile", "random"])
def test_the_sample_is_uniform_over_contexts(kind):
    """A latent active in every one of 2,000 contexts, over 60 seeds: every quarter is drawn a quarter of the time."""
    n = 2000
    latents = sparse.csr_array(np.linspace(1, 2, n, dtype=np.float32)[:, None])
    lengths = np.ones(n, np.int32)
    found = [getattr(gather(latents, lengths, 1, seed), f"{kind}_positions").ravel() for seed in range(60)]
    drawn = np.concatenate(found)
    quarters = np.bincount(drawn * 4 // n, minlength=4) / len(drawn)
    np.testing.assert_allclose(quarters, 0.25, atol=0.03)


def test_the_tokens_of_a_latent_are_counted_exactly_while_all_pairs_fit(latents, tokens, statistics):
    active = latents.toarray() > 0
    assert not statistics.token_counts_lack.any()
    for latent in range(WIDTH):
        found, counts = np.unique(tokens[active[:, latent]], return_counts=True)
        order = np.lexsort((found, -counts))[:N_TOKENS]
        n = len(order)
        np.testing.assert_array_equal(statistics.token_ids[latent, :n], found[order])
        np.testing.assert_array_equal(statistics.token_counts[latent, :n], counts[order])
        assert (statistics.token_ids[latent, n:] == -1).all() and not statistics.token_counts[latent, n:].any()


@pytest.mark.parametrize("n_shards", [3, 40])
def test_what_a_token_count_lacks_is_bounded_where_not_all_pairs_fit(n_shards, monkeypatch):
    """Latents active everywhere on 400 to 4,000 tokens, with room for 8 each; some tokens come only near the end."""
    monkeypatch.setattr(examples, "N_COUNTED", 8)
    monkeypatch.setattr(examples, "N_PAIRS", 16)
    draw, n, width = np.random.default_rng(3), 20_000, 6
    tokens = (draw.zipf(1.3, n) % 4000).astype(np.int32)
    tokens[-4000:] = np.where(draw.random(4000) < 0.9, 5000, tokens[-4000:])
    latents = sparse.csr_array((draw.random((n, width)) < np.arange(1, width + 1) / width).astype(np.float32))
    state = gathered(latents, tokens, np.full(n // 10, 10, np.int32), n_shards)
    assert state.tokens.counts.nnz <= 16 * width
    found, active = examples.finish(state), latents.toarray() > 0
    for latent in range(width):
        true = np.bincount(tokens[active[:, latent]], minlength=5001)
        lack, there = found.token_counts_lack[latent], found.token_ids[latent] >= 0
        ids, counts = found.token_ids[latent][there], found.token_counts[latent][there]
        assert 0 < lack <= active[:, latent].sum() / 9
        assert (counts <= true[ids]).all() and (counts >= true[ids] - lack).all()
        assert set(np.flatnonzero(true > lack)) <= set(ids) and 5000 in ids


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
    assert not silent.second_moment.any() and not silent.token_counts.any()
    for positions in (silent.top_positions, silent.quantile_positions, silent.random_positions, silent.token_ids):
        assert (positions == -1).all()


def test_an_update_leaves_the_state_it_was_given_alone(latents, lengths):
    state = examples.start(WIDTH)
    filled = examples.update(state, latents, np.zeros(N, np.int32), lengths, 0)
    examples.finish(filled)
    assert state.n_positions == 0 and state.counts.max() == 0 and not state.histogram.any() and not state.squares.any()
    assert (state.top.positions == -1).all() and not state.top.since and not state.tokens.counts.nnz
    again = examples.update(filled, latents, np.zeros(N, np.int32), lengths, 0)
    assert filled.n_positions == N and filled.counts.sum() * 2 == again.counts.sum()
    assert filled.tokens.counts.sum() == filled.counts.sum() and filled.histogram.sum() == filled.counts.sum()
