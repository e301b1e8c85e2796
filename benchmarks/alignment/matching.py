"""Measure matching without vectors: functional alignment, Markov languages, word ciphers, and the same by other means.

    OMP_NUM_THREADS=1 python benchmarks/alignment/matching.py functional markov curve methods cipher

Parts named on the command line are run and kept beside what the report already holds. Chains are those of
`sae_translate.languages.hmm` (rows from a Dirichlet of 0.1 an entry). Word ciphers are English against English,
disjoint sentences of Tatoeba, the Berean Bible and TinyStories, read from ../shared/data/text.
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment, quadratic_assignment

from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.align.functional import FunctionalConfig, alignable_parts, functional_align
from sae_translate.align.invariants import log_odds
from sae_translate.align.matching import MatchConfig, departures, match_counts
from sae_translate.align.profiles import ProfilesConfig, match_profiles
from sae_translate.languages.hmm import bijective, random_transitions, sample, symbol_language
from sae_translate.languages.language import Language
from sae_translate.languages.text import keep_items, most_frequent, word_language

ROOT = Path(__file__).resolve().parents[2]
TEXT = ROOT.parent / "shared" / "data" / "text"
NOTHING = torch.zeros(0, 2, dtype=torch.int64)
MARKOV_CURVE = (5, 10, 15, 20, 30, 50, 100, 200)
"Positions a side for every symbol."
DECIPHERED = (30, 50, 100, 200)
"Those of them that decipherment is given too: seed 0 had none right below."
CIPHER_CURVE = (0.02, 0.04, 0.07, 0.1, 0.15, 0.25, 0.5, 1.0)
"Share of the text that is read."


def pairs_of(symbols: np.ndarray, size: int) -> torch.Tensor:
    """How often a symbol follows another, one relation."""
    steps = symbols[:, :-1].ravel() * size + symbols[:, 1:].ravel()
    return torch.from_numpy(np.bincount(steps, minlength=size * size).reshape(1, size, size)).float()


def drawn(size: int, n: int, seed: int, kind: str = "same", foreign: float = 0.0):
    """Symbols of two samples of a chain, the second renamed, and its names."""
    rng = np.random.default_rng(seed)
    if kind == "turned":
        row = random_transitions(size, rng)[0]
        first = np.stack([np.roll(row, i) for i in range(size)])
    elif kind == "doubled":
        half = random_transitions(size // 2, rng)
        first = np.block([[0.9 * half, 0.1 * half], [0.1 * half, 0.9 * half]])
    else:
        first = random_transitions(size, rng)
    second = first if kind != "independent" else random_transitions(size, rng)
    other = second.copy()
    replaced = rng.permutation(size)[: round(foreign * size)]
    other[replaced] = random_transitions(size, rng)[replaced] if len(replaced) else other[replaced]
    key = rng.permutation(size)
    length = min(n, 500)
    source, target = (sample(bijective(chain, rng), n // length, length, rng)[0] for chain in (first, other))
    return source, key[target], torch.from_numpy(key), replaced


def timed(made: Callable) -> tuple:
    began = time.process_time()
    return made(), time.process_time() - began


def functional(seed: int) -> list[dict]:
    """60 states, 30,000 transitions a side: known answer, foreign states, controls."""
    rows = []
    config = FunctionalConfig(match=MatchConfig(seed=seed))
    for kind, foreign in (("same", 0.0), ("same", 0.1), ("same", 0.3), ("same", 0.5), ("independent", 0.0),
                          ("turned", 0.0), ("doubled", 0.0)):  # fmt: skip
        source, target, key, replaced = drawn(60, 30_000, seed, kind, foreign)
        a, b = pairs_of(source, 60)[0], pairs_of(target, 60)[0]
        found, seconds = timed(lambda a=a, b=b: functional_align(a, b, config=config))
        parts = alignable_parts(a, b, found, config)
        own = np.ones(60, bool)
        own[replaced] = False
        score = parts.score.numpy()
        auc = float((score[~own][:, None] < score[own][None]).mean()) if foreign else None
        rows.append({"kind": kind, "foreign": foreign, "seed": seed, "cpu_seconds": seconds, "auc": auc,
                     "accuracy": float((found.partner == key).float().mean()), "objective": found.objective,
                     "null": max(found.verdict.null), "most": found.verdict.evidence["most"],
                     "ambiguous": found.verdict.evidence["ambiguous"], "believed": found.verdict.believed})  # fmt: skip
    return rows


def markov(size: int, n: int, seed: int, null: int = 1) -> dict:
    """A bijective language, matched and judged."""
    source, target, key, _ = drawn(size, n, seed)
    config = MatchConfig(seed=seed, null_surrogates=null, probes=2, rivals=1)
    a, b = pairs_of(source, size), pairs_of(target, size)
    start = log_odds(a, b, NOTHING, config.degree, torch.Generator().manual_seed(seed)).argmax(1)
    (found, verdict, runs), seconds = timed(lambda: match_counts(a, b, NOTHING, config))
    return {"items": size, "positions": n, "seed": seed, "cpu_seconds": seconds, "runs": len(runs),
            "start": float((start == key).float().mean()), "accuracy": float((found.partner == key).float().mean()),
            "objective": found.objective, "null": max(verdict.null), "most": verdict.evidence["most"],
            "believed": verdict.believed}  # fmt: skip


def sorted_profiles(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Each item's row and column of conditional roots, sorted: the unary costs of the oldest methods."""
    sides = []
    for counts in (a[0], b[0]):
        rows = (counts / counts.sum(1, keepdim=True).clamp_min(1)).sqrt().sort(1, descending=True).values
        columns = (counts / counts.sum(0).clamp_min(1)).sqrt().T.sort(1, descending=True).values
        sides.append(torch.nn.functional.normalize(torch.cat([rows, columns], 1)))
    return sides[0] @ sides[1].T


