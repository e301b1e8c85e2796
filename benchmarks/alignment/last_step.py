"""Measure the last step of alignment from vectors: from the map that is found to the dictionary, in other ways.

    OMP_NUM_THREADS=1 python benchmarks/alignment/last_step.py

The map is that of `align_vectors` on documentation, top 3,000 words a side. What may choose between ways sees no
answer: the share of words that lead back to themselves; for Italian-French the agreement with the dictionary that
`align_contexts` makes of text alone, where that is more than half sure; and for all three languages the share of German
words for which the way through Italian ends where the straight one does. P@1 on the silver dictionaries stands beside.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from run import DATA, ROOT, gold_of, words_and_vectors
from together import language_of

from sae_translate.align.contexts import ContextsConfig, align_contexts
from sae_translate.align.matching import balanced
from sae_translate.align.procrustes import normalised, polar, reweighted
from sae_translate.align.ranks import evidence_of_all, sharpness_of_all, two_way
from sae_translate.align.retrieval import csls_scores, largest, mutual_pairs, neighbourhoods, precision_at, unit
from sae_translate.align.selflearning import transport
from sae_translate.align.together import mutual_choices
from sae_translate.align.vectors import VectorsConfig, fit_vectors

ELSEWHERE = """By a script that is not kept: the lengths of vectors, made free of rank, correlate by 0.83, 0.70
and 0.66 over mutual pairs, yet as evidence beside ranks they give 1004, 474 and 745 right: nothing.

## What chose the way

Not these pairs, though they were in sight, but word2vec (gensim) of other texts, by scripts not kept: manuals of
Linux (Spanish-French, Polish-French, German-Polish, both directions) and all of Tatoeba and the Bible (English-German,
both directions), 3,000 words a side; half of the gold pairs are known to the map, the other half is scored (n = 338 to
705), two draws each. Mean P@1:

| way | manuals | Tatoeba and Bible |
|---|---|---|
| CSLS | 0.395 | 0.560 |
| with ranks, a nat for 0.05 (the way before) | 0.412 | 0.580 |
| with ranks, a nat for 0.10 | 0.423 | 0.583 |
| with ranks, as sharp as they expect | 0.410 | 0.580 |
| the same, transported | 0.408 | 0.577 |
| the same, mean of itself and its transport | 0.418 | 0.588 |
| the same, transported with half the weight of the margins | 0.425 | 0.591 |
| the same, mean of both directions (the way that is kept) | 0.424 | 0.592 |

The sharpness that ranks expect is 10 to 12 on the pairs above, 20 on Tatoeba and the Bible, 20 to 34 on manuals. The
mean of both directions is about as sure as it is right on Tatoeba and the Bible, confidence 0.589 where 0.590 are right
and 0.564 of 0.604 (ECE 0.026, 0.062), and surer on manuals, 0.639 of 0.524 Spanish-French and 0.582 of 0.503
Polish-French (ECE 0.115, 0.097); their product is surer than right everywhere (0.734, 0.716, 0.763 and 0.716). One draw
each."""
PAIRS = {"it-fr": ("it", "fr", "it-fr"), "de-fr": ("de", "fr", "de-fr"), "itA-frB": ("itA", "frB", "it-fr"),
         "de-it": ("de", "it", None)}  # fmt: skip


@dataclass(frozen=True)
class Mapped:
    """Two sides as the search saw them, and in the common space of the map it found; most frequent first."""

    words: tuple[list[str], list[str]]
    x: torch.Tensor
    y: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor


def mapped(pair: str, n: int) -> Mapped:
    (source, x), (target, y) = (words_and_vectors(side, n) for side in PAIRS[pair][:2])
    fit = fit_vectors(x, y, VectorsConfig(null_surrogates=0, searches=1))
    sides = normalised(x, fit.source_means), normalised(y, fit.target_means)
    return Mapped((source, target), *sides, fit.source(x), fit.target(y))


def csls_of(k: int, it: Mapped) -> torch.Tensor:
    of_source, of_target = neighbourhoods(it.a, it.b, k)
    return 2 * it.a @ it.b.T - of_source[:, None] - of_target


def refitted(coupling: Callable, times: int, it: Mapped) -> torch.Tensor:
    """Reweighted anew by what a coupling of the two mapped sides gives."""
    a, b = it.a, it.b
    for _ in range(times):
        fit = reweighted(it.x, it.y, coupling(a, b), VectorsConfig.power, VectorsConfig.ridge)
        a, b = fit.source(it.x), fit.target(it.y)
    return csls_scores(a, b)


def carried(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The coupling that reweighting rests on."""
    return transport(a @ b.T, VectorsConfig.reweighting_sharpness, 5)


