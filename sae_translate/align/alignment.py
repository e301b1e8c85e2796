"""Alignment: what a blind aligner returns."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from activation_cache.errors import UserError


def conditional(joint: Float[np.ndarray, "source target"]) -> Float[np.ndarray, "source target"]:
    """P(target | source) of joint weights; a row of zeros stays so."""
    total = joint.sum(axis=1, keepdims=True)
    return np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)


@dataclass(frozen=True)
class NullVerdict:
    """The objective against the same objective on surrogates that share the target's counts but not its structure."""

    objective: float
    null: tuple[float, ...]
    "The objective reached on each surrogate."
    threshold: float
    "What the objective must exceed for the alignment to be believed."
    believed: bool
    reason: str
    "One sentence that a user reads: what was compared, and what follows."
    evidence: dict[str, float] = field(default_factory=dict)
    "Other unlabelled figures the verdict rests on (agreement between restarts, margin in standard deviations)."


@dataclass(frozen=True)
class Alignment:
    """A dictionary between two languages found without pairs. Frozen; call it with source items to translate them."""

    source_items: tuple[str, ...]
    target_items: tuple[str, ...]
    coupling: Float[np.ndarray, "source target"]
    "Joint weight P(source, target) >= 0, summing to 1 over what was aligned; a row of zeros was not aligned."
    objective: float
    "Unsupervised objective, higher is better, at most 1: explained information for decipherment."
    confidence: Float[np.ndarray, "source"]
    "Per source item, in [0, 1]: estimated chance that its best target is right."
    verdict: NullVerdict | None = None
    record: dict[str, Any] = field(default_factory=dict)
    "How it was made: method, knobs, seeds, iterations, seconds, objective of each restart."

    def posterior(self) -> Float[np.ndarray, "source target"]:
        """P(target | source), rows summing to 1 (or to 0 where the item was not aligned)."""
        return conditional(self.coupling)

    def best(self, k: int = 1) -> Int[np.ndarray, "source k"]:
        """Indices of the k best targets of every source item, best first."""
        return np.argsort(-self.posterior(), axis=1, kind="stable")[:, :k]

    def __call__(self, source: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The best target of each given source item."""
        return self.best(1)[source, 0]


def through(first: Alignment, second: Alignment) -> Alignment:
    """The first's sources translated by the second's targets, through the language they have in common: SAE latents
    into the model's own language, and that into another. Chances multiply along the way and sum over what lies between;
    believed where both are. Raises `UserError` where the first's targets are not the second's sources.
    """
    if first.target_items != second.source_items:
        raise UserError(
            f"the first alignment ends in {len(first.target_items):,} items and the second starts from "
            f"{len(second.source_items):,} others: align both with the same language, cut to the same items"
        )
    between = first.posterior()
    coupling = first.coupling.sum(axis=1, keepdims=True) * (between @ second.posterior())
    told = [verdict for verdict in (first.verdict, second.verdict) if verdict is not None]
    weakest = min(told, key=lambda verdict: verdict.objective - verdict.threshold) if told else None
    reason = "; then: ".join(verdict.reason.rstrip(".") for verdict in told)
    return Alignment(
        source_items=first.source_items,
        target_items=second.target_items,
        coupling=coupling / max(float(coupling.sum(dtype=np.float64)), 1e-30),
        objective=min(first.objective, second.objective),
        confidence=first.confidence * second.confidence[between.argmax(axis=1)],
        verdict=weakest and replace(weakest, reason=reason, believed=all(verdict.believed for verdict in told)),
        record={
            "method": "through",
            "parts": [first.record, second.record],
            "objectives": [first.objective, second.objective],
            "seconds": sum(part.record.get("seconds", 0.0) for part in (first, second)),
        },
    )
