"""Alignment from vectors: a dictionary between two sets of vectors in unrelated coordinates, without a pair."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from activation_cache.errors import UserError, choose
from sae_translate.align.alignment import Alignment, NullVerdict
from sae_translate.align.posterior import fit_posterior
from sae_translate.align.procrustes import LinearMap, normalised, normalising_means, polar, reweighted
from sae_translate.align.ranks import RERANKED, both_ways, likeliest_sharpness, ordered, rank_evidence
from sae_translate.align.retrieval import Neighbours, check_vectors, mutual_pairs, retrieve, unit
from sae_translate.align.selflearning import (
    annealing,
    principal_axes,
    scrambled,
    self_learn,
    transport,
    transport_objective,
    transported,
)
from sae_translate.align.starts import STARTS, landmark_scores
from sae_translate.languages.language import Language

Progress = Callable[[str, int, int], None]
Side = tuple[Tensor, Tensor]
"Vectors of one side, n x d: as they came, and normalised."
Known = tuple[Side, Side]
"Vectors of pairs known to be the same, row beside row: of the source, of the target."
Outcome = tuple[float, Tensor]
"Objective of a search, and its coupling, n x m."


@dataclass(frozen=True)
class VectorsConfig:
    """Knobs of `align_vectors`. The defaults are the ones that reports/alignment.md measures."""

    start: str = "signature"
    "What the first coupling is read from: signature or random."
    core: int = 1000
    "How many of the most frequent items on each side are aligned first."
    wide: int = 5000
    """How many a further search sees: points that come in no order have few in common among the first of each side.
    Memory and time grow with its square."""
    axes: int = 150
    "Principal axes a search begins with, before one in all: fewer are faster and, for words, more robust."
    searches: int = 4
    """Most searches made: of the core along the leading axes, along all, then of the wide core by `fit_posterior`,
    which bears noise, and along the leading axes."""
    start_sharpness: float = 1.0
    "Sharpness of the first coupling, per standard deviation of the start's scores."
    pairs_weight: float = 3.0
    "Weight of what known pairs say of the others beside the start's scores, where pairs are known."
    steps: int = 60
    "Steps of annealing."
    first_sharpness: float = 1.0
    "Sharpness of transport, per unit of cosine, in the first step."
    last_sharpness: float = 20.0
    "Sharpness in the last step; the objective is measured with it."
    noise: float = 2.0
    "Standard deviations of noise a coordinate that `fit_posterior` starts from: rather too many than too few."
    noisy_steps: int = 40
    "Its steps of annealing."
    noisy_first: float = 0.05
    "Share of the likelihood in the first of them."
    held_out: float = 0.1
    "Share of the sources that it is judged by and not fitted on."
    held_out_margin: float = 0.1
    """By how much more of them must be mutual choices than against surrogates, or by three standard errors of such a
    difference where they are few."""
    grown: int = 5000
    "How many of the most frequent items the map is fitted on in the end."
    growth: tuple[float, ...] = (8.0, 10.0, 12.0, 15.0, 18.0, 20.0)
    "Sharpness of every step of a pass over the grown set."
    passes: int = 10
    "Most passes; the last is the first that raises the objective by less than `tolerance`."
    tolerance: float = 0.001
    "Mean cosine that a pass over the grown set must add for another to follow."
    reweightings: int = 2
    "How often both sides are whitened and reweighted by how far they agree; 0 leaves the map a rotation."
    power: float = 0.5
    "Power of the agreement along an axis by which that axis is weighed."
    ridge: float = 0.3
    "Mean variances added to every axis before whitening."
    reweighting_sharpness: float = 30.0
    "Sharpness of the coupling that reweighting rests on."
    normalisations: int = 1
    "How often rows are centred and brought to unit length; 10 or more for spaces that differ in shape."
    retrieval: str = "csls"
    "How targets are ranked: csls, cosine or inverted_softmax."
    index: str = "exact"
    "How targets are searched: exact, or faiss for millions."
    ranks: bool = True
    """Whether ranks of frequency are looked at, and tell how sharp the scores are; else that is `last_sharpness` per
    unit of cosine."""
    k: int = 10
    "Targets listed for every source."
    null_surrogates: int = 1
    "Surrogates of the target against which every search is judged; 0 gives one search and no verdict."
    margin: float = 0.07
    "By how much the objective must exceed the best surrogate's."
    seed: int = 0
    "Seeds the surrogates, and a start that draws."


@dataclass(frozen=True)
class VectorFit:
    """Maps that bring both sides into one space. Frozen."""

    map: LinearMap
    source_means: Float[Tensor, "times d"]
    target_means: Float[Tensor, "times e"]
    objective: float
    "Mean cosine of what is coupled to what; where noise was borne, the share of held-out sources that is mutual."
    verdict: NullVerdict | None
    objectives: tuple[float, ...]
    "Of every search."

    def source(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n common"]:
        """Source vectors, as they came, in the common space."""
        return self.map.source(normalised(vectors, self.source_means))

    def target(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n common"]:
        """Target vectors, as they came, in the common space."""
        return self.map.target(normalised(vectors, self.target_means))


@dataclass(frozen=True)
class _Search:
    """The most frequent vectors of either side, as they came and normalised, and how many axes to begin with."""

    source: Side
    target: Side
    axes: int
    measure = "mapped sources lie at a mean cosine of {:.3f} to their targets"

    def scrambled(self, config: VectorsConfig, generator: torch.Generator) -> "_Search":
        """The same against a surrogate of the target."""
        raw = scrambled(self.target[0], generator)
        return replace(self, target=(raw, normalised(raw, normalising_means(raw, config.normalisations))))

    def asked(self, config: VectorsConfig, null: Sequence[float]) -> float:
        """By how much the objective must exceed the surrogates'."""
        return config.margin

    def run(self, config: VectorsConfig, generator: torch.Generator, known: Known | None = None) -> Outcome:
        """Objective and coupling of annealed self-learning."""
        (raw_x, whole_x), (raw_y, whole_y) = self.source, self.target
        scores = choose(STARTS, config.start, "start")(raw_x, raw_y, generator)
        if known is not None:
            scores = scores + config.pairs_weight * landmark_scores(raw_x, raw_y, known[0][0], known[1][0])
        x, y = (unit(side @ principal_axes(side, self.axes)) for side in (whole_x, whole_y))
        schedule = annealing(config.first_sharpness, config.last_sharpness, config.steps)
        rotation = self_learn(x, y, transport(scores, config.start_sharpness), schedule)
        coupling = transport(unit(x @ rotation) @ y.T, config.last_sharpness)
        mapped = unit(whole_x @ polar(whole_x.T @ coupling @ whole_y))
        return transport_objective(mapped, whole_y, config.last_sharpness), coupling


