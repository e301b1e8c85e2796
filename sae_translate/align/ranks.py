"""What ranks of frequency say of pairs: a word and its translation are about as frequent, other two words need not be.

How much that is worth is read off the mutual choices of the vectors, so nothing is assumed of the text: where the two
sides come in orders that have nothing to do with each other, these ranks lie as far apart as any, and nothing is said.
Where they say something, they also tell how sharp scores deserve to be taken, as they err apart from them. The other
direction tells the rest: a pair is worth the chances that either side gives it (`two_way`).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_translate.align.retrieval import Neighbours, largest, mutual_pairs

FEW = 20
"With fewer mutual pairs than this their spread says little, and ranks are left out."
LEAST_VARIANCE = 0.01
"Of log ranks of pairs: no two texts agree on them more closely than by a tenth."
SURELY = 3.0
"Standard errors by which ranks of pairs must lie nearer than any."
SPREAD_OF_VARIANCE = 5.0
"Of a sample's variance, in units of its square, a point: log ranks are exponential, their difference is Laplace's."
RERANKED = 40
"Of how many of the nearest ranks of frequency, and the other direction, may change the order."
SHARPNESS = tuple(4.0 * 1.15**step for step in range(20))
"Of the softmax of scores, in nats per unit: 4 to 57."


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
    mutual pairs are few or not clearly nearer in rank than any other: by three standard errors of the variance."""
    ranks = [torch.arange(1, len(side) + 1, device=side.device).double().log() for side in (forward, backward)]
    own = mutual_pairs(forward, backward)
    apart = ranks[0][own] - ranks[1][forward[own]]
    if len(apart) < FEW:
        return None
    of_pairs = float(apart.mean()), max(float(apart.var(unbiased=False)), LEAST_VARIANCE)
    of_any = float(ranks[0].mean() - ranks[1].mean()), sum(float(rank.var(unbiased=False)) for rank in ranks)
    spread = 1 - SURELY * (SPREAD_OF_VARIANCE / len(apart)) ** 0.5
    return RankEvidence(of_pairs, of_any) if of_pairs[1] < spread * of_any[1] else None


def likeliest_sharpness(scores: Float[Tensor, "n near"], evidence: Float[Tensor, "n near"]) -> float:
    """The sharpness at which a softmax of the scores expects the ranks that there are most: `evidence` is their log
    likelihood ratio, summed out over the targets. Ranks have no part in the scores, so this knows no answer and yet
    tells a vague map from a sure one."""

    def expected(sharpness: float) -> float:
        return float(((sharpness * scores).log_softmax(1) + evidence).logsumexp(1).mean())

    return max(SHARPNESS, key=expected)


def evidence_of_all(scores: Float[Tensor, "n m"]) -> Float[Tensor, "n m"] | None:
    """What ranks of frequency say of all pairs, as the mutual choices of the scores tell; None where nothing."""
    evidence = rank_evidence(scores.argmax(dim=1), scores.argmax(dim=0))
    own, other = (torch.arange(size, device=scores.device) for size in scores.shape)
    return None if evidence is None else evidence(own[:, None], other).to(scores.dtype)


def sharpness_of_all(scores: Float[Tensor, "n m"], evidence: Float[Tensor, "n m"]) -> float:
    """`likeliest_sharpness` of the nearest of every row."""
    near, indices = largest(scores, min(RERANKED, scores.shape[1]))
    return likeliest_sharpness(near, evidence.gather(1, indices))


def two_way(nats: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """The geometric mean of the chances that either side's softmax gives a pair, in logs. What is near to many is so no
    more."""
    return (nats.log_softmax(1) + nats.log_softmax(0)) / 2


def ordered(near: Neighbours, scores: Float[Tensor, "n near"]) -> Neighbours:
    """The same neighbours with these scores, best first."""
    best = scores.sort(dim=1, descending=True, stable=True)
    return Neighbours(best.values, near.indices.gather(1, best.indices))


def both_ways(forward: Neighbours, backward: Neighbours) -> tuple[Neighbours, Neighbours]:
    """`two_way` of the nearest of either side, scored in nats, without the others; best first."""
    of_source, of_target = forward.scores.logsumexp(1), backward.scores.logsumexp(1)
    return (
        ordered(forward, forward.scores - (of_source[:, None] + of_target[forward.indices]) / 2),
        ordered(backward, backward.scores - (of_target[:, None] + of_source[backward.indices]) / 2),
    )
