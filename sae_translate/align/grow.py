"""From a deciphered core to whole vocabularies, at a cost linear in each: every source item's profile over the core
explained as a mixture of target items, whose own profiles are carried through the core's emission."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from sae_translate.align.core import Core, DecipherConfig, emission_of, gathering
from sae_translate.align.emission import FLOOR, NOTHING, TINY
from sae_translate.align.recorded import Part, lagged_pairs
from sae_translate.align.statistics import fold, lagged_cooccurrence, lagged_counts, share_positions
from sae_translate.languages.language import Language

BLOCK = 1024
CANDIDATES, FULL_STEPS, FEW_ROWS = 24, 4, 16
RELAXED, PLAIN_STEPS = 1.9, 5
"""Power to which a step raises its factor after the first, short of 2, where EM would overshoot; and how many of the
last steps are plain."""


def profiles(
    shared: sparse.csr_array, core: sparse.csr_array, segments: np.ndarray, lags: tuple[int, ...]
) -> list[sparse.csr_array]:
    """Items x core, one for each lag and direction: what stands so far behind and ahead of every item."""
    return [lagged_cooccurrence(shared, core, segments, sign * lag) for lag in lags for sign in (1, -1)]


def reweigh(
    seen: Float[Tensor, "b p"],
    parts: Float[Tensor, "b c p"] | Float[Tensor, "c p"],
    weight: Float[Tensor, "b c"],
    steps: int,
) -> Float[Tensor, "b c"]:
    """Steps of EM on mixture weights, rows apart, over-relaxed (Salakhutdinov & Roweis 2003) but for the first, and of
    rows with parts of their own the last."""
    own = parts.dim() == 3
    for step in range(steps):
        model = torch.bmm(weight[:, None], parts)[:, 0] if own else weight @ parts
        ratio = seen / model.clamp_min_(FLOOR)
        factor = torch.bmm(parts, ratio[:, :, None])[:, :, 0] if own else ratio @ parts.T
        plain = step == 0 or (own and step >= steps - PLAIN_STEPS)
        weight = weight * factor.clamp_min_(TINY).pow_(1.0 if plain else RELAXED)
        weight = weight / weight.sum(1, keepdim=True).clamp_min(TINY)
        weight = torch.nn.functional.threshold(weight, NOTHING, 0.0)
    return weight


def mixture(
    seen: Float[Tensor, "b p"], parts: Float[Tensor, "m p"], weight: Float[Tensor, "b m"], iterations: int
) -> Float[Tensor, "b m"]:
    """Mixture weights that maximise sum seen log(weight @ parts) row by row.

    After a few steps over all parts, each row goes on with its `CANDIDATES` heaviest alone.
    """
    if parts.shape[0] <= 2 * CANDIDATES or iterations <= FULL_STEPS:
        return reweigh(seen, parts, weight, iterations)
    weight = reweigh(seen, parts, weight, FULL_STEPS)
    kept = torch.zeros_like(weight)
    for rows in torch.arange(len(seen), device=seen.device).split(FEW_ROWS):
        value, index = weight[rows].topk(CANDIDATES, dim=1)
        kept[rows] = kept[rows].scatter(1, index, reweigh(seen[rows], parts[index], value, iterations - FULL_STEPS))
    return kept


def explained(
    seen: list[Float[np.ndarray, "items n"]],
    spoken: list[Float[np.ndarray, "words m"]],
    emission: Float[Tensor, "m n"],
    known: dict[int, Float[Tensor, "words"]],
    share: Float[Tensor, "items"],
    frequency: Float[Tensor, "words"],
    config: DecipherConfig,
    progress: Callable[[str, int, int], None] | None = None,
) -> Float[np.ndarray, "items words"]:
    """Joint weights under which what stands near each item is what stands near words, told by the core's emission.

    seen and spoken: counts of the source's and the target's core near every item and word, for each lag and direction.
    known: where the weights of some items start; the others start from words of like frequency.
    """
    device, dtype = emission.device, emission.dtype
    parts = torch.cat([torch.from_numpy(part).to(device, dtype) @ emission for part in spoken], dim=1)
    parts = parts / parts.sum(1, keepdim=True).clamp_min(TINY)
    weights = np.zeros((len(share), len(frequency)), np.float32)
    for begin in range(0, len(share), BLOCK):
        rows = slice(begin, min(begin + BLOCK, len(share)))
        observed = torch.cat([torch.from_numpy(part[rows]).to(device, dtype) for part in seen], dim=1)
        observed = observed / observed.sum(1, keepdim=True).clamp_min(TINY)
        apart = frequency.clamp_min(TINY).log()[None, :] - share[rows, None].log()
        weight = frequency[None, :] * (-config.frequency_weight * apart.clamp(-6, 6) ** 2).exp()
        for row in range(begin, rows.stop):
            if row in known:
                weight[row - begin] = known[row] + 1e-6 * frequency
        weight = weight / weight.sum(1, keepdim=True)
        weight = mixture(observed, parts, weight, config.growth_iterations) * share[rows, None]
        weights[rows] = weight.cpu().numpy()
        if progress is not None:
            progress("grow", rows.stop, len(share))
    return weights


def told(
    cipher: Core, plain: Core, emission: Float[Tensor, "m n"], frequency: Float[Tensor, "words"], column: np.ndarray
) -> list[Float[Tensor, "words"]]:
    """For every item of the source's core its share of every word, by an emission between the cores.

    column: where each word of the target's core stands among the words; the last of these is all others. What an item
    has of "other" goes to the words outside the core, by their frequency.
    """
    known = (plain.frequency[:, None] * emission).T
    known = known / known.sum(1, keepdim=True).clamp_min(TINY)
    outside = frequency.clone()
    outside[column] = 0
    outside = outside / outside.sum().clamp_min(TINY)
    rows = (known[:, -1:] if plain.other else torch.full_like(known[:, -1:], 1e-3)) * outside
    rows[:, column] = known[:, : len(column)]
    return list(rows[: len(cipher.items)])


def grow(
    source: Language,
    target: Language,
    cipher: Core,
    plain: Core,
    emission: Float[Tensor, "m n"],
    config: DecipherConfig,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[Float[np.ndarray, "source target"], Float[np.ndarray, "source"]]:
    """Coupling of every source item with every target item, and each source item's mass on no named target.

    Items that hold fewer than `config.min_count` positions keep a row (or column) of zeros.
    """
    device, dtype = emission.device, emission.dtype
    lags = [sign * lag for lag in config.lags[: config.growth_lags] for sign in (1, -1)]
    shared_source, shared_target = share_positions(source.corpus.matrix), share_positions(target.corpus.matrix)
    count_source = np.asarray(shared_source.sum(axis=0, dtype=np.float64)).ravel()
    count_target = np.asarray(shared_target.sum(axis=0, dtype=np.float64)).ravel()
    items = np.flatnonzero(count_source >= config.min_count)
    words = np.flatnonzero(count_target >= config.min_count)
    named = fold(shared_target, words, True)
    frequency = np.append(count_target[words], named[:, len(words)].sum()) / target.corpus.n_positions
    frequency = torch.from_numpy(frequency).to(device, dtype)
    share = torch.from_numpy(count_source[items] / source.corpus.n_positions).to(device, dtype)

    begun = told(cipher, plain, emission, frequency, np.searchsorted(words, plain.items))
    known = dict(zip(np.searchsorted(items, cipher.items).tolist(), begun, strict=True))
    every, core = Part(items, False, fold(shared_source, items, False)), Part(cipher.items, cipher.other, cipher.shared)
    seen = [lagged_pairs(source.corpus, every, core, lag) for lag in lags]
    spoken = [lagged_counts(named, plain.shared, target.corpus.segments, lag) for lag in lags]
    dense = explained(seen, spoken, emission, known, share, frequency, config, progress)
    coupling = np.zeros((len(source.items), len(target.items)), np.float32)
    other = np.zeros(len(source.items), np.float32)
    coupling[np.ix_(items, words)], other[items] = dense[:, :-1], dense[:, -1]
    return coupling, other


def widen(
    cipher: Core, plain: Core, narrow: tuple[Core, Core], emission: Float[Tensor, "m n"], config: DecipherConfig
) -> Float[Tensor, "words items"]:
    """An emission between two cores from one between their heaviest items (`shrink`)."""
    lags = range(config.growth_lags)

    def near(core: Core, size: int) -> list[Float[np.ndarray, "n m"]]:
        """Counts of the narrow core near every item of the wide one."""
        gather = gathering(core, size)
        joints = [way for lag in lags for way in (core.joint[lag], core.joint[lag].T)]
        return [(joint[: len(core.items) + core.other] @ gather).cpu().numpy() for joint in joints]

    sizes = [len(core.items) for core in narrow]
    known = told(*narrow, emission, plain.frequency, np.arange(sizes[1]))
    seen = [part[: len(cipher.items)] for part in near(cipher, sizes[0])]
    weights = explained(
        seen, near(plain, sizes[1]), emission, dict(enumerate(known)), cipher.frequency[: len(cipher.items)],
        plain.frequency, config,
    )  # fmt: skip
    return emission_of(weights, cipher, plain)
