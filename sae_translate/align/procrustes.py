"""Linear maps between two spaces from weighted pairs: orthogonal, or whitened, rotated and reweighted.

Pairs come row beside row, or as a coupling: non-negative weights of all pairs of a source with a target.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from activation_cache.errors import UserError
from sae_translate.align.retrieval import check_vectors, unit


def normalising_means(vectors: Float[Tensor, "n d"], times: int) -> Float[Tensor, "times d"]:
    """What is subtracted each time that rows are brought to unit length and centred.

    Once is the usual preparation (Artetxe et al. 2018, arXiv 1805.06297, section 3.1); until nothing moves it is
    iterative normalisation, which lets distant languages be aligned (Zhang et al. 2019, arXiv 1906.01622).
    """
    out, means = unit(vectors), []
    for _ in range(times):
        means.append(out.mean(dim=0))
        out = unit(out - means[-1])
    return torch.stack(means) if means else vectors.new_zeros(0, vectors.shape[1])


def normalised(vectors: Float[Tensor, "n d"], means: Float[Tensor, "times d"]) -> Float[Tensor, "n d"]:
    """Rows at unit length, each of the means subtracted in turn and unit length restored."""
    out = unit(vectors)
    for mean in means:
        out = unit(out - mean)
    return out


def polar(cross: Float[Tensor, "d e"]) -> Float[Tensor, "d e"]:
    """The nearest matrix with orthonormal rows or columns."""
    left, _, right = torch.linalg.svd(cross, full_matrices=False)
    return left @ right


def procrustes(
    source: Float[Tensor, "n d"], target: Float[Tensor, "n e"], weights: Float[Tensor, "n"] | None = None
) -> Float[Tensor, "d e"]:
    """The map W with orthonormal columns or rows that brings source @ W nearest to target, row by row.

    Schoenemann 1966; with unequal dimensions the smaller space is mapped isometrically. Raises `UserError` for empty
    or undefined vectors and for weights that are negative or all zero.
    """
    check_vectors("source", source)
    check_vectors("target", target)
    if weights is not None:
        if not torch.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
            raise UserError("weights of pairs must be finite, not negative and not all zero")
        source = source * weights[:, None]
    return polar(source.T @ target)


@dataclass(frozen=True)
class LinearMap:
    """Brings both spaces into one. Frozen; `source_map` alone where the target stays as it is."""

    source_map: Float[Tensor, "d common"]
    target_map: Float[Tensor, "e common"]
    singular_values: Float[Tensor, "common"]
    "Correlation of the two spaces along every axis of the common one, in [0, 1]."

    def source(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n common"]:
        return unit(vectors @ self.source_map)

    def target(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n common"]:
        return unit(vectors @ self.target_map)


def whitening(covariance: Float[Tensor, "d d"], ridge: float) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
    """The symmetric matrix that whitens vectors of this covariance, and its inverse.

    `ridge` mean variances are added to every axis: faint axes are then raised less than full whitening would.
    """
    values, axes = torch.linalg.eigh(covariance)
    values = values.clamp_min(1e-6 * values.max()) + ridge * values.mean()
    return (axes * values.rsqrt()) @ axes.T, (axes * values.sqrt()) @ axes.T


def reweighted(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m e"],
    coupling: Float[Tensor, "n m"],
    power: float = 0.5,
    ridge: float = 0.0,
) -> LinearMap:
    """Whiten each side, rotate into the common axes, weigh both sides by s ** power, take the whitening back.

    Artetxe et al. 2018, "Generalizing and improving bilingual word embedding mappings", AAAI, in its symmetric form,
    with a coupling in the place of a dictionary and a ridge in the whitening. Power 0 rotates alone.
    """
    total = coupling.sum()
    if not total > 0:
        raise UserError("the coupling holds no weight: a map needs pairs to be fitted on")
    rows, columns = coupling.sum(dim=1) / total, coupling.sum(dim=0) / total
    white_x, colour_x = whitening(source.T @ (rows[:, None] * source), ridge)
    white_y, colour_y = whitening(target.T @ (columns[:, None] * target), ridge)
    cross = white_x @ (source.T @ (coupling / total) @ target) @ white_y
    left, values, right = torch.linalg.svd(cross, full_matrices=False)
    values = values.clamp(0, 1)
    weight = values**power
    return LinearMap(
        source_map=white_x @ (left * weight) @ (left.T @ colour_x @ left),
        target_map=white_y @ (right.T * weight) @ (right @ colour_y @ right.T),
        singular_values=values,
    )
