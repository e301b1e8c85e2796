"""Vectors and co-occurrence together: each says how far the other is to be trusted, and their product is balanced.

A product of experts (Hinton 2002). One is the softmax of CSLS between mapped vectors, the other the posterior of what
co-occurrence tells, by contexts for words or by decipherment. How sharp the first is to be, and how often the second is
simply wrong, is read off how well each expects the mutual choices of the other, so no pair is needed; that asks only
that the two err apart.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from activation_cache.errors import UserError
from sae_translate.align.alignment import Alignment, NullVerdict
from sae_translate.align.contexts import ContextsConfig, align_contexts
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.align.matching import balanced
from sae_translate.align.ranks import with_ranks
from sae_translate.align.retrieval import csls_scores, mutual_pairs
from sae_translate.align.vectors import VectorsConfig, fit_vectors, vectors_of
from sae_translate.languages.language import Language

OF_TEXT = {ContextsConfig: align_contexts, DecipherConfig: decipher}
"What reads co-occurrence, by the kind of its config."


@dataclass(frozen=True)
class TogetherConfig:
    """Knobs of `align_together`."""

    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    "How vectors are aligned."
    text: ContextsConfig | DecipherConfig = field(default_factory=ContextsConfig)
    "How co-occurrence is read: by the contexts of words, or by decipherment."
    sharpness: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, 17.0, 20.0, 24.0, 28.0, 34.0, 40.0)
    "Sharpness of the softmax of vectors' CSLS, in nats per unit, that is chosen from."
    doubt: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    "Chances that co-occurrence is wrong about an item that are chosen from."
    balancing: int = 5
    "Iterations by which the product is balanced, so that no target is everyone's."


@dataclass(frozen=True)
class Experts:
    """Both experts' say about every pair, and how far each is trusted."""

    scores: Float[Tensor, "n m"]
    "CSLS, and what ranks of frequency say."
    posterior: Float[Tensor, "n m"]
    "P(target | source) by co-occurrence; a row of zeros where it has no answer."
    sharpness: float
    doubt: float

    def product(self, balancing: int) -> Float[Tensor, "n m"]:
        """P(target | source) by both."""
        odds = self.sharpness * self.scores + mixed(self.posterior, self.doubt).log()
        return balanced(odds, balancing)


def mixed(posterior: Float[Tensor, "n m"], doubt: float) -> Float[Tensor, "n m"]:
    """The posterior with a chance `doubt` of any target at all; nothing but that for rows without an answer."""
    return (1 - doubt) * posterior + (1 - (1 - doubt) * posterior.sum(1, keepdim=True)) / posterior.shape[1]


def mutual_choices(scores: Float[Tensor, "n m"]) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Pairs each of whose items is the other's best."""
    best = scores.argmax(dim=1)
    rows = mutual_pairs(best, scores.argmax(dim=0)).nonzero().flatten()
    return rows, best[rows]


def trusted(scores: Float[Tensor, "n m"], posterior: Float[Tensor, "n m"], config: TogetherConfig) -> Experts:
    """Each as far as it makes the mutual choices of the other likely: vectors with the sharpness at which they do so
    most, co-occurrence with the doubt. Raises `UserError` where co-occurrence answers none of what vectors pair."""
    answered = posterior.sum(1) > 0
    rows, best = mutual_choices(scores)
    rows, best = rows[answered[rows]], best[answered[rows]]
    told, partner = mutual_choices(posterior)
    told, partner = told[answered[told]], partner[answered[told]]
    if len(rows) < 2:
        raise UserError(
            f"{len(rows)} of the items that vectors pair mutually are answered by co-occurrence, and 2 are needed: use "
            "vectors or text alone"
        )

    def by_vectors(sharpness: float) -> float:
        return float((sharpness * scores[told]).log_softmax(1).gather(1, partner[:, None]).mean())

    def by_text(doubt: float) -> float:
        return float(mixed(posterior[rows], doubt).gather(1, best[:, None]).log().mean())

    return Experts(scores, posterior, max(config.sharpness, key=by_vectors), max(config.doubt, key=by_text))


def align_together(
    source: Language,
    target: Language,
    config: TogetherConfig = TogetherConfig(),
    progress: Callable[[str, int, int], None] | None = None,
) -> Alignment:
    """Translate every item of `source` into `target` by the shape of their vectors and by what occurs near what.

    Believed where both are, each by its own null; where one alone is, it answers alone. The coupling is dense, source
    x target. Bit-reproducible by the seeds of the two configs. Raises `UserError` for vectors that are missing or
    undefined and for too little text.
    """
    began = perf_counter()
    (x, rows), (y, columns) = vectors_of(source), vectors_of(target)
    fit = fit_vectors(x, y, config.vectors, progress)
    of_text = OF_TEXT[type(config.text)](source, target, config.text, progress)
    scores = torch.zeros(len(rows), len(columns))
    nearness = csls_scores(fit.source(x), fit.target(y))
    scores[np.ix_(rows, columns)] = with_ranks(nearness) if config.vectors.ranks else nearness
    posterior = torch.from_numpy(of_text.posterior()).to(scores)
    experts = trusted(scores, posterior, config)
    verdict = joined(fit.verdict, of_text.verdict)
    plan = believed_plan(experts, fit.verdict, of_text.verdict, config)
    return Alignment(
        source_items=source.items,
        target_items=target.items,
        coupling=(plan / len(plan)).numpy(),
        objective=fit.objective,
        confidence=(plan.max(dim=1).values * float(verdict is None or verdict.believed)).numpy(),
        verdict=verdict,
        record={
            "method": "together",
            "config": asdict(config),
            "source": {"name": source.name, "positions": source.corpus.n_positions, "items": len(rows)},
            "target": {"name": target.name, "positions": target.corpus.n_positions, "items": len(columns)},
            "sharpness": experts.sharpness,
            "doubt": experts.doubt,
            "of_text": of_text.record["method"],
            "objective_of_text": of_text.objective,
            "seconds": perf_counter() - began,
        },
    )


def believed_plan(
    experts: Experts, vectors: NullVerdict | None, of_text: NullVerdict | None, config: TogetherConfig
) -> Float[Tensor, "n m"]:
    """P(target | source) by the experts that are believed; by both where neither is, or where none was judged."""
    told = [verdict is None or verdict.believed for verdict in (vectors, of_text)]
    if told == [True, False]:
        return balanced(config.vectors.last_sharpness * experts.scores, config.balancing)
    if told == [False, True]:
        return balanced(mixed(experts.posterior, experts.doubt).log(), config.balancing)
    return experts.product(config.balancing)


def joined(vectors: NullVerdict | None, of_text: NullVerdict | None) -> NullVerdict | None:
    """One verdict of two: believed where either is. None where neither was judged."""
    judged = [verdict for verdict in (vectors, of_text) if verdict is not None]
    if not judged:
        return None
    first = max(judged, key=lambda verdict: verdict.objective - verdict.threshold)
    reason = "; ".join(
        f"{name}: {verdict.reason}"
        for name, verdict in (("vectors", vectors), ("co-occurrence", of_text))
        if verdict is not None
    )
    evidence = {"believed": float(sum(verdict.believed for verdict in judged)), "of": float(len(judged))}
    believed = any(verdict.believed for verdict in judged)
    return NullVerdict(first.objective, first.null, first.threshold, believed, reason, evidence)
