"""Dense activations as a Language: whitened, and each position by the nearest of a few hundred centres."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import MiniBatchKMeans

from activation_cache.errors import UserError
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.text import one_item_per_position


@dataclass(frozen=True)
class Whitening:
    """A linear map after which the activations it was fitted on have mean 0 and covariance 1."""

    mean: Float[np.ndarray, "d"]
    matrix: Float[np.ndarray, "d e"]

    def __call__(self, activations: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
        return ((activations - self.mean) @ self.matrix).astype(np.float32)


def fit_whitening(activations: Float[np.ndarray, "n d"], least: float = 1e-9) -> Whitening:
    """By principal components; those with less than `least` of the greatest variance are left out."""
    mean = activations.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(activations.T, dtype=np.float64))
    kept = values > least * values.max()
    return Whitening(mean.astype(np.float32), (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32))


def codebook_language(
    activations: Float[np.ndarray, "n d"],
    segments: Int[np.ndarray, "bounds"],
    documents: Int[np.ndarray, "segments"],
    size: int,
    seed: int = 0,
    name: str = "activations",
) -> Language:
    """The language whose items are the centres of k-means in the whitened activations, with the centres as vectors.

    Raises UserError where there are fewer positions than centres.
    """
    if len(activations) < size:
        raise UserError(f"{name} has {len(activations):,} positions for {size:,} codes: give more text or fewer codes")
    white = fit_whitening(activations)(activations)
    means = MiniBatchKMeans(size, batch_size=4096, n_init=1, random_state=seed).fit(white)
    matrix = one_item_per_position(means.labels_.astype(np.int64), size)
    items = tuple(f"code {i}" for i in range(size))
    return Language(name, items, Corpus(matrix, segments, documents), means.cluster_centers_.astype(np.float32))
