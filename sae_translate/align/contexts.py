"""Words translated by the company they keep: self-learning on contexts, from a small deciphered core outwards.

Decipherment asks that one language's co-occurrence be the other's seen through an emission. Between two natural
languages it never is, as their word orders differ, and the likelihood then bends the dictionary: started at the truth,
it leaves it (reports/words.md). What survives is which contexts an item prefers. So every item's log odds with
context words, before it, behind it, and in the same segment at any distance, are carried over by the dictionary found
so far, and the dictionary is chosen anew by CSLS, as self-learning does with vectors (Artetxe et al. 2018, arXiv
1805.06297, section 3.3), but in the contexts alone that are each other's choice, or nearly: k-reciprocal neighbours
(Qin et al. 2011, doi 10.1109/CVPR.2011.5995373). The last scores are an optimal transport's, so no word is everyone's.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_translate.align.alignment import Alignment, NullVerdict
from sae_translate.align.core import DecipherConfig, core_of, heaviest, smooth, start_emission
from sae_translate.align.emission import TINY, maximise
from sae_translate.align.grow import profiles
from sae_translate.align.matching import balanced
from sae_translate.align.null import backwards
from sae_translate.align.retrieval import largest
from sae_translate.align.statistics import fold, share_positions
from sae_translate.languages.language import Language

NEAREST = 10
"Neighbours that CSLS takes the mean of."
COMPETING = 1.5
"Times as many items as contexts are compared before the last step: a context's best choice is sought among them."
SEARCHED = 24
"Halvings by which the sharpness of a softmax is found."


@dataclass(frozen=True)
class ContextsConfig:
    """Knobs of `align_contexts`."""

    lags: tuple[int, ...] = (1, 2, 3)
    "Distances at which a context is told apart, before and behind."
    window: int = 40
    "Contexts no further off than this, in one segment, count together once more, whatever their distance; 0: not."
    max_items: int = 10_000
    """How many of the heaviest items of each side are aligned; memory is some four arrays of this squared, and two of
    items x contexts x bins (a bin is a lag and direction, or the window)."""
    contexts: int = 2000
    "How many of the heaviest are contexts, by which items are told."
    core: int = 300
    "How many of the heaviest are deciphered first."
    steps: int = 12
    "Times that the dictionary is chosen anew."
    nearest: int = 2
    """A context is carried over to its best choice, if it is among so many of that one's; 1: mutual choices. What one
    side alone chooses is mostly wrong, and misleads the next step."""
    trial_lags: tuple[tuple[int, ...], tuple[int, ...]] = ((1, 3, 5), (2, 4, 6))
    "Lags of the verdict's two dictionaries, which share no evidence."
    null_surrogates: int = 1
    "Surrogates of the target against which the result is judged; 0 gives no verdict."
    margin: float = 0.12
    "Share of items on which the verdict's two dictionaries must agree beyond what they do with the best surrogate."
    decipher: DecipherConfig = field(default_factory=lambda: DecipherConfig(min_count=5.0))
    "How the core is deciphered; its min_count holds for all items, its lags for the core."
    seed: int = 0
    "Seeds the starts."
    device: str = "cpu"
    "Where the products of matrices are done."


@dataclass(frozen=True)
class Contexts:
    """The items of a language and what stands around them."""

    items: Int[np.ndarray, "n"]
    "Indices in the language's vocabulary, heaviest first."
    frequency: Float[Tensor, "n"]
    "Share of the positions."
    odds: Float[Tensor, "bins n k"]
    "Log odds with every context against independence; a bin is a lag and direction, or the window."

    def first(self, n_items: int) -> "Contexts":
        """The heaviest alone."""
        return replace(
            self, items=self.items[:n_items], frequency=self.frequency[:n_items], odds=self.odds[:, :n_items]
        )

    def turned(self, bins: Int[Tensor, "chosen"]) -> "Contexts":
        """These bins alone, in this order."""
        return replace(self, odds=self.odds[bins])


def contexts_of(language: Language, lags: tuple[int, ...], window: int, config: ContextsConfig) -> Contexts:
    """The heaviest items of a language with their log odds, one added to every count; bins are each lag ahead, then
    each lag behind, then the window. `UserError` where fewer than two items occur often enough."""
    whole = share_positions(language.corpus.matrix)
    items = heaviest(language, whole, config.decipher.min_count)[0][: config.max_items]
    shared = fold(whole, items, False)
    segments, known = language.corpus.segments, shared[:, : config.contexts]
    near = profiles(shared, known, segments, lags)
    bins = [*near[::2], *near[1::2]]
    if window:
        reach = min(window, int(np.diff(segments).max()) - 1)
        bins.append(sum(profiles(shared, known, segments, tuple(range(1, reach + 1)))))
    odds = []
    for pairs in bins:
        count = torch.from_numpy(pairs.toarray()).to(config.device, torch.float32)
        total = count.sum().clamp_min(1)
        odds.append(((count + 1) / (count.sum(1, keepdim=True) * count.sum(0) / total + 1)).log())
    frequency = torch.from_numpy(np.asarray(shared.mean(axis=0), dtype=np.float32)).to(config.device)
    return Contexts(items, frequency, torch.stack(odds))


@dataclass(frozen=True)
class Pairs:
    """Contexts of one language paired with contexts of the other; one may be in several pairs."""

    source: Int[Tensor, "pairs"]
    target: Int[Tensor, "pairs"]
    weight: Float[Tensor, "pairs"]
    "One over the geometric mean of the pairs that either context is in."


def nearness(
    bins: Iterable[tuple[Float[Tensor, "n k"], Float[Tensor, "m k"]]],
) -> Float[Tensor, "n m"]:
    """CSLS of every pair, over all bins together, of which one at a time is held."""
    rest = iter(bins)
    x, y = next(rest)
    cosine, of_source, of_target = x @ y.T, x.square().sum(1), y.square().sum(1)
    for x, y in rest:
        cosine.addmm_(x, y.T)
        of_source += x.square().sum(1)
        of_target += y.square().sum(1)
    cosine.mul_(of_source.clamp_min(TINY).rsqrt()[:, None]).mul_(of_target.clamp_min(TINY).rsqrt())
    of_source, of_target = (largest(side, min(NEAREST, side.shape[1]))[0].mean(1) for side in (cosine, cosine.T))
    return cosine.mul_(2).sub_(of_source[:, None]).sub_(of_target)


def carried(source: Contexts, target: Contexts, dictionary: Float[Tensor, "k l"]) -> Float[Tensor, "n m"]:
    """CSLS in the contexts of either side, the other's carried there by the dictionary; their mean."""
    back = (dictionary / dictionary.sum(0).clamp_min(TINY)).T
    there = dictionary / dictionary.sum(1, keepdim=True).clamp_min(TINY)
    bins = list(zip(source.odds, target.odds, strict=True))
    return (nearness((x, y @ back) for x, y in bins) + nearness((x @ there, y) for x, y in bins)) / 2


