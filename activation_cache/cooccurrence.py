"""Which latents follow which, gathered while a recording passes by, in memory that does not grow with it."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse

from activation_cache.layout import Cooccurrence

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")

ROWS_AT_ONCE = 256
LEAST = 1e-5
"A share of a position below this is rounding, not an item."


def share_positions(matrix: sparse.csr_array) -> sparse.csr_array:
    """Every position's weights divided by their sum, so that a position counts once however many items it holds."""
    total = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    shared = matrix.astype(np.float32, copy=True)
    shared.data *= np.repeat(scale, np.diff(shared.indptr)).astype(np.float32)
    return shared


def followers(segments: Int[np.ndarray, "boundaries"], lag: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Every position that has another `lag` later (earlier where it is negative) in its segment, and that other."""
    segment = np.repeat(np.arange(len(segments) - 1), np.diff(segments))
    step = abs(lag)
    early = np.flatnonzero(segment[: len(segment) - step] == segment[step:]) if step < len(segment) else np.arange(0)
    return (early, early + step) if lag >= 0 else (early + step, early)


def by_scipy(table: Float[np.ndarray, "n m"], before: sparse.csr_array, after: sparse.csr_array) -> None:
    """Add a sparse product of its own, its zeros filled in."""
    for rows in _blocks(len(table)):
        table[rows] += (before[rows] @ after).toarray()


def by_mkl(table: Float[np.ndarray, "n m"], before: sparse.csr_array, after: sparse.csr_array) -> None:
    """Add a product that is written densely at once, which takes half the time."""
    second = _as_tensor(after)
    for rows in _blocks(len(table)):
        torch.from_numpy(table[rows]).addmm_(_as_tensor(before[rows]), second)


def _blocks(n: int) -> Iterator[slice]:
    """Rows that are added to at once: they stay in the processor's cache meanwhile."""
    return (slice(begin, begin + ROWS_AT_ONCE) for begin in range(0, n, ROWS_AT_ONCE))


def _as_tensor(matrix: sparse.csr_array) -> torch.Tensor:
    parts = map(torch.from_numpy, (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(*parts, matrix.shape, check_invariants=False)


PRODUCTS = {True: by_mkl, False: by_scipy}
"Ways to add the product of two sparse matrices to a table, in place, by whether torch was built with MKL."


class CooccurrenceCounter:
    """Lagged co-occurrence of one SAE's latents over the shards seen so far.

    Its tables are added to where they stand: a copy of them a shard would cost more than counting. Latents are told
    apart as they are met, the heaviest of a shard first, until `n_apart` are; later ones fall to the "other". Equal
    shards in equal order give equal bits.
    """

    def __init__(self, d_sae: int, lags: tuple[int, ...], n_apart: int):
        self.lags = lags
        self.latents = np.zeros(0, np.int64)
        self.place = np.full(d_sae, n_apart, np.int32)
        "Where each latent stands in the tables; that of the other until it is met."
        self.counts = np.zeros(n_apart + 1)
        self.tables = np.zeros((len(lags), n_apart + 1, n_apart + 1), np.float32)

    def add(self, latents: sparse.csr_array, context_lengths: Int[np.ndarray, "contexts"]) -> None:
        """Count a further shard, which is whole contexts."""
        shared = share_positions(latents)
        held = np.bincount(shared.indices, weights=shared.data, minlength=len(self.place))
        self._meet(held)
        folded = self._folded(shared)
        self.counts += folded.sum(axis=0, dtype=np.float64)
        add = PRODUCTS[torch.backends.mkl.is_available()]
        bounds = np.append(0, np.cumsum(context_lengths))
        for table, lag in zip(self.tables, self.lags, strict=True):
            early, late = followers(bounds, lag)
            if len(early):
                add(table, folded[early].T.tocsr(), folded[late])

    def _meet(self, held: Float[np.ndarray, "d_sae"]) -> None:
        """Give the heaviest latents that are met for the first time the places that are left."""
        other = len(self.counts) - 1
        new = np.flatnonzero((held > 0) & (self.place == other))
        new = new[np.argsort(-held[new], kind="stable")][: other - len(self.latents)]
        self.place[new] = len(self.latents) + np.arange(len(new))
        self.latents = np.append(self.latents, new)

    def _folded(self, shared: sparse.csr_array) -> sparse.csr_array:
        """Positions x places: the latents told apart, and what a position lacks to 1 as the other."""
        other = len(self.counts) - 1
        place = self.place[shared.indices]
        apart = place < other
        bounds = np.append(0, np.cumsum(apart))[shared.indptr]
        kept = sparse.csr_array((shared.data[apart], place[apart], bounds), shape=(shared.shape[0], other))
        missing = 1.0 - np.asarray(kept.sum(axis=1)).ravel()
        missing[missing < LEAST] = 0.0
        return sparse.hstack([kept, sparse.csr_array(missing[:, None].astype(np.float32))], format="csr")

    def finished(self) -> Iterator[tuple[int, Cooccurrence]]:
        """Every lag with its co-occurrence, places that no latent took left out."""
        used = np.append(np.arange(len(self.latents)), len(self.counts) - 1)
        whole = len(used) == len(self.counts)
        for lag, table in zip(self.lags, self.tables, strict=True):
            pairs = table if whole else table[np.ix_(used, used)]
            yield lag, Cooccurrence(self.latents, self.counts[used], pairs)
