"""From a deciphered core to whole vocabularies, at a cost linear in each: every source item's profile over the core
explained as a mixture of target items, whose own profiles are carried through the core's emission."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from sae_translate.align.core import Core, DecipherConfig
from sae_translate.align.emission import FLOOR, NOTHING, TINY
from sae_translate.align.statistics import lagged_cooccurrence, share_positions
from sae_translate.languages.language import Language

BLOCK = 1024
CANDIDATES, FULL_STEPS, FEW_ROWS = 64, 10, 16


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
    """Steps of EM on mixture weights, rows apart, each factor over-relaxed but for the last five."""
    own = parts.dim() == 3
    for step in range(steps):
        model = torch.bmm(weight[:, None], parts)[:, 0] if own else weight @ parts
        ratio = seen / model.clamp_min_(FLOOR)
        factor = torch.bmm(parts, ratio[:, :, None])[:, :, 0] if own else ratio @ parts.T
        weight = weight * factor.clamp_min_(TINY).pow_(1.0 if step >= steps - 5 else min(1.1**step, 1.8))
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
    lags = config.lags[: config.growth_lags]
    shared_source, shared_target = share_positions(source.corpus.matrix), share_positions(target.corpus.matrix)
    count_source = np.asarray(shared_source.sum(axis=0, dtype=np.float64)).ravel()
    count_target = np.asarray(shared_target.sum(axis=0, dtype=np.float64)).ravel()
    items = np.flatnonzero(count_source >= config.min_count)
    words = np.flatnonzero(count_target >= config.min_count)

    silent = 1.0 - np.asarray(shared_target[:, words].sum(axis=1)).ravel()
    silent[silent < 1e-5] = 0
    named = sparse.csr_array(sparse.hstack([shared_target[:, words], sparse.csr_array(silent[:, None])], format="csr"))
    carried = [
        torch.from_numpy(part.toarray()).to(device, dtype) @ emission
        for part in profiles(named.astype(np.float32), plain.shared, target.corpus.segments, lags)
    ]
    parts = torch.cat(carried, dim=1)
    parts = parts / parts.sum(1, keepdim=True).clamp_min(TINY)
    frequency = torch.from_numpy(np.append(count_target[words], silent.sum()) / target.corpus.n_positions)
    frequency = frequency.to(device, dtype)

    known = (plain.frequency[:, None] * emission).T
    known = known / known.sum(1, keepdim=True).clamp_min(TINY)
    place = {item: row for row, item in enumerate(cipher.items)}
    column = torch.from_numpy(np.searchsorted(words, plain.items)).to(device)
    outside = frequency.clone()
    outside[column] = 0
    outside = outside / outside.sum().clamp_min(TINY)

    seen = [
        part.tocsr()
        for part in profiles(sparse.csr_array(shared_source[:, items]), cipher.shared, source.corpus.segments, lags)
    ]
    share = torch.from_numpy(count_source[items] / source.corpus.n_positions).to(device, dtype)
    coupling = np.zeros((len(source.items), len(target.items)), np.float32)
    other = np.zeros(len(source.items), np.float32)
    for begin in range(0, len(items), BLOCK):
        rows = slice(begin, min(begin + BLOCK, len(items)))
        observed = torch.cat([torch.from_numpy(part[rows].toarray()).to(device, dtype) for part in seen], dim=1)
        observed = observed / observed.sum(1, keepdim=True).clamp_min(TINY)
        apart = frequency.clamp_min(TINY).log()[None, :] - share[rows, None].log()
        weight = frequency[None, :] * (-config.frequency_weight * apart.clamp(-6, 6) ** 2).exp()
        for row, item in enumerate(items[rows]):
            if item in place:
                believed = known[place[item]]
                weight[row] = outside * (believed[-1] if plain.other else 1e-3)
                weight[row, column] = believed[: len(column)]
                weight[row] += 1e-6 * frequency
        weight = weight / weight.sum(1, keepdim=True)
        weight = mixture(observed, parts, weight, config.growth_iterations) * share[rows, None]
        dense = weight.cpu().numpy()
        coupling[np.ix_(items[rows], words)] = dense[:, :-1]
        other[items[rows]] = dense[:, -1]
        if progress is not None:
            progress("grow", min(begin + BLOCK, len(items)), len(items))
    return coupling, other