def methods(size: int, n: int, seed: int) -> list[dict]:
    """The same Markov language by every method, and by ours with a part left out."""
    source, target, key, _ = drawn(size, n, seed)
    a, b = pairs_of(source, size), pairs_of(target, size)
    key_of = key.numpy()

    def assignment() -> np.ndarray:
        return linear_sum_assignment(sorted_profiles(a, b).numpy(), maximize=True)[1]

    def faq() -> np.ndarray:
        x, y = (departures(side)[0].double().numpy() for side in (a, b))
        return quadratic_assignment(x, y, options={"maximize": True}).col_ind

    def em() -> np.ndarray:
        texts = [symbol_language(side, size, name) for side, name in ((source, "a"), (target, "b"))]
        found = decipher(*texts, DecipherConfig(lags=(1, 2, 3, 4), null_surrogates=0, min_count=1.0, iterations=200))
        return found(np.arange(size))

    def ours(**change) -> np.ndarray:
        return match_counts(a, b, NOTHING, replace(MatchConfig(null_surrogates=0, seed=seed), **change))[0].partner

    table = {
        "sorted profiles, assignment": assignment,
        "FAQ (scipy) from a flat start": faq,
        "decipherment (EM, lags 1 to 4, 200 steps)": em,
        "matching": ours,
        "matching, no polish": lambda: ours(polished=0),
        "matching, one run": lambda: ours(runs=1),
        "matching, no annealing": lambda: ours(first_sharpness=6.0),
        "matching, invariants only in the first step": lambda: ours(prior=0.0),
        "matching, one step": lambda: ours(steps=1, polished=0),
        "matching, degree 1": lambda: ours(degree=1),
    }
    rows = []
    for name, method in table.items():
        if name.startswith("decipherment") and size > 300:
            continue
        found, seconds = timed(method)
        rows.append({"method": name, "items": size, "positions": n, "seed": seed, "cpu_seconds": seconds,
                     "accuracy": float(np.mean(np.asarray(found) == key_of))})  # fmt: skip
    return rows


def english() -> list[str]:
    with gzip.open(TEXT / "tatoeba" / "deu-eng.tsv.gz", "rt", encoding="utf-8") as file:
        documents = sorted({line.split("\t")[0] for line in file})
    with gzip.open(TEXT / "bible" / "eng-BSB.txt.gz", "rt", encoding="utf-8") as file:
        documents += [line.split("] ", 1)[1].strip() for line in file if line.startswith("[")]
    for story in json.loads((TEXT / "tinystories" / "tinystories_1000.json").read_text(encoding="utf-8")):
        documents += [part for part in story.split("\n") if part.strip()]
    return documents


def english_halves(size: int, seed: int, share: float = 1.0) -> tuple[Language, Language]:
    """Disjoint halves of so large a share of the documents, the most frequent words of each."""
    documents = english()
    order = np.random.default_rng(seed).permutation(len(documents))[: round(share * len(documents))]
    sides = []
    for number, half in enumerate((order[::2], order[1::2])):
        language = word_language([documents[i] for i in half], f"half {number}")
        sides.append(keep_items(language, most_frequent(language, size)))
    return sides[0], sides[1]


