"""The payload of a labels report: a small core that the table needs at once, and blocks of latents read when chosen.

Token strings are stored once for the whole report; contexts hold their numbers, and only the activations that are not
zero. Everything is a JSON value.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from activation_cache.errors import UserError
from sae_translate.artifacts import plain
from sae_translate.report import figures
from sae_translate.report.words import (
    KINDS,
    NUMBERS,
    method_words,
    methods_in_order,
    predicate_in_words,
    short_name,
    verdict_in_words,
)

BLOCK = 64
"Latents per block."
NAMES = ("model", "sae", "dataset", "text")
SCORES = ("f1", "precision", "recall", "balanced_accuracy", "confidence")
MAP_COLOURS = ("label", "kind", "f1")


def core_payload(table: pd.DataFrame, latents: pd.DataFrame, summary: dict[str, Any]) -> dict[str, Any]:
    """Columns of the table, method answers without their terms, figures and summary."""
    _check_latents(table, latents)
    order = [int(latent) for latent in latents["latent"]]
    methods = methods_in_order(table["method"])
    answers = {method: _answer_columns(table[table["method"] == method], order) for method in methods}
    chosen = _chosen(table, order, methods)
    return {
        "latents": order,
        "density": _rounded(latents["density"]),
        "mean": _rounded(latents["mean"]),
        "max": _rounded(latents["max"]),
        "methods": [_method(method) for method in methods],
        "answers": answers,
        "chosen": [None if method is None else methods.index(method) for method in chosen],
        "kinds": KINDS,
        "search": _search_terms(table, order),
        "numbers": {key: {"title": title, "note": note} for key, (title, note) in NUMBERS.items()},
        "figures": {name: json.loads(figure.to_json()) for name, figure in _figures(table, latents, summary).items()},
        "summary": plain(summary),
        "verdict": verdict_in_words(summary.get("decipherment")),
        "short": {key: short_name(str(summary[key])) for key in NAMES if summary.get(key)},
        "block": BLOCK,
    }


def block_payloads(
    table: pd.DataFrame, latents: pd.DataFrame, contexts_per_kind: int | None = None
) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """Token strings of all contexts, and per block the histogram, contexts, terms and predicates of its latents."""
    strings: dict[str, int] = {}
    details = _details(table)
    blocks: list[list[dict[str, Any]]] = []
    for i, row in enumerate(latents.to_dict("records")):
        if i % BLOCK == 0:
            blocks.append([])
        blocks[-1].append(
            {
                "histogram": [int(count) for count in _sequence(row.get("histogram"))],
                "edges": _rounded(_sequence(row.get("histogram_edges"))),
                "contexts": _contexts(_sequence(row.get("contexts")), strings, contexts_per_kind),
                "answers": details.get(int(row["latent"]), {}),
            }
        )
    return list(strings), blocks


def _check_latents(table: pd.DataFrame, latents: pd.DataFrame) -> None:
    if latents.empty:
        raise UserError("these labels hold no latent: a report needs at least one; label an SAE with live latents")
    unknown = sorted(set(table["latent"]) - set(latents["latent"]))
    if unknown:
        raise UserError(
            f"the labels name {len(unknown)} latents (first: {unknown[0]}) that the table of latents lacks: "
            "the labels folder is incomplete; write it again with `sae-translate label`"
        )


def _method(method: str) -> dict[str, str]:
    words = method_words(method)
    return {"key": method, "title": words.title, "role": words.role, "colour": words.colour, "note": words.note}


def _answer_columns(rows: pd.DataFrame, order: list[int]) -> dict[str, list]:
    rows = rows.drop_duplicates("latent").set_index("latent").reindex(order)
    text = {key: ["" if pd.isna(value) else str(value) for value in rows[key]] for key in ("label", "kind")}
    there = [bool(value) for value in rows["label"].notna()]
    abstained = [bool(value) if here else None for value, here in zip(rows["abstained"], there, strict=True)]
    return text | {"abstained": abstained} | {key: _rounded(rows[key]) for key in SCORES}


def _chosen(table: pd.DataFrame, order: list[int], methods: list[str]) -> list[str | None]:
    """The method whose answer the user gets, per latent; the first that answered where none is marked."""
    marked = table[table["chosen"].astype(bool)].drop_duplicates("latent").set_index("latent")["method"]
    first = table.drop_duplicates("latent").set_index("latent")["method"]
    return [marked.get(latent, first.get(latent)) for latent in order]


def _search_terms(table: pd.DataFrame, order: list[int], most: int = 6) -> list[list[str]]:
    """Labels and best terms of every method that is not a floor, each string once per latent."""
    found: dict[int, dict[str, None]] = {latent: {} for latent in order}
    for row in table.itertuples():
        if method_words(str(row.method)).role == "floor":
            continue
        words = [str(row.label)] if isinstance(row.label, str) else []
        words += [str(term) for term, _ in _terms(row.terms)[:most]]
        found[int(row.latent)].update(dict.fromkeys(words))
    return [list(found[latent]) for latent in order]


def _details(table: pd.DataFrame, most: int = 10) -> dict[int, dict[str, dict[str, Any]]]:
    details: dict[int, dict[str, dict[str, Any]]] = {}
    for row in table.itertuples():
        predicate = json.loads(row.predicate) if isinstance(row.predicate, str) else (row.predicate or {})
        label = row.label if isinstance(row.label, str) else ""
        details.setdefault(int(row.latent), {})[str(row.method)] = {
            "terms": [[str(term), _significant(weight)] for term, weight in _terms(row.terms)[:most]],
            "claim": predicate_in_words(predicate, label) if label else "",
        }
    return details


def _contexts(contexts: Iterable[dict], strings: dict[str, int], per_kind: int | None) -> list[list]:
    """Per context: kind, document, position, peak, token numbers, and index and value of what is not zero."""
    taken: dict[str, int] = {}
    packed = []
    for context in contexts:
        kind = str(context["kind"])
        taken[kind] = taken.get(kind, 0) + 1
        if per_kind is not None and taken[kind] > per_kind:
            continue
        tokens = [strings.setdefault(str(token), len(strings)) for token in context["tokens"]]
        active = [
            part for i, value in enumerate(context["values"]) if value for part in (i, _significant(value))
        ]
        place = [int(context.get("document", -1)), int(context.get("position", -1))]
        packed.append([kind, *place, int(context["peak"]), tokens, active])
    return packed


def _figures(table: pd.DataFrame, latents: pd.DataFrame, summary: dict[str, Any]) -> dict[str, Any]:
    edges = next((found for cell in latents["histogram_edges"] if len(found := _sequence(cell)) > 1), [0.0, 1.0])
    made = {"histogram": figures.histogram_figure(np.zeros(len(edges) - 1), np.array(edges, dtype=float))}
    marked = table[table["chosen"].astype(bool)].drop_duplicates("latent")
    points = latents[["latent", "x", "y"]].merge(marked[["latent", "label", "kind", "f1", "abstained"]], how="left")
    points["label"] = points["label"].fillna("")
    points["kind"] = points["kind"].fillna("").map(lambda kind: KINDS.get(kind, str(kind).replace("_", " ")))
    points["abstained"] = points["abstained"].astype(object).where(points["abstained"].notna(), True).astype(bool)
    points = points[np.isfinite(points["x"].astype(float)) & np.isfinite(points["y"].astype(float))]
    made |= {f"map_{colour}": figures.map_figure(points, colour) for colour in MAP_COLOURS}
    if summary.get("methods"):
        made["methods"] = figures.methods_figure(pd.DataFrame(summary["methods"]).astype({"f1": float}))
    made["f1_curve"] = figures.f1_curve_figure(table)
    decipherment = summary.get("decipherment") or {}
    null = tuple(float(value) for value in decipherment.get("null") or ())
    if decipherment.get("objective") is not None and null:
        made["null"] = figures.null_figure(float(decipherment["objective"]), null, decipherment.get("threshold"))
    return made


def _sequence(value: Any) -> list:
    """The list in a cell: cells read back from a file may hold arrays, JSON or nothing."""
    if isinstance(value, str):
        value = json.loads(value)
    return [] if value is None or (isinstance(value, float) and math.isnan(value)) else list(value)


def _terms(value: Any) -> list[tuple[str, float]]:
    return [(str(term), float(weight)) for term, weight in _sequence(value)]


def _rounded(values: Iterable) -> list[float | int | None]:
    return [_significant(value) for value in values]


def _significant(value: Any, digits: int = 4) -> float | int | None:
    value = float("nan") if value is None else float(value)
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) else short
