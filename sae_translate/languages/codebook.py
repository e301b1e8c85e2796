"""Dense activations as a Language: whitened, and each position by the nearest of a few hundred centres."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import MiniBatchKMeans

from activation_cache.errors import UserError
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.text import one_item_per_position

BLOCK = 20_000


@dataclass(frozen=True)
class Whitening:
    """A linear map after which the activations it was fitted on have mean 0 and covariance 1."""

    mean: Float[np.ndarray, "d"]
    matrix: Float[np.ndarray, "d e"]

    def __call__(self, activations: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
        return ((activations - self.mean) @ self.matrix).astype(np.float32)


@dataclass(frozen=True)
class Codebook:
    """Centres of whitened activations. Call it with activations for the code of each: the nearest centre."""

    whitening: Whitening
    centres: Float[np.ndarray, "codes e"]

    def __call__(self, activations: Float[np.ndarray, "n d"]) -> Int[np.ndarray, "n"]:
        parts = [activations[begin : begin + BLOCK] for begin in range(0, len(activations), BLOCK)]
        half = 0.5 * (self.centres**2).sum(axis=1)
        codes = [(self.whitening(part) @ self.centres.T - half).argmax(axis=1) for part in parts]
        return np.concatenate(codes) if codes else np.empty(0, np.int64)


def fit_whitening(activations: Float[np.ndarray, "n d"], least: float = 1e-9) -> Whitening:
    """By principal components; those with less than `least` of the greatest variance are left out."""
    mean = activations.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(activations.T, dtype=np.float64))
    kept = values > least * values.max()
    return Whitening(mean.astype(np.float32), (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32))


def fit_codebook(
    activations: Float[np.ndarray, "n d"], size: int, seed: int = 0, name: str = "activations"
) -> Codebook:
    """k-means of the whitened activations. Its start looks at three positions a code: more take long and gain little.

    Raises UserError where there are fewer positions than centres.
    """
    if len(activations) < size:
        raise UserError(f"{name} has {len(activations):,} positions for {size:,} codes: give more text or fewer codes")
    whitening = fit_whitening(activations)
    means = MiniBatchKMeans(size, batch_size=4096, init_size=3 * size, n_init=1, random_state=seed)
    return Codebook(whitening, means.fit(whitening(activations)).cluster_centers_.astype(np.float32))


def codebook_language(
    activations: Float[np.ndarray, "n d"],
    segments: Int[np.ndarray, "bounds"],
    documents: Int[np.ndarray, "segments"],
    size: int,
    seed: int = 0,
    name: str = "activations",
) -> Language:
    """The language whose items are the codes of a codebook fitted to these activations, with its centres as vectors.

    Raises UserError where there are fewer positions than centres.
    """
    codebook = fit_codebook(activations, size, seed, name)
    matrix = one_item_per_position(codebook(activations), size)
    items = tuple(f"code {i}" for i in range(size))
    return Language(name, items, Corpus(matrix, segments, documents), codebook.centres)
