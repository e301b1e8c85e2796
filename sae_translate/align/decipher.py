"""Decipherment: a dictionary between two languages from what occurs near what in each, with no pair and no vector."""

from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_translate.align.alignment import Alignment
from sae_translate.align.core import Core, DecipherConfig, core_of, emission_of, shrink, smooth, start_emission
from sae_translate.align.emission import TINY, Fit, maximise
from sae_translate.align.grow import grow, widen
from sae_translate.align.null import SHARPNESS, Trial, carried_over, judge
from sae_translate.languages.language import Language

__all__ = ["DecipherConfig", "decipher", "explained_by", "settle"]

WIDE, MOST = 1.5, 0.5
"""A core is deciphered from its heaviest items outwards if it is so many times as wide as the widest coarse core, which
holds this much of the text."""
COARSE_TOLERANCE = 1e-3
"The heaviest items need not be settled to the last, as they go on with the others; half of the lags do."


def decipher(
    source: Language,
    target: Language,
    config: DecipherConfig = DecipherConfig(),  # noqa: B008  (frozen)
    progress: Callable[[str, int, int], None] | None = None,
) -> Alignment:
    """Translate every item of `source` (the cipher: SAE latents, or words) into `target` (the plain language).

    Finds P(source item | target item) such that the target's lagged co-occurrence, seen through it, is the source's.
    `progress` is called with the stage, the steps done and the most there can be. Bit-reproducible by `config.seed`
    on one machine and number of threads. Raises `UserError` where there is too little text.
    """
    began = perf_counter()
    cipher = core_of(source, config.max_source_core, config)
    plain = core_of(target, config.max_target_core, config)
    likely = smooth(plain)
    fits: list[Fit] = []
    for restart in range(config.restarts):

        def report(step: int, _: float, restart: int = restart) -> None:
            if progress is not None:
                progress(f"decipher {restart + 1}/{config.restarts}", step, config.iterations)

        generator = torch.Generator().manual_seed(config.seed + 1000 * restart)
        fits.append(fitted(cipher, likely, config, generator, report))
    fit = max(fits, key=lambda fit: fit.trace[-1])
    coupling, other = spread(source, target, cipher, plain, fit, config, progress)
    verdict, found, belief = None, None, np.float32(1)
    if config.null_surrogates:
        verdict, found = judge(cipher, plain, config, torch.Generator().manual_seed(config.seed), progress)
        # Short of the margin, an agreement may be that of two wrong answers: trust falls with the shortfall.
        belief = np.float32(np.clip(verdict.evidence["margin"] / verdict.evidence["margin_asked"], 0, 1))
    return Alignment(
        source_items=source.items,
        target_items=target.items,
        coupling=coupling / max(float(coupling.sum(dtype=np.float64)), TINY),
        objective=fit.trace[-1],
        confidence=confidence_of(coupling, other, cipher, plain, found) * belief,
        verdict=verdict,
        record={
            "method": "decipher",
            "config": asdict(config),
            "source": {"name": source.name, "positions": source.corpus.n_positions, "core": len(cipher.items)},
            "target": {"name": target.name, "positions": target.corpus.n_positions, "core": len(plain.items)},
            "lag_weights": cipher.local,
            "objectives": [fit.trace[-1] for fit in fits],
            "steps": [fit.steps for fit in fits],
            "seconds": perf_counter() - began,
        },
    )


