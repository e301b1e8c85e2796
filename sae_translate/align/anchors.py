"""Latents of two models matched by what either does around items that both have read, on documents that they need not
share: tokens of a common tokeniser, or words.

If a source latent is a weighted sum of target latents, z = W y, then so is its mean activation some positions away
from any one token. Those means are known on either side from text of its own, so W is a ridge regression with as many
equations as there are tokens and distances. Where no token may be read, `expected_correlations` does with latents.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from activation_cache.cooccurrence import followers
from activation_cache.errors import UserError
from sae_translate.align.alignment import Alignment, NullVerdict
from sae_translate.align.moments import correlations_of, in_standard_deviations, lagged_correlations
from sae_translate.languages.language import Corpus, Language

TINY = 1e-9
STEPS = 5
"In which noise and prior of the regression are read off its own fit."


@dataclass(frozen=True)
class AnchorsConfig:
    """Knobs of `align_by_anchors`."""

    lags: tuple[int, ...] = (-4, -3, -2, -1, 0, 1, 2)
    "How many positions later than the latent an anchor stands; before it where negative."
    min_count: float = 10
    "Positions that an anchor must hold on either side."
    max_anchors: int = 3000
    "Most anchors, the most frequent. Memory: lags x anchors x latents a side."
    held_out: float = 0.2
    "Share of the anchors that the verdict is given by and no fit for it sees."
    margin: float = 0.1
    "How much more of the variance at held-out anchors must be explained than with the target's positions shuffled."
    sharpness: float = 6.0
    "Power of the expected correlation in the coupling's weights."
    seed: int = 0
    "Of the anchors held out and of the positions shuffled."


def around(
    active: tuple[sparse.csr_array, Float[np.ndarray, "latents"]],
    segments: Int[np.ndarray, "bounds"],
    read: sparse.csr_array,
    lag: int,
) -> tuple[Float[np.ndarray, "latents anchors"], Float[np.ndarray, "anchors"]]:
    """Mean activation, in standard deviations from the latent's mean, `lag` positions before every anchor, and how many
    positions that is the mean of. `active` is `in_standard_deviations` of the latents."""
    weights, mean = active
    here, there = followers(segments, lag)
    at = read[there].astype(np.float64)
    count = np.asarray(at.sum(axis=0)).ravel()
    total = (weights[here].T @ at).toarray() - np.outer(mean, count)
    return total / np.maximum(count, 1), count


def profiles(
    sides: Sequence[Corpus], reads: Sequence[sparse.csr_array], config: AnchorsConfig
) -> tuple[list[Float[np.ndarray, "latents columns"]], Int[np.ndarray, "columns"]]:
    """Of every side the means around every anchor at every lag, scaled so that each difference of the first two sides'
    is as sure as any other; and the anchor of every column. Columns that a side has too little text for are left out.
    """
    active = [in_standard_deviations(side) for side in sides]
    found: list[list] = [[] for _ in sides]
    anchor = []
    for lag in config.lags:
        each = [around(own, side.segments, read, lag) for own, side, read in zip(active, sides, reads, strict=True)]
        counts = [count for _, count in each]
        kept = np.flatnonzero(np.min(counts, axis=0) >= config.min_count)
        scale = np.sqrt(1 / (1 / counts[0][kept] + 1 / counts[1][kept]))
        for own, (mean, _) in zip(found, each, strict=True):
            own.append((mean[:, kept] * scale).astype(np.float32))
        anchor.append(kept)
    return [np.hstack(own) for own in found], np.concatenate(anchor)


def regression(
    source: Float[np.ndarray, "n columns"], target: Float[np.ndarray, "m columns"]
) -> Float[np.ndarray, "n m"]:
    """W of the ridge regression source = W target, whose ridge is noise over prior variance, both read off the fit."""
    gram, product, power = target @ target.T, source @ target.T, float(np.square(source, dtype=np.float64).sum())
    ridge = 0.01 * float(np.trace(gram)) / len(gram) + TINY
    for _ in range(STEPS):
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram), dtype=gram.dtype), product.T).T
        missed = power - 2 * float((weights * product).sum()) + float((weights @ gram * weights).sum())
        ridge = max(missed, TINY) / source.size / max(float(np.square(weights).mean()), TINY)
    return weights


def explained(
    source: Float[np.ndarray, "n columns"],
    target: Float[np.ndarray, "m columns"],
    held_out: Bool[np.ndarray, "columns"],
) -> float:
    """Share of the variance of held-out columns that a regression on the others explains."""
    weights = regression(source[:, ~held_out], target[:, ~held_out])
    missed = source[:, held_out] - weights @ target[:, held_out]
    return 1 - float(np.square(missed).sum() / max(float(np.square(source[:, held_out]).sum()), TINY))


def anchored_correlations(
    source: Float[np.ndarray, "n columns"],
    target: Float[np.ndarray, "m columns"],
    source_own: Float[np.ndarray, "n n"],
    target_own: Float[np.ndarray, "m m"],
) -> Float[np.ndarray, "n m"]:
    """Correlation that every source latent is expected to have with every target latent on text that both read: the
    mean of two estimates, source as mixtures of target and target as mixtures of source. `own` are correlations
    within a side."""
    ahead = correlations_of(regression(source, target), target_own)
    back = correlations_of(regression(target, source), source_own)
    return (ahead + back.T) / 2


def align_by_anchors(
    source: Language,
    target: Language,
    source_read: Language,
    target_read: Language,
    config: AnchorsConfig = AnchorsConfig(),
) -> Alignment:
    """Match latents of two models that have read different documents; `read` is what each read, position by position.

    Items of the two texts that bear the same name are the anchors. The coupling's rows are the expected correlations,
    sharpened; confidence is the expected correlation with the best partner. Raises `UserError` for texts of other
    positions than the latents', or with too few anchors in common.
    """
    began = perf_counter()
    for side, read in ((source, source_read), (target, target_read)):
        if side.corpus.n_positions != read.corpus.n_positions:
            raise UserError(f"{side.name} has {side.corpus.n_positions:,} positions and what it read "
                            f"{read.corpus.n_positions:,}: give the text of the same positions")  # fmt: skip
    reads, n_shared = _shared_columns(source_read, target_read, config)
    sides, rng = [source.corpus, target.corpus], np.random.default_rng(config.seed)
    dealt = rng.permutation(n_shared)
    shuffled = target.corpus.shuffled(target.corpus.segment_of_position, rng)
    (x, y, moved), anchor = profiles([*sides, shuffled], [*reads, reads[1]], config)
    held_out = np.isin(anchor, dealt[: max(1, round(config.held_out * n_shared))])
    if held_out.all() or not held_out.any():
        raise UserError(f"{source.name} and {target.name} have read {n_shared:,} tokens in common, too few of them "
                        f"{config.min_count:g} times: give more text, or models of one tokeniser")  # fmt: skip
    objective, null = (min(explained(x, other, held_out), explained(other, x, held_out)) for other in (y, moved))
    threshold = max(null, 0.0) + config.margin
    believed = objective > threshold
    verdict = NullVerdict(
        objective, (null,), threshold, believed,
        f"either side explains {objective:.1%} of what the other does around tokens that no fit saw; with the target's "
        f"positions shuffled in their contexts {null:.1%}, and {threshold:.1%} was asked for: "
        + ("the two say the same" if believed else "no shared meaning was found, so no answer is given"),
        {"margin": objective - null, "anchors": float(n_shared)},
    )  # fmt: skip
    expected = anchored_correlations(x, y, *(lagged_correlations(side, (0,))[0] for side in sides))
    weight = np.maximum(expected, 0) ** config.sharpness
    return Alignment(
        source_items=source.items,
        target_items=target.items,
        coupling=(weight / max(float(weight.sum()), TINY)).astype(np.float32),
        objective=objective,
        confidence=np.clip(expected.max(axis=1), 0, 1).astype(np.float32) * np.float32(believed),
        verdict=verdict,
        record={"method": "anchors", "config": asdict(config), "anchors": n_shared, "seconds": perf_counter() - began},
    )


def _shared_columns(
    source: Language, target: Language, config: AnchorsConfig
) -> tuple[list[sparse.csr_array], int]:
    """Both texts' columns of the items that they share, in one order, the most frequent in both first."""
    place = {item: j for j, item in enumerate(target.items)}
    shared = np.array([(i, place[item]) for i, item in enumerate(source.items) if item in place], np.int64)
    if len(shared) < 2:
        raise UserError(f"{source.name} and {target.name} share {len(shared)} tokens by name: give models that read "
                        "the same tokens, or decipher them")  # fmt: skip
    least = np.minimum(source.counts[shared[:, 0]], target.counts[shared[:, 1]])
    kept = shared[np.argsort(-least, kind="stable")[: config.max_anchors]]
    return [sparse.csr_array(side.corpus.matrix[:, kept[:, i]]) for i, side in enumerate((source, target))], len(kept)