class _NoisySearch(_Search):
    """The same by the posterior's mean, judged by sources that the fit never saw."""

    measure = "{:.3f} of the sources kept out of the fit choose a target that chooses them"

    def run(self, config: VectorsConfig, generator: torch.Generator, known: Known | None = None) -> Outcome:
        """Share of held-out sources that are mutual choices, and the coupling of all."""
        held_out = torch.zeros(len(self.source[0]), dtype=torch.bool)
        held_out[torch.randperm(len(held_out), generator=generator)[: self.n_held_out(config)]] = True
        fit = fit_posterior(
            self.source, self.target, held_out.to(self.source[0].device), config.noise, config.noisy_steps,
            config.noisy_first, generator, None if known is None else (known[0][1], known[1][1]),
        )  # fmt: skip
        return fit.held_out, transport(unit(self.source[1] @ fit.rotation) @ self.target[1].T, config.last_sharpness)

    def n_held_out(self, config: VectorsConfig) -> int:
        return max(1, round(len(self.source[0]) * config.held_out))

    def asked(self, config: VectorsConfig, null: Sequence[float]) -> float:
        share = max((*null, config.held_out_margin))
        return max(config.held_out_margin, 3 * (2 * share * (1 - share) / self.n_held_out(config)) ** 0.5)


def _searches(source: Side, target: Side, config: VectorsConfig) -> list[_Search]:
    """Cheapest first; what would look at the same again is left out."""
    most = max(len(source[0]), len(target[0]))
    widest = max(source[0].shape[1], target[0].shape[1])
    leading, core, wide = min(config.axes, widest), min(config.core, most), min(config.wide, most)
    kinds = [(_Search, core, leading), (_Search, core, widest), (_NoisySearch, wide, widest), (_Search, wide, leading)]
    return [
        kind(tuple(side[:size] for side in source), tuple(side[:size] for side in target), axes)
        for kind, size, axes in dict.fromkeys(kinds)
    ][: config.searches]


def _known(source: Side, target: Side, pairs: Int[Tensor, "pairs 2"]) -> Known:
    """The vectors of known pairs."""
    sizes = [len(source[0]), len(target[0])]
    if len(pairs) == 0 or (pairs < 0).any() or (pairs >= torch.tensor(sizes)).any():
        raise UserError(
            f"{len(pairs)} pairs were given, of rows up to {pairs.amax(0).tolist() if len(pairs) else 'none'}: give at "
            f"least one, of rows below {sizes[0]:,} and {sizes[1]:,}"
        )
    rows, columns = pairs.unbind(dim=1)
    return tuple(side[rows] for side in source), tuple(side[columns] for side in target)


