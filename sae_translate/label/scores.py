"""Scores of predicates on documents that no label method saw."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sae_translate.label.evidence import FeatureCounts, column
from sae_translate.label.predicates import Predicate


@dataclass(frozen=True)
class Score:
    """A predicate as a classifier of the positions at which its latent fires; NaN where it is not defined."""

    precision: float
    "Share of the positions it points at where the latent fires."
    recall: float
    "Share of the latent's positions that it points at."
    f1: float
    balanced_accuracy: float
    "Mean of the true positive and the true negative rate; 0.5 is chance."
    n_predicted: int
    n_active: int


NOT_SCORED = Score(*[float("nan")] * 4, 0, 0)


def score_of_counts(true_positives: float, n_predicted: float, n_active: float, n: int) -> Score:
    """The scores that follow from a confusion table; a predicate that never points has precision 0."""
    if n_active == 0:
        return Score(float("nan"), float("nan"), float("nan"), float("nan"), int(n_predicted), 0)
    precision = true_positives / n_predicted if n_predicted else 0.0
    recall = true_positives / n_active
    f1 = 2 * true_positives / (n_predicted + n_active)
    negatives = n - n_active
    true_negative_rate = (negatives - (n_predicted - true_positives)) / negatives if negatives else 1.0
    return Score(precision, recall, f1, (recall + true_negative_rate) / 2, int(n_predicted), int(n_active))


def score_predicate(predicate: Predicate, latent: int, counts: dict[str, FeatureCounts]) -> Score:
    """Score a predicate for one latent from the counts of its kind.

    Features of one kind exclude each other at a position, so counts over the set's members add up.
    """
    table = counts[predicate.kind]
    where = table.index(np.array(predicate.keys, dtype=np.int64))
    where = where[where >= 0]
    rows, hits = column(table.active, latent)
    true_positives = float(hits[np.isin(rows, where)].sum())
    return score_of_counts(
        true_positives, float(table.occurrences[where].sum()), float(table.n_active[latent]), table.n_positions
    )


def bootstrap_interval(
    values: Float[np.ndarray, "n"], generator: np.random.Generator, level: float = 0.95, draws: int = 1000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over the defined values; NaN where there are none."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    means = values[generator.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