def fitted(
    cipher: Core,
    plain: Core,
    config: DecipherConfig,
    generator: torch.Generator,
    report: Callable[[int, float], None] | None = None,
) -> Fit:
    """One start of expectation-maximisation over two cores, from their heaviest items outwards where these hold most of
    both texts."""
    sizes = config.coarse_cores
    wide = bool(sizes) and max(len(cipher.items), len(plain.items)) > WIDE * sizes[-1]
    coarse = [(shrink(cipher, size), shrink(plain, size)) for size in sizes] if wide else []
    if not coarse or min(1 - float(core.frequency[-1]) if core.other else 1.0 for core in coarse[-1]) < MOST:
        start = start_emission(cipher, plain, config, generator)
        limits = config.iterations, config.tolerance
        return maximise(cipher.joint, plain.joint, start, *limits, weights=cipher.local, progress=report)
    near, limits = slice((len(config.lags) + 1) // 2), (config.iterations, max(config.tolerance, COARSE_TOLERANCE))
    sides = [core.joint[near] for core in coarse[0]]
    start = start_emission(*coarse[0], config, generator)
    fits = [maximise(*sides, start, *limits, weights=cipher.local[near], progress=report)]
    for narrow, wider in pairwise([*coarse, (cipher, plain)]):
        fits.append(settled(*wider, widen(*wider, narrow, fits[-1].emission, config), config))
    fits.append(maximise(cipher.joint, plain.joint, fits[-1].emission, 1, 0.0, weights=cipher.local))
    return replace(fits[-1], steps=sum(fit.steps for fit in fits))


def settled(cipher: Core, plain: Core, emission: Float[Tensor, "m n"], config: DecipherConfig) -> Fit:
    """A few steps of expectation-maximisation from an emission that is nearly right, at the nearest lags alone."""
    near = slice(config.settling_lags)
    steps = config.settling_iterations
    return maximise(cipher.joint[near], plain.joint[near], emission, steps, 0.0, weights=cipher.local[near])


def settle(alignment: Alignment, source: Language, target: Language, config: DecipherConfig) -> Alignment:
    """An alignment that was found otherwise (read in context, say) brought back to what co-occurrence bears out: among
    the heaviest items, where the rest stays as it is. Raises as `decipher` does."""
    near = replace(config, lags=config.lags[: config.settling_lags], far_lag=0)
    cipher, plain = core_of(source, config.max_source_core, near), core_of(target, config.max_target_core, near)
    block = np.ix_(cipher.items, plain.items)
    held = alignment.coupling[block]
    fit = settled(cipher, smooth(plain), emission_of(held / alignment.coupling.sum(), cipher, plain), config)
    joint = (plain.frequency[:, None] * fit.emission).T.cpu().numpy()[: len(cipher.items), : len(plain.items)]
    coupling = alignment.coupling.copy()
    coupling[block] = joint * (held.sum(1, keepdims=True) / np.maximum(joint.sum(1, keepdims=True), TINY))
    return replace(alignment, coupling=coupling)


def explained_by(source: Language, target: Language, config: DecipherConfig = DecipherConfig()) -> float:  # noqa: B008
    """How much of the source the target explains at distances it was not fitted at, as the verdict of `decipher`
    measures it (its `objective`) but without deciphering: for comparing texts. Raises as `decipher` does."""
    sides = [core_of(side, config.null_core, config) for side in (source, target)]
    return carried_over(*sides, config)


def spread(
    source: Language,
    target: Language,
    cipher: Core,
    plain: Core,
    fit: Fit,
    config: DecipherConfig,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[Float[np.ndarray, "source target"], Float[np.ndarray, "source"]]:
    """The coupling over all items from that of the core, and each source item's mass on no named target."""
    joint = (plain.frequency[:, None] * fit.emission).T.cpu().numpy().astype(np.float32)
    n, m = len(cipher.items), len(plain.items)
    coupling = np.zeros((len(source.items), len(target.items)), np.float32)
    other = np.zeros(len(source.items), np.float32)
    coupling[np.ix_(cipher.items, plain.items)] = joint[:n, :m]
    if plain.other:
        other[cipher.items] = joint[:n, m]
    if cipher.left_out or plain.left_out:
        return grow(source, target, cipher, plain, fit.emission, config, progress)
    return coupling, other


def confidence_of(
    coupling: Float[np.ndarray, "source target"],
    other: Float[np.ndarray, "source"],
    cipher: Core,
    plain: Core,
    found: Trial | None,
) -> Float[np.ndarray, "source"]:
    """How likely each item's best target is right: how firmly the trial's emissions, each fitted at other lags, give
    that same pair. Where the trial did not look, the item's own sharpened posterior, scaled to agree on average with
    the trial where it did; without a trial, that posterior as it is."""
    total = coupling.sum(axis=1) + other
    best = coupling.argmax(axis=1)
    posterior = np.divide(coupling, total[:, None], out=np.zeros_like(coupling), where=total[:, None] > 0) ** SHARPNESS
    norm = posterior.sum(axis=1) + np.divide(other, total, out=np.zeros_like(total), where=total > 0) ** SHARPNESS
    firm = np.divide(posterior.max(axis=1), norm, out=np.zeros_like(total), where=norm > 0)
    if found is None:
        return firm
    agreed = found.agreed.cpu().numpy()
    row = {item: i for i, item in enumerate(cipher.items[: found.n_source])}
    column = {item: j for j, item in enumerate(plain.items[: found.n_target])}
    seen = np.array([i for i in row if total[i] > 0 and best[i] in column], dtype=np.int64)
    if len(seen) == 0:
        return np.zeros_like(firm)
    trusted = np.array([agreed[row[i], column[best[i]]] for i in seen], np.float32)
    confidence = firm * min(1.0, float(trusted.sum() / max(float(firm[seen].sum()), TINY)))
    confidence[seen] = trusted
    return confidence
