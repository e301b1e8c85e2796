"""Measure dictionaries between the manuals of Linux in several languages, from text alone.

    mkdir -p .bench/manuals
    apt-get download manpages-de manpages-es manpages-fr manpages-it manpages-nl manpages-pl manpages-pt-br
    for package in manpages-*.deb; do dpkg -x $package .bench/manuals; done
    OMP_NUM_THREADS=1 python benchmarks/decipherment/manuals.py --folder .bench/manuals

Pages of Debian's packages, a paragraph a segment, markup removed. "All pages": every page of either language, of which
some are translations of one another; "no page in common": of pages that both languages have, each is read in one of the
two alone, drawn at random. Gold, read only to score: mutual best Dice over the paragraphs of pages that both have with
equally many. Some two fifths of it are written alike in both (commands, options): P@1 of the others stands beside.
Chance is one in the number of words.
"""

import argparse
import gzip
import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from words import Task, dice_gold, key_of, report, words_of

from sae_translate.align.contexts import ContextsConfig, align_contexts

ROOT = Path(__file__).resolve().parents[2]
ESCAPE = re.compile(r"\\f(?:\(..|\[[^]]*\]|.)|\\s[+-]?\d|\\\[[^]]*\]|\\\(..|\\[&|/,%:^]|\\")
BREAK = re.compile(r"\.(PP|P|TP|LP|IP|SH|SS|Pp|It|TQ|HP|RS|RE|sp|br)\b ?(.*)")
TEXT = re.compile(r"\.(B|I|BR|IR|RB|RI|BI|IB|SM|Em|Nm|Ar|Fl|Xr|Pa|Sy|Li|Ql|Dq)\b ?(.*)")
LITERAL = re.compile(r"\.(EX|nf|Bd)\b"), re.compile(r"\.(EE|fi|Ed)\b")
TRIED = """## What was tried

By scripts that are not kept, 2,000 words a side, 1,000 contexts, no punctuation, all pages; P@1 of Polish-French,
German-Spanish and the Italian and French documentation of reports/together.md (n = 578, 425, 696), in one session:

| contexts are carried over by | Polish-French | German-Spanish | documentation |
|---|---|---|---|
| every choice of either side, mutual ones twice | 0.407 | 0.165 | 0.912 |
| the same, evidence from ranks of frequency added in every step | 0.578 |  | 0.918 |
| mutual choices, ranks added in every step | 0.791 | 0.635 | 0.922 |
| mutual choices | 0.820 | 0.725 | 0.924 |
| mutual choices, others at a tenth of the weight | 0.817 | 0.689 |  |
| mutual choices, others at a quarter | 0.785 | 0.581 |  |
| mutual choices until the last step, then all | 0.773 | 0.591 |  |
| both sides' softmax multiplied, sharpness 100 | 0.652 | 0.407 | 0.918 |
| mutual choices, contexts without one left out of both sides | 0.829 | 0.722 | 0.921 |
| the same with 2,000 contexts | 0.860 | 0.772 |  |

And in the next, from its last row but one; German-Polish and Spanish-French (n = 542, 634) and 1,414 words of Tatoeba,
seed 1, beside. "Among 2": a best choice of one side that is among the 2 nearest of the other; a pair weighs one over
the geometric mean of the pairs that its contexts are in.

| contexts are carried over by | pl-fr | de-es | de-pl | es-fr | documentation | Tatoeba |
|---|---|---|---|---|---|---|
| mutual choices (the reader before) | 0.829 | 0.722 | 0.677 | 0.891 | 0.921 | 0.424 |
| among 2, every pair alike |  | 0.678 |  |  |  | 0.443 |
| among 2 | 0.811 | 0.701 | 0.657 | 0.877 | 0.922 | 0.458 |
| among 3 |  | 0.685 |  |  |  | 0.462 |
| among 5 |  | 0.638 |  |  |  | 0.471 |
| all pairs among either's 4, by the product of their ranks |  | 0.633 |  |  |  | 0.482 |
| mutual choices in 8 steps, then among 3 |  | 0.701 |  |  |  | 0.456 |
| mutual choices, items by correlation | 0.830 | 0.722 | 0.742 | 0.879 | 0.921 | 0.423 |
| among 2, items by correlation | 0.829 | 0.715 | 0.727 | 0.871 | 0.927 | 0.465 |
| among 3, items by correlation | 0.820 | 0.699 | 0.718 | 0.869 | 0.921 | 0.469 |
| among 2, log odds from their context's mean |  | 0.638 |  |  |  | 0.453 |
| the same, at unit variance |  | 0.405 |  |  |  | 0.332 |
| among 2, positive log odds alone |  | 0.584 |  |  |  | 0.448 |
| among 2, every bin at unit length |  | 0.595 |  |  |  | 0.313 |
| among 2, in 300 singular directions |  | 0.572 |  |  |  | 0.404 |
| among 2, by how contexts correlate over mutual choices |  | 0.675 |  |  |  | 0.426 |
| among 2, items by correlation, scores balanced in every step | 0.827 | 0.602 | 0.725 | 0.886 | 0.940 | 0.458 |
| mutual choices, items by correlation, balanced at last | 0.836 | 0.739 | 0.760 | 0.890 | 0.937 | 0.434 |
| among 2, items by correlation, balanced at last (kept) | 0.837 | 0.732 | 0.736 | 0.891 | 0.938 | 0.482 |
| the same, with ranks of frequency at last | 0.818 | 0.708 | 0.720 | 0.885 | 0.938 | 0.472 |

With 3,000 contexts for 2,000, in 1.6 times the time, German-Spanish has 0.681 of 3,000 words (0.660 above),
Polish-French 0.765 (0.753), and Tatoeba, seed 1, 0.443 (0.425).
With the reader of every choice of either side and 1,000 contexts the 3,000 words of the table above had 0.728, 0.628,
0.230 and 0.267 (Spanish-French, Polish-French, German-Polish, German-Spanish), the last two withheld; with mutual
choices and 2,000 contexts 0.787, 0.735, 0.607 and 0.608.
By vectors alone (word2vec, 200 dimensions, of the same pages, 3,000 words) none of the four pairs is found, and none is
believed; a rotation learnt from half of the gold pairs gives 0.54, 0.54, 0.49 and 0.38 of the other half."""
NAMES = {"de": "German", "es": "Spanish", "fr": "French", "pl": "Polish", "nl": "Dutch", "it": "Italian",
         "ro": "Romanian", "pt_BR": "Portuguese"}  # fmt: skip