def compared(source: Contexts, target: Contexts, pairs: Pairs) -> Float[Tensor, "n m"]:
    """CSLS in the contexts that are paired, and in those alone."""
    return nearness(
        (preferred(x[:, pairs.source], pairs.weight), preferred(y[:, pairs.target], pairs.weight))
        for x, y in zip(source.odds, target.odds, strict=True)
    )


def preferred(odds: Float[Tensor, "n pairs"], weight: Float[Tensor, "pairs"]) -> Float[Tensor, "n pairs"]:
    """Log odds from their item's mean, and so much heavier that products of two sum by weight; `odds` is overwritten.
    The mean tells how often an item occurs and how evenly, not what it prefers."""
    mean = odds @ (weight / weight.sum().clamp_min(TINY))
    return odds.sub_(mean[:, None]).mul_(weight.sqrt())


def chosen(scores: Float[Tensor, "n m"], nearest: int, n_source: int, n_target: int) -> Pairs:
    """Each of the first items of either side with its best of all, where that is one of the other's first and has it
    among its `nearest`."""
    there = largest(scores[:n_source], min(nearest, scores.shape[1]))[1]
    back = largest(scores[:, :n_target].T, min(nearest, scores.shape[0]))[1]

    def kept(near: Int[Tensor, "n k"], other: Int[Tensor, "m k"]) -> Int[Tensor, "two pairs"]:
        items = (near[:, 0] < len(other)).nonzero().flatten()
        best = near[items, 0]
        returned = (other[best] == items[:, None]).any(1)
        return torch.stack([items[returned], best[returned]])

    both = torch.cat([kept(there, back), kept(back, there).flip(0)], dim=1).unique(dim=1)
    shared = both[0].bincount()[both[0]] * both[1].bincount()[both[1]]
    return Pairs(both[0], both[1], shared.to(scores.dtype).rsqrt())


