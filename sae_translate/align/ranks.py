"""What ranks of frequency say of pairs: a word and its translation are about as frequent, other two words need not be.

How much that is worth is read off the mutual choices of the vectors, so nothing is assumed of the text: where the two
sides come in orders that have nothing to do with each other, these ranks lie as far apart as any, and nothing is said.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_translate.align.retrieval import Neighbours, mutual_pairs

FEW = 20
"With fewer mutual pairs than this their spread says little, and ranks are left out."
LEAST_VARIANCE = 0.01
"Of log ranks of pairs: no two texts agree on them more closely than by a tenth."


@dataclass(frozen=True)
class RankEvidence:
    """Two normal distributions of log rank of a source minus log rank of a target. Rows are the ranks."""

    of_pairs: tuple[float, float]
    "Mean and variance over pairs."
    of_any: tuple[float, float]
    "Mean and variance over all sources with all targets."

    def __call__(self, sources: Int[Tensor, "..."], targets: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log likelihood ratio of rows being pairs, in nats."""
        apart = (sources + 1).log() - (targets + 1).log()
        (mean, variance), (mean_any, variance_any) = self.of_pairs, self.of_any
        beyond = (apart - mean_any).square() / variance_any - (apart - mean).square() / variance
        return (beyond + math.log(variance_any / variance)) / 2


def rank_evidence(forward: Int[Tensor, "n"], backward: Int[Tensor, "m"]) -> RankEvidence | None:
    """From the best target of every source and the best source of every target, both most frequent first; None where
    mutual pairs are few or no nearer in rank than any other."""
    ranks = [torch.arange(1, len(side) + 1, device=side.device).double().log() for side in (forward, backward)]
    own = mutual_pairs(forward, backward)
    apart = ranks[0][own] - ranks[1][forward[own]]
    if len(apart) < FEW:
        return None
    of_pairs = float(apart.mean()), max(float(apart.var(unbiased=False)), LEAST_VARIANCE)
    of_any = float(ranks[0].mean() - ranks[1].mean()), sum(float(rank.var(unbiased=False)) for rank in ranks)
    return RankEvidence(of_pairs, of_any) if of_pairs[1] < of_any[1] else None


def reranked(near: Neighbours, evidence: Float[Tensor, "n near"], k: int) -> Neighbours:
    """The k best of every row's neighbours by their score and the evidence added to it."""
    best = (near.scores + evidence).topk(k, dim=1)
    return Neighbours(best.values, near.indices.gather(1, best.indices))


def with_ranks(scores: Float[Tensor, "n m"], weight: float) -> Float[Tensor, "n m"]:
    """Scores of all pairs, and `weight` times what ranks of frequency say of them."""
    evidence = rank_evidence(scores.argmax(dim=1), scores.argmax(dim=0))
    if evidence is None:
        return scores
    own, other = (torch.arange(size, device=scores.device) for size in scores.shape)
    return scores + weight * evidence(own[:, None], other)
