"""One streaming pass over a recording: density, moments, histograms and contexts of every latent, and its tokens."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt
from scipy import sparse

from activation_cache.layout import (
    HISTOGRAM_EDGES,
    N_BANDS,
    N_PER_BAND,
    N_RANDOM,
    N_TOKENS,
    N_TOP,
    LatentStatistics,
)

N_SAMPLE = 64
"Active contexts drawn of every latent, from which the random and the quantile contexts are taken."
N_COUNTED = 48
"Tokens that are counted on of a latent once there are more pairs of latents and tokens than are kept."
N_PAIRS = 2 * N_COUNTED
"Most pairs of a latent and a token that are kept, a latent, over all of them."
TOKEN_BITS = 31
"Bits of a token's number."
ANY_TOKEN = (1 << TOKEN_BITS) - 1
RANK_BITS = 31
"Bits of a rank, by which contexts are kept: the lowest first."
NO_RANK = (1 << RANK_BITS) - 1
N_AT_ONCE = 1 << 17
"Entries that are sorted at once: what that takes stays in the processor's cache."


@dataclass(frozen=True)
class Entries:
    """Contexts of latents, each with the position that stands for it, in order of latent and position."""

    latents: Int[np.ndarray, "n"]
    ranks: UInt[np.ndarray, "n"]
    positions: Int[np.ndarray, "n"]
    values: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Kept:
    """The `m` lowest-ranked contexts of every latent so far, and some that may be among them.

    What came since is sorted in once there is half as much of it as can be kept: the longer the recording, the rarer.
    """

    ranks: UInt[np.ndarray, "d_sae m"]
    "Rising; ties in order of position; `NO_RANK` pads."
    positions: Int[np.ndarray, "d_sae m"]
    values: Float[np.ndarray, "d_sae m"]
    since: tuple[Entries, ...]
    "Further ones, shard by shard, each ranked below its latent's last."


@dataclass(frozen=True)
class TokenCounts:
    """How often every latent is active on every token: exact while all pairs fit, then the frequent ones in bounds.

    Once there are more than `N_PAIRS` a latent, every count is lowered by the highest of its latent's that is not among
    the `N_COUNTED` highest, and those above 0 are kept: a count then lacks at most the latent's active positions over
    `N_COUNTED + 1` (Misra and Gries 1982, merged as by Agarwal et al. 2012, "Mergeable summaries", section 2).
    """

    counts: sparse.csr_array
    "int64 [d_sae, any token]."
    lost: Int[np.ndarray, "d_sae"]
    "Most by which any count of the latent is too low."


@dataclass(frozen=True)
class StatisticsState:
    """What has been gathered so far: its size depends on the number of latents, not on that of tokens."""

    n_positions: int
    n_contexts: int
    counts: Int[np.ndarray, "d_sae"]
    totals: Float[np.ndarray, "d_sae"]
    squares: Float[np.ndarray, "d_sae"]
    histogram: Int[np.ndarray, "d_sae bins"]
    tokens: TokenCounts
    top: Kept
    "By their highest activation."
    sample: Kept
    "A uniform sample of active contexts and of an active position in each, by a hash."


def start(d_sae: int) -> StatisticsState:
    """The state before any position."""
    def kept(m: int) -> Kept:
        return Kept(np.full((d_sae, m), NO_RANK, np.uint32), np.full((d_sae, m), -1, np.int64),
                    np.zeros((d_sae, m), np.float32), ())

    bins = len(HISTOGRAM_EDGES) - 1
    no_tokens = sparse.csr_array((d_sae, ANY_TOKEN), dtype=np.int64)
    return StatisticsState(
        0, 0, np.zeros(d_sae, np.int64), np.zeros(d_sae), np.zeros(d_sae), np.zeros((d_sae, bins), np.int64),
        TokenCounts(no_tokens, np.zeros(d_sae, np.int64)), kept(N_TOP), kept(N_SAMPLE),
    )


def update(
    state: StatisticsState, latents: sparse.csr_array, tokens: Int[np.ndarray, "n"],
    context_lengths: Int[np.ndarray, "contexts"], seed: int,
) -> StatisticsState:
    """The state after these further positions, which are whole contexts."""
    d_sae = len(state.counts)
    by_latent = latents.tocsc()  # a counting sort: latents in order, and positions in order within each
    counts = np.diff(by_latent.indptr)
    columns, rows, values = np.repeat(np.arange(d_sae), counts), by_latent.indices, by_latent.data
    histogram = state.histogram.copy()
    np.add.at(histogram.reshape(-1), columns * histogram.shape[1] + _bins(values), 1)
    top, sample = _candidates(state, columns, rows, values, context_lengths, seed)
    return StatisticsState(
        state.n_positions + latents.shape[0],
        state.n_contexts + len(context_lengths),
        state.counts + counts,
        state.totals + np.bincount(columns, weights=values, minlength=d_sae),
        state.squares + np.bincount(columns, weights=np.square(values, dtype=np.float64), minlength=d_sae),
        histogram,
        _counted(state.tokens, tokens[rows], by_latent.indptr),
        _keep(state.top, top),
        _keep(state.sample, sample),
    )


def _bins(values: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The bin of `HISTOGRAM_EDGES` of every value: float32's exponent and first two bits of mantissa are its number."""
    quarter_octaves = np.ascontiguousarray(values, np.float32).view(np.int32) >> 21
    first = np.float32(HISTOGRAM_EDGES[0]).view(np.int32) >> 21
    return np.clip(quarter_octaves - first, 0, len(HISTOGRAM_EDGES) - 2)


