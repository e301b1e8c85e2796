"""Language: a vocabulary and an unpaired corpus, the noun that every aligner and translator reads."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse


@dataclass(frozen=True)
class RecordedPairs:
    """Lagged co-occurrence of a whole corpus that was counted while it was recorded."""

    items: Int[np.ndarray, "n"]
    'Items told apart. What a position holds of others, and what it lacks to 1, is one "other", which stands last.'
    lags: tuple[int, ...]
    at: Callable[[int], Float[np.ndarray, "n+1 n+1"]]
    "Of one of the lags: weight of an item followed by another so many positions later in its segment."


@dataclass(frozen=True)
class Corpus:
    """Sequences of weighted item sets.

    A position may hold several items, as SAE latents do, or one, as text does. Positions of one segment follow each
    other without a gap; no statistic crosses the end of a segment. A document is one or more whole segments.
    """

    matrix: sparse.csr_array
    "Weights, positions x items, non-negative; float32."
    segments: Int[np.ndarray, "bounds"]
    "First position of every segment, and the number of positions at the end."
    documents: Int[np.ndarray, "segments"]
    "The document that each segment belongs to."
    recorded: RecordedPairs | None = None
    "Of exactly these positions and items; a corpus made of a part of them has none."

    def __post_init__(self):
        assert self.segments[0] == 0 and self.segments[-1] == self.matrix.shape[0], "segments must tile the positions"
        assert len(self.documents) == len(self.segments) - 1, "one document per segment"

    @property
    def n_positions(self) -> int:
        return self.matrix.shape[0]

    @property
    def segment_of_position(self) -> Int[np.ndarray, "positions"]:
        return np.repeat(np.arange(len(self.documents)), np.diff(self.segments))

    def select_documents(self, documents: Int[np.ndarray, "m"]) -> "Corpus":
        """The corpus of these documents alone, in their old order."""
        keep = np.isin(self.documents, documents)
        rows = np.repeat(keep, np.diff(self.segments))
        lengths = np.diff(self.segments)[keep]
        return Corpus(self.matrix[rows], np.concatenate([[0], np.cumsum(lengths)]), self.documents[keep])

    def shuffled(self, within: Int[np.ndarray, "positions"], rng: np.random.Generator) -> "Corpus":
        """Positions of one number in random order among themselves; `within` numbers the positions and never falls."""
        order = np.lexsort((rng.random(self.n_positions), within))
        return Corpus(sparse.csr_array(self.matrix[order]), self.segments, self.documents)


@dataclass(frozen=True)
class Language:
    """A vocabulary of named items with an unpaired corpus over it, and vectors where the items have some."""

    name: str
    items: tuple[str, ...]
    "What each item is called; column i of the corpus matrix."
    corpus: Corpus
    vectors: Float[np.ndarray, "items d"] | None = None

    def __post_init__(self):
        assert len(self.items) == self.corpus.matrix.shape[1], "one name per column of the corpus"

    @property
    def counts(self) -> Float[np.ndarray, "items"]:
        """Total weight of every item."""
        return np.asarray(self.corpus.matrix.sum(axis=0)).ravel()
