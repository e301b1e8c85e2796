"""The core of a language: its heaviest items and their lagged joints, as dense arrays that EM can multiply."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from activation_cache.errors import UserError
from sae_translate.align.emission import TINY, mutual_information
from sae_translate.align.recorded import Part, lagged_pairs
from sae_translate.align.statistics import fold, share_positions
from sae_translate.languages.language import Language

SMOOTHING_STEPS = 50
MINGLED = 1e-3
"Share of the source's frequencies in an emission that EM goes on from."


@dataclass(frozen=True)
class DecipherConfig:
    """Knobs of `decipher`. The defaults are the ones that reports/decipherment.md measures."""

    lags: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    "Distances, in positions, at which co-occurrence is compared."
    far_lag: int = 24
    """A distance at which co-occurrence tells the topic alone. A lag counts in the final fit by the share of the
    source's information there that is more than this, as latents know the topic from elsewhere than the token they
    fire on. 0: all lags count alike."""
    max_source_core: int = 1024
    "How many of the heaviest source items are deciphered together; the rest is grown from them at linear cost."
    max_target_core: int = 1024
    "How many of the heaviest target items are deciphered together."
    coarse_cores: tuple[int, ...] = (256, 512)
    """Of a wider core, so many of the heaviest items are deciphered first, where they hold most of the text; from them
    the next so many are grown, and so on until all go on together. None: all are deciphered together from the start."""
    min_count: float = 20.0
    "An item that holds fewer positions than this is not aligned: there is too little to go by."
    iterations: int = 300
    "Most evaluations of expectation-maximisation in one restart."
    tolerance: float = 2e-4
    "A restart ends when ten steps together gain less explained information than this."
    restarts: int = 1
    "Random starts; the one with the highest explained information is kept."
    noise: float = 0.05
    "Standard deviation of the log-normal noise of a start."
    frequency_weight: float = 0.5
    "How strongly a start prefers pairs of similar frequency: it multiplies exp(-weight (log p - log q)^2)."
    growth_lags: int = 2
    "How many of the lags items outside the core are compared at: more cost in proportion and gain little."
    growth_iterations: int = 15
    "Steps by which items outside the core are explained as mixtures of target items."
    settling_iterations: int = 16
    "Steps of expectation-maximisation over a core that was grown, or read in context."
    settling_lags: int = 1
    "At how many of the lags."
    null_surrogates: int = 1
    "Surrogates of the target against which the result is judged; 0 gives no verdict and no calibrated confidence."
    null_core: int = 400
    "How many of the heaviest items on each side the verdict looks at where 192 and 256 do not convince it."
    margin: float = 0.2
    "Share of what was learnt that must carry over to unseen lags beyond what carries over with the best surrogate."
    seed: int = 0
    "Seeds the starts and the surrogates."
    device: str = "cpu"
    "Where the products of matrices are done."
    dtype: str = "float32"
    "Their precision: float32 or float64."


@dataclass(frozen=True)
class Core:
    """The items deciphered together, and their lagged joints as dense arrays."""

    items: Int[np.ndarray, "core"]
    "Indices in the language's vocabulary, heaviest first."
    other: bool
    "Whether one more item stands last for all that the core leaves out."
    shared: sparse.csr_array | None
    "Positions x core (and other): what each position holds, summing to 1; None where only joints are needed."
    joint: Float[Tensor, "lags n n"]
    "Joint probability of two items a lag apart; each lag sums to 1."
    left_out: int
    "How many items occur often enough to be aligned and are not in the core."
    n_pairs: tuple[float, ...]
    "How many pairs of positions each joint was counted from; 0 where positions hold more than one item."
    local: tuple[float, ...]
    "What each lag counts, at most 1: its information beyond that of the far lag, as a share of its own."

    @property
    def frequency(self) -> Float[Tensor, "n"]:
        return (self.joint.sum(1) + self.joint.sum(2)).mean(0) / 2


def core_of(language: Language, size: int, config: DecipherConfig) -> Core:
    """The heaviest items of a language with their joint statistics; `UserError` where the text is too short."""
    shared = share_positions(language.corpus.matrix)
    enough, counts = heaviest(language, shared, config.min_count)
    items = enough[:size]
    other = bool(language.corpus.n_positions - counts[items].sum() > config.min_count)
    part = Part(items, other, fold(shared, items, other))
    joint = torch.stack([_joint(part, language, lag, config) for lag in config.lags])
    lengths = np.diff(language.corpus.segments)
    single = np.diff(language.corpus.matrix.indptr).max() <= 1
    n_pairs = tuple(float(np.maximum(lengths - lag, 0).sum()) * single for lag in config.lags)
    local = _local(part, language, joint, config)
    return Core(items, other, part.shared, joint, len(enough) - len(items), n_pairs, local)


def heaviest(
    language: Language, shared: sparse.csr_array, min_count: float
) -> tuple[Int[np.ndarray, "enough"], Float[np.ndarray, "items"]]:
    """Items that hold enough positions, heaviest first, and how many every item holds; `UserError` where fewer than two
    do. `shared` is what the positions hold, each summing to 1."""
    counts = np.asarray(shared.sum(axis=0, dtype=np.float64)).ravel()
    enough = np.flatnonzero(counts >= min_count)
    if len(enough) < 2:
        raise UserError(
            f"too little text to decipher: {language.name} has {language.corpus.n_positions:,} positions, in which "
            f"{len(enough)} of {len(counts):,} items occur {min_count:g} times or more, and 2 are needed; "
            "give more text or lower min_count"
        )
    return enough[np.argsort(-counts[enough], kind="stable")], counts


def _joint(part: Part, language: Language, lag: int, config: DecipherConfig) -> Float[Tensor, "n n"]:
    """Joint probability of two items this lag apart."""
    pairs = lagged_pairs(language.corpus, part, part, lag)
    if pairs.sum() <= 0:
        raise UserError(
            f"too little text to decipher: no segment of {language.name} is longer than {lag} positions, so "
            f"lag {lag} has nothing to count; give longer texts or shorter lags than {config.lags}"
        )
    return torch.from_numpy(pairs / pairs.sum()).to(config.device, getattr(torch, config.dtype))


def _local(
    part: Part, language: Language, joint: Float[Tensor, "lags n n"], config: DecipherConfig
) -> tuple[float, ...]:
    """1 - I(far lag) / I(lag), the largest scaled to 1; ones where no lag is local or no text long enough."""
    alike = (1.0,) * len(joint)
    if not config.far_lag or np.diff(language.corpus.segments).max() <= config.far_lag:
        return alike
    topic = mutual_information(_joint(part, language, config.far_lag, config)[None])
    shares = np.array([max(0.0, 1 - topic / max(mutual_information(lag[None]), TINY)) for lag in joint])
    return tuple((shares / shares.max()).tolist()) if shares.max() > 0 else alike


def smooth(core: Core) -> Core:
    """The core with joints as they would be in more text: each mixed with independence (Jelinek & Mercer 1980), in the
    share under which every pair is likeliest given all the others (leave one out). As it is where positions hold more
    than one item, as pairs then are no counts."""
    if not all(core.n_pairs):
        return core
    joint = core.joint.clone()
    for pairs, n in zip(joint, core.n_pairs, strict=True):
        free = pairs.sum(1, keepdim=True) * pairs.sum(0, keepdim=True)
        seen = pairs * n > 0.5
        count = pairs[seen] * n
        others, chance = (count - 1).clamp_min(0) / max(n - 1, 1), free[seen].clamp_min(TINY)
        share = 0.5
        for _ in range(SMOOTHING_STEPS):
            share = float((count * share * chance / (share * chance + (1 - share) * others)).sum() / count.sum())
        pairs.mul_(1 - share).add_(share * free)
    return replace(core, joint=joint)


def gathering(core: Core, size: int) -> Float[Tensor, "n narrow"]:
    """Sums over a core's items, of which the heaviest `size` stay as they are and the others are one, the last."""
    n = core.joint.shape[1]
    gather = torch.zeros(n, min(n, size + 1), dtype=core.joint.dtype, device=core.joint.device)
    gather[torch.arange(n), torch.arange(n).clamp_max(size)] = 1
    return gather