def _counted(kept: TokenCounts, tokens: Int[np.ndarray, "n"], indptr: Int[np.ndarray, "_"]) -> TokenCounts:
    """With the tokens of further positions on which latents are active, in order of latent."""
    new = sparse.csr_array((np.ones(len(tokens), np.int64), tokens, indptr.copy()), shape=kept.counts.shape)
    new.sum_duplicates()
    counts = kept.counts + new
    if counts.nnz <= N_PAIRS * counts.shape[0]:
        return TokenCounts(counts, kept.lost)
    beyond = _highest(counts, N_COUNTED + 1)[:, 0] >> TOKEN_BITS
    counts.data -= np.repeat(beyond, np.diff(counts.indptr))
    np.maximum(counts.data, 0, out=counts.data)
    counts.eliminate_zeros()
    return TokenCounts(counts, kept.lost + beyond)


def _highest(counts: sparse.csr_array, n: int) -> Int[np.ndarray, "d_sae n"]:
    """The `n` highest counts of every latent, highest last, of equal ones the lowest token; 0 pads.

    Each with what its token's number lacks to `ANY_TOKEN` in the bits below.
    """
    best = np.zeros((counts.shape[0], n), np.int64)
    for rows, places, there in _in_rounds(np.diff(counts.indptr), n):
        keys = counts.data.take(places, mode="clip") << TOKEN_BITS
        keys |= ANY_TOKEN - counts.indices.take(places, mode="clip")
        best[rows] = np.sort(np.concatenate([best[rows], np.where(there, keys, 0)], axis=1), axis=1)[:, -n:]
    return best


