"""What the command line says of labels: the table of methods, the verdict, and labels worth seeing."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from sae_translate.label.labels import Labels

NAMES = {
    "unpaired": "unpaired",
    "paired": "paired (ceiling)",
    "logit_lens": "logit lens",
    "random": "random token",
    "frequent": "most frequent token",
}


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def finite(value):
    """The value with NaN as None, as JSON has no NaN."""
    from sae_translate.artifacts import plain

    return plain(value)


def show(labels: "Labels") -> None:
    """Print the table of methods, the verdict, and three labels worth seeing."""
    from rich.console import Console
    from rich.table import Table

    from sae_translate.report.words import verdict_in_words

    made = labels.summary
    table = Table(title=f"{made['n_live']:,} live latents of {made['sae']}, scored on documents no method saw")
    for column in (
        "method",
        "answered",
        "F1",
        "95 %",
        "precision",
        "recall",
        "bal. acc.",
        "P@1",
        "if answered",
        "token mass",
        "chosen",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in made["methods"]:
        table.add_row(
            NAMES.get(row["method"], row["method"]),
            f"{row['answered']:,}/{row['n']:,}",
            number(row["f1"]),
            f"{number(row['f1_low'])}-{number(row['f1_high'])}",
            number(row["precision"]),
            number(row["recall"]),
            number(row["balanced_accuracy"]),
            number(row["p_at_1"]),
            number(row["p_at_1_answered"]),
            number(row["label_mass"]),
            f"{row['chosen']:,}",
        )
    console = Console(width=None if Console().is_terminal else 130)
    console.print(table)
    n_gold = next(row["n_gold"] for row in made["methods"] if row["method"] == "paired")
    console.print(f"P@1 over the {n_gold:,} latents whose heaviest token holds more than half of their activation.")
    verdict = made["decipherment"]
    if "reason" in verdict:
        console.print(
            f"unpaired: {'believed' if verdict['believed'] else 'ABSTAINS'}. {verdict_in_words(verdict)}",
            soft_wrap=True,
        )
    for why in made.get("left_out", {}).values():
        console.print(f"left out: {why}", soft_wrap=True)
    for line in worth_seeing(labels):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def worth_seeing(labels: "Labels", n: int = 3) -> list[str]:
    """The surest unpaired labels that are words, each beside the paired answer: one of several words where there is
    one (a class of words that could stand in for each other), the others of one word, no word twice."""
    by_method: dict[str, pd.DataFrame] = {name: part for name, part in labels.table.groupby("method")}
    unpaired = by_method["unpaired"]
    readable = unpaired[~unpaired["abstained"] & unpaired["label"].str.contains(r"[^\W\d_]{3}", regex=True)]
    ranked = readable.assign(rank=readable["confidence"] + readable["f1"].fillna(0.0))
    ranked = ranked.sort_values(["rank", "density"], ascending=[False, True]).drop_duplicates("label")
    words = ranked["label"].str.count(", ") + 1
    several = ranked[words >= 2].head(10).assign(words=words)
    several = several.sort_values("words", ascending=False, kind="stable").head(1)
    known = set(several["label"].str.split(", ").sum() if len(several) else ())
    single = ranked[(words == 1) & ~ranked["label"].isin(known)].head(n - len(several))
    paired = by_method["paired"].set_index("latent")["label"]
    return [
        f"latent {row.latent}: {row.label}   (unpaired, confidence {number(row.confidence)}, "
        f"F1 {number(row.f1)}; paired says: {paired.get(row.latent, '-')})"
        for row in [*single.itertuples(), *several.itertuples()]
    ]