@dataclass(frozen=True)
class _Found:
    """What one search found, and what it finds against surrogates."""

    objective: float
    coupling: Float[Tensor, "n m"]
    null: tuple[float, ...]
    asked: float
    "By how much the objective must exceed the surrogates'."
    measure: str
    "What the objective says, with a place for it."

    @property
    def margin(self) -> float:
        return self.objective - max(self.null, default=0.0)


def _judged(found: _Found, number: int) -> NullVerdict:
    threshold = max(found.null) + found.asked
    believed = found.objective > threshold
    reason = (
        f"{found.measure.format(found.objective)}; the same search against targets whose axes were shuffled reaches "
        f"{max(found.null):.3f}, and {threshold:.3f} was asked for: "
        + ("the two spaces share their shape" if believed else "no shared shape was found, so no answer is given")
    )
    evidence = {"margin": found.margin, "margin_asked": found.asked, "searches": number}
    return NullVerdict(found.objective, found.null, threshold, believed, reason, evidence)


def fit_vectors(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m e"],
    config: VectorsConfig = VectorsConfig(),
    progress: Progress | None = None,
    pairs: Int[Tensor, "pairs 2"] | None = None,
) -> VectorFit:
    """Maps of two sets of vectors, most frequent first, into one space. Dimensions may differ.

    A core is aligned by annealed self-learning and judged against surrogates; where that does not convince, further
    searches follow, of more items and under noise, and the one that stands highest above its surrogates is kept. It is
    grown to more items and reweighted. Memory: the greater of `wide` and `grown`, squared. Bit-reproducible by
    `config.seed` on one machine and number of threads. `pairs` are rows (source, target) known to be the same, a few
    or many: runs start from them too. Raises `UserError` for vectors that are undefined or too few, or pairs of none.
    """
    check_vectors("source", source)
    check_vectors("target", target)
    choose(STARTS, config.start, "start")
    generator = torch.Generator().manual_seed(config.seed)
    source_means, target_means = (normalising_means(side, config.normalisations) for side in (source, target))
    x, y = normalised(source, source_means), normalised(target, target_means)
    known = None if pairs is None else _known((source, x), (target, y), pairs)
    told = progress or (lambda stage, done, total: None)
    found: list[_Found] = []
    searches = _searches((source, x), (target, y), config)
    for number, search in enumerate(searches, 1):
        surrogates = [search.scrambled(config, generator) for _ in range(config.null_surrogates)]
        null = tuple(surrogate.run(config, generator)[0] for surrogate in surrogates)
        objective, coupling = search.run(config, generator, known)
        found.append(_Found(objective, coupling, null, search.asked(config, null), search.measure))
        told("search", number, len(searches))
        if not null or found[-1].margin > found[-1].asked:
            break
    best = max(found, key=lambda one: one.margin - one.asked)
    grown = max(config.grown, *best.coupling.shape)
    return VectorFit(
        map=_grown(x[:grown], y[:grown], best.coupling, config),
        source_means=source_means,
        target_means=target_means,
        objective=best.objective,
        verdict=_judged(best, len(found)) if best.null else None,
        objectives=tuple(one.objective for one in found),
    )


def _grown(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m e"], coupling: Float[Tensor, "n2 m2"], config: VectorsConfig
) -> LinearMap:
    """The core's coupling grown to all items given, then reweighted."""
    rotation = polar(x[: coupling.shape[0]].T @ coupling @ y[: coupling.shape[1]])
    objective, room = -1.0, x.new_empty(len(x), len(y))
    for _ in range(config.passes):
        for sharpness in config.growth:
            rotation = polar(transported(x, y, rotation, sharpness, room))
        before, objective = objective, transport_objective(x @ rotation, y, config.last_sharpness)
        if objective < before + config.tolerance:
            break
    values = x.new_ones(rotation.shape[1])
    fit = LinearMap(rotation, torch.eye(rotation.shape[1], dtype=x.dtype, device=x.device), values)
    for _ in range(config.reweightings):
        scores = fit.source(x) @ fit.target(y).T
        fit = reweighted(x, y, transport(scores, config.reweighting_sharpness, 5), config.power, config.ridge)
    return fit


@dataclass(frozen=True)
class RankedTargets:
    """The dictionary as ranks: for every source its k best targets with score, share and confidence."""

    best: Neighbours
    "Scores are log chances, the mean of both directions'."
    posterior: Float[Tensor, "n k"]
    "Share of each of the k, summing to 1."
    mutual: Float[Tensor, "n"]
    "1 where the source is also the best of its best target."
    confidence: Float[Tensor, "n"]


