"""Self-learning: a coupling gives a rotation, the rotation a sharper coupling, until each says what the other does.

The coupling is soft, the entropic optimal transport of the mapped points, and is sharpened by and by: deterministic
annealing of the Wasserstein-Procrustes problem (Grave et al. 2018, arXiv 1805.11222). Hard dictionaries with dropout
(Artetxe et al. 2018, arXiv 1805.06297) reach the same points in some fifty times the time.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sae_translate.align.procrustes import polar

TINY = 1e-30
ITERATIONS = 3
"Of Sinkhorn; few are enough, since the next step begins anew."


def transport(scores: Float[Tensor, "n m"], sharpness: float, iterations: int = ITERATIONS) -> Float[Tensor, "n m"]:
    """The coupling exp(sharpness x score), scaled so that targets share alike and sources nearly so; sums to 1.

    Sinkhorn's iterations (Cuturi 2013, arXiv 1306.0895).
    """
    kernel, left, right = scaled(scores * sharpness, iterations)
    return kernel.mul_(left[:, None]).mul_(right)


def transported(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m e"],
    rotation: Float[Tensor, "d e"],
    sharpness: float,
    room: Float[Tensor, "n m"],
) -> Float[Tensor, "d e"]:
    """source' C target, where C transports the rotated source to the target; C is left unwritten, `room` is written."""
    scores = torch.matmul((source @ rotation).mul_(sharpness), target.T, out=room)
    kernel, left, right = scaled(scores, ITERATIONS)
    return ((left[:, None] * source).T @ kernel) @ (right[:, None] * target)


def scaled(
    scores: Float[Tensor, "n m"], iterations: int
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n"], Float[Tensor, "m"]]:
    """exp of the scores, written over them, and what its rows and columns are multiplied by. Every row is taken from
    its own greatest score, which the rows' factors make up for: however far rows lie apart, none vanishes."""
    n, m = scores.shape
    kernel = scores.sub_(scores.amax(dim=1, keepdim=True)).exp_()
    right = scores.new_ones(m)
    for _ in range(iterations):
        left = (1 / n) / (kernel @ right).clamp_min(TINY)
        right = (1 / m) / (left @ kernel).clamp_min(TINY)
    return kernel, left, right


def annealing(first: float, last: float, steps: int) -> list[float]:
    """Sharpness of every step, growing by the same factor."""
    return [first * (last / first) ** (step / max(steps - 1, 1)) for step in range(steps)]


def self_learn(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m e"],
    coupling: Float[Tensor, "n m"],
    schedule: Sequence[float],
) -> Float[Tensor, "d e"]:
    """The rotation at the end of the schedule. Unit rows; costs two products n x m x d a step."""
    rotation, room = polar(source.T @ coupling @ target), torch.empty_like(coupling)
    for sharpness in schedule:
        rotation = polar(transported(source, target, rotation, sharpness, room))
    return rotation


def transport_objective(source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], sharpness: float) -> float:
    """Mean cosine of what is coupled to what: 1 where every source lies on a target of its own."""
    scores = source @ target.T
    return float((transport(scores, sharpness, 5) * scores).sum())


def principal_axes(vectors: Float[Tensor, "n d"], n_axes: int) -> Float[Tensor, "d axes"]:
    """The axes of greatest variance about the origin, greatest first."""
    return torch.linalg.eigh(vectors.T @ vectors).eigenvectors.flip(1)[:, :n_axes]


def scrambled(vectors: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """A surrogate: the same values along every principal axis, each axis shuffled over the rows on its own.

    Keeps spectrum, mean and tails; loses which value goes with which, the one thing alignment can rest on.
    """
    axes = principal_axes(vectors, vectors.shape[1])
    along = vectors @ axes
    order = torch.stack([torch.randperm(len(vectors), generator=generator) for _ in range(along.shape[1])], dim=1)
    return along.gather(0, order.to(vectors.device)) @ axes.T
