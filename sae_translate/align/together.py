"""Vectors and co-occurrence together: each says how far the other is to be trusted, and ranks of frequency say of both.

A product of experts (Hinton 2002). One is the softmax of CSLS between mapped vectors, the other the posterior of what
co-occurrence tells, by contexts for words or by decipherment. How often the second is simply wrong is read off how well
it expects the mutual choices of the first, and how sharp the first is to be off how well the product expects the ranks
that items have, or, where ranks say nothing, off how well it expects the mutual choices of the second. So no pair is
needed; that asks only that they err apart.
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
from sae_translate.align.ranks import evidence_of_all, sharpness_of_all, two_way
from sae_translate.align.retrieval import csls_scores, mutual_pairs
from sae_translate.align.vectors import VectorFit, VectorsConfig, fit_vectors, vectors_of
from sae_translate.languages.language import Language

OF_TEXT = {ContextsConfig: align_contexts, DecipherConfig: decipher}
"What reads co-occurrence, by the kind of its config."
Sorted = tuple[Float[Tensor, "n d"], Int[np.ndarray, "n"]]
"A side as `vectors_of` gives it: vectors, most frequent first, and which items they are of."


@dataclass(frozen=True)
class TogetherConfig:
    """Knobs of `align_together`."""

    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    "How vectors are aligned."
    text: ContextsConfig | DecipherConfig = field(default_factory=ContextsConfig)
    "How co-occurrence is read: by the contexts of words, or by decipherment."
    sharpness: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, 17.0, 20.0, 28.0, 40.0)
    "Sharpness of the softmax of vectors' CSLS, in nats per unit, that is chosen from."
    doubt: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    "Chances that co-occurrence is wrong about an item that are chosen from."


@dataclass(frozen=True)
class Experts:
    """Both experts' say about every pair, and how far each is trusted."""

    scores: Float[Tensor, "n m"]
    "CSLS."
    posterior: Float[Tensor, "n m"]
    "P(target | source) by co-occurrence; a row of zeros where it has no answer."
    ranks: Float[Tensor, "n m"] | None
    "What ranks of frequency say, in nats; None: nothing."
    alone: float
    "Sharpness of vectors where they answer alone."
    sharpness: float
    "And where both answer."
    doubt: float

    def of_vectors(self) -> Float[Tensor, "n m"]:
        """P(target | source) by vectors alone."""
        return self._plan(self.alone * self.scores)

    def of_text(self) -> Float[Tensor, "n m"]:
        """P(target | source) by co-occurrence alone."""
        return mixed(self.posterior, self.doubt)

    def product(self) -> Float[Tensor, "n m"]:
        """P(target | source) by both."""
        return self._plan(self.sharpness * self.scores + self.of_text().log())

    def _plan(self, nats: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        return two_way(nats if self.ranks is None else nats + self.ranks).softmax(1)


def mixed(posterior: Float[Tensor, "n m"], doubt: float) -> Float[Tensor, "n m"]:
    """The posterior with a chance `doubt` of any target at all; nothing but that for rows without an answer."""
    return (1 - doubt) * posterior + (1 - (1 - doubt) * posterior.sum(1, keepdim=True)) / posterior.shape[1]


def mutual_choices(scores: Float[Tensor, "n m"]) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Pairs each of whose items is the other's best."""
    best = scores.argmax(dim=1)
    rows = mutual_pairs(best, scores.argmax(dim=0)).nonzero().flatten()
    return rows, best[rows]


def trusted(
    scores: Float[Tensor, "n m"],
    posterior: Float[Tensor, "n m"],
    ranks: Float[Tensor, "n m"] | None,
    config: TogetherConfig,
) -> Experts:
    """Each as far as it deserves: co-occurrence with the doubt at which it makes the mutual choices of vectors
    likeliest, vectors with the sharpness at which the product makes ranks likeliest, or, without ranks, they the mutual
    choices of co-occurrence. Raises `UserError` where co-occurrence answers none of what vectors pair."""
    answered = posterior.sum(1) > 0
    rows, best = mutual_choices(scores)
    rows, best = rows[answered[rows]], best[answered[rows]]
    if len(rows) < 2:
        raise UserError(
            f"{len(rows)} of the items that vectors pair mutually are answered by co-occurrence, and 2 are needed: use "
            "vectors or text alone"
        )

    def by_text(doubt: float) -> float:
        return float(mixed(posterior[rows], doubt).gather(1, best[:, None]).log().mean())

    doubt = max(config.doubt, key=by_text)
    if ranks is None:
        told, partner = mutual_choices(posterior)
        told, partner = told[answered[told]], partner[answered[told]]

        def expected(sharpness: float) -> float:
            return float((sharpness * scores[told]).log_softmax(1).gather(1, partner[:, None]).mean())

        alone = config.vectors.last_sharpness / 2
    else:
        of_text = mixed(posterior, doubt).log()

        def expected(sharpness: float) -> float:
            return float((two_way(sharpness * scores + of_text).log_softmax(1) + ranks).logsumexp(1).mean())

        alone = sharpness_of_all(scores, ranks)
    return Experts(scores, posterior, ranks, alone, max(config.sharpness, key=expected), doubt)


def heard(fit: VectorFit, source: Sorted, target: Sorted, of_text: Alignment, config: TogetherConfig) -> Experts:
    """What a fit of sides and an alignment from co-occurrence say of all pairs, and how far each is trusted."""
    (x, rows), (y, columns) = source, target
    nearness = csls_scores(fit.source(x), fit.target(y))
    evidence = evidence_of_all(nearness) if config.vectors.ranks else None
    back = torch.from_numpy(rows.argsort())[:, None], torch.from_numpy(columns.argsort())
    posterior = torch.from_numpy(of_text.posterior()).to(nearness)
    return trusted(nearness[back], posterior, None if evidence is None else evidence[back], config)


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
    sides = vectors_of(source), vectors_of(target)
    fit = fit_vectors(sides[0][0], sides[1][0], config.vectors, progress)
    of_text = OF_TEXT[type(config.text)](source, target, config.text, progress)
    experts = heard(fit, *sides, of_text, config)
    verdict = joined(fit.verdict, of_text.verdict)
    plan = believed_plan(experts, fit.verdict, of_text.verdict)
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
            "source": {"name": source.name, "positions": source.corpus.n_positions, "items": len(source.items)},
            "target": {"name": target.name, "positions": target.corpus.n_positions, "items": len(target.items)},
            "sharpness": experts.sharpness,
            "doubt": experts.doubt,
            "of_text": of_text.record["method"],
            "objective_of_text": of_text.objective,
            "seconds": perf_counter() - began,
        },
    )


def believed_plan(experts: Experts, vectors: NullVerdict | None, of_text: NullVerdict | None) -> Float[Tensor, "n m"]:
    """P(target | source) by the experts that are believed; by both where neither is, or where none was judged."""
    told = [verdict is None or verdict.believed for verdict in (vectors, of_text)]
    if told == [True, False]:
        return experts.of_vectors()
    if told == [False, True]:
        return experts.of_text()
    return experts.product()


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
