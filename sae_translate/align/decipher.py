"""Decipherment: a dictionary between two languages from what occurs near what in each, with no pair and no vector."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from activation_cache.errors import UserError
from sae_translate.align.alignment import Alignment
from sae_translate.align.emission import TINY, Fit, maximise
from sae_translate.align.grow import grow
from sae_translate.align.statistics import fold, lagged_cooccurrence, share_positions
from sae_translate.languages.language import Language


@dataclass(frozen=True)
class DecipherConfig:
    """Knobs of `decipher`. The defaults are the ones that reports/decipherment.md measures."""

    lags: tuple[int, ...] = (1, 2, 3, 4)
    "Distances, in positions, at which co-occurrence is compared."
    max_source_core: int = 1024
    "How many of the heaviest source items are deciphered together; the rest is grown from them at linear cost."
    max_target_core: int = 1024
    "How many of the heaviest target items are deciphered together."
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
    growth_iterations: int = 30
    "Steps by which items outside the core are explained as mixtures of target items."
    null_surrogates: int = 0
    "Surrogates of the target on which the objective is calibrated; 0 gives no verdict."
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
    shared: sparse.csr_array
    "Positions x core (and other): what each position holds, summing to 1."
    joint: Float[Tensor, "lags n n"]
    "Joint probability of two items a lag apart; each lag sums to 1."

    @property
    def frequency(self) -> Float[Tensor, "n"]:
        return (self.joint.sum(1) + self.joint.sum(2)).mean(0) / 2


def core_of(language: Language, size: int, config: DecipherConfig) -> Core:
    """The heaviest items of a language with their joint statistics; `UserError` where the text is too short."""
    shared = share_positions(language.corpus.matrix)
    counts = np.asarray(shared.sum(axis=0, dtype=np.float64)).ravel()
    enough = np.flatnonzero(counts >= config.min_count)
    if len(enough) < 2:
        raise UserError(
            f"too little text to decipher: {language.name} has {language.corpus.n_positions:,} positions, in which "
            f"{len(enough)} of {len(counts):,} items occur {config.min_count:g} times or more, and 2 are needed; "
            "give more text or lower min_count"
        )
    items = enough[np.argsort(-counts[enough], kind="stable")][:size]
    other = bool(language.corpus.n_positions - counts[items].sum() > config.min_count)
    folded = fold(shared, items, other)
    dtype = getattr(torch, config.dtype)
    joint = []
    for lag in config.lags:
        pairs = lagged_cooccurrence(folded, folded, language.corpus.segments, lag)
        if pairs.sum() <= 0:
            raise UserError(
                f"too little text to decipher: no segment of {language.name} is longer than {lag} positions, so "
                f"lag {lag} has nothing to count; give longer texts or shorter lags than {config.lags}"
            )
        dense = torch.from_numpy(pairs.toarray()).to(dtype)
        joint.append(dense / dense.sum())
    return Core(items, other, folded, torch.stack(joint).to(config.device))


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


def decipher(
    source: Language,
    target: Language,
    config: DecipherConfig = DecipherConfig(),
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
    generator = torch.Generator().manual_seed(config.seed)
    fits: list[Fit] = []
    for restart in range(config.restarts):
        report = (
            None
            if progress is None
            else (
                lambda step, _, restart=restart: progress(
                    f"decipher {restart + 1}/{config.restarts}", step, config.iterations
                )
            )
        )
        start = start_emission(cipher, plain, config, generator)
        fits.append(maximise(cipher.joint, plain.joint, start, config.iterations, config.tolerance, progress=report))
    fit = max(fits, key=lambda fit: fit.trace[-1])
    coupling, other = spread(source, target, cipher, plain, fit, config, progress)
    total = coupling.sum(axis=1) + other
    confidence = np.divide(coupling.max(axis=1), total, out=np.zeros_like(total), where=total > 0)
    return Alignment(
        source_items=source.items,
        target_items=target.items,
        coupling=coupling / max(float(coupling.sum(dtype=np.float64)), TINY),
        objective=fit.trace[-1],
        confidence=confidence,
        record={
            "method": "decipher",
            "config": asdict(config),
            "source": {"name": source.name, "positions": source.corpus.n_positions, "core": len(cipher.items)},
            "target": {"name": target.name, "positions": target.corpus.n_positions, "core": len(plain.items)},
            "objectives": [fit.trace[-1] for fit in fits],
            "steps": [fit.steps for fit in fits],
            "seconds": perf_counter() - began,
        },
    )


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
    more_source = np.flatnonzero(source.counts > 0).size > n and cipher.other
    more_target = np.flatnonzero(target.counts > 0).size > m and plain.other
    if more_source or more_target:
        return grow(source, target, cipher, plain, fit.emission, config, progress)
    return coupling, other