def ranked_targets(
    fit: VectorFit, source: Float[Tensor, "n d"], target: Float[Tensor, "m e"], config: VectorsConfig
) -> RankedTargets:
    """Rank targets in the common space, the nearest of them by what either direction and ranks of frequency say;
    streams, so that n and m may be large. Rows are most frequent first.

    Confidence is the share of the best among the k, halved where the choice is not mutual, and scaled by how far the
    objective is above the surrogates'.
    """
    x, y = fit.source(source), fit.target(target)
    k = min(config.k, len(y))
    best, back = (
        retrieve(*sides, min(max(wanted, RERANKED), len(sides[1])), config.retrieval, index=config.index)
        for sides, wanted in (((x, y), k), ((y, x), 1))
    )
    ranks = rank_evidence(best.indices[:, 0], back.indices[:, 0]) if config.ranks else None
    own, other = (torch.arange(len(side), device=side.device)[:, None] for side in (x, y))
    sharpness = config.last_sharpness / (2 if config.retrieval == "csls" else 1)
    if ranks is not None:
        sharpness = likeliest_sharpness(best.scores, ranks(own, best.indices))
    nats = [
        Neighbours(sharpness * near.scores + (0.0 if ranks is None else ranks(*pairs)), near.indices)
        for near, pairs in ((best, (own, best.indices)), (back, (back.indices, other)))
    ]
    if config.retrieval == "inverted_softmax":  # it holds the other direction already, and is not symmetric
        best, back = (ordered(near, near.scores) for near in nats)
    else:
        best, back = both_ways(*nats)
    best = Neighbours(best.scores[:, :k], best.indices[:, :k])
    mutual = mutual_pairs(best.indices[:, 0], back.indices[:, 0]).to(x.dtype)
    posterior = torch.softmax(best.scores, dim=1)
    belief = 1.0
    if fit.verdict is not None:
        belief = float(np.clip(fit.verdict.evidence["margin"] / max(fit.verdict.evidence["margin_asked"], 1e-9), 0, 1))
        belief *= float(fit.verdict.believed)
    return RankedTargets(best, posterior, mutual, posterior[:, 0] * (1 + mutual) / 2 * belief)


def vectors_of(language: Language) -> tuple[Float[Tensor, "n d"], Int[np.ndarray, "n"]]:
    """A language's vectors, most frequent first (in their given order where nothing was counted), and that order."""
    if language.vectors is None:
        raise UserError(f"{language.name} has no vectors: give a language with vectors, or use `decipher`")
    duplicates = len(language.items) - len(set(language.items))
    if duplicates:
        raise UserError(f"{language.name} names {duplicates:,} of its items twice: give each item one vector")
    if len(language.vectors) != len(language.items):
        raise UserError(f"{language.name} has {len(language.items):,} items and {len(language.vectors):,} vectors")
    order = np.argsort(-language.counts, kind="stable")
    vectors = torch.from_numpy(np.ascontiguousarray(language.vectors[order], dtype=np.float32))
    check_vectors(language.name, vectors)
    return vectors, order


def align_vectors(
    source: Language,
    target: Language,
    config: VectorsConfig = VectorsConfig(),
    progress: Progress | None = None,
) -> Alignment:
    """Translate every item of `source` into `target` by the shape of their vectors alone.

    The coupling holds the k best targets of every source. It is a dense array, source x target: for vocabularies of
    tens of thousands take `fit_vectors` and `ranked_targets`, which stream. Raises `UserError` for vectors that are
    missing, undefined or too few.
    """
    began = perf_counter()
    (x, rows), (y, columns) = vectors_of(source), vectors_of(target)
    fit = fit_vectors(x, y, config, progress)
    ranked = ranked_targets(fit, x, y, config)
    coupling = np.zeros((len(rows), len(columns)), np.float32)
    coupling[rows[:, None], columns[ranked.best.indices.numpy()]] = ranked.posterior.numpy() / len(rows)
    confidence = np.zeros(len(rows), np.float32)
    confidence[rows] = ranked.confidence.numpy()
    return Alignment(
        source_items=source.items,
        target_items=target.items,
        coupling=coupling,
        objective=fit.objective,
        confidence=confidence,
        verdict=fit.verdict,
        record={
            "method": "vectors",
            "config": asdict(config),
            "source": {"name": source.name, "items": len(rows), "dimensions": x.shape[1]},
            "target": {"name": target.name, "items": len(columns), "dimensions": y.shape[1]},
            "objectives": list(fit.objectives),
            "seconds": perf_counter() - began,
        },
    )
