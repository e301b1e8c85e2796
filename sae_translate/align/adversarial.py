"""MUSE's adversarial start: a map trained so that a critic cannot tell mapped sources from targets.

Conneau et al. 2018, "Word translation without parallel data" (arXiv 1710.04087, section 2.1): a critic of two hidden
layers with input dropout and smoothed labels, SGD, the map pulled towards orthogonality after every step. Offered for
comparison and never the default: its training is unstable (Artetxe et al. 2018, arXiv 1805.06297, section 5).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from activation_cache.errors import UserError
from sae_translate.align.procrustes import normalised, normalising_means, polar


@dataclass(frozen=True)
class AdversarialConfig:
    """Knobs of `adversarial_map`; the paper's, but for size and length."""

    steps: int = 4000
    "Steps of the map, each after `critic_steps` of the critic."
    critic_steps: int = 3
    "Steps of the critic for one of the map."
    hidden: int = 256
    "Width of the critic's two hidden layers."
    batch: int = 32
    "Vectors of each side a step."
    learning_rate: float = 0.1
    "SGD's, of both; falls to a tenth over the run."
    dropout: float = 0.1
    "Share of the critic's inputs left out."
    smoothing: float = 0.1
    "How far the critic's labels are from 0 and 1."
    beta: float = 0.01
    "How strongly every step pulls the map towards an orthogonal one."


def critic_of(d: int, config: AdversarialConfig, generator: torch.Generator) -> list[Float[Tensor, "..."]]:
    """Weights and biases of three layers."""
    sizes = (d, config.hidden, config.hidden, 1)
    layers: list[Tensor] = []
    for inputs, outputs in pairwise(sizes):
        weight = torch.randn(inputs, outputs, generator=generator) * (2 / inputs) ** 0.5
        layers += [weight.requires_grad_(), torch.zeros(outputs, requires_grad=True)]
    return layers


def judged(layers: list[Float[Tensor, "..."]], vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
    """The critic's log odds that a vector is a mapped source."""
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        vectors = torch.nn.functional.leaky_relu(vectors @ weight + bias, 0.2)
    return (vectors @ layers[-2] + layers[-1])[:, 0]


def adversarial_map(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m e"],
    generator: torch.Generator,
    config: AdversarialConfig = AdversarialConfig(),
) -> Float[Tensor, "d d"]:
    """An orthogonal map of unit rows under which the critic takes sources for targets.

    Raises `UserError` for spaces of different dimensions: this start needs a square map.
    """
    d = source.shape[1]
    if d != target.shape[1]:
        raise UserError(f"the adversarial start needs equal dimensions, and these are {d} and {target.shape[1]}: use "
                        "the signature start")  # fmt: skip
    turn = torch.eye(d, requires_grad=True)
    layers = critic_of(d, config, generator)
    truth = torch.cat(
        [torch.full((config.batch,), 1 - config.smoothing), torch.full((config.batch,), config.smoothing)]
    )

    def loss(labels: Tensor) -> Tensor:
        drawn = [side[torch.randint(len(side), (config.batch,), generator=generator)] for side in (source, target)]
        seen = torch.cat([d**0.5 * drawn[0] @ turn, d**0.5 * drawn[1]])
        kept = torch.rand(seen.shape, generator=generator) >= config.dropout
        return torch.nn.functional.binary_cross_entropy_with_logits(judged(layers, seen * kept), labels)

    def descend(values: list[Tensor], labels: Tensor, rate: float) -> None:
        gradients = torch.autograd.grad(loss(labels), values)
        with torch.no_grad():
            for value, gradient in zip(values, gradients, strict=True):
                value -= rate * gradient

    for step in range(config.steps):
        rate = config.learning_rate * 0.1 ** (step / config.steps)
        for _ in range(config.critic_steps):
            descend(layers, truth, rate)
        descend([turn], 1 - truth, rate)
        with torch.no_grad():
            turn.copy_((1 + config.beta) * turn - config.beta * turn @ turn.T @ turn)
    return polar(turn.detach())


def adversarial_start(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m e"], generator: torch.Generator
) -> Float[Tensor, "n m"]:
    """Cosines under the adversarial map, in standard deviations."""
    x, y = (normalised(side, normalising_means(side, 1)).cpu() for side in (source, target))
    scores = (x @ adversarial_map(x, y, generator)) @ y.T
    return (scores / scores.std().clamp_min(1e-12)).to(source)