def deciphered(source: Language, target: Language, config: DecipherConfig, back: bool) -> Float[Tensor, "k l"]:
    """Joint weight of the heaviest items of either side by decipherment, the target read backwards if so asked."""
    cipher, plain = core_of(source, config.max_source_core, config), core_of(target, config.max_target_core, config)
    plain = backwards(plain) if back else plain
    start = start_emission(cipher, plain, config, torch.Generator().manual_seed(config.seed))
    fit = maximise(cipher.joint, smooth(plain).joint, start, config.iterations, config.tolerance, weights=cipher.local)
    return (plain.frequency[:, None] * fit.emission).T[: len(cipher.items), : len(plain.items)]


def learnt(
    source: Contexts,
    target: Contexts,
    core: Float[Tensor, "k l"],
    config: ContextsConfig,
    report: Callable[[int], None] = lambda step: None,
) -> tuple[Float[Tensor, "n m"], Pairs]:
    """Scores after the steps of self-learning from a core's joint weights, and the pairs of contexts they lead to."""
    n_source, n_target = source.odds.shape[2], target.odds.shape[2]
    dictionary = core.new_zeros(n_source, n_target)
    core = core[:n_source, :n_target]
    dictionary[: len(core), : core.shape[1]] = core
    whole = source, target
    few = source.first(int(COMPETING * n_source)), target.first(int(COMPETING * n_target))
    scores = carried(*(few if config.steps > 1 else whole), dictionary)
    for step in range(1, config.steps):
        pairs = chosen(scores, config.nearest, n_source, n_target)
        scores = compared(*(few if step < config.steps - 1 else whole), pairs)
        report(step)
    return scores, chosen(scores, config.nearest, n_source, n_target)


