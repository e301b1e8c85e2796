"""Alignment under heavy noise: the posterior mean of a rotation and of who is whose, found together by annealing.

Points are `y = c x Q + noise` for an unknown rotation Q and in an unknown order, and the noise may be several times
the signal. A rotation fitted to a soft coupling then fits noise in every axis that is not yet known. So the rotation
is not the nearest one but the posterior's mean: an axis counts by what the coupling tells of it, and those of which it
tells nothing stay out. What starts it are features that no rotation changes, each counted by how well it would survive
the noise, which is measured by adding such noise to the source itself.

Mean field, with the likelihood brought in by degrees (deterministic annealing, Rose 1998). The mean of a rotation under
a matrix Langevin density is approximated singular value by singular value with the mean length of a von Mises-Fisher
density in as many dimensions, a ratio of Bessel functions, and that by the lower bound of Amos 1974 (Math. Comp. 28).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_translate.align.invariants import ranked_normal
from sae_translate.align.retrieval import mutual_pairs, unit
from sae_translate.align.selflearning import ITERATIONS, TINY, annealing, principal_axes, scaled

AXES = 24
"Leading principal axes along which squared places are features."
SIMULATIONS = 2
"Noisy copies of the source in which the features' reliability is measured."
LAST_STEPS = 7
"Steps at the end in which the noise is read off the fit."
LEAST_NOISE = 0.05
"Standard deviations: below it nothing changes any more, and couplings would only overflow."
MOST_RELIABLE = 0.95


@dataclass(frozen=True)
class PosteriorFit:
    """A rotation that is no longer than what is known of it, and how far points it never saw bear it out."""

    rotation: Float[Tensor, "d e"]
    "The posterior's mean: singular values in [0, 1]."
    noise: float
    "Standard deviations of the noise, of the target's points about their sources, in those of the source's points."
    held_out: float
    "Share of the points left out of the fit whose best target has them for its best source."


def features(vectors: Float[Tensor, "n d"], axes: int) -> Float[Tensor, "n features"]:
    """What a rotation leaves as it is, of every point: its place along the mean, its length, and the squares of its
    places along the leading principal axes, whose signs are not known; each as normal scores."""
    mean = vectors.mean(dim=0)
    centred = vectors - mean
    squares = (centred @ principal_axes(centred, axes)).square()
    found = [centred @ mean, centred.square().sum(dim=1), *squares.unbind(dim=1)]
    return torch.stack([ranked_normal(values) for values in found], dim=1)


def reliability(
    vectors: Float[Tensor, "n d"], noise: float, axes: int, generator: torch.Generator
) -> Float[Tensor, "features"]:
    """Correlation of each feature with itself after noise of so many standard deviations a coordinate; 0 at least."""
    clean, spread = features(vectors, axes), noise * vectors.std(dim=0).square().mean().sqrt()
    correlations = torch.zeros(clean.shape[1], dtype=vectors.dtype, device=vectors.device)
    for _ in range(SIMULATIONS):
        drawn = torch.randn(vectors.shape, generator=generator).to(vectors)
        correlations += (clean * features(vectors + spread * drawn, axes)).mean(dim=0) / SIMULATIONS
    return correlations.clamp(0, MOST_RELIABLE)


def rotation_mean(natural: Float[Tensor, "d e"]) -> Float[Tensor, "d e"]:
    """The mean of a rotation whose log density is the trace of natural' times it, approximately."""
    left, values, right = torch.linalg.svd(natural, full_matrices=False)
    half = max(natural.shape) / 2
    return (left * (values / (half + (values.square() + half * half).sqrt()))) @ right


def fit_posterior(
    source: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]],
    target: tuple[Float[Tensor, "m e"], Float[Tensor, "m e"]],
    held_out: Bool[Tensor, "n"],
    noise: float,
    steps: int,
    first: float,
    generator: torch.Generator,
    known: tuple[Float[Tensor, "pairs d"], Float[Tensor, "pairs e"]] | None = None,
) -> PosteriorFit:
    """Anneal from features alone to the whole likelihood.

    Either side is given as it came, for its features, and centred, for the rotation. `noise`, in standard deviations a
    coordinate, is better assumed too great than too small: it is read off the fit in the end. `first` is the share of
    the likelihood in the first step. `known` are pairs, centred, that are sure. Two products n x m x d a step.
    """
    (raw_x, x), (raw_y, y) = source, target
    dimensions = max(x.shape[1], y.shape[1])
    scale_x, scale_y = ((dimensions * len(side)) ** 0.5 / side.norm().clamp_min(TINY) for side in (x, y))
    x, y = scale_x * x, scale_y * y
    given = x.new_zeros(x.shape[1], y.shape[1])
    if known is not None:
        given = (scale_x * known[0]).T @ (scale_y * known[1])
    axes = min(AXES, x.shape[1], y.shape[1])
    reliable = reliability(raw_x, noise, axes, generator)
    weighed = features(raw_x, axes) * (reliable / (1 - reliable.square()))
    right_side = torch.cat([y, features(raw_y, axes)], dim=1)
    used = (~held_out).to(x.dtype)[:, None]
    rotation, room = torch.zeros_like(given), x.new_empty(len(x), len(y))
    for step, share in enumerate([0.0, *annealing(first, 1.0, steps), *[1.0] * LAST_STEPS]):
        precision = (1 + noise**2) ** 0.5 / noise**2
        left_side = torch.cat([share * precision * (x @ rotation), (1 - share) * weighed], dim=1)
        kernel, _, right = scaled(torch.matmul(left_side, right_side.T, out=room), ITERATIONS)
        rows = 1 / (kernel @ right).clamp_min(TINY)
        cross = (used * rows[:, None] * x).T @ kernel @ (right[:, None] * y)
        rotation = rotation_mean(precision * (cross + given))
        if step > steps:
            noise = _noise_of(used * x @ rotation, float((cross * rotation).sum()), float(used.sum()) * dimensions)
    scores = torch.matmul(unit(x @ rotation), unit(y).T, out=room)
    mutual = mutual_pairs(scores.argmax(dim=1), scores.argmax(dim=0))
    return PosteriorFit(rotation, noise, float(mutual[held_out].double().mean()))


def _noise_of(mapped: Float[Tensor, "n e"], product: float, energy: float) -> float:
    """Noise of the targets, which have so much energy, about the mapped sources, whose product with them is given: by
    the share of that energy that the regression of one on the other leaves over."""
    explained = min(product**2 / max(float(mapped.square().sum()), TINY) / energy, 0.999)
    return max(((1 - explained) / max(explained, 1e-3)) ** 0.5, LEAST_NOISE)