def _in_rounds(
    sizes: Int[np.ndarray, "runs"], n: int
) -> Iterator[tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows width"], Bool[np.ndarray, "rows width"]]]:
    """Of runs of these sizes, one behind the other, the first `n` entries, the next `2 n`, the next `4 n`, ...: which
    runs, where their entries are, and which of these are there. Small tables are sorted many times faster than a list.
    """
    firsts, first, width = np.cumsum(sizes) - sizes, 0, n
    while len(going_on := np.flatnonzero(sizes > first)):
        slots = np.arange(first, first + width)
        for rows in np.array_split(going_on, -(-len(going_on) * width // N_AT_ONCE)):
            yield rows, firsts[rows, None] + slots, slots < sizes[rows, None]
        first, width = first + width, 2 * width


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
    owners, lengths = columns[starts], np.diff(starts, append=len(columns))
    first_highest = np.maximum.reduceat(_ordered(values) << RANK_BITS | NO_RANK - np.arange(len(values)), starts)
    drawn = _drawn(owners, contexts[starts] + state.n_contexts, seed)

    def offered(kept: Kept, ranks: np.ndarray, places: np.ndarray) -> Entries:
        able = np.flatnonzero(ranks < np.ascontiguousarray(kept.ranks[:, -1])[owners])
        chosen = places[able]
        return Entries(owners[able].astype(np.int32), ranks[able].astype(np.uint32),
                       rows[chosen] + np.int64(state.n_positions), values[chosen])

    return (offered(state.top, NO_RANK - (first_highest >> RANK_BITS), NO_RANK - (first_highest & NO_RANK)),
            offered(state.sample, drawn >> RANK_BITS, starts + (drawn & NO_RANK) % lengths))


def _ordered(values: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Integers from 0 to 2^19 - 1 in the order of values that float16 can hold: float32's bits, less 13 that are 0."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32)
    return ((bits ^ (bits >> 31 & 0x7FFFFFFF)) >> 13).astype(np.int64) + (1 << 18)


def _drawn(latents: Int[np.ndarray, "n"], contexts: Int[np.ndarray, "n"], seed: int) -> Int[np.ndarray, "n"]:
    """62 bits for every pair that depend on nothing but latent, context and seed (splitmix64's mixer)."""
    x = contexts.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    start = np.uint64(seed * 0x632BE59BD9B4E019 % 2**64)
    x ^= (latents.astype(np.uint64) + start) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(2)).view(np.int64)


def _keep(kept: Kept, new: Entries) -> Kept:
    """What is kept after these further contexts, which come after all others."""
    kept = replace(kept, since=(*kept.since, new))
    waiting = sum(len(entries.latents) for entries in kept.since)
    return _sorted(kept) if waiting >= kept.ranks.size // 2 else kept


def _sorted(kept: Kept) -> Kept:
    """The same with nothing waiting."""
    if not kept.since:
        return kept
    latents, ranks, positions, values = (
        np.concatenate(parts) for parts in zip(*(vars(entries).values() for entries in kept.since), strict=True))
    by_latent = np.argsort(latents, kind="stable")  # a merge of what is in this order already
    m = kept.ranks.shape[1]
    out = Kept(kept.ranks.copy(), kept.positions.copy(), kept.values.copy(), ())
    for rows, places, there in _in_rounds(np.bincount(latents, minlength=len(kept.ranks)), m):
        chosen = by_latent.take(places, mode="clip")
        both = np.concatenate([out.ranks[rows], np.where(there, ranks[chosen], np.uint32(NO_RANK))], axis=1)
        slots = np.arange(both.shape[1])
        lowest = np.sort(both.astype(np.int64) << RANK_BITS | slots, axis=1)[:, :m] & NO_RANK
        lowest += np.arange(len(rows))[:, None] * len(slots)
        out.ranks[rows] = both.ravel()[lowest]
        out.positions[rows] = np.concatenate([out.positions[rows], positions[chosen]], axis=1).ravel()[lowest]
        out.values[rows] = np.concatenate([out.values[rows], values[chosen]], axis=1).ravel()[lowest]
    return out


def finish(state: StatisticsState) -> LatentStatistics:
    """The statistics of everything seen."""
    def mean(totals: Float[np.ndarray, "d_sae"]) -> Float[np.ndarray, "d_sae"]:
        return np.divide(totals, state.counts, out=np.zeros_like(totals), where=state.counts > 0).astype(np.float32)

    top, sample = _sorted(state.top), _sorted(state.sample)
    most_often = _highest(state.tokens.counts, N_TOKENS)[:, ::-1]
    quantile_positions, quantile_values = _bands(sample)
    return LatentStatistics(
        density=(state.counts / max(state.n_positions, 1)).astype(np.float32),
        mean=mean(state.totals),
        second_moment=mean(state.squares),
        max=top.values[:, 0],
        histogram=_narrow(state.histogram),
        histogram_edges=HISTOGRAM_EDGES,
        token_ids=_narrow(np.where(most_often > 0, ANY_TOKEN - (most_often & ANY_TOKEN), -1)),
        token_counts=_narrow(most_often >> TOKEN_BITS),
        token_counts_lack=_narrow(state.tokens.lost),
        top_positions=_narrow(top.positions),
        top_values=top.values,
        random_positions=_narrow(sample.positions[:, :N_RANDOM]),
        random_values=sample.values[:, :N_RANDOM],
        quantile_positions=_narrow(quantile_positions),
        quantile_values=quantile_values,
    )


def _narrow(integers: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """In the smallest signed type that holds them: half of what there would be to read."""
    return integers.astype(np.min_scalar_type(-1 - integers.max(initial=0)))


def _bands(
    sample: Kept
) -> tuple[Int[np.ndarray, "d_sae bands per_band"], Float[np.ndarray, "d_sae bands per_band"]]:
    """Contexts spread evenly over the ordered sample, band by band; a short sample fills its first places.

    Those that are the random contexts are left out, where as many others are left as are wanted.
    """
    wanted = N_BANDS * N_PER_BAND
    positions, values = sample.positions, sample.values
    slots = np.arange(positions.shape[1])
    there = positions >= 0
    there &= (slots >= N_RANDOM) | (there.sum(axis=1)[:, None] < N_RANDOM + wanted)
    ranked = np.where(there, _ordered(values.ravel()).reshape(there.shape), NO_RANK) << RANK_BITS
    order = np.sort(ranked | slots, axis=1) & NO_RANK
    n = there.sum(axis=1)[:, None]
    # rank i of `wanted` evenly spaced ranks among n; with fewer than `wanted`, each context once
    rank = np.where(n >= wanted, ((np.arange(wanted) + 0.5) * n / wanted).astype(np.int64), np.arange(wanted))
    place = np.take_along_axis(order, np.minimum(rank, len(slots) - 1), axis=1)
    valid = rank < n
    chosen = np.where(valid, np.take_along_axis(positions, place, axis=1), -1)
    at = np.where(valid, np.take_along_axis(values, place, axis=1), 0).astype(np.float32)
    shape = (len(positions), N_BANDS, N_PER_BAND)
    return chosen.reshape(shape), at.reshape(shape)
