"""How far latents of two models would correlate on common text, from what each does on text of its own.

If a source latent is a weighted sum of target latents, z = W y, then its covariances at every lag are K(l) = W C(l) W',
lag 0 among them. Lagged covariances identify a mixture (Belouchrani et al. 1997, "A blind source separation technique
using second-order statistics"); here the mixture starts from a coupling and is improved by alternating least squares.
Unlike a coupling, it knows which latents fire together with the right one, so that second choices are good ones too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from sae_translate.align.statistics import lagged_cooccurrence
from sae_translate.languages.language import Corpus

TINY = 1e-9


@dataclass(frozen=True)
class MomentsConfig:
    """Knobs of `expected_correlations`."""

    lags: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 9, 12)
    "Distances, in positions, at which covariances are compared; 0 must be among them."
    steps: int = 12
    "Steps of alternating least squares."


def in_standard_deviations(corpus: Corpus) -> tuple[sparse.csr_array, Float[np.ndarray, "items"]]:
    """Every item's weights in its own standard deviations, not centred, so that zeros stay zeros, and its mean in the
    same; 0 throughout for an item that never varies."""
    matrix = corpus.matrix.astype(np.float64)
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(np.asarray((matrix * matrix).mean(axis=0)).ravel() - mean**2, 0))
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > TINY)
    return sparse.csr_array(matrix @ sparse.diags_array(scale)), mean * scale


def lagged_correlations(corpus: Corpus, lags: Sequence[int]) -> Float[np.ndarray, "lags n n"]:
    """[l, i, j]: correlation of item i with item j so many positions later, by weight, within segments.

    Items that never vary correlate with nothing.
    """
    unit, mean = in_standard_deviations(corpus)
    lengths, centre = np.diff(corpus.segments), np.outer(mean, mean)
    products = (lagged_cooccurrence(unit, unit, corpus.segments, lag) for lag in lags)
    pairs = (max(int(np.maximum(lengths - lag, 0).sum()), 1) for lag in lags)
    found = [product.toarray() / n - centre for product, n in zip(products, pairs, strict=True)]
    return np.stack(found).astype(np.float32)


def fitted_mixture(
    source: Float[np.ndarray, "lags n n"],
    target: Float[np.ndarray, "lags m m"],
    start: Float[np.ndarray, "n m"],
    steps: int,
) -> Float[np.ndarray, "n m"]:
    """W such that `source` is near W `target` W' at every lag: each step is a ridge regression on `target` W', and goes
    half the way.

    The ridge is no knob: with noise of variance s on every correlation and a prior of variance t on every weight, the
    likeliest W solves `W (square + s/t) = product`, and both are read off the fit as it stands.
    """
    mixture = start
    for _ in range(steps):
        gram = mixture.T @ mixture
        product, square, missed = np.zeros_like(mixture), np.zeros_like(gram), 0.0
        for k, c in zip(source, target, strict=True):
            ahead = mixture @ c
            product += k @ (mixture @ c.T) + k.T @ ahead
            square += c @ (gram @ c.T) + c.T @ (gram @ c)
            missed += float(np.square(k - ahead @ mixture.T).mean()) / len(source)
        square[np.diag_indices_from(square)] += missed / max(float(np.square(mixture).mean()), TINY) + TINY
        mixture = (mixture + np.linalg.solve(square, product.T).T) / 2
    return mixture


def correlations_of(
    mixture: Float[np.ndarray, "n m"], target: Float[np.ndarray, "m m"]
) -> Float[np.ndarray, "n m"]:
    """Correlation of every mixture of target items with every target item; 0 for an empty mixture."""
    shared = mixture @ target
    variance = (shared * mixture).sum(axis=1, keepdims=True)
    return np.divide(shared, np.sqrt(np.maximum(variance, TINY)), out=np.zeros_like(shared), where=variance > TINY)


def expected_correlations(
    source: Corpus,
    target: Corpus,
    coupling: Float[np.ndarray, "source target"],
    config: MomentsConfig = MomentsConfig(),
) -> Float[np.ndarray, "source target"]:
    """Correlation that every source latent is expected to have with every target latent on text that both read.

    The mean of two estimates: source as mixtures of target, and target as mixtures of source. The corpora share no
    text; `coupling` is their alignment's. Memory: some ten arrays of lags x items x items a side.
    """
    sides = lagged_correlations(source, config.lags), lagged_correlations(target, config.lags)
    found = []
    for joint, (own, other) in ((coupling, sides), (coupling.T, sides[::-1])):
        of_other = joint.sum(axis=0)
        start = np.divide(joint, of_other, out=np.zeros_like(joint), where=of_other > 0)
        found.append(correlations_of(fitted_mixture(own, other, start, config.steps), other[config.lags.index(0)]))
    return (found[0] + found[1].T) / 2