def cipher(size: int, seed: int, share: float = 1.0) -> dict:
    """English against English: the share of a side's tokens, among its most frequent words, that are read right."""
    source, target = sides = english_halves(size, seed, share)
    match = MatchConfig(seed=seed, null_surrogates=1, runs=1, probes=1, rivals=1)
    found, seconds = timed(lambda: match_profiles(source, target, ProfilesConfig(max_items=size, match=match)))
    answers = [target.items[j] for j in found(np.arange(size))]
    right = np.array([mine == its for mine, its in zip(source.items, answers, strict=True)])
    there = np.isin(np.array(source.items), np.array(target.items))
    counts = source.counts
    return {"items": size, "seed": seed, "positions": [side.corpus.n_positions for side in sides],
            "tokens": float(counts[right].sum() / counts.sum()),
            "tokens_answerable": float(counts[right].sum() / counts[there].sum()),
            "words_answerable": float(right[there].mean()), "answerable": int(there.sum()), "cpu_seconds": seconds,
            "objective": found.objective, "believed": found.verdict.believed,
            "ambiguous": found.verdict.evidence["ambiguous"],
            "confidence": float(found.confidence.mean())}  # fmt: skip


def curve(seed: int) -> list[dict]:
    """How many items are told as text grows, and what the verdict says: a Markov language, matched and deciphered, and
    the word cipher, matched."""
    rows = []
    for each in MARKOV_CURVE:
        source, target, key, _ = drawn(200, 200 * each, seed)
        a, b = pairs_of(source, 200), pairs_of(target, 200)
        (found, verdict, _), seconds = timed(partial(match_counts, a, b, NOTHING, MatchConfig(seed=seed)))
        same = {"case": "Markov, 200 symbols", "an_item": each, "seed": seed}
        rows.append(same | {"method": "matching", "accuracy": float((found.partner == key).float().mean()),
                            "believed": verdict.believed, "cpu_seconds": seconds})  # fmt: skip
        if each not in DECIPHERED:
            continue
        texts = [symbol_language(side, 200, name) for side, name in ((source, "a"), (target, "b"))]
        config = DecipherConfig(lags=(1, 2, 3, 4), min_count=1.0, seed=seed)
        read, seconds = timed(partial(decipher, *texts, config))
        rows.append(same | {"method": "decipherment", "accuracy": float((read(np.arange(200)) == key.numpy()).mean()),
                            "believed": read.verdict.believed, "cpu_seconds": seconds})  # fmt: skip
    for share in CIPHER_CURVE:
        row = cipher(1000, seed, share)
        rows.append({"case": "English words, 1,000", "an_item": round(np.mean(row["positions"]) / 1000), "seed": seed,
                     "share": share, "method": "matching", "accuracy": row["words_answerable"],
                     "tokens": row["tokens_answerable"], "believed": row["believed"],
                     "cpu_seconds": row["cpu_seconds"]})  # fmt: skip
    return rows


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else ""


def grouped(rows: list[dict], keys: tuple[str, ...]) -> dict[tuple, list[dict]]:
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def success(result: dict) -> str:
    """Over all judged runs that have one answer, by tokens where items differ in frequency: found, flagged, neither."""
    rows = [row for row in result.get("functional", []) if row["kind"] == "same"]
    rows += [*result.get("markov", []), *result.get("curve", [])]
    rows += [row | {"accuracy": row["tokens"]} for row in result.get("cipher", [])]
    told = [(row.get("tokens", row["accuracy"]) > 0.5, row["believed"]) for row in rows]
    return (f"Of {len(told)} judged runs on this page that have one answer, {told.count((True, True))} found more than "
            f"half of it and were believed, {told.count((False, False))} did not and were not; "
            f"{told.count((True, False))} found it and were not believed, {told.count((False, True))} failed and were "
            "believed.")  # fmt: skip