def shrink(core: Core, size: int) -> Core:
    """The heaviest `size` items of a core; what falls out joins its "other"."""
    if size >= len(core.items):
        return core
    gather = gathering(core, size)
    left_out = core.left_out + len(core.items) - size
    return Core(core.items[:size], True, None, gather.T @ core.joint @ gather, left_out, core.n_pairs, core.local)


def emission_of(weights: Float[np.ndarray, "items words"], cipher: Core, plain: Core) -> Float[Tensor, "m n"]:
    """The emission of joint weights of two cores' items, from which EM can go on: no pair is impossible. What a word
    has left over it emits as the source's "other", as the target's does everything by frequency."""
    source, target = cipher.frequency, plain.frequency
    joint = torch.zeros(len(target), len(source), dtype=source.dtype, device=source.device)
    given = torch.from_numpy(np.ascontiguousarray(weights.T[: len(target)])).to(joint)
    joint[: len(given), : given.shape[1]] = given
    if cipher.other:
        joint[:, -1] = (target - joint.sum(1)).clamp_min(0)
    total = joint.sum(1, keepdim=True)
    joint = torch.where(total > TINY, joint / total.clamp_min(TINY), source)
    return (1 - MINGLED) * joint + MINGLED * source


def start_emission(
    cipher: Core, plain: Core, config: DecipherConfig, generator: torch.Generator
) -> Float[Tensor, "m n"]:
    """The source's frequencies in every row, with noise, tilted towards pairs of similar frequency.

    What a core leaves out is no item, so its frequency says nothing: it takes the same share in every row. (With the
    tilt there too, EM is drawn to an optimum in which the left-out items pair with each other and nothing is right.)
    """
    source, target = cipher.frequency, plain.frequency
    noise = torch.randn(len(target), len(source), generator=generator, dtype=torch.float32).to(source)
    apart = target.clamp_min(TINY).log()[:, None] - source.clamp_min(TINY).log()[None, :]
    emission = source[None, :] * (config.noise * noise - config.frequency_weight * apart.clamp(-6, 6) ** 2).exp()
    if plain.other:
        emission[-1] = source
    if cipher.other:
        named = emission[:, :-1]
        emission[:, :-1] = named * ((1 - source[-1]) / named.sum(1, keepdim=True).clamp_min(TINY))
        emission[:, -1] = source[-1]
    return emission / emission.sum(1, keepdim=True)
