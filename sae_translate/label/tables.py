"""The labels table and its summary: answers and scores as rows, and which answer the user gets."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from sae_translate.label.evidence import FeatureCounts, top_features
from sae_translate.label.methods import Answer, silent
from sae_translate.label.scores import NOT_SCORED, Score, bootstrap_interval, score_predicate

ORDER = ("unpaired", "paired", "logit_lens")
"Methods whose answer may be chosen, in the order in which equals are preferred."


def gold_keys(counts: FeatureCounts, n_live: int) -> tuple[Int[np.ndarray, "live"], Float[np.ndarray, "live"]]:
    """For every latent the feature that holds most of its activation, and that share; -1 and 0 where it never fires."""
    top = [top_features(counts, i, k=1) for i in range(n_live)]
    return np.array([t[0][0] if t else -1 for t in top]), np.array([t[0][1] if t else 0.0 for t in top])


def choose_answers(answers: dict[str, list[Answer]], check: dict[str, FeatureCounts], foreign: bool) -> list[str]:
    """For every latent the method whose answer the user gets: the best F1 on `check` among those that do not abstain.

    A label in a language that the cache does not speak cannot be run there; it is chosen wherever it does not abstain.
    """
    chosen = []
    for i in range(len(next(iter(answers.values())))):
        best, best_f1 = "paired", -1.0
        for method in ORDER:
            answer = answers.get(method, [silent(i)] * (i + 1))[i]
            if answer.abstained or answer.predicate is None:
                continue
            if method == "unpaired" and foreign:
                best = method
                break
            f1 = score_predicate(answer.predicate, i, check).f1
            if not np.isnan(f1) and f1 > best_f1:
                best, best_f1 = method, f1
        chosen.append(best)
    return chosen


def rows_of(
    answers: dict[str, list[Answer]],
    scores: dict[str, list[Score]],
    chosen: Sequence[str],
    live: Int[np.ndarray, "live"],
    density: Float[np.ndarray, "live"],
    score: dict[str, FeatureCounts],
) -> pd.DataFrame:
    """The labels table: one row a latent and method."""
    rows = []
    for method, given in answers.items():
        for answer, result in zip(given, scores[method], strict=True):
            i = answer.latent
            unit = "word" if answer.kind == "word" else "token"
            mass = score[unit].mass_share(i, answer.token_key) if result is not NOT_SCORED else float("nan")
            rows.append(
                {
                    "latent": int(live[i]),
                    "method": method,
                    "label": answer.label,
                    "terms": [[name, round(weight, 5)] for name, weight in answer.terms],
                    "kind": answer.kind,
                    "predicate": answer.predicate.to_dict() if answer.predicate else {},
                    "precision": result.precision,
                    "recall": result.recall,
                    "f1": result.f1,
                    "balanced_accuracy": result.balanced_accuracy,
                    "confidence": answer.confidence,
                    "abstained": bool(answer.abstained),
                    "chosen": chosen[i] == method,
                    "density": float(density[i]),
                    "n_active": result.n_active,
                    "n_predicted": result.n_predicted,
                    "label_mass": mass,
                    "token_id": -1 if answer.kind == "word" else answer.token_key,
                }
            )
    return pd.DataFrame(rows).sort_values(["latent", "method"], kind="stable").reset_index(drop=True)


def method_summary(
    table: pd.DataFrame,
    answers: dict[str, list[Answer]],
    gold: dict[str, tuple[np.ndarray, np.ndarray]],
    generator: np.random.Generator,
) -> list[dict]:
    """Mean scores of each method over the labels it stands by, with intervals, coverage and P@1.

    P@1: over latents whose heaviest token holds more than half of their activation on the scoring documents, the share
    whose first term is that token; p_at_1_answered leaves out those that abstain. label_mass: mean share of activation
    on the first term over all live latents.
    """
    rows = []
    for method, given in answers.items():
        mine = table[table["method"] == method]
        stood = mine[~mine["abstained"] & mine["f1"].notna()]
        scored = bool(mine["label_mass"].notna().any())
        low, high = bootstrap_interval(stood["f1"].to_numpy(float), generator)
        keys, shares = gold["word" if given[0].kind == "word" else "token"]
        clear = [answer for answer in given if shares[answer.latent] > 0.5]
        right = [answer.token_key == keys[answer.latent] for answer in clear]
        stood_by = [hit for hit, answer in zip(right, clear, strict=True) if not answer.abstained]
        rows.append(
            {
                "method": method,
                "n": len(mine),
                "answered": len(mine) - int(mine["abstained"].sum()),
                "coverage": 1.0 - float(mine["abstained"].mean()),
                **{name: float(stood[name].mean()) for name in ("precision", "recall", "f1", "balanced_accuracy")},
                "f1_low": low,
                "f1_high": high,
                "label_mass": float(mine["label_mass"].fillna(0.0).mean()) if scored else float("nan"),
                "p_at_1": float(np.mean(right)) if right and scored else float("nan"),
                "n_gold": len(right),
                "p_at_1_answered": float(np.mean(stood_by)) if stood_by and scored else float("nan"),
                "n_gold_answered": len(stood_by),
                "chosen": int(mine["chosen"].sum()),
            }
        )
    return rows
