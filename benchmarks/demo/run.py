"""The embedded demo against its ground truth: is the concept behind a label the concept behind the latent?

The generator of the stories knows the concept of every token. A latent's concept is the one that holds most of its
activation; a label is right when the token it names stands for that concept. English latents are also labelled from
German stories of other plots, and judged by the same concepts.

    python benchmarks/demo/run.py --seeds 5 --out reports/demo.json
"""

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
from scipy import sparse

import sae_translate
from activation_cache.shards import ActivationCache
from sae_translate.cli.demo import MODEL, SAE
from sae_translate.demo.stories import generate
from sae_translate.label.latents import LabelConfig

GERMAN_SEED = 1_000_003


def concepts_of_positions(cache: ActivationCache, seed: int) -> list[str]:
    """The concept behind every recorded token, from the stories told again and the tokenizer's offsets."""
    tokenizer = cache.tokenizer()
    concepts, position = [], 0
    for story in generate("en", None, seed):
        coded = tokenizer(story.text, add_special_tokens=False, return_offsets_mapping=True)
        starts = np.array([start for start, _ in story.spans])
        for token, (start, end) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
            if position == cache.n_tokens:
                return concepts
            assert token == cache.tokens[position], "the stories told again are not the ones recorded"
            last = max(end - 1, start)
            concepts.append(story.tokens[int(np.searchsorted(starts, last, side="right")) - 1].concept)
            position += 1
    raise AssertionError("the stories end before the cache does")


def latent_concepts(latents: sparse.csr_array, concepts: list[str]) -> tuple[list[str], np.ndarray]:
    """For every latent the concept that holds most of its activation, and its share."""
    names = sorted(set(concepts))
    column = {name: i for i, name in enumerate(names)}
    rows = np.array([column[name] for name in concepts])
    n = len(concepts)
    where = sparse.csr_array((np.ones(n, np.float32), (rows, np.arange(n))), shape=(len(names), n))
    mass = np.asarray((where @ latents).todense())
    return [names[i] for i in mass.argmax(0)], mass.max(0) / np.maximum(mass.sum(0), 1e-12)


def word_concepts(language: str, seed: int, n: int = 3000) -> dict[str, str]:
    """The most frequent concept of every word."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for story in islice(generate(language, None, seed), n):
        for token in story.tokens:
            counts[token.text][token.concept] += 1
    return {word: found.most_common(1)[0][0] for word, found in counts.items()}


def token_concepts(cache: ActivationCache, concepts: list[str]) -> dict[int, str]:
    """The most frequent concept of every token id."""
    counts: dict[int, Counter] = defaultdict(Counter)
    for token, concept in zip(cache.tokens.tolist(), concepts, strict=True):
        counts[token][concept] += 1
    return {token: found.most_common(1)[0][0] for token, found in counts.items()}


def accuracy(right: np.ndarray, clear: np.ndarray) -> dict:
    """Share right over all latents, and over those of which one concept holds more than half."""
    return {
        "all": float(right.mean()),
        "n_all": len(right),
        "clear": float(right[clear].mean()) if clear.any() else None,
        "n_clear": int(clear.sum()),
    }


def measure(seed: int, tokens: int, folder: Path) -> dict:
    """Every method's accuracy against the concepts, for one seed of stories, splits and decipherment."""
    documents = (story.text for story in generate("en", None, seed))
    cache = sae_translate.record(folder / f"cache-{seed}", sae=str(SAE), model=str(MODEL), documents=documents,
                                 tokens=tokens, seed=seed)  # fmt: skip
    concepts = concepts_of_positions(cache, seed)
    names, share = latent_concepts(cache.latents(), concepts)
    of_token = token_concepts(cache, concepts)
    config = LabelConfig(seed=seed)
    result = {"seed": seed}
    clock = time.process_time()
    labels = sae_translate.label_latents(cache, config=config)
    result["cpu_seconds"] = time.process_time() - clock
    for method, rows in labels.table.groupby("method"):
        gold = [names[i] for i in rows["latent"]]
        right = np.array([of_token.get(t) == g for t, g in zip(rows["token_id"], gold, strict=True)])
        clear = share[rows["latent"]] > 0.5
        result[method] = accuracy(right, clear)
        if method == "unpaired":
            kept = ~rows["abstained"].to_numpy()
            result["unpaired, not abstained"] = accuracy(right[kept], clear[kept])
    result["verdict"] = labels.summary["decipherment"].get("believed")
    result["objective"] = labels.summary["decipherment"]["objective"]

    of_german = word_concepts("de", seed + GERMAN_SEED)
    german = (story.text for story in islice(generate("de", None, seed + GERMAN_SEED), 4000))
    abroad = sae_translate.label_latents(cache, text=german, config=config)
    rows = abroad.table[abroad.table["method"] == "unpaired"]
    gold = [names[i] for i in rows["latent"]]
    clear = share[rows["latent"]] > 0.5
    first = [terms[0][0] if len(terms) else "" for terms in rows["terms"]]
    right = np.array([of_german.get(word) == g for word, g in zip(first, gold, strict=True)])
    result["unpaired, German text"] = accuracy(right, clear)
    kept = ~rows["abstained"].to_numpy()
    result["unpaired, German text, not abstained"] = accuracy(right[kept], clear[kept]) if kept.any() else None
    five = [[word for word, _ in terms[:5]] for terms in rows["terms"]]
    in_five = np.array([g in {of_german.get(word) for word in words} for words, g in zip(five, gold, strict=True)])
    result["unpaired, German text, P@5"] = accuracy(in_five, clear)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    by_chance = np.array([of_german.get(first[i]) == g for i, g in zip(shuffled, gold, strict=True)])
    result["German labels dealt at random"] = accuracy(by_chance, clear)
    result["German verdict"] = abroad.summary["decipherment"].get("believed")
    result["German objective"] = abroad.summary["decipherment"]["objective"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--out", type=Path, default=Path("reports/demo.json"))
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            results.append(measure(seed, arguments.tokens, Path(folder)))
            print(json.dumps(results[-1]), flush=True)
    keys = [key for key, value in results[0].items() if isinstance(value, dict)]
    table = {
        key: {part: [r[key][part] if r.get(key) else None for r in results] for part in ("clear", "all", "n_clear")}
        for key in keys
    }
    command = f"python benchmarks/demo/run.py --seeds {arguments.seeds} --tokens {arguments.tokens}"
    report = {"command": command, "version": sae_translate.__version__, "results": results}
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    for key, value in table.items():
        clear = [v for v in value["clear"] if v is not None]
        everything = [v for v in value["all"] if v is not None]
        if clear:
            span = f"{min(clear):.3f}-{max(clear):.3f}"
            print(f"{key:40} clear {np.mean(clear):.3f} ({span})  all {np.mean(everything):.3f}")


if __name__ == "__main__":
    main()
