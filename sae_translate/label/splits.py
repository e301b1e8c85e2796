"""Documents dealt to those who may read them: latents from one set, text from another, scores on a third."""

import numpy as np
from jaxtyping import Bool, Int
from scipy import sparse

from activation_cache.errors import UserError
from sae_translate.label.evidence import Passage

SHARES = {"latents": 0.4, "text": 0.4, "score": 0.2}
"Share of the tokens that each split gets. No document is in two."

MIN_DOCUMENTS = 10


def split_documents(
    documents: Int[np.ndarray, "segments"], lengths: Int[np.ndarray, "segments"], seed: int
) -> dict[str, Int[np.ndarray, "_"]]:
    """Whole documents dealt at random to the splits until each has its share of the tokens.

    documents: the document of every segment; lengths: tokens in it. Raises UserError for fewer than ten documents.
    """
    ids, inverse = np.unique(documents, return_inverse=True)
    if len(ids) < MIN_DOCUMENTS:
        raise UserError(
            f"{len(ids)} documents were given, labelling needs at least {MIN_DOCUMENTS} (latents, text and scores come "
            "from different ones): cache more documents, or a dataset that is split into documents"
        )
    order = np.random.default_rng(seed).permutation(len(ids))
    tokens = np.bincount(inverse, weights=lengths)[order]
    bounds = np.cumsum(list(SHARES.values())) * tokens.sum()
    group = np.searchsorted(bounds[:-1], np.cumsum(tokens) - tokens / 2, side="right")
    for i in range(len(SHARES)):
        if not (group == i).any():
            group[np.linspace(0, len(ids) - 1, len(SHARES)).astype(int)[i]] = i
    return {name: np.sort(ids[order[group == i]]) for i, name in enumerate(SHARES)}


def positions_of(segments: Int[np.ndarray, "bounds"], keep: Bool[np.ndarray, "segments"]) -> Bool[np.ndarray, "n"]:
    """Which positions lie in the kept segments."""
    return np.repeat(keep, np.diff(segments))


def passage_of(
    tokens: Int[np.ndarray, "n"],
    segments: Int[np.ndarray, "bounds"],
    documents: Int[np.ndarray, "segments"],
    latents: sparse.csr_array,
    chosen: Int[np.ndarray, "m"],
    vocabulary: int,
) -> Passage:
    """The passage made of the chosen documents."""
    keep = np.isin(documents, chosen)
    rows = positions_of(segments, keep)
    lengths = np.diff(segments)[keep]
    return Passage(
        tokens[rows],
        np.concatenate([[0], np.cumsum(lengths)]),
        documents[keep],
        sparse.csr_array(latents[rows]),
        vocabulary,
    )


def dealt(passage: Passage, every: int = 4) -> tuple[Passage, Passage]:
    """The passage without every so-manieth document, and these alone."""
    _, number = np.unique(passage.documents, return_inverse=True)
    apart = number % every == every - 1
    parts = (np.unique(passage.documents[keep]) for keep in (~apart, apart))
    mine = passage.tokens, passage.segments, passage.documents, passage.latents
    first, second = (passage_of(*mine, part, passage.vocabulary) for part in parts)
    return first, second
