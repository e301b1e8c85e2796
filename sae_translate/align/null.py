"""Whether a decipherment is to be believed: does what was learnt at some distances hold at distances never seen?

Explained information alone does not tell: a free emission matrix explains a third to a half of any language by any
other. But an emission fitted at lags 1 and 2 explains lags 3 and 4 only where the two languages share their structure.
That score is set against the same score on surrogates: the target read backwards, which has the same counts, the same
mutual information at every lag and the same smoothness over lags, and is no translation of anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activation_cache.errors import UserError
from sae_translate.align.alignment import NullVerdict
from sae_translate.align.core import Core, DecipherConfig, shrink, start_emission
from sae_translate.align.emission import TINY, maximise, mutual_information

STEPS, TOLERANCE, SHARPNESS = 150, 1e-3, 3
LEAST = 0.03
"Share of the information at unseen lags below which nothing is believed, whatever the surrogates do."

LOOKS, MORE_STARTS = (192, 256), 3
"""Items that are looked at first, from one start. Where none of these looks convinces, `null_core` items are looked at
and each fit, of the surrogates too, has so many starts: one may have been bad. What falls short by itself is not set
against surrogates, in the last look against one of a single start."""


@dataclass(frozen=True)
class Trial:
    """Emissions fitted at some lags, each judged at the lags it never saw."""

    scores: tuple[float, ...]
    "Information explained at the unseen lags, one figure a fold."
    fitted: tuple[float, ...]
    "Information explained at the very lags each emission was fitted on."
    weights: tuple[float, ...]
    "What a fold counts, summing to 1: the lesser of the information at its seen and at its unseen lags."
    agreed: Float[Tensor, "n m"]
    'How firmly the folds give each pair: mean of their sharpened posteriors; an "other" stands last on either side.'
    n_source: int
    "How many source items the trial looked at."
    n_target: int

    @property
    def score(self) -> float:
        return float(np.dot(self.scores, self.weights))

    @property
    def learnt(self) -> float:
        return float(np.dot(self.fitted, self.weights))


def folds(n_lags: int) -> list[tuple[list[int], list[int]]]:
    """Which lags to fit and which to judge by: near and far, odd and even, each way round."""
    lags = list(range(n_lags))
    halves = [(lags[: n_lags // 2], lags[n_lags // 2 :]), (lags[::2], lags[1::2])]
    both_ways = [pair for near, far in halves for pair in ((near, far), (far, near))]
    return [fold for i, fold in enumerate(both_ways) if fold not in both_ways[:i]]


def information_beyond_frequency(
    cipher: Float[Tensor, "lags n n"], plain: Float[Tensor, "lags m m"], emission: Float[Tensor, "m n"]
) -> float:
    """Share of the cipher's mutual information explained by the best mixture, lag by lag, of R'TR and independence.

    Unlike `explained_information` it stays near 0 where the emission is wrong, as it is then mixed away.
    """
    model = (emission.T @ (plain @ emission)).clamp_min(TINY)
    free = (cipher.sum(2, keepdim=True) * cipher.sum(1, keepdim=True)).clamp_min(TINY)
    trust = torch.full((len(cipher), 1, 1), 0.5, dtype=cipher.dtype, device=cipher.device)
    for _ in range(30):
        own = trust * model
        trust = (cipher * own / (own + (1 - trust) * free)).sum((1, 2), keepdim=True)
    mixed = trust * model + (1 - trust) * free
    divergence = (cipher * (cipher.clamp_min(TINY) / mixed).log()).sum(dtype=torch.float64)
    information = (cipher * (cipher.clamp_min(TINY) / free).log()).sum(dtype=torch.float64)
    return 1.0 - float(divergence) / max(float(information), TINY)


def sharpen(joint: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """P(target | source) cubed and made to sum to 1: from what an item is a mixture of to which target is its first."""
    posterior = (joint / joint.sum(1, keepdim=True).clamp_min(TINY)) ** SHARPNESS
    return posterior / posterior.sum(1, keepdim=True).clamp_min(TINY)


def trial(cipher: Core, plain: Core, config: DecipherConfig, generator: torch.Generator, starts: int = 1) -> Trial:
    """Fit at each fold's first lags from so many starts, judge the one that fits them best at its second."""
    scores, fitted, weights, posteriors = [], [], [], []
    for seen, unseen in folds(len(config.lags)):
        begun = (start_emission(cipher, plain, config, generator) for _ in range(starts))
        fits = [maximise(cipher.joint[seen], plain.joint[seen], start, STEPS, TOLERANCE) for start in begun]
        fit = max(fits, key=lambda fit: fit.trace[-1])
        scores.append(information_beyond_frequency(cipher.joint[unseen], plain.joint[unseen], fit.emission))
        fitted.append(fit.trace[-1])
        weights.append(min(mutual_information(cipher.joint[seen]), mutual_information(cipher.joint[unseen])))
        posteriors.append(sharpen((plain.frequency[:, None] * fit.emission).T))
    share = np.maximum(weights, TINY) / np.maximum(weights, TINY).sum()
    agreed = sum(float(weight) * posterior for weight, posterior in zip(share, posteriors, strict=True))
    return Trial(tuple(scores), tuple(fitted), tuple(share.tolist()), agreed, len(cipher.items), len(plain.items))