def paragraphs(page: str) -> list[str]:
    """The paragraphs and headings of a page, without its markup and its literal blocks."""
    found: list[list[str]] = [[]]
    literal = False
    for line in page.split("\n"):
        if line.startswith("."):
            literal = bool(LITERAL[0].match(line)) or (literal and not LITERAL[1].match(line))
            if broken := BREAK.match(line):
                found += [[broken[2]], []] if broken[1] in ("SH", "SS") else [[]]
            elif told := TEXT.match(line):
                found[-1].append(told[2].replace('"', " "))
        elif not literal and not line.startswith("'"):
            found[-1].append(line)
    return [ESCAPE.sub("", " ".join(lines).replace(r"\-", "-")) for lines in found if any(lines)]


def pages_of(folder: Path, language: str) -> dict[str, list[str]]:
    """Paragraphs by the page's name; links to other pages are left out."""
    files = sorted((folder / "usr" / "share" / "man" / language).glob("man*/*.gz"))
    if not files:
        sys.exit(f"{folder} holds no manuals in {language!r}: unpack Debian's manpages-{language} there, as told above")
    pages = {}
    for path in files:
        if not path.is_symlink():
            with gzip.open(path, "rt", encoding="utf-8") as file:
                pages[f"{path.parent.name}/{path.name}"] = paragraphs(file.read())
    return {name: page for name, page in pages.items() if sum(map(len, page)) > 200}


