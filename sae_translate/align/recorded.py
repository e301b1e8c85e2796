"""Co-occurrence that was counted while a cache was recorded, in the place of counting it again."""

import numpy as np
from jaxtyping import Float, Int

from sae_translate.languages.language import Corpus


def recorded_pairs(
    corpus: Corpus, items: Int[np.ndarray, "core"], other: bool, lag: int
) -> Float[np.ndarray, "n n"] | None:
    """What `lagged_cooccurrence` counts of these items, and with `other` of all that they leave out, to rounding.

    None where nothing was recorded at this lag, or one of the items was not told apart.
    """
    told = corpus.recorded
    if told is None or lag not in told.lags:
        return None
    place = np.full(corpus.matrix.shape[1], -1)
    place[told.items] = np.arange(len(told.items))
    kept = place[items]
    if (kept < 0).any():
        return None
    pairs = told.at(lag)
    if not other:
        return pairs[np.ix_(kept, kept)]
    rest = np.setdiff1d(np.arange(len(pairs)), kept)
    ahead, behind = pairs[np.ix_(kept, rest)].sum(axis=1), pairs[np.ix_(rest, kept)].sum(axis=0)
    return np.block([[pairs[np.ix_(kept, kept)], ahead[:, None]], [behind, pairs[np.ix_(rest, rest)].sum()]])