def page(result: dict) -> str:
    """The result as a page of Markdown."""
    lines = ["# Matching without vectors", "",
             "Means over seeds (range); CPU seconds of one thread, verdict included. Accuracy is the "
             "share of items given their own partner; chance is one in the number of items.", ""]  # fmt: skip
    if rows := result.get("functional"):
        lines += ["## Functional alignment: 60 states, 30,000 transitions a side, no anchors", "",
                  "| target | foreign states | seeds | accuracy | AUC of telling them | objective | surrogates' | most "
                  "possible | believed | CPU s |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for (kind, foreign), own in grouped(rows, ("kind", "foreign")).items():
            auc = spread([row["auc"] for row in own]) if foreign else ""
            lines.append(f"| {kind} | {foreign:.0%} | {len(own)} | {spread([r['accuracy'] for r in own])} | {auc} | "
                         f"{spread([r['objective'] for r in own])} | {spread([r['null'] for r in own])} | "
                         f"{spread([r['most'] for r in own])} | {sum(r['believed'] for r in own)} of {len(own)} | "
                         f"{spread([r['cpu_seconds'] for r in own])} |")  # fmt: skip
        lines.append("")
    if rows := result.get("markov"):
        lines += ["## Bijective Markov languages", "", "| items | positions a side | an item | seeds | likeliest by "
                  "invariants | accuracy | objective | believed | CPU s |",
                  "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for (size, n), own in grouped(rows, ("items", "positions")).items():
            lines.append(f"| {size:,} | {n:,} | {n // size:,} | {len(own)} | {spread([r['start'] for r in own])} | "
                         f"{spread([r['accuracy'] for r in own])} | {spread([r['objective'] for r in own])} | "
                         f"{sum(r['believed'] for r in own)} of {len(own)} | "
                         f"{spread([r['cpu_seconds'] for r in own])} |")  # fmt: skip
        lines.append("")
    if rows := result.get("curve"):
        lines += ["## How accuracy grows with text", "", "Positions a side for every item; of English words those "
                  "count that both halves hold among their 1,000, in brackets their tokens. A wrong answer believed "
                  "would be a failure that is not flagged.", "",
                  "| case | method | positions an item | seeds | accuracy | believed | CPU s |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        by_share = sorted(rows, key=lambda row: (row["case"], row["method"], row.get("share", row["an_item"])))
        for (case, method, _), own in grouped([row | {"at": row.get("share", row["an_item"])} for row in by_share],
                                              ("case", "method", "at")).items():  # fmt: skip
            tokens = f" [{np.mean([r['tokens'] for r in own]):.3f}]" if "tokens" in own[0] else ""
            lines.append(f"| {case} | {method} | {np.mean([r['an_item'] for r in own]):.0f} | {len(own)} | "
                         f"{spread([r['accuracy'] for r in own])}{tokens} | {sum(r['believed'] for r in own)} of "
                         f"{len(own)} | {spread([r['cpu_seconds'] for r in own])} |")  # fmt: skip
        lines.append("")
    if rows := result.get("methods"):
        lines += ["## The same by other means, and with parts left out", "",
                  "| method | items | positions | seeds | accuracy | CPU s |", "|---|---|---|---|---|---|"]  # fmt: skip
        for (method, size, n), own in grouped(rows, ("method", "items", "positions")).items():
            lines.append(f"| {method} | {size:,} | {n:,} | {len(own)} | {spread([r['accuracy'] for r in own])} | "
                         f"{spread([r['cpu_seconds'] for r in own])} |")  # fmt: skip
        lines.append("")
    if rows := result.get("cipher"):
        lines += ["## Word cipher: English against English, disjoint sentences", "",
                  "| words | positions a side | seed | tokens right | of those that have an answer | words right, of "
                  "those | believed | mean confidence | CPU s |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        lines += [f"| {r['items']:,} | {r['positions'][0]:,} | {r['seed']} | {r['tokens']:.4f} | "
                  f"{r['tokens_answerable']:.4f} | {r['words_answerable']:.3f} (n = {r['answerable']:,}) | "
                  f"{'yes' if r['believed'] else 'no'} | {r['confidence']:.3f} | {r['cpu_seconds']:.0f} |"
                  for r in rows]  # fmt: skip
        lines.append("")
    return "\n".join([*lines, success(result), "", *(f"`{command}`  " for command in result["commands"]), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["functional", "markov", "curve", "methods", "cipher"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0, help="where some seeds have been run before")
    parser.add_argument("--items", type=int, nargs="*", default=[1000], help="of markov, methods and cipher")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "matching")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out.with_suffix(".json")
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"commands": []}
    result["torch"] = torch.__version__
    result["commands"].append(" ".join(["OMP_NUM_THREADS=1 python benchmarks/alignment/matching.py", *sys.argv[1:]]))

    def add(part: str, rows: list[dict]) -> None:
        result.setdefault(part, []).extend(rows)
        for row in rows:
            print(part, json.dumps(row), flush=True)
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")
        given.out.with_suffix(".md").write_text(page(result), encoding="utf-8")

    for part in given.parts:
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            if part == "functional":
                add(part, functional(seed))
            elif part == "markov":
                for size in given.items:
                    add(part, [markov(size, 1000 * size, seed)])
            elif part == "curve":
                add(part, curve(seed))
            elif part == "methods":
                for size in given.items:
                    add(part, methods(size, 200 * size, seed))
            elif part == "cipher":
                for size in given.items:
                    add(part, [cipher(size, seed)])


if __name__ == "__main__":
    main()
