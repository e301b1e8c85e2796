"""Labels made up for the tests of the report: every shape that real ones take, at any number of latents."""

import numpy as np
import pandas as pd

from sae_translate.label.labels import Labels

NOUNS = (
    "cat", "dog", "boat", "tree", "river", "bread", "king", "garden", "window", "letter",
    "cloud", "stone", "horse", "lamp", "road", "song", "winter", "bear", "apple", "door",
)  # fmt: skip
WORDS = (
    *NOUNS, "the", "a", "and", "of", "to", "was", "in", "he", "she", "it", "said", "little",
    "big", "happy", "sad", "ran", "saw", "went", "home", "then", "very", "old", "red", "blue",
)  # fmt: skip
ODD = (".", "\n", "\n\n", ",", " <b>bold</b>", "\t", "ing")
METHODS = ("frequent", "logit_lens", "paired", "random", "unpaired")
KINDS = ("token", "token", "token", "previous_token", "ngram")


def synthetic_labels(n: int, seed: int = 0, contexts: int = 30, length: int = 21) -> Labels:
    """Labels of `n` latents over a small vocabulary; about one unpaired answer in eight abstains."""
    generator = np.random.default_rng(seed)
    rows, latents = [], []
    centres = generator.normal(size=(len(NOUNS), 2)) * 12
    for i in range(n):
        latent, topic, quality = 3 * i + 1, int(generator.integers(len(NOUNS))), float(generator.beta(3, 2))
        density = float(10 ** generator.uniform(-4, -1))
        answers = [_answer(latent, method, topic, quality, density, generator) for method in METHODS]
        real = [answer for answer in answers if answer["method"] not in ("random", "frequent")]
        max(real, key=lambda answer: answer["f1"] * (not answer["abstained"]))["chosen"] = True
        rows += answers
        latents.append(_latent(latent, topic, centres[topic], density, contexts, length, generator))
    table = pd.DataFrame(rows)
    return Labels(table, pd.DataFrame(latents), _summary(table, n, generator))


def _answer(latent, method, topic, quality, density, generator) -> dict:
    skill = {"unpaired": 0.9, "paired": 1.0, "logit_lens": 0.6, "random": 0.03, "frequent": 0.05}[method] * quality
    first = topic if generator.random() < skill + 0.2 else int(generator.integers(len(WORDS)))
    others = generator.permutation(len(WORDS))[:7]
    weights = np.sort(generator.dirichlet(np.ones(8)))[::-1].round(5).tolist()
    terms = [[" " + WORDS[j], weight] for j, weight in zip([first, *others], weights, strict=True)]
    precision, recall = np.clip(skill + generator.normal(0, 0.08, 2), 0, 1)
    kind = "token" if method in ("random", "frequent", "logit_lens") else str(generator.choice(KINDS))
    abstained = method == "unpaired" and generator.random() < 0.12
    return {
        "latent": latent,
        "method": method,
        "label": WORDS[first],
        "terms": terms,
        "kind": kind,
        "predicate": {"kind": kind, "any": [[int(first)]], "vocabulary": len(WORDS)},
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(2 * precision * recall / max(precision + recall, 1e-9)),
        "balanced_accuracy": float((1 + recall) / 2),
        "confidence": float(np.clip(skill + generator.normal(0, 0.1), 0, 1)),
        "abstained": bool(abstained),
        "chosen": False,
        "density": density,
    }


def _latent(latent, topic, centre, density, n_contexts, length, generator) -> dict:
    top = float(generator.gamma(4, 1.5) + 1)
    histogram = (np.exp(-np.linspace(0, 7, 64)) * density * 1e6 * generator.gamma(4, 0.25, 64)).astype(int)
    x, y = centre + generator.normal(size=2) * 2.5
    made = []
    for j in range(n_contexts):
        kind = "top" if j < n_contexts // 2 else f"q{(j - n_contexts // 2) % 5}"
        level = top * (1 - 0.02 * j) if kind == "top" else top * (0.1 + 0.18 * int(kind[1]))
        peak = int(length * 2 / 3)
        tokens = [" " + WORDS[w] for w in generator.integers(0, len(WORDS), length)]
        tokens[peak] = " " + NOUNS[topic]
        if generator.random() < 0.3:
            tokens[int(generator.integers(0, peak))] = str(generator.choice(ODD))
        values = np.where(generator.random(length) < 0.08, generator.random(length) * level * 0.6, 0).round(4)
        values[peak] = round(level, 4)
        place = {"document": int(generator.integers(5000)), "position": int(generator.integers(10**6)), "peak": peak}
        made.append({"kind": kind, "tokens": tokens, "values": values.tolist()} | place)
    return {
        "latent": latent,
        "density": density,
        "mean": top / 5,
        "max": top,
        "histogram": histogram.tolist(),
        "histogram_edges": np.linspace(0, top, 65).tolist(),
        "x": float(x),
        "y": float(y),
        "contexts": made,
    }


def _summary(table, n, generator) -> dict:
    methods = []
    for method, rows in table.groupby("method"):
        stood = rows[~rows["abstained"]]
        means = {key: float(stood[key].mean()) for key in ("precision", "recall", "f1", "balanced_accuracy")}
        spread = float(stood["f1"].std(ddof=0)) / max(len(stood), 1) ** 0.5 * 1.96
        methods.append(
            {"method": method, "n": n, "coverage": 1 - float(rows["abstained"].mean())}
            | {"chosen": int(rows["chosen"].sum()), "p_at_1": means["precision"], "label_mass": means["recall"]}
            | {"f1_low": means["f1"] - spread, "f1_high": means["f1"] + spread}
            | means
        )
    null = generator.normal(0.012, 0.002, 20).round(5).tolist()
    return {
        "model": "stories-8k",
        "sae": "topk-512-layer-3",
        "hook_name": "blocks.3.hook_resid_post",
        "dataset": "stories:en",
        "text": "other documents of stories:en",
        "version": "0.1.0",
        "command": "sae-translate label --sae topk-512-layer-3 --cache cache --out labels",
        "seed": 0,
        "tokens": {"latents": 480_000, "text": 481_203, "score": 120_511},
        "n_live": n,
        "methods": methods,
        "decipherment": {
            "objective": 0.1312,
            "null": null,
            "threshold": 0.0201,
            "believed": True,
            "reason": "The text explains 13.1 % of the latents' co-occurrence, shuffled text at most 1.6 %.",
            "seconds": 41.3,
        },
    }
