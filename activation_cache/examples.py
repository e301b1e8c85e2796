"""One streaming pass over a recording: density, moments, histogram, top and quantile contexts of every latent."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from activation_cache.layout import HISTOGRAM_EDGES, N_BANDS, N_PER_BAND, N_TOP, LatentStatistics

N_SAMPLE = 64
"Active contexts drawn of every latent, from which the quantile contexts are taken."
SCORE_BITS = 32
"Bits of a score; a key is a latent's number, and below it how far the score is from the highest."
HIGHEST = (1 << SCORE_BITS) - 1
SLOT_BITS = 31
"Bits of a place among a latent's entries, where its entries are sorted."


@dataclass(frozen=True)
class Entries:
    """Contexts of latents, each with the position that stands for it."""

    keys: Int[np.ndarray, "n"]
    "Rise with the latent, and within it with falling score."
    positions: Int[np.ndarray, "n"]
    values: Float[np.ndarray, "n"]


NOTHING = Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


@dataclass(frozen=True)
class Kept:
    """The `m` best-scored contexts of every latent so far, and some that may be among them.

    What came since is sorted in once there is half as much of it as can be kept: the longer the recording, the rarer.
    """

    m: int
    best: Entries
    "At most `m` a latent, in order of their keys; ties in order of position."
    since: tuple[Entries, ...]
    "Further ones, shard by shard, each beyond its latent's floor."
    floors: Int[np.ndarray, "d_sae"]
    "Score of the last of a latent's `m` best, which a better one has to pass; -1 where there are fewer."


@dataclass(frozen=True)
class StatisticsState:
    """What has been gathered so far: its size depends on the number of latents, not on that of tokens."""

    n_positions: int
    n_contexts: int
    counts: Int[np.ndarray, "d_sae"]
    totals: Float[np.ndarray, "d_sae"]
    histogram: Int[np.ndarray, "d_sae bins"]
    top: Kept
    "By their highest activation."
    sample: Kept
    "A uniform sample of active contexts and of an active position in each, by a hash."


def start(d_sae: int) -> StatisticsState:
    """The state before any position."""
    def kept(m: int) -> Kept:
        return Kept(m, NOTHING, (), np.full(d_sae, -1, np.int64))

    bins = len(HISTOGRAM_EDGES) - 1
    return StatisticsState(0, 0, np.zeros(d_sae, np.int64), np.zeros(d_sae), np.zeros((d_sae, bins), np.int64),
                           kept(N_TOP), kept(N_SAMPLE))


def update(
    state: StatisticsState, latents: sparse.csr_array, context_lengths: Int[np.ndarray, "contexts"], seed: int
) -> StatisticsState:
    """The state after these further positions, which are whole contexts."""
    d_sae = len(state.counts)
    by_latent = latents.tocsc()  # a counting sort: latents in order, and positions in order within each
    counts = np.diff(by_latent.indptr)
    columns, rows, values = np.repeat(np.arange(d_sae), counts), by_latent.indices, by_latent.data
    n_bins = state.histogram.shape[1]
    histogram = np.bincount(columns * n_bins + _bins(values), minlength=d_sae * n_bins).reshape(d_sae, n_bins)
    top, sample = _candidates(state, columns, rows, values, context_lengths, seed)
    return StatisticsState(
        state.n_positions + latents.shape[0],
        state.n_contexts + len(context_lengths),
        state.counts + counts,
        state.totals + np.bincount(columns, weights=values, minlength=d_sae),
        state.histogram + histogram,
        _keep(state.top, top),
        _keep(state.sample, sample),
    )


def _bins(values: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The bin of `HISTOGRAM_EDGES` of every value: float32's exponent and first two bits of mantissa are its number."""
    quarter_octaves = np.ascontiguousarray(values, np.float32).view(np.int32) >> 21
    first = np.float32(HISTOGRAM_EDGES[0]).view(np.int32) >> 21
    return np.clip(quarter_octaves - first, 0, len(HISTOGRAM_EDGES) - 2)


def _candidates(
    state: StatisticsState, columns: Int[np.ndarray, "n"], rows: Int[np.ndarray, "n"],
    values: Float[np.ndarray, "n"], context_lengths: Int[np.ndarray, "contexts"], seed: int,
) -> tuple[Entries, Entries]:
    """Of every active context of every latent the first of its highest positions, and one drawn at random.

    Only those beyond their latent's floor. Entries come in order of latent and position.
    """
    contexts = np.repeat(np.arange(len(context_lengths)), context_lengths)[rows]
    begins = np.ones(len(columns), bool)
    begins[1:] = (columns[1:] != columns[:-1]) | (contexts[1:] != contexts[:-1])
    starts = np.flatnonzero(begins)
    if not len(starts):
        return NOTHING, NOTHING
    owners, lengths = columns[starts], np.diff(starts, append=len(columns))
    first_highest = np.maximum.reduceat(_ordered(values) << SCORE_BITS | HIGHEST - np.arange(len(values)), starts)
    drawn = _drawn(owners, contexts[starts] + state.n_contexts, seed)

    def offered(kept: Kept, scores: np.ndarray, places: np.ndarray) -> Entries:
        able = np.flatnonzero(scores > kept.floors[owners])
        chosen = places[able]
        keys = owners[able] << SCORE_BITS | HIGHEST - scores[able]
        return Entries(keys, rows[chosen] + np.int64(state.n_positions), values[chosen])

    return (offered(state.top, first_highest >> SCORE_BITS, HIGHEST - (first_highest & HIGHEST)),
            offered(state.sample, drawn >> SCORE_BITS, starts + (drawn & HIGHEST) % lengths))


