"""Bijective decipherment: a one-to-one dictionary between two languages from what stands next to what in each."""

from dataclasses import asdict, dataclass, field
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int

from activation_cache.errors import UserError
from sae_translate.align.alignment import Alignment
from sae_translate.align.matching import Match, MatchConfig, confidence_of, match_counts
from sae_translate.align.statistics import fold, lagged_cooccurrence, share_positions
from sae_translate.languages.language import Language


@dataclass(frozen=True)
class ProfilesConfig:
    """Knobs of `match_profiles`."""

    lags: tuple[int, ...] = (1,)
    "Distances, in positions, at which co-occurrence is compared; every one is a relation of its own."
    max_items: int = 5000
    "How many of the heaviest items of each side are matched; memory is some ten arrays of this squared."
    min_count: float = 1.0
    "An item that holds fewer positions than this is not matched."
    match: MatchConfig = field(default_factory=MatchConfig)
    "How the counts are matched and judged."
    device: str = "cpu"
    "Where the products of matrices are done."


def match_profiles(
    source: Language,
    target: Language,
    config: ProfilesConfig = ProfilesConfig(),
) -> Alignment:
    """Translate every item of `source` into the one item of `target` that does the same: a substitution cipher.

    For languages whose items are each other's under other names: ciphers, dialects, two samples of one text. Where one
    item answers to several, take `decipher`. What the heaviest items leave out is one item more on either side, known
    to be the same. Bit-reproducible by the seed. Raises `UserError` where fewer than two items occur.
    """
    began = perf_counter()
    (rows, first), (columns, second) = counted(source, config), counted(target, config)
    rest = torch.tensor([[len(rows), len(columns)]], device=config.device)
    found, verdict, objectives = match_counts(first, second, rest, config.match)
    coupling = np.zeros((len(source.items), len(target.items)), np.float32)
    confidence = np.zeros(len(source.items), np.float32)
    coupling[np.ix_(rows, columns)] = weighted(found, first)[: len(rows), : len(columns)]
    confidence[rows] = confidence_of(found, verdict).cpu().numpy()[: len(rows)]
    return Alignment(
        source_items=source.items,
        target_items=target.items,
        coupling=coupling / max(float(coupling.sum(dtype=np.float64)), 1e-30),
        objective=found.objective,
        confidence=confidence,
        verdict=verdict,
        record={
            "method": "profiles",
            "config": asdict(config),
            "source": {"name": source.name, "positions": source.corpus.n_positions, "items": len(rows)},
            "target": {"name": target.name, "positions": target.corpus.n_positions, "items": len(columns)},
            "objectives": list(objectives),
            "seconds": perf_counter() - began,
        },
    )


def counted(
    language: Language, config: ProfilesConfig
) -> tuple[Int[np.ndarray, "kept"], Float[torch.Tensor, "lags n n"]]:
    """The heaviest items, and how often one stands a lag after another; a last item is all the others together."""
    shared = share_positions(language.corpus.matrix)
    counts = np.asarray(shared.sum(axis=0, dtype=np.float64)).ravel()
    items = np.argsort(-counts, kind="stable")[: config.max_items]
    items = items[counts[items] >= config.min_count]
    if len(items) < 2:
        raise UserError(
            f"too little text to match: {language.name} has {language.corpus.n_positions:,} positions, in which "
            f"{len(items)} items occur {config.min_count:g} times or more, and 2 are needed; give more text"
        )
    folded = fold(shared, items, True)
    pairs = [lagged_cooccurrence(folded, folded, language.corpus.segments, lag).toarray() for lag in config.lags]
    return items, torch.from_numpy(np.stack(pairs)).to(torch.float32).to(config.device)


def weighted(found: Match, counts: Float[torch.Tensor, "lags n n"]) -> Float[np.ndarray, "n m"]:
    """The plan with every row weighing what its item does; the partner stands first in its row."""
    plan = found.plan.clone()
    own = (found.partner >= 0).nonzero().flatten()
    plan[own, found.partner[own]] += plan.max(dim=1).values[own]
    plan = plan / plan.sum(dim=1, keepdim=True)
    return (plan * counts.sum((0, 2))[:, None]).cpu().numpy()
