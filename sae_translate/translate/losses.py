"""Losses on the latent and on translations, as plain functions; those on items are the adapters' own."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def critic_loss(logits: Float[Tensor, "n"], side: int, smoothing: float) -> Float[Tensor, ""]:
    """How badly the critic tells the language of latents that come from side 0 or 1; truth smoothed by `smoothing`."""
    truth = abs(side - smoothing)
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


def fooling_loss(logits: Float[Tensor, "n"], side: int) -> Float[Tensor, ""]:
    """The critic's loss were the latents the other side's (Lample et al. 2018, arXiv 1711.00043, equation 4)."""
    return critic_loss(logits, 1 - side, 0.0)


def divergence(mean: Float[Tensor, "n d"], log_variance: Float[Tensor, "n d"], free_bits: float) -> Float[Tensor, ""]:
    """KL(N(mean, variance) || N(0, 1)) in nats, a dimension and position; each dimension's mean over positions counts
    only beyond `free_bits` (Kingma et al. 2016, arXiv 1606.04934, section C.8)."""
    nats = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    return (nats.mean(0) - free_bits).clamp_min(0).mean()


def moment_distance(source: Float[Tensor, "n d"], target: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Squared distance of the means, and of the covariances (CORAL: Sun & Saenko 2016), each a dimension."""
    d = source.shape[1]
    means = ((source.mean(0) - target.mean(0)) ** 2).sum() / d
    return means + ((torch.cov(source.T) - torch.cov(target.T)) ** 2).sum() / d


def prior_cost(
    probabilities: Float[Tensor, "b t items"], log_bigrams: Float[Tensor, "contexts items"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, ""]:
    """Expected cross entropy (nats a position) of soft translations under a frozen bigram model.

    Neighbouring positions count as independent given the source. Row i of `log_bigrams` is log P(. | item i), its last
    row log P(. | beginning).
    """
    begin = probabilities.new_zeros(probabilities.shape[0], 1, len(log_bigrams))
    begin[..., -1] = 1
    rest = len(log_bigrams) - probabilities.shape[2]
    before = torch.cat([begin, functional.pad(probabilities[:, :-1], (0, rest))], dim=1)
    cost = -((before @ log_bigrams) * probabilities).sum(2)
    return (cost * mask).sum() / mask.sum().clamp_min(1)
