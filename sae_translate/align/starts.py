"""Starts: a first coupling of two sets of vectors in unrelated coordinates, by what rotation does not change."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activation_cache.errors import UserError
from sae_translate.align.adversarial import adversarial_start
from sae_translate.align.retrieval import csls_scores, unit

Start = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"Raw vectors of the source and the target -> scores source x target, in standard deviations."


def signatures(vectors: Float[Tensor, "n d"], length: int) -> Float[Tensor, "n length"]:
    """Every row's cosines to all the others in falling order, read at `length` even steps; rows at length 1.

    Artetxe et al. 2018 (arXiv 1805.06297, section 3.2), on vectors that were not centred, and without the square root
    of the similarities: both find more pairs on documentation in three languages (reports/alignment.md).
    """
    rows = unit(vectors)
    ranked = (rows @ rows.T).sort(dim=1, descending=True).values
    if ranked.shape[1] != length:
        ranked = torch.nn.functional.interpolate(ranked[:, None], size=length, mode="linear", align_corners=True)[:, 0]
    return unit(ranked)


def signature_start(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m e"], generator: torch.Generator
) -> Float[Tensor, "n m"]:
    """CSLS between signatures. Draws nothing."""
    length = min(len(source), len(target))
    x, y = signatures(source, length), signatures(target, length)
    scores = csls_scores(x, y)
    return scores / scores.std().clamp_min(1e-12)


def random_start(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m e"], generator: torch.Generator
) -> Float[Tensor, "n m"]:
    """Noise: what a start must beat."""
    return torch.randn(len(source), len(target), generator=generator).to(source)


def landmark_scores(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m e"],
    source_known: Float[Tensor, "pairs d"],
    target_known: Float[Tensor, "pairs e"],
) -> Float[Tensor, "n m"]:
    """CSLS between cosines to items whose partners are known, in standard deviations.

    Relative representations (Moschella et al. 2023, arXiv 2209.15430); a rotation leaves them as they are.
    """
    x, y = (unit(unit(side) @ unit(known).T) for side, known in ((source, source_known), (target, target_known)))
    scores = csls_scores(x, y)
    return scores / scores.std().clamp_min(1e-12)


def gromov_wasserstein_start(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m e"], generator: torch.Generator
) -> Float[Tensor, "n m"]:
    """Log of the entropic Gromov-Wasserstein coupling of the two sets of cosines, in standard deviations.

    Alvarez-Melis & Jaakkola 2018 (arXiv 1809.00013), by POT, an optional dependency. Cubic in the number of items.
    Draws nothing.
    """
    try:
        import ot
    except ImportError:
        raise UserError("the gromov_wasserstein start needs POT: pip install 'sae-translate[align]'") from None
    costs = [1 - (unit(side) @ unit(side).T).double().cpu().numpy() for side in (source, target)]
    shares = [np.full(len(cost), 1 / len(cost)) for cost in costs]
    plan = ot.gromov.entropic_gromov_wasserstein(*costs, *shares, "square_loss", epsilon=5e-3, max_iter=100)
    scores = torch.from_numpy(np.log(np.maximum(plan, 1e-12))).to(source)
    return (scores - scores.mean()) / scores.std().clamp_min(1e-12)


STARTS: dict[str, Start] = {
    "signature": signature_start,
    "random": random_start,
    "gromov_wasserstein": gromov_wasserstein_start,
    "adversarial": adversarial_start,
}
"Where self-learning may begin."