def task_of(folder: Path, pair: str, size: int, apart: bool, seed: int) -> Task:
    """Two languages of manuals and their gold."""
    sides = [pages_of(folder, language) for language in pair.split("-")]
    common = sorted(set(sides[0]) & set(sides[1]))
    pairs = [both for name in common if len(sides[0][name]) == len(sides[1][name])
             for both in zip(sides[0][name], sides[1][name], strict=True)]  # fmt: skip
    if apart:
        drawn = np.random.default_rng(seed).integers(2, size=len(common))
        for side, pages in enumerate(sides):
            for name in np.array(common)[drawn != side]:
                del pages[str(name)]
    source, target = (
        words_of([paragraph for page in pages.values() for paragraph in page], NAMES.get(language, language), size)
        for language, pages in zip(pair.split("-"), sides, strict=True)
    )
    gold = dice_gold(pairs, source.items, target.items)
    unlike = {i: found for i, found in gold["mutual"].items()
              if all(source.items[i] != target.items[j] for j in found)}  # fmt: skip
    return Task(source, target, {"mutual": gold["mutual"], "mutual, not written alike": unlike})


def page(result: dict) -> str:
    lines = ["# Manuals of Linux, from text alone", "", __doc__.split("\n\n")[-1].strip(), "",
             "CPU seconds of one thread, with the verdict; agreement is the verdict's, backwards its null. Which "
             "contexts are carried over, and how items are compared in them, was found on these pages with the answers "
             "in sight (below), and then measured elsewhere (reports/words.md, reports/together.md); Italian, Dutch "
             "and Portuguese were first looked at when all was settled. The reader before has 0.818 on Italian-French, "
             "0.541 on Dutch-German, 0.898 on Portuguese-Spanish and 0.385, withheld, on Italian-Dutch.", "",
             "| pair | pages | method | words a side | seed | positions | P@1, mutual gold | P@5 | n | P@1, not "
             "written alike | P@5 | n | agreement (backwards) | believed | CPU s |", "|" + "---|" * 15]  # fmt: skip
    for row in sorted(result["rows"], key=lambda row: (row["case"], row["method"], row["seed"])):
        pair, pages = row["case"].split(", ", 1)
        scores = [row["scores"][f"{kind}, top {row['items']:,}"] for kind in ("mutual", "mutual, not written alike")]
        told = " | ".join(f"{p['p_at_1']:.3f} ± {p['half_width']:.3f} | {p['p_at_5']:.3f} | {p['n']}" for p in scores)
        lines.append(f"| {pair} | {pages} | {row['method']} | {row['items']:,} | {row['seed']} | "
                     f"{' / '.join(f'{n:,}' for n in row['positions'])} | {told} | {row['agreement']:.3f} "
                     f"({row['null']:.3f}) | {'yes' if row['believed'] else 'no'} | {row['cpu_seconds']:.0f} |"
                     )  # fmt: skip
    lines += ["", TRIED]
    return "\n".join([*lines, "", *(f"`{command}`  " for command in result["commands"]), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the packages are unpacked")
    parser.add_argument("--pairs", nargs="+", default=["es-fr", "pl-fr", "de-pl", "de-es"])
    parser.add_argument("--items", type=int, default=3000, help="words a side")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--apart", action="store_true", help="no page in common")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "manuals")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out.with_suffix(".json")
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"commands": [], "rows": []}
    command = " ".join(["OMP_NUM_THREADS=1 python benchmarks/decipherment/manuals.py", *sys.argv[1:]])
    result["commands"] = [*dict.fromkeys([*result["commands"], command])]
    for pair in given.pairs:
        for seed in given.seeds:
            task = task_of(given.folder, pair, given.items, given.apart, seed)
            case = f"{task.source.name}-{task.target.name}, {'no page in common' if given.apart else 'all pages'}"
            made = partial(align_contexts, task.source, task.target, ContextsConfig(seed=seed))
            row = report(case, "contexts", made, task, given.items, seed)
            print(json.dumps(row), flush=True)
            result["rows"] = [*(old for old in result["rows"] if key_of(old) != key_of(row)), row]
            path.write_text(json.dumps(result, indent=1), encoding="utf-8")
            given.out.with_suffix(".md").write_text(page(result), encoding="utf-8")


if __name__ == "__main__":
    main()
