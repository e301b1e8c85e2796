"""SAE latents as a Language: at every position a weighted set of them."""

import numpy as np
from jaxtyping import Bool, Int
from scipy import sparse

from sae_translate.languages.language import Corpus, Language


def latent_language(
    latents: sparse.csr_array,
    segments: Int[np.ndarray, "bounds"],
    documents: Int[np.ndarray, "segments"],
    live: Int[np.ndarray, "live"],
    name: str = "latents",
) -> Language:
    """The language of the live latents: item i is latent `live[i]`."""
    matrix = sparse.csr_array(latents[:, live])
    return Language(name, tuple(str(latent) for latent in live.tolist()), Corpus(matrix, segments, documents))


def merge_positions(corpus: Corpus, starts: Bool[np.ndarray, "n"]) -> Corpus:
    """The corpus with each run of positions that begins at a True made into one, weights summed (pieces to words).

    The first position of every segment must be a start.
    """
    assert starts[corpus.segments[:-1][np.diff(corpus.segments) > 0]].all(), "a segment must begin with a start"
    group = np.cumsum(starts) - 1
    rows = int(starts.sum())
    merge = sparse.csr_array(
        (np.ones(len(starts), np.float32), (group, np.arange(len(starts)))), shape=(rows, len(starts))
    )
    before = np.concatenate([[0], np.cumsum(starts)])
    return Corpus(sparse.csr_array(merge @ corpus.matrix), before[corpus.segments], corpus.documents)
