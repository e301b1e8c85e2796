"""One streaming pass over a recording: density, moments, histogram, top and quantile contexts of every latent."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from activation_cache.layout import HISTOGRAM_EDGES, N_BANDS, N_PER_BAND, N_TOP, LatentStatistics

N_SAMPLE = 64
"Active contexts drawn of every latent, from which the quantile contexts are taken."


@dataclass(frozen=True)
class Kept:
    """The `m` best-scored positions of every latent so far, best first; position -1 and score -inf pad."""

    positions: Int[np.ndarray, "d_sae m"]
    values: Float[np.ndarray, "d_sae m"]
    scores: Float[np.ndarray, "d_sae m"]


@dataclass(frozen=True)
class StatisticsState:
    """What has been gathered so far: its size depends on the number of latents, not on that of tokens."""

    n_positions: int
    counts: Int[np.ndarray, "d_sae"]
    totals: Float[np.ndarray, "d_sae"]
    histogram: Int[np.ndarray, "d_sae bins"]
    top: Kept
    sample: Kept
    "A uniform sample of active contexts, by the least of a hash."


def start(d_sae: int) -> StatisticsState:
    """The state before any position."""
    def kept(m: int) -> Kept:
        return Kept(np.full((d_sae, m), -1, np.int64), np.zeros((d_sae, m), np.float32), np.full((d_sae, m), -np.inf))

    zeros = np.zeros(d_sae, np.int64)
    bins = len(HISTOGRAM_EDGES) - 1
    return StatisticsState(
        0, zeros, np.zeros(d_sae), np.zeros((d_sae, bins), np.int64), kept(N_TOP),
        kept(N_SAMPLE),
    )


def update(
    state: StatisticsState, latents: sparse.csr_array, context_lengths: Int[np.ndarray, "contexts"], seed: int
) -> StatisticsState:
    """The state after these further positions, which are whole contexts."""
    d_sae = len(state.counts)
    by_latent = latents.tocsc()  # a counting sort: latents in order, and positions in order within each
    counts = np.diff(by_latent.indptr).astype(np.int64)
    columns, rows, values = np.repeat(np.arange(d_sae), counts), by_latent.indices, by_latent.data
    contexts = np.repeat(np.arange(len(context_lengths)), context_lengths)[rows]
    positions = rows.astype(np.int64) + state.n_positions
    n_bins = state.histogram.shape[1]
    histogram = np.bincount(columns * n_bins + _bins(values), minlength=d_sae * n_bins).reshape(d_sae, n_bins)
    drawn = _draw(columns, positions, seed)
    return StatisticsState(
        state.n_positions + latents.shape[0],
        state.counts + counts,
        state.totals + np.bincount(columns, weights=values, minlength=d_sae),
        state.histogram + histogram,
        _keep(state.top, columns, contexts, positions, values, values.astype(np.float64)),
        _keep(state.sample, columns, contexts, positions, values, drawn),
    )


def _bins(values: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The bin of `HISTOGRAM_EDGES` of every value: float32's exponent and first two bits of mantissa are its number."""
    quarter_octaves = np.ascontiguousarray(values, np.float32).view(np.int32) >> 21
    first = np.float32(HISTOGRAM_EDGES[0]).view(np.int32) >> 21
    return np.clip(quarter_octaves - first, 0, len(HISTOGRAM_EDGES) - 2)


def _draw(columns: Int[np.ndarray, "n"], positions: Int[np.ndarray, "n"], seed: int) -> Float[np.ndarray, "n"]:
    """A number in [0, 1) for every entry that depends on nothing but latent, position and seed (splitmix64's mixer)."""
    x = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    start = np.uint64(seed * 0x632BE59BD9B4E019 % 2**64)
    x ^= (columns.astype(np.uint64) + start) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def _keep(kept: Kept, columns: np.ndarray, contexts: np.ndarray, positions: np.ndarray, values: np.ndarray,
          scores: np.ndarray) -> Kept:
    """Merge entries, in order of latent and position, into the best: one a latent and context, ties to the earlier."""
    m = kept.scores.shape[1]
    able = np.flatnonzero(scores > kept.scores[columns, -1])  # an entry below its latent's last can never enter
    if not len(able):
        return kept
    best = able[_first_best(columns[able], contexts[able], scores[able])]
    touched, owner_new = np.unique(columns[best], return_inverse=True)
    owner = np.concatenate([np.repeat(np.arange(len(touched)), m), owner_new])
    merged = [np.concatenate([old[touched].ravel(), new[best]]) for old, new in
              zip((kept.positions, kept.values, kept.scores), (positions, values, scores), strict=True)]
    order = np.lexsort((-merged[2], owner))  # stable: what is kept came earlier, and new entries are in order
    sizes = m + np.bincount(owner_new, minlength=len(touched))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[rank < m]
    result = Kept(kept.positions.copy(), kept.values.copy(), kept.scores.copy())
    for target, source in zip((result.positions, result.values, result.scores), merged, strict=True):
        target[touched] = source[chosen].reshape(len(touched), m)
    return result


def _first_best(columns: np.ndarray, contexts: np.ndarray, scores: np.ndarray) -> Int[np.ndarray, "runs"]:
    """The place of the first of the highest scores in every run of one latent and context."""
    begins = np.ones(len(columns), bool)
    begins[1:] = (np.diff(columns) != 0) | (np.diff(contexts) != 0)
    starts = np.flatnonzero(begins)
    run = np.cumsum(begins) - 1
    highest = np.flatnonzero(scores == np.maximum.reduceat(scores, starts)[run])
    first = np.ones(len(highest), bool)
    first[1:] = np.diff(run[highest]) != 0
    return highest[first]


def finish(state: StatisticsState) -> LatentStatistics:
    """The statistics of everything seen."""
    mean = np.divide(state.totals, state.counts, out=np.zeros_like(state.totals), where=state.counts > 0)
    quantile_positions, quantile_values = _bands(state.sample)
    return LatentStatistics(
        density=(state.counts / max(state.n_positions, 1)).astype(np.float32),
        mean=mean.astype(np.float32),
        max=state.top.values[:, 0],
        histogram=state.histogram,
        histogram_edges=HISTOGRAM_EDGES,
        top_positions=state.top.positions,
        top_values=state.top.values,
        quantile_positions=quantile_positions,
        quantile_values=quantile_values,
    )


def _bands(sample: Kept) -> tuple[Int[np.ndarray, "d_sae bands m"], Float[np.ndarray, "d_sae bands m"]]:
    """Contexts spread evenly over the ordered sample, band by band; a short sample fills its first places."""
    d_sae, _ = sample.positions.shape
    wanted = N_BANDS * N_PER_BAND
    there = sample.positions >= 0
    order = np.lexsort((sample.positions, np.where(there, sample.values, np.inf)), axis=-1)
    n = there.sum(axis=1)[:, None]
    # rank i of `wanted` evenly spaced ranks among n; with fewer than `wanted`, each context once
    rank = np.where(n >= wanted, ((np.arange(wanted) + 0.5) * n / wanted).astype(np.int64), np.arange(wanted))
    place = np.take_along_axis(order, np.minimum(rank, there.shape[1] - 1), axis=1)
    valid = rank < n
    positions = np.where(valid, np.take_along_axis(sample.positions, place, axis=1), -1)
    values = np.where(valid, np.take_along_axis(sample.values, place, axis=1), 0).astype(np.float32)
    shape = (d_sae, N_BANDS, N_PER_BAND)
    return positions.reshape(shape), values.reshape(shape)
