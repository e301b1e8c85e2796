"""What two items do near each other: lagged co-occurrence within segments, the one thing a blind aligner reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse

from activation_cache.cooccurrence import PRODUCTS, followers, share_positions
from sae_translate.languages.language import Corpus

AT_ONCE = 32_768
"Pairs of positions that are counted at once."


@dataclass(frozen=True)
class Statistics:
    """Counts and lagged co-occurrence of the items of one corpus."""

    counts: Float[np.ndarray, "items"]
    "Share of the positions that each item holds, summed over positions: at most the number of positions."
    lagged: tuple[sparse.csr_array, ...]
    "For every lag, [item, item'] = weight of item followed by item' that many positions later, in one segment."
    n_positions: int
    lags: tuple[int, ...]


def fold(matrix: sparse.csr_array, keep: Int[np.ndarray, "kept"], other: bool) -> sparse.csr_array:
    """The kept columns of shared positions, in the order given, and with `other` one more column for what they lack."""
    kept = sparse.csr_array(matrix[:, keep])
    if not other:
        return kept
    missing = 1.0 - np.asarray(kept.sum(axis=1)).ravel()
    missing[missing < 1e-5] = 0.0
    return sparse.csr_array(sparse.hstack([kept, sparse.csr_array(missing[:, None].astype(np.float32))], format="csr"))


def lagged_counts(
    rows: sparse.csr_array,
    columns: sparse.csr_array,
    segments: Int[np.ndarray, "boundaries"],
    lag: int,
) -> Float[np.ndarray, "rows columns"]:
    """`lagged_cooccurrence` as a dense array of double precision; several times faster, as parts of the text are added
    up whose products stay in the processor's cache, and where no position holds two items, as in text, ten times."""
    first, second = followers(segments, lag)
    if all(np.diff(side.indptr).max(initial=0) <= 1 for side in (rows, columns)):
        return _pairs_of_single_items(rows, columns, first, second)
    counts = np.zeros((rows.shape[1], columns.shape[1]))
    add = PRODUCTS[torch.backends.mkl.is_available()]
    for begin in range(0, len(first), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        table = np.zeros(counts.shape, np.float32)
        add(table, rows[first[part]].T.tocsr(), columns[second[part]])
        counts += table
    return counts


def _pairs_of_single_items(
    rows: sparse.csr_array, columns: sparse.csr_array, first: Int[np.ndarray, "pairs"], second: Int[np.ndarray, "pairs"]
) -> Float[np.ndarray, "rows columns"]:
    """`lagged_counts` where every position holds one item or none."""
    n, m = rows.shape[1], columns.shape[1]
    (row, weight), (column, other) = _only_items(rows), _only_items(columns)
    cells = row[first] * (m + 1) + column[second]
    weights = None if weight is None and other is None else _all(weight, first) * _all(other, second)
    counts = np.bincount(cells, weights=weights, minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1)
    return counts[:n, :m].astype(np.float64)


def _only_items(matrix: sparse.csr_array) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"] | None]:
    """The item of every position, one past the last where it has none; and its weight, None where all weigh 1."""
    held = np.diff(matrix.indptr) > 0
    item = np.full(len(held), matrix.shape[1])
    item[held] = matrix.indices
    if (matrix.data == 1).all():
        return item, None
    weight = np.zeros(len(held))
    weight[held] = matrix.data
    return item, weight


def _all(weight: Float[np.ndarray, "n"] | None, at: Int[np.ndarray, "pairs"]) -> Float[np.ndarray, "pairs"] | float:
    return 1.0 if weight is None else weight[at]


def lagged_cooccurrence(
    rows: sparse.csr_array,
    columns: sparse.csr_array,
    segments: Int[np.ndarray, "boundaries"],
    lag: int,
) -> sparse.csr_array:
    """Weight of row item at a position and column item `lag` positions later, summed over positions of one segment.

    A negative lag looks back. `rows` and `columns` are positions x items and share their positions.
    """
    first, second = followers(segments, lag)
    return sparse.csr_array(rows[first].T @ columns[second])


def statistics_of(corpus: Corpus, lags: Sequence[int] = (1, 2, 3, 4)) -> Statistics:
    """Counts and lagged co-occurrence of a whole corpus; nothing crosses the end of a segment."""
    shared = share_positions(corpus.matrix)
    return Statistics(
        counts=np.asarray(shared.sum(axis=0, dtype=np.float64)).ravel(),
        lagged=tuple(lagged_cooccurrence(shared, shared, corpus.segments, lag) for lag in lags),
        n_positions=corpus.n_positions,
        lags=tuple(lags),
    )