def carried_over(cipher: Core, plain: Core, config: DecipherConfig) -> float:
    """Share of the cipher's information at unseen lags that emissions fitted at other lags explain: how well the plain
    text serves, on the scale of a verdict's `objective`."""
    generator = torch.Generator().manual_seed(config.seed)
    return trial(shrink(cipher, config.null_core), shrink(plain, config.null_core), config, generator).score


def backwards(core: Core) -> Core:
    """The same text read from its end."""
    return replace(core, joint=core.joint.transpose(1, 2).contiguous())


def judge(
    cipher: Core,
    plain: Core,
    config: DecipherConfig,
    generator: torch.Generator,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[NullVerdict, Trial]:
    """The verdict on deciphering these two cores, and the trial it rests on."""
    if len(config.lags) < 2:
        raise UserError(
            f"a verdict needs two lags or more, and lags is {config.lags}: add one, or set null_surrogates 0"
        )
    widest = min(config.null_core, max(len(cipher.items), len(plain.items)))
    looks = dict.fromkeys(min(look, widest) for look in LOOKS)
    for size, starts in (*((look, 1) for look in looks), (config.null_core, MORE_STARTS)):
        sides = shrink(cipher, size), shrink(plain, size)
        found = trial(*sides, config, generator, starts)
        asked = max(config.margin * found.learnt, LEAST)
        may_convince = found.score > asked  # if not, whatever the surrogates do
        if starts == 1 and not may_convince:
            continue
        null = []
        for number in range(config.null_surrogates):
            if progress is not None:
                progress("null", number + 1, config.null_surrogates)
            own = starts if may_convince else 1
            null.append(trial(sides[0], backwards(sides[1]), config, generator, own))
        floor = max(0.0, *(surrogate.score for surrogate in null))
        threshold = floor + asked
        if believed := found.score > threshold:
            break
    reason = (
        f"What was learnt at some distances explains {found.score:.1%} of the source's information at distances never "
        f"seen; the target read backwards explains {floor:.1%}, and more than {threshold:.1%} was asked for: "
    ) + (
        "the two languages share their structure." if believed else "no shared structure found, so no answer is given."
    )
    verdict = NullVerdict(
        objective=found.score,
        null=tuple(surrogate.score for surrogate in null),
        threshold=threshold,
        believed=believed,
        reason=reason,
        evidence={
            "learnt": found.learnt,
            "margin": found.score - floor,
            "margin_asked": asked,
            "worst_fold": min(found.scores),
            "best_fold": max(found.scores),
        },
    )
    return verdict, found
