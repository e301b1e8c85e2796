"""Lagged co-occurrence of some of a corpus's items: as it was recorded with the corpus, or counted from it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sae_translate.align.statistics import lagged_counts
from sae_translate.languages.language import Corpus


@dataclass(frozen=True)
class Part:
    """Some items of a corpus."""

    items: Int[np.ndarray, "items"]
    other: bool
    "Whether one more stands last for all that they leave out."
    shared: sparse.csr_array
    "Positions x items (and other): what each position holds of them, at most 1 in all."


def lagged_pairs(corpus: Corpus, rows: Part, columns: Part, lag: int) -> Float[np.ndarray, "rows columns"]:
    """`lagged_counts` of these items: recorded, where that was done at this lag and told them all apart."""
    recorded = recorded_pairs(corpus, rows, columns, lag)
    return lagged_counts(rows.shared, columns.shared, corpus.segments, lag) if recorded is None else recorded


def recorded_pairs(corpus: Corpus, rows: Part, columns: Part, lag: int) -> Float[np.ndarray, "rows columns"] | None:
    """`lagged_counts` of these items to rounding, from what was recorded; None where that does not hold them."""
    told = corpus.recorded
    if told is None or abs(lag) not in told.lags:
        return None
    place = np.full(corpus.matrix.shape[1], -1)
    place[told.items] = np.arange(len(told.items))
    first, second = place[rows.items], place[columns.items]
    if min(first.min(initial=0), second.min(initial=0)) < 0:
        return None
    pairs = told.at(lag) if lag > 0 else told.at(-lag).T
    return _folded(_folded(pairs, first, rows.other).T, second, columns.other).T


def _folded(pairs: Float[np.ndarray, "n m"], kept: Int[np.ndarray, "k"], other: bool) -> Float[np.ndarray, "folded m"]:
    """The kept rows, and with `other` the sum of those left out."""
    if not other:
        return pairs[kept]
    return np.vstack([pairs[kept], np.delete(pairs, kept, axis=0).sum(axis=0, dtype=np.float64)])
