"""Functional alignment: the states of two systems matched by what each state leads to, and which states follow the
same principles in both."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from activation_cache.errors import UserError
from sae_translate.align.alignment import NullVerdict
from sae_translate.align.invariants import log_odds, thinned
from sae_translate.align.matching import (
    TINY,
    MatchConfig,
    climbed,
    confidence_of,
    departures,
    factored,
    match_counts,
    reliability,
    renamed_columns,
)


@dataclass(frozen=True)
class FunctionalConfig:
    """Knobs of `functional_align`."""

    observations: float | None = None
    "How many transitions a row of probabilities rests on; None where the functions are given as counts."
    match: MatchConfig = field(default_factory=MatchConfig)
    "How the counts are matched and judged."


@dataclass(frozen=True)
class FunctionalAlignment:
    """Which state of one system is which of the other. Frozen."""

    plan: Float[Tensor, "n m"]
    "P(target state | source state): rows sum to 1."
    partner: Int[Tensor, "n"]
    "One-to-one; -1 for source states left over."
    confidence: Float[Tensor, "n"]
    "Per source state, in [0, 1]; all 0 where the verdict is no."
    objective: float
    "Correlation of the two systems' departures from independence, state for partner; at most 1."
    verdict: NullVerdict | None
    objectives: tuple[float, ...]
    "Of every run."


@dataclass(frozen=True)
class Parts:
    """How far every source state does what its partner does."""

    score: Float[Tensor, "n"]
    "Correlation of where the two lead, over what their counts allow: 1 the same principle, 0 none. In [-1, 1]."
    p_value: Float[Tensor, "n"]
    "How often a state matched to a target with renamed columns scores as high."


def counts_of(
    name: str, function: Float[Tensor, "n n"] | Float[Tensor, "relations n n"], observations: float | None
) -> Float[Tensor, "relations n n"]:
    """A transition function as counts, one relation or several. Raises `UserError` for what is no such function."""
    counts = function if function.dim() == 3 else function[None]
    if counts.shape[1] < 3:
        raise UserError(f"{name} has {counts.shape[1]} states: matching needs 3 or more")
    if not torch.isfinite(counts).all() or (counts < 0).any():
        raise UserError(f"{name} holds transitions that are negative, NaN or infinite: give counts or probabilities")
    if observations is not None:
        return counts / counts.sum(2, keepdim=True).clamp_min(TINY) * observations
    if counts.sum() < 2 * counts.shape[1]:
        raise UserError(
            f"{name} holds {float(counts.sum()):.0f} transitions of {counts.shape[1]} states: for probabilities set "
            "observations to how many transitions a state's row rests on, or give more"
        )
    return counts


def functional_align(
    source: Float[Tensor, "n n"] | Float[Tensor, "relations n n"],
    target: Float[Tensor, "m m"] | Float[Tensor, "relations m m"],
    anchors: Int[Tensor, "anchors pair"] | None = None,
    config: FunctionalConfig = FunctionalConfig(),
) -> FunctionalAlignment:
    """Match the states of two transition functions, [relation, state, next state], with few known pairs or none.

    A relation is a lag, an action, or anything else by which one state leads to another; both sides have the same
    relations in the same order. Bit-reproducible by the seed. Raises `UserError` for functions that cannot be
    compared, and for anchors that name no state or name one twice.
    """
    first, second = (counts_of(*side, config.observations) for side in (("source", source), ("target", target)))
    if len(first) != len(second):
        raise UserError(f"source has {len(first)} relations and target {len(second)}: give the same ones on both sides")
    known = torch.zeros(0, 2, dtype=torch.int64) if anchors is None else anchors
    check_anchors(known, first.shape[1], second.shape[1])
    found, verdict, objectives = match_counts(first, second, known.to(first.device), config.match)
    confidence = confidence_of(found, verdict)
    return FunctionalAlignment(found.plan, found.partner, confidence, found.objective, verdict, objectives)


def check_anchors(anchors: Int[Tensor, "anchors pair"], n_source: int, n_target: int) -> None:
    """Raises `UserError` where a pair names what is not there, or an item is in two pairs."""
    for name, column, n in zip(("source", "target"), anchors.T, (n_source, n_target), strict=True):
        outside = ((column < 0) | (column >= n)).nonzero().flatten()
        if len(outside):
            raise UserError(f"an anchor names {name} state {int(column[outside[0]])}, and there are 0 to {n - 1}")
        if len(column.unique()) < len(column):
            raise UserError(f"two anchors name the same {name} state: give every state one partner")


def alignable_parts(
    source: Float[Tensor, "n n"] | Float[Tensor, "relations n n"],
    target: Float[Tensor, "m m"] | Float[Tensor, "relations m m"],
    alignment: FunctionalAlignment,
    config: FunctionalConfig = FunctionalConfig(),
) -> Parts:
    """Which parts of the source follow the principles of the target.

    Where a state leads is compared with where its partner leads, the next states renamed; the null is the same after
    matching against targets whose columns were renamed, so that having searched counts for nothing.
    """
    first, second = (counts_of(*side, config.observations) for side in (("source", source), ("target", target)))
    generator = torch.Generator().manual_seed(config.match.seed)
    score = row_scores(first, second, alignment.partner, generator)
    trust = reliability(first, generator)[0]
    nothing = torch.zeros(0, 2, dtype=torch.int64, device=first.device)
    null, own = [], factored(first)
    for _ in range(max(config.match.null_surrogates, 1)):
        surrogate = renamed_columns(second, generator)
        prior = log_odds(first, surrogate, nothing, config.match.degree, generator)
        partner = climbed(own, factored(surrogate), prior, nothing, trust, config.match).partner
        null.append(row_scores(first, surrogate, partner, generator))
    drawn = torch.cat(null)
    exceeding = (drawn[None, :] >= score[:, None]).sum(1)
    return Parts(score, (1 + exceeding) / (1 + len(drawn)))


def row_scores(
    source: Float[Tensor, "relations n n"],
    target: Float[Tensor, "relations m m"],
    partner: Int[Tensor, "n"],
    generator: torch.Generator,
) -> Float[Tensor, "n"]:
    """Correlation of every state's outgoing departures with its partner's, corrected for sampling noise; 0 for states
    without a partner."""
    own = (partner >= 0).nonzero().flatten()
    rows = []
    for counts, order in ((source, own), (target, partner[own])):
        whole, halves = departures(counts), [departures(half) for half in thinned(counts, generator)]
        whole, *halves = ([*side[:, order][:, :, order].unbind()] for side in (whole, *halves))
        whole, *halves = (torch.cat(side, dim=1) for side in (whole, *halves))
        half = torch.nn.functional.cosine_similarity(*halves, dim=1).clamp(0.05, 1)
        rows.append((whole, 2 * half / (1 + half)))
    (x, trust_x), (y, trust_y) = rows
    score = source.new_zeros(source.shape[1])
    score[own] = torch.nn.functional.cosine_similarity(x, y, dim=1) / (trust_x * trust_y).sqrt()
    return score.clamp(-1, 1)
