"""Evidence: how often each latent fires at each feature of a text, and the set of features that explains it best."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sae_translate.label.predicates import KINDS


@dataclass(frozen=True)
class Passage:
    """Documents of a cache: what was read, and which latents fired there."""

    tokens: Int[np.ndarray, "n"]
    segments: Int[np.ndarray, "bounds"]
    documents: Int[np.ndarray, "segments"]
    latents: sparse.csr_array
    "Activations, positions x live latents."
    vocabulary: int

    @property
    def n_active(self) -> Int[np.ndarray, "live"]:
        """Positions at which each latent fires."""
        return np.bincount(self.latents.indices, minlength=self.latents.shape[1])


@dataclass(frozen=True)
class FeatureCounts:
    """Counts of one kind of feature in a passage, and of latents firing there."""

    kind: str
    keys: Int[np.ndarray, "features"]
    "Feature keys that occur, ascending."
    occurrences: Int[np.ndarray, "features"]
    active: sparse.csc_array
    "Positions with the feature at which the latent fires, features x latents."
    mass: sparse.csc_array
    "Sum of the latent's activation there, features x latents."
    n_positions: int
    n_active: Int[np.ndarray, "live"]
    vocabulary: int

    def index(self, keys: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m"]:
        """Where each key stands in `keys`, -1 where it does not occur."""
        if len(self.keys) == 0:
            return np.full(len(keys), -1)
        where = np.clip(np.searchsorted(self.keys, keys), 0, len(self.keys) - 1)
        return np.where(self.keys[where] == keys, where, -1)

    def mass_share(self, latent: int, key: int) -> float:
        """Share of the latent's activation that falls on this feature; 0 for a latent that never fires here."""
        rows, values = column(self.mass, latent)
        total = values.sum()
        where = self.index(np.array([key]))[0]
        return float(values[rows == where].sum() / total) if total > 0 and where >= 0 else 0.0


def column(matrix: sparse.csc_array, j: int) -> tuple[np.ndarray, np.ndarray]:
    """Row indices and values of one column, without copying the matrix."""
    part = slice(matrix.indptr[j], matrix.indptr[j + 1])
    return matrix.indices[part], matrix.data[part]


def count_features(passage: Passage, kind: str) -> FeatureCounts:
    """Count every feature of this kind in the passage against every latent."""
    features = KINDS[kind](passage.tokens, passage.segments, passage.vocabulary)
    there = np.flatnonzero(features >= 0)
    keys, inverse, occurrences = np.unique(features[there], return_inverse=True, return_counts=True)
    where = sparse.csr_array((np.ones(len(there), np.float32), (inverse, there)), shape=(len(keys), len(features)))
    firing = passage.latents.copy()
    firing.data = np.ones_like(firing.data)
    return FeatureCounts(
        kind,
        keys,
        occurrences,
        sparse.csc_array(where @ firing),
        sparse.csc_array(where @ passage.latents),
        passage.latents.shape[0],
        passage.n_active,
        passage.vocabulary,
    )


def best_prefix(
    hits: Float[np.ndarray, "m"], occurrences: Float[np.ndarray, "m"], n_active: float
) -> tuple[int, float]:
    """How many of the features, given best first, make the set of highest F1, and that F1.

    hits: positions of each feature at which the latent fires (or their expectation).
    """
    if len(hits) == 0 or n_active <= 0:
        return 0, 0.0
    f1 = 2 * np.cumsum(hits) / (np.cumsum(occurrences) + n_active)
    best = int(np.argmax(f1))
    return best + 1, float(f1[best])


def best_feature_set(
    counts: FeatureCounts, latent: int, least: int = 2, most: int = 64
) -> tuple[Int[np.ndarray, "chosen"], float]:
    """The features whose union predicts the latent with the highest F1, and that F1 on these counts.

    For a fixed size the best set takes the features of highest precision first, so only prefixes are tried. Features
    at which the latent fires fewer than `least` times are left out; at most `most` are taken.
    """
    rows, hits = column(counts.active, latent)
    kept = hits >= least
    rows, hits = rows[kept], hits[kept]
    n = counts.occurrences[rows]
    order = np.argsort(-(hits - 0.5) / (n + 1.0), kind="stable")[:most]
    size, f1 = best_prefix(hits[order], n[order].astype(np.float64), float(counts.n_active[latent]))
    return counts.keys[rows[order[:size]]], f1


def top_features(counts: FeatureCounts, latent: int, k: int = 10) -> list[tuple[int, float]]:
    """The features that hold most of the latent's activation: key and share, greatest share first."""
    rows, mass = column(counts.mass, latent)
    total = mass.sum()
    order = np.lexsort((rows, -mass))[:k]
    return [(int(counts.keys[rows[i]]), float(mass[i] / total)) for i in order] if total > 0 else []
