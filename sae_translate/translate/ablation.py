"""Ablation: which losses, starts and backbones a translator needs, by leaving each out and by adding each alone.

The score is never used to choose anything; how far the unsupervised criterion follows it is one of the results.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product

import numpy as np
from scipy.stats import spearmanr

from activation_cache.errors import UserError, choose
from sae_translate.label.scores import bootstrap_interval
from sae_translate.translate.config import (
    BackboneConfig,
    LossConfig,
    NoiseConfig,
    Schedule,
    TrainingConfig,
    TranslatorConfig,
    constant,
)

LOSSES = tuple(one.name for one in fields(LossConfig))
STRENGTHS = LossConfig(adversarial=constant(0.3), bottleneck=constant(0.01), moments=constant(0.3), prior=constant(0.1))
EVERYTHING, NOTHING_BUT = "all", "base"
NO_INTERVAL = (float("nan"), float("nan"))


@dataclass(frozen=True)
class AblationConfig:
    """A grid of trainings."""

    pairs: tuple[str, ...]
    "Language pairs, such as markov:32, hmm:8:32, stories:en-de, or with a size of its own, markov:32@3000."
    sizes: tuple[int, ...]
    "Positions of text on each side, of the pairs that have no size of their own."
    starts: tuple[str, ...] = ("alignment", "random")
    backbones: tuple[str, ...] = ("tagger",)
    losses: tuple[str, ...] = ("pseudo_parallel", "denoise", "back_translation", "adversarial")
    "Losses under study."
    base: tuple[str, ...] = ("denoise",)
    "Those of them that are always on when one is added."
    weights: LossConfig = field(default_factory=lambda: STRENGTHS)
    "How each loss is weighted where it is on."
    without_noise: bool = True
    "Whether noise is under study too, as if it were a loss."
    seeds: int = 3
    budget: float = 60.0
    "Seconds of wall clock for a training."
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(d_model=64, depth=1))
    "All but its name."
    training: TrainingConfig = field(default_factory=TrainingConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    pair: str
    size: int
    seed: int
    backbone: str
    start: str
    design: str
    "all; -NAME: all but one; base; +NAME: the base and one."

    @property
    def key(self) -> str:
        return "|".join(str(value) for value in asdict(self).values())


@dataclass(frozen=True)
class Effect:
    """What one loss or the start does to the score, on one pair."""

    name: str
    pair: str
    kind: str
    "left out: what is lost without it; added: what is won with it."
    difference: float
    "Mean over backbones, sizes and seeds, all else equal."
    low: float
    high: float
    "95 % bootstrap interval; NaN where there is but one difference."
    n: int


def names_of(config: AblationConfig) -> tuple[str, ...]:
    """What is under study besides start and backbone."""
    return (*config.losses, "noise") if config.without_noise else config.losses


def cells_of(config: AblationConfig) -> Iterator[Cell]:
    """The grid, all trainings of one pair, size and seed together. Leaving out and adding are done from the first start
    alone; the other starts are tried with everything on.

    Raises UserError where a loss is unknown, or nothing is asked for.
    """
    for name in (*config.losses, *config.base):
        choose({loss: None for loss in LOSSES}, name, "loss")
    if not (config.pairs and config.sizes and config.starts and config.backbones and config.seeds > 0):
        raise UserError("an ablation needs a pair, a size, a start, a backbone and a seed at least")
    designs = [EVERYTHING, *(f"-{name}" for name in names_of(config)), NOTHING_BUT,
               *(f"+{name}" for name in names_of(config) if name not in config.base)]  # fmt: skip
    for pair, size, seed in product(config.pairs, config.sizes, range(config.seeds)):
        for backbone in config.backbones:
            yield from (Cell(pair, size, seed, backbone, config.starts[0], design) for design in designs)
            yield from (Cell(pair, size, seed, backbone, start, EVERYTHING) for start in config.starts[1:])


def switched_on(design: str, config: AblationConfig) -> set[str]:
    """What of the studied is on in this design."""
    studied = set(names_of(config))
    if design == EVERYTHING:
        return studied
    if design == NOTHING_BUT:
        return set(config.base)
    return studied - {design[1:]} if design[0] == "-" else {*config.base, design[1:]}


def translator_config(cell: Cell, config: AblationConfig) -> TranslatorConfig:
    """How this cell is trained."""
    on = switched_on(cell.design, config)
    losses = LossConfig(**{name: getattr(config.weights, name) if name in on else Schedule() for name in LOSSES})
    quiet = NoiseConfig(0.0, 0.0, 0.0)
    noise = config.noise if "noise" in on or not config.without_noise else quiet
    return TranslatorConfig(
        start=cell.start,
        backbone=replace(config.backbone, name=cell.backbone),
        losses=losses,
        noise=noise,
        training=replace(config.training, seed=cell.seed, budget=config.budget),
    )


def effects(rows: Sequence[dict], config: AblationConfig) -> list[Effect]:
    """What each loss costs when left out and brings when added, and what the first start brings over the others.

    Rows are cells with a `score`; only those that differ in nothing else are set against each other.
    """
    scores = {Cell(**row["cell"]): row["score"] for row in rows}
    first = config.starts[0]
    compared = [(name, "left out", {"design": EVERYTHING}, {"design": f"-{name}"}) for name in names_of(config)]
    compared += [(name, "added", {"design": f"+{name}"}, {"design": NOTHING_BUT}) for name in names_of(config)]
    compared += [
        (f"start {first}", f"instead of {other}", {"design": EVERYTHING}, {"design": EVERYTHING, "start": other})
        for other in config.starts[1:]
    ]
    found = []
    for (name, kind, better, worse), pair in product(compared, config.pairs):
        differences = [
            score - scores[other]
            for cell, score in scores.items()
            if cell.pair == pair and cell.start == first and cell.design == better["design"]
            and (other := replace(cell, **worse)) in scores
        ]  # fmt: skip
        if differences:
            values, interval = np.array(differences), NO_INTERVAL
            if len(values) > 1:
                interval = bootstrap_interval(values, np.random.default_rng(0), draws=2000)
            found.append(Effect(name, pair, kind, float(values.mean()), *interval, len(values)))
    return found


def needed(found: Iterable[Effect], least: int = 2) -> list[str]:
    """What costs more than its interval when left out, on at least so many pairs."""
    counts: dict[str, int] = {}
    for effect in found:
        if effect.kind != "added":
            counts[effect.name] = counts.get(effect.name, 0) + (effect.low > 0)
    return [name for name, count in counts.items() if count >= least]


@dataclass(frozen=True)
class Agreement:
    """How far the unsupervised criterion ranks trainings as the truth does."""

    by_pair: dict[str, float] = field(default_factory=dict)
    "Spearman's rank correlation over all trainings of a pair; NaN where one of the two is constant."
    picked: dict[str, float] = field(default_factory=dict)
    "Score of the training with the best criterion over the best score there is."


def agreement(rows: Sequence[dict]) -> Agreement:
    """Of rows with a `criterion` and a `score`."""
    by_pair, picked = {}, {}
    for pair in dict.fromkeys(row["cell"]["pair"] for row in rows):
        mine = [row for row in rows if row["cell"]["pair"] == pair]
        criterion, score = (np.array([row[name] for row in mine]) for name in ("criterion", "score"))
        varied = len(mine) > 2 and np.ptp(criterion) > 0 and np.ptp(score) > 0
        by_pair[pair] = float(spearmanr(criterion, score).statistic) if varied else float("nan")
        picked[pair] = float(score[criterion.argmax()] / max(score.max(), 1e-12))
    return Agreement(by_pair, picked)