def mutual(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    scores = csls_scores(a, b)
    coupling = torch.zeros_like(scores)
    coupling[mutual_choices(scores)] = 1.0
    return coupling


def both_ways(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What either side's softmax gives, multiplied: little where one of the two has no partner."""
    scores = VectorsConfig.last_sharpness * csls_scores(a, b)
    return scores.softmax(1) * scores.softmax(0)


def by_frequency(power: float, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return carried(a, b) * torch.arange(1, len(a) + 1)[:, None] ** -power


def bagged(runs: int, it: Mapped) -> torch.Tensor:
    """Mean CSLS of maps, each fitted on another half of the sources."""
    def half(seed: int, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        kept = torch.rand(len(a), 1, generator=torch.Generator().manual_seed(seed)) < 0.5
        return carried(a, b) * kept

    return sum(refitted(partial(half, seed), 1, it) for seed in range(runs)) / runs


def rotated(it: Mapped) -> torch.Tensor:
    return csls_scores(it.x @ polar(it.x.T @ carried(it.a, it.b) @ it.y), it.y)


def of_neighbours(k: int, it: Mapped) -> torch.Tensor:
    """CSLS of the mapped words, and half of that of what their k neighbours in their own language lead to."""
    def graph(side: torch.Tensor) -> torch.Tensor:
        near = csls_scores(side, side).fill_diagonal_(-torch.inf).topk(k, dim=1)
        return torch.zeros(len(side), len(side)).scatter_(1, near.indices, (4 * near.values).softmax(1))

    plan = transport(it.a @ it.b.T, VectorsConfig.last_sharpness, 10)
    seen = unit(graph(it.x) @ (plan / plan.sum(1, keepdim=True)))
    return csls_scores(it.a, it.b) + csls_scores(seen, unit(graph(it.y))) / 2


def relaxed(steps: int, it: Mapped, rate: float = 20.0) -> torch.Tensor:
    """RCSLS (Joulin et al. 2018, arXiv 1804.07745) on mutual choices: a linear map of the source climbs their CSLS."""
    rows, best = mutual_choices(csls_scores(it.a, it.b))
    left, right = it.a[rows], it.b[best]
    turn = torch.eye(it.a.shape[1])
    for _ in range(steps):
        scores = unit(it.a @ turn) @ it.b.T
        near, back = (largest(side, 10)[1] for side in (scores[rows], scores.T[best].contiguous()))
        pull = left.T @ (2 * right - it.b[near].mean(1)) - it.a[back].mean(1).T @ right
        turn = turn + rate * pull / len(rows)
    return csls_scores(unit(it.a @ turn), it.b)


def sharpness_of(it: Mapped) -> float:
    """As sharp as ranks of frequency expect."""
    scores = csls_scores(it.a, it.b)
    return sharpness_of_all(scores, evidence_of_all(scores))


def with_ranks(it: Mapped, sharpness: float | None = None) -> torch.Tensor:
    scores = csls_scores(it.a, it.b)
    return (sharpness or sharpness_of(it)) * scores + evidence_of_all(scores)


def sum_of(parts: tuple[Callable, ...], it: Mapped) -> torch.Tensor:
    return sum(part(it) for part in parts)


WAYS: dict[str, Callable[[Mapped], torch.Tensor]] = {
    "CSLS, 10 neighbours": partial(csls_of, 10),
    "cosine": lambda it: it.a @ it.b.T,
    "CSLS, 5 neighbours": partial(csls_of, 5),
    "CSLS, 20 neighbours": partial(csls_of, 20),
    "CSLS, 40 neighbours": partial(csls_of, 40),
    "transport, sharpness 10": lambda it: transport(it.a @ it.b.T, 10.0, 50),
    "transport, sharpness 20": lambda it: transport(it.a @ it.b.T, 20.0, 50),
    "transport, sharpness 40": lambda it: transport(it.a @ it.b.T, 40.0, 50),
    "maps of 8 halves, mean CSLS": partial(bagged, 8),
    "refitted, words weighed by rank to the power -0.25": partial(refitted, partial(by_frequency, 0.25), 1),
    "the same, power -1": partial(refitted, partial(by_frequency, 1.0), 1),
    "refitted 5 times": partial(refitted, carried, 5),
    "refitted on mutual choices": partial(refitted, mutual, 1),
    "refitted on what both directions give": partial(refitted, both_ways, 1),
    "the rotation alone": rotated,
    "rotation and reweighted map, CSLS added": partial(sum_of, (rotated, partial(csls_of, 10))),
    "with the ranks of frequency, a nat for 0.05": partial(with_ranks, sharpness=20.0),
    "with the ranks of frequency, as sharp as they expect": with_ranks,
    "the same, transported": lambda it: balanced(with_ranks(it), 30),
    "the same, chances of the other direction": lambda it: with_ranks(it).log_softmax(0),
    "as it is: the same, mean of both directions": lambda it: two_way(with_ranks(it)),
    "mean of both directions, without ranks": lambda it: two_way(sharpness_of(it) * csls_scores(it.a, it.b)),
    "with what 10 neighbours lead to": partial(of_neighbours, 10),
    "with what 30 neighbours lead to": partial(of_neighbours, 30),
    "RCSLS, 10 steps": partial(relaxed, 10),
    "RCSLS, 50 steps": partial(relaxed, 50),
}  # fmt: skip


def spoken(n: int) -> dict[str, str]:
    """The dictionary of text alone, where it is more than half sure."""
    sides = language_of("itA", "docs.it.A.txt.gz", n), language_of("frB", "docs.fr.B.txt.gz", n)
    found = align_contexts(*sides, ContextsConfig(null_surrogates=0))
    best = found.best(1)[:, 0]
    return {word: sides[1].items[best[i]] for i, word in enumerate(sides[0].items) if found.confidence[i] > 0.5}


def compared(n: int) -> list[dict]:
    sides, text = {pair: mapped(pair, n) for pair in PAIRS}, spoken(n)
    rows = []
    for name, way in WAYS.items():
        began = time.process_time()
        best, row = {}, {"way": name, "pairs": {}}
        for pair, it in sides.items():
            scores = way(it)
            best[pair] = scores.argmax(1)
            figures = {"round_trip": float(mutual_pairs(best[pair], scores.argmax(0)).float().mean())}
            source, target = it.words
            if PAIRS[pair][0].startswith("it"):
                told = [text[w] == target[j] for w, j in zip(source, best[pair].tolist(), strict=True) if w in text]
                figures |= {"agrees_with_text": float(np.mean(told)), "n_text": len(told)}
            if PAIRS[pair][2]:
                gold = gold_of(PAIRS[pair][2], source, target)
                found = precision_at(best[pair][:, None], gold, len(target))
                figures |= {"p_at_1": found.value, "right": round(found.value * found.n), "n": found.n}
            row["pairs"][pair] = figures
        row["triangle"] = float((best["de-fr"] == best["it-fr"][best["de-it"]]).float().mean())
        row["cpu_seconds"] = (time.process_time() - began) / len(sides)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def page(result: dict) -> str:
    shown = [pair for pair in PAIRS if PAIRS[pair][2]]
    told = [result["rows"][0]["pairs"][pair]["n_text"] for pair in ("it-fr", "itA-frB")]
    lines = ["# The last step from vectors to a dictionary, in other ways", "", __doc__.split("\n\n")[-1].strip(), "",
             f"{result['n']:,} words a side. Agreement with text: n = {told[0]:,} (it-fr), {told[1]:,} (itA-frB).", "",
             "| way | " + " | ".join(f"round trip {pair}" for pair in shown) + " | agrees with text it-fr | itA-frB | "
             "German through Italian | " + " | ".join(f"P@1 {pair}" for pair in shown) + " | CPU s a pair |",
             "|---|" + "---|" * 10]  # fmt: skip
    for row in result["rows"]:
        own = row["pairs"]
        lines.append(
            f"| {row['way']} | " + " | ".join(f"{own[pair]['round_trip']:.3f}" for pair in shown)
            + f" | {own['it-fr']['agrees_with_text']:.4f} | {own['itA-frB']['agrees_with_text']:.4f} | "
            f"{row['triangle']:.4f} | "
            + " | ".join(f"{own[pair]['p_at_1']:.4f} ({own[pair]['right']} of {own[pair]['n']:,})" for pair in shown)
            + f" | {row['cpu_seconds']:.1f} |"
        )  # fmt: skip
    lines += ["", ELSEWHERE]
    return "\n".join([*lines, "", f"`{result['command']}`", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=3000, help="words a side")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "alignment_last_step")
    given = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("the vectors are not at ../shared/data/alignment beside the checkout: nothing was measured")
    torch.set_num_threads(1)
    command = " ".join(["OMP_NUM_THREADS=1 python benchmarks/alignment/last_step.py", *sys.argv[1:]])
    result = {"command": command, "n": given.n, "torch": torch.__version__, "rows": compared(given.n)}
    given.out.with_suffix(".json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    given.out.with_suffix(".md").write_text(page(result), encoding="utf-8")


if __name__ == "__main__":
    main()
