"""Matching items by what they do to each other: two matrices of counts (or several a side, one a relation) brought to
agree by renaming the items of one.

A quadratic assignment problem. As in FAQ (Vogelstein et al. 2015, "Fast approximate quadratic programming for graph
matching") a doubly stochastic plan climbs along the gradient of tr(A' P B P'); instead of a linear assignment, each
step is an optimal transport whose sharpness grows (graduated assignment, Gold & Rangarajan 1996), scaled in every row
by how far that row's counts can tell its partner from strangers. So rare items stay soft until frequent ones are told.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sae_translate.align.alignment import NullVerdict
from sae_translate.align.invariants import log_odds, thinned

TINY = 1e-30
FORBIDDEN = -1e4
"Log odds of a pair that an anchor rules out."
SPARSE = 0.05
"Share of counts that are not 0 below which products pass over the others: at 0.01 they take an eighth of the time."
COLUMNS_AT_ONCE = 64
"Columns that a sparse matrix is multiplied by at once: they stay in the processor's cache meanwhile."


@dataclass(frozen=True)
class MatchConfig:
    """Knobs of matching. The defaults are the ones that reports/matching.md measures."""

    degree: int = 4
    "Highest degree of the polynomials of a neighbour's figures that an item's invariants are means of."
    prior: float = 0.1
    "Weight of the log odds from invariants beside the agreement of profiles, in every step but the first."
    first_sharpness: float = 2.0
    "Most that a standard deviation of agreement counts in the first step, in nats."
    last_sharpness: float = 6.0
    "The same in the last step."
    steps: int = 10
    "Most steps; a run ends sooner when its plan no longer moves."
    runs: int = 4
    "Most runs, each after the first from a start with noise; the one whose renaming agrees best is kept."
    ample: float = 0.9
    "Share of the way from the surrogates' agreement to the most that the counts allow at which no further run is made."
    polished: int = 1000
    "Most items a side for which a run ends in a Frank-Wolfe climb with exact line search, a linear assignment a step."
    noise: float = 2.0
    "Standard deviation of the noise of further starts, in nats of log odds."
    null_surrogates: int = 2
    "Surrogates of the target against which agreement is judged; 0 gives no verdict."
    probes: int = 6
    "Items that rivals are tried in the place of: if all else then fits as well, the answer is not the only one."
    rivals: int = 3
    "Rivals tried for every probed item, the likeliest by their invariants."
    ambiguous: float = 0.1
    "Most of the probed items that may fit as well elsewhere if the answer is to be believed."
    margin: float = 0.25
    "Share of the way from the surrogates' agreement to the most that the counts allow that must be covered."
    seed: int = 0
    "Seeds starts, surrogates and the thinning of counts."


@dataclass(frozen=True)
class Match:
    """A renaming of the source's items as the target's."""

    plan: Float[Tensor, "n m"]
    "P(target | source): rows sum to 1."
    partner: Int[Tensor, "n"]
    "The one-to-one partner of every source item; -1 for those left over where targets are fewer."
    objective: float
    "Correlation of the source's departures from independence with the target's, item for partner; at most 1."


def departures(counts: Float[Tensor, "relations n n"]) -> Float[Tensor, "relations n n"]:
    """By how much every count is more or less than independence would have it, 2 (sqrt C - sqrt E).

    The square root makes all sampling noise alike, of variance 1 or, where next to nothing is expected, less.
    """
    total = counts.sum((1, 2), keepdim=True).clamp_min(TINY)
    expected = counts.sum(2, keepdim=True) * counts.sum(1, keepdim=True) / total
    return 2 * (counts.sqrt() - expected.sqrt())


@dataclass(frozen=True)
class Factor:
    """One relation's departures as what stands left in a product: 2 sqrt C, sparse where most counts are 0, less
    2 sqrt E, which is of rank one."""

    roots: Float[Tensor, "n n"] | sparse.csr_array
    "The departures themselves, or 2 sqrt C alone."
    out: Float[Tensor, "n"] | None = None
    into: Float[Tensor, "n"] | None = None
    "2 sqrt E is out times into'. None where it has been taken off."

    def __matmul__(self, other: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        if isinstance(self.roots, Tensor):
            return self.roots @ other
        product, given = torch.empty_like(other, memory_format=torch.contiguous_format), other.numpy()
        for begin in range(0, other.shape[1], COLUMNS_AT_ONCE):
            part = slice(begin, begin + COLUMNS_AT_ONCE)
            product[:, part] = torch.from_numpy(self.roots @ np.ascontiguousarray(given[:, part]))
        return product.addr_(self.out, self.into @ other, alpha=-1)


@dataclass(frozen=True)
class Departures:
    """The departures of all relations, and each as a factor: of what stands after an item, and of what before."""

    whole: Float[Tensor, "relations n n"]
    after: tuple[Factor, ...]
    before: tuple[Factor, ...]


def factored(counts: Float[Tensor, "relations n n"]) -> Departures:
    """Departures that products with are cheap, on the CPU, where most counts are 0."""
    whole = departures(counts)
    if counts.device.type != "cpu" or int(counts.count_nonzero()) > SPARSE * counts.numel():
        return Departures(whole, tuple(map(Factor, whole)), tuple(Factor(each.T) for each in whole))
    after, before = [], []
    for pairs in counts:
        roots = sparse.csr_array(2 * pairs.sqrt().numpy())
        out, into = 2 * pairs.sum(1).sqrt(), (pairs.sum(0) / pairs.sum().clamp_min(TINY)).sqrt()
        after.append(Factor(roots, out, into))
        before.append(Factor(sparse.csr_array(roots.T), into, out))
    return Departures(whole, tuple(after), tuple(before))


def reliability(counts: Float[Tensor, "relations n n"], generator: torch.Generator) -> tuple[Float[Tensor, "n"], float]:
    """What share of every item's profile, and of all profiles together, is no sampling noise.

    The correlation of two halves of the counts, raised to that of the whole (Spearman-Brown).
    """
    halves = [departures(half) for half in thinned(counts, generator)]
    x, y = (torch.cat([*half, *half.transpose(1, 2)], dim=1) for half in halves)
    products = (x * y).sum(1)
    of_items = (products / (x.norm(dim=1) * y.norm(dim=1)).clamp_min(TINY)).clamp(1e-3, 1)
    whole = float(products.sum() / (x.norm() * y.norm()).clamp_min(TINY))
    whole = min(max(whole, 1e-3), 1.0)
    return 2 * of_items / (1 + of_items), 2 * whole / (1 + whole)


def balanced(scores: Float[Tensor, "n m"], iterations: int = 10) -> Float[Tensor, "n m"]:
    """exp(scores) with columns scaled to share alike, and rows then to sum to 1 (Sinkhorn's iterations)."""
    kernel = (scores - scores.max(dim=1, keepdim=True).values).exp()
    rows = scores.new_ones(len(scores))
    for _ in range(iterations):
        columns = 1 / (rows @ kernel).clamp_min(TINY)
        rows = 1 / (kernel @ columns).clamp_min(TINY)
    return rows[:, None] * kernel * columns


def anchored(scores: Float[Tensor, "n m"], anchors: Int[Tensor, "anchors pair"]) -> Float[Tensor, "n m"]:
    """The scores with each anchor's pair the only one possible for either of its items."""
    scores = scores.clone()
    scores[anchors[:, 0]] = FORBIDDEN
    scores[:, anchors[:, 1]] = FORBIDDEN
    scores[anchors[:, 0], anchors[:, 1]] = 0
    return scores


def agreement(source: Departures, target: Departures, plan: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """How well every source item's profile, and every target item's seen through the plan, go together: the gradient
    of tr(A' P B P'), over the length of the latter, so that no target is near to all."""
    scores, lengths = torch.zeros_like(plan), plan.new_zeros(plan.shape[1])
    for a, b in zip((*source.after, *source.before), (*target.after, *target.before), strict=True):
        seen = b @ plan.T
        scores += a @ seen.T
        lengths += seen.square().sum(1)
    return scores / lengths.sqrt().clamp_min(1e-12)


def climbed(
    source: Departures,
    target: Departures,
    prior: Float[Tensor, "n m"],
    anchors: Int[Tensor, "anchors pair"],
    trust: Float[Tensor, "n"],
    config: MatchConfig,
) -> Match:
    """The match that departures climb to from the plan of a prior. `trust` is every source item's reliability."""
    plan = balanced(anchored(prior, anchors))
    squares = source.whole.square()
    lengths = (squares.sum((0, 2)) + squares.sum((0, 1))).sqrt()
    for cap in np.geomspace(config.first_sharpness, config.last_sharpness, config.steps):
        scores = agreement(source, target, plan)
        spread = scores.std(dim=1).clamp_min(1e-12)
        telling = (trust * lengths / spread).clamp_max(float(cap))
        scores = (scores - scores.mean(dim=1, keepdim=True)) * (telling / spread)[:, None]
        before, plan = plan, balanced(anchored(scores + config.prior * prior, anchors))
        if float((plan - before).abs().sum()) < 1e-3 * len(plan):
            break
    if max(plan.shape) <= config.polished:
        plan = frank_wolfe(source, target, plan, anchors)
    partner = one_to_one(plan)
    return Match(plan, partner, correlation(source.whole, target.whole, partner))


def frank_wolfe(
    source: Departures,
    target: Departures,
    plan: Float[Tensor, "n m"],
    anchors: Int[Tensor, "anchors pair"],
    steps: int = 30,
) -> Float[Tensor, "n m"]:
    """FAQ from a plan: to the assignment that the gradient of tr(A' P B P') likes best, as far as that rises."""

    def climbing(plan: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        pairs = zip((*source.after, *source.before), (*target.after, *target.before), strict=True)
        return sum(a @ (b @ plan.T).T for a, b in pairs)

    bar = plan.new_zeros(plan.shape)
    bar[anchors[:, 0]], bar[:, anchors[:, 1]] = FORBIDDEN, FORBIDDEN
    bar[anchors[:, 0], anchors[:, 1]] = 0
    gradient = climbing(plan)
    for _ in range(steps):
        partner = one_to_one(gradient + bar * gradient.abs().max())
        own = (partner >= 0).nonzero().flatten()
        way = -plan
        way[own, partner[own]] += 1
        change = climbing(way)
        slope, bend = float((gradient * way).sum()), float((change * way).sum()) / 2
        step = 1.0 if bend >= 0 else min(1.0, -slope / (2 * bend))
        if slope + bend * step <= 1e-6 * float((gradient * plan).sum().abs()):
            break
        plan, gradient = plan + step * way, gradient + step * change
    return plan


def one_to_one(plan: Float[Tensor, "n m"]) -> Int[Tensor, "n"]:
    """The assignment of most mass; -1 for sources left over."""
    rows, columns = linear_sum_assignment(plan.cpu().numpy(), maximize=True)
    partner = torch.full((len(plan),), -1, dtype=torch.int64)
    partner[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return partner.to(plan.device)


def correlation(
    source: Float[Tensor, "relations n n"], target: Float[Tensor, "relations m m"], partner: Int[Tensor, "n"]
) -> float:
    """Cosine of the two sets of departures over the items that have a partner."""
    own = (partner >= 0).nonzero().flatten()
    a, b = source[:, own][:, :, own], target[:, partner[own]][:, :, partner[own]]
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(TINY))


def renamed_columns(
    counts: Float[Tensor, "relations n n"], generator: torch.Generator
) -> Float[Tensor, "relations n n"]:
    """A surrogate: who stands after whom is renamed, who stands before is not.

    Every row and column keeps its counts, and any two rows what they share; but no item is itself any more.
    """
    return counts[:, :, torch.randperm(counts.shape[1], generator=generator).to(counts.device)]


def ambiguity(
    source: Float[Tensor, "relations n n"],
    target: Float[Tensor, "relations m m"],
    found: Match,
    anchors: Int[Tensor, "anchors pair"],
    config: MatchConfig,
    generator: torch.Generator,
) -> float:
    """Share of the probed items that fit as well in a rival's place, all others being free to move with them.

    Under an automorphism of the target, moving an item costs nothing, as others move along; where the answer is the
    only one, it costs about what changing places with the rival costs. Half of that is asked for. Frequent items are
    probed.
    """
    free = (found.partner >= 0).cpu()
    free[anchors[:, 0].cpu()] = False
    probes = (source.sum((0, 2)).cpu() * free).topk(min(config.probes, int(free.sum()))).indices
    odds = anchored(log_odds(source, target, anchors, config.degree, generator), anchors)[probes]
    odds.scatter_(1, found.partner[probes][:, None], FORBIDDEN)
    a, b = factored(source), factored(target)
    trust = reliability(source, generator)[0]

    def fits(probe: int, rival: int) -> bool:
        changed = found.partner.clone()
        changed[changed == rival] = found.partner[probe]
        changed[probe] = rival
        asked = (found.objective + correlation(a.whole, b.whole, changed)) / 2
        forced = torch.cat([anchors, torch.tensor([[probe, rival]]).to(anchors)])
        prior = log_odds(source, target, forced, config.degree, generator)
        return climbed(a, b, prior, forced, trust, config).objective > asked

    best = odds.topk(min(config.rivals, odds.shape[1] - 1), dim=1).indices
    ambiguous = [any(fits(i, j) for j in own) for i, own in zip(probes.tolist(), best.tolist(), strict=True)]
    return sum(ambiguous) / max(len(ambiguous), 1)


def match_counts(
    source: Float[Tensor, "relations n n"],
    target: Float[Tensor, "relations m m"],
    anchors: Int[Tensor, "anchors pair"],
    config: MatchConfig,
) -> tuple[Match, NullVerdict | None, tuple[float, ...]]:
    """The best match of several runs, its verdict, and the objective of every run.

    Counts of transitions, relation by relation. Memory: some ten n x m arrays; time: 4 relations n m (n + m) a step.
    """
    generator = torch.Generator().manual_seed(config.seed)
    (trust, most_source), (_, most_target) = reliability(source, generator), reliability(target, generator)
    a, b = factored(source), factored(target)
    null = []
    for _ in range(config.null_surrogates):
        surrogate = renamed_columns(target, generator)
        odds = log_odds(source, surrogate, anchors, config.degree, generator)
        null.append(climbed(a, factored(surrogate), odds, anchors, trust, config).objective)
    most = (most_source * most_target) ** 0.5
    threshold, ample = (max(null, default=0.0) * (1 - share) + most * share for share in (config.margin, config.ample))
    prior = log_odds(source, target, anchors, config.degree, generator)
    runs: list[Match] = []
    for number in range(config.runs):
        noise = config.noise * torch.randn(prior.shape, generator=generator).to(prior) if number else 0.0
        runs.append(climbed(a, b, prior + noise, anchors, trust, config))
        if runs[-1].objective > ample:
            break
    found = max(runs, key=lambda run: run.objective)
    told = tuple(run.objective for run in runs)
    if not null:
        return found, None, told
    beyond = found.objective > threshold
    ambiguous = ambiguity(source, target, found, anchors, config, generator) if beyond else 0.0
    return found, judged(found.objective, tuple(null), threshold, most, ambiguous, config), told


def judged(
    objective: float, null: tuple[float, ...], threshold: float, most: float, ambiguous: float, config: MatchConfig
) -> NullVerdict:
    """The verdict: agreement beyond that with surrogates, by a renaming that has no equal."""
    believed = objective > threshold and ambiguous <= config.ambiguous
    reason = (
        f"renamed, the source's transitions correlate {objective:.3f} with the target's, where {most:.3f} is the most "
        f"that the counts allow, targets with renamed columns reach {max(null):.3f}, and {threshold:.3f} was asked "
        "for: "
    )
    if believed:
        reason += "the two share their structure"
    elif objective > threshold:
        reason += f"yet {ambiguous:.0%} of the items probed fit as well elsewhere, so no answer is given"
    else:
        reason += "no shared structure was found, so no answer is given"
    evidence = {"margin": objective - max(null), "most": most, "ambiguous": ambiguous}
    return NullVerdict(objective, null, threshold, believed, reason, evidence)


def confidence_of(found: Match, verdict: NullVerdict | None) -> Float[Tensor, "n"]:
    """The plan's mass on every item's partner; nothing where the verdict is no."""
    mass = found.plan.gather(1, found.partner.clamp_min(0)[:, None])[:, 0] * (found.partner >= 0)
    return mass.clamp(0, 1) * float(verdict is None or verdict.believed)