def align_contexts(
    source: Language,
    target: Language,
    config: ContextsConfig = ContextsConfig(),
    progress: Callable[[str, int, int], None] | None = None,
) -> Alignment:
    """Translate every word of `source` into `target` from text alone, however their word orders differ.

    For languages of words; of SAE latents, which are functions of single tokens, `decipher` is the better reader. The
    coupling is dense, source x target. Bit-reproducible by `config.seed`. Raises `UserError` where there is too little
    text.
    """
    began = perf_counter()
    deciphering = replace(
        config.decipher, max_source_core=config.core, max_target_core=config.core, seed=config.seed,
        device=config.device,
    )  # fmt: skip

    def report(step: int) -> None:
        if progress is not None:
            progress("contexts", step, config.steps)

    first, second = (contexts_of(side, config.lags, config.window, config) for side in (source, target))
    scores, pairs = learnt(first, second, deciphered(source, target, deciphering, False), config, report)
    objective = float(scores.max(1).values.mean())
    reach = hit_rate(first, second, pairs, len(config.lags))
    sharpness = sharpened(scores[: config.contexts], reach)
    plan = balanced(scores.mul_(sharpness)).clamp_min_(TINY).log_()
    plan = plan.mul_(sharpened(plan[: config.contexts], reach)).softmax(1)
    verdict = judge_contexts(source, target, config, deciphering) if config.null_surrogates else None
    believed = float(verdict is None or verdict.believed)
    confidence = np.zeros(len(source.items), np.float32)
    confidence[first.items] = plan.max(1).values.cpu().numpy() * believed
    plan *= first.frequency[:, None]
    coupling = np.zeros((len(source.items), len(target.items)), np.float32)
    coupling[np.ix_(first.items, second.items)] = (plan / plan.sum()).cpu().numpy()
    return Alignment(
        source_items=source.items,
        target_items=target.items,
        coupling=coupling,
        objective=objective,
        confidence=confidence,
        verdict=verdict,
        record={
            "method": "contexts",
            "config": asdict(config),
            "source": {"name": source.name, "positions": source.corpus.n_positions, "items": len(first.items)},
            "target": {"name": target.name, "positions": target.corpus.n_positions, "items": len(second.items)},
            "hit_rate": reach,
            "sharpness": sharpness,
            "seconds": perf_counter() - began,
        },
    )


def hit_rate(source: Contexts, target: Contexts, pairs: Pairs, n_lags: int) -> float:
    """The share of items told right by what stands on one side of them alone, of the heaviest: what is ahead and what
    is behind err apart, so they agree on about the product of their hit rates."""
    ahead = torch.arange(n_lags, device=source.odds.device)
    best = [compared(source.turned(bins), target.turned(bins), pairs)[: source.odds.shape[2]].argmax(1)
            for bins in (ahead, ahead + n_lags)]  # fmt: skip
    return float((best[0] == best[1]).float().mean()) ** 0.5


def sharpened(scores: Float[Tensor, "n m"], reach: float) -> float:
    """The factor at which the softmax of these scores gives its best target this chance, on average over rows."""
    short = scores - scores.max(1, keepdim=True).values
    low, high = 1.0, 1e4
    for _ in range(SEARCHED):
        middle = (low * high) ** 0.5
        if float((1 / (middle * short).exp().sum(1)).mean()) < reach:
            low = middle
        else:
            high = middle
    return low


def judge_contexts(
    source: Language, target: Language, config: ContextsConfig, deciphering: DecipherConfig
) -> NullVerdict:
    """Two dictionaries are made of lags that they do not share; the share of items on which they agree is set against
    the same with the target read backwards, which has the same counts and the same information at every lag."""
    small = replace(config, max_items=config.core, contexts=config.core)
    trials = [
        (
            *(contexts_of(side, lags, 0, small) for side in (source, target)),
            replace(deciphering, lags=lags, far_lag=0), len(lags),
        )
        for lags in config.trial_lags
    ]  # fmt: skip

    def agreement(back: bool, seed: int) -> float:
        found = []
        for number, (first, second, knobs, n_lags) in enumerate(trials):
            start = deciphered(source, target, replace(knobs, seed=seed + number), back)
            turn = torch.arange(2 * n_lags, device=second.odds.device).roll(n_lags if back else 0)
            found.append(learnt(first, second.turned(turn), start, config)[0])
        both = [scores.argmax(1) for scores in found]
        return float((both[0] == both[1]).float().mean())

    objective = agreement(False, config.seed)
    null = tuple(agreement(True, config.seed + 2 * number) for number in range(config.null_surrogates))
    threshold = max(null) + config.margin
    believed = objective > threshold
    reason = (
        f"two dictionaries from distances that they do not share agree on {objective:.1%} of the items, on "
        f"{max(null):.1%} with the target read backwards, and more than {threshold:.1%} was asked for: "
    ) + ("the two languages share their structure" if believed else "no shared structure found, so no answer is given")
    return NullVerdict(objective, null, threshold, believed, reason, {"margin": objective - max(null)})