def _ordered(values: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Integers from 0 to 2^19 - 1 in the order of values that float16 can hold: float32's bits, less 13 that are 0."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32)
    return ((bits ^ (bits >> 31 & 0x7FFFFFFF)) >> 13).astype(np.int64) + (1 << 18)


def _drawn(latents: Int[np.ndarray, "n"], contexts: Int[np.ndarray, "n"], seed: int) -> Int[np.ndarray, "n"]:
    """63 bits for every pair that depend on nothing but latent, context and seed (splitmix64's mixer)."""
    x = contexts.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    start = np.uint64(seed * 0x632BE59BD9B4E019 % 2**64)
    x ^= (latents.astype(np.uint64) + start) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(1)).view(np.int64)


def _keep(kept: Kept, new: Entries) -> Kept:
    """What is kept after these further contexts, which come after all others."""
    kept = replace(kept, since=(*kept.since, new))
    waiting = sum(len(entries.keys) for entries in kept.since)
    return _sorted(kept) if waiting >= kept.m * len(kept.floors) // 2 else kept


def _sorted(kept: Kept) -> Kept:
    """The same with nothing waiting: the `m` best of every latent, and what it then takes to be among them."""
    if not kept.since:
        return kept
    keys, positions, values = (np.concatenate(parts) for parts in
                               zip(*(vars(entries).values() for entries in (kept.best, *kept.since)), strict=True))
    by_latent = np.argsort(keys >> SCORE_BITS, kind="stable")  # a merge of what is in this order already
    keys = keys[by_latent]
    least = _least(keys & HIGHEST, np.bincount(keys >> SCORE_BITS, minlength=len(kept.floors)), kept.m)
    full = np.flatnonzero(least[:, -1] >= 0)
    floors = np.full_like(kept.floors, -1)
    floors[full] = HIGHEST - (keys[least[full, -1]] & HIGHEST)
    stay = least[least >= 0]
    return Kept(kept.m, Entries(keys[stay], positions[by_latent[stay]], values[by_latent[stay]]), (), floors)


def _least(
    numbers: Int[np.ndarray, "n"], sizes: Int[np.ndarray, "runs"], m: int
) -> Int[np.ndarray, "runs m"]:
    """The places of the `m` least numbers (of 32 bits) of every run, least first, ties in order; -1 pads.

    Runs of like length are sorted as the rows of one table, which is many times faster than one sort of everything.
    """
    firsts = np.cumsum(sizes) - sizes
    places = np.full((len(sizes), m), -1, np.int64)
    widths = 2 ** np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64)
    for width in np.unique(widths[sizes > 0]):
        rows, slots = np.flatnonzero((widths == width) & (sizes > 0)), np.arange(width)
        first, size = firsts[rows, None], sizes[rows, None]
        table = numbers.take(first + slots, mode="clip") << SLOT_BITS | slots
        table[slots >= size] = np.iinfo(np.int64).max
        table.sort(axis=1)
        slot = table[:, :m] & (1 << SLOT_BITS) - 1
        places[rows, : slot.shape[1]] = np.where(slot < size, first + slot, -1)
    return places


def finish(state: StatisticsState) -> LatentStatistics:
    """The statistics of everything seen."""
    mean = np.divide(state.totals, state.counts, out=np.zeros_like(state.totals), where=state.counts > 0)
    top_positions, top_values = _by_latent(_sorted(state.top))
    quantile_positions, quantile_values = _bands(*_by_latent(_sorted(state.sample)))
    return LatentStatistics(
        density=(state.counts / max(state.n_positions, 1)).astype(np.float32),
        mean=mean.astype(np.float32),
        max=top_values[:, 0],
        histogram=state.histogram,
        histogram_edges=HISTOGRAM_EDGES,
        top_positions=top_positions,
        top_values=top_values,
        quantile_positions=quantile_positions,
        quantile_values=quantile_values,
    )


def _by_latent(kept: Kept) -> tuple[Int[np.ndarray, "d_sae m"], Float[np.ndarray, "d_sae m"]]:
    """Positions and values of what is kept, a row a latent, best first; position -1 and value 0 pad."""
    latents = kept.best.keys >> SCORE_BITS
    sizes = np.bincount(latents, minlength=len(kept.floors))
    places = latents, np.arange(len(latents)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    positions = np.full((len(sizes), kept.m), -1, np.int64)
    values = np.zeros((len(sizes), kept.m), np.float32)
    positions[places], values[places] = kept.best.positions, kept.best.values
    return positions, values


def _bands(
    positions: Int[np.ndarray, "d_sae m"], values: Float[np.ndarray, "d_sae m"]
) -> tuple[Int[np.ndarray, "d_sae bands per_band"], Float[np.ndarray, "d_sae bands per_band"]]:
    """Contexts spread evenly over the ordered sample, band by band; a short sample fills its first places."""
    wanted = N_BANDS * N_PER_BAND
    there = positions >= 0
    ranked = np.where(there, _ordered(values.ravel()).reshape(there.shape), HIGHEST) << SLOT_BITS
    order = np.sort(ranked | np.arange(there.shape[1]), axis=1) & (1 << SLOT_BITS) - 1
    n = there.sum(axis=1)[:, None]
    # rank i of `wanted` evenly spaced ranks among n; with fewer than `wanted`, each context once
    rank = np.where(n >= wanted, ((np.arange(wanted) + 0.5) * n / wanted).astype(np.int64), np.arange(wanted))
    place = np.take_along_axis(order, np.minimum(rank, there.shape[1] - 1), axis=1)
    valid = rank < n
    chosen = np.where(valid, np.take_along_axis(positions, place, axis=1), -1)
    at = np.where(valid, np.take_along_axis(values, place, axis=1), 0).astype(np.float32)
    shape = (len(positions), N_BANDS, N_PER_BAND)
    return chosen.reshape(shape), at.reshape(shape)
