"""Measure decipherment of SAE latents, its verdict and its confidence, on disjoint halves and on failing controls.

    python benchmarks/decipherment/run.py --model ../shared/data/models/stories260K \
        --dataset ../shared/data/text/tinystories/tinystories_1000.json --hook-name blocks.2.hook_resid_post --seeds 6

Latent statistics come from one half of the documents, token statistics from the other; which token a latent fired on is
read only to score. Gold is the token that holds most of a latent's activation over all documents (its token precision
is that token's share); the paired ceiling always answers with it.
"""

import argparse
import json
import resource
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from material import Model, documents_of, encode, sae_of, token_language
from scipy import sparse
from sklearn.metrics import roc_auc_score

from sae_translate.align.alignment import Alignment
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.align.statistics import share_positions
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.text import keep_items, most_frequent
from sae_translate.translate.dictionary import in_context

ROOT = Path(__file__).resolve().parents[2]


def halves(language: Language, seed: int) -> tuple[Language, Language]:
    order = np.random.default_rng(seed).permutation(np.unique(language.corpus.documents))
    middle = len(order) // 2
    first, second = (language.corpus.select_documents(part) for part in (order[:middle], order[middle:]))
    return Language(language.name, language.items, first), Language(language.name, language.items, second)


def shuffled(language: Language, seed: int) -> Language:
    """Every document's positions in random order."""
    corpus = language.corpus
    mixed = corpus.shuffled(corpus.documents[corpus.segment_of_position], np.random.default_rng(seed))
    return Language(language.name + ", shuffled", language.items, mixed)


def rows_moved(language: Language, seed: int) -> Language:
    """Every position's latents from a random position of any document."""
    corpus = language.corpus
    order = np.random.default_rng(seed).permutation(corpus.n_positions)
    return Language(
        language.name + ", rows moved", language.items, Corpus(corpus.matrix[order], corpus.segments, corpus.documents)
    )


def columns_moved(language: Language, seed: int) -> Language:
    """Every latent in its own order, but each displaced by thousands of positions: as from other documents."""
    corpus = language.corpus
    n, d = corpus.matrix.shape
    shift = np.random.default_rng(seed).integers(n // 50, n - n // 50, size=d)
    cell = corpus.matrix.tocoo()
    matrix = sparse.csr_array(sparse.coo_array((cell.data, ((cell.row + shift[cell.col]) % n, cell.col)), shape=(n, d)))
    return Language(
        language.name + ", columns moved", language.items, Corpus(matrix, corpus.segments, corpus.documents)
    )


def interval(right: np.ndarray) -> list[float]:
    """Wilson's 95 % interval of a proportion."""
    n, z = len(right), 1.96
    if n == 0:
        return [0.0, 1.0]
    p = right.mean()
    middle, spread = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [float((middle - spread) / (1 + z * z / n)), float((middle + spread) / (1 + z * z / n))]


class Gold:
    """What every latent fires on, over all documents: read for scores only."""

    def __init__(self, latents: Language, tokens: Language, named: np.ndarray):
        whole = (latents.corpus.matrix.T @ tokens.corpus.matrix).toarray()
        self.nameable = np.isin(whole.argmax(1), named)
        "Whether the token a latent fires on most is among those that may be named."
        tokens = keep_items(tokens, named)
        total = whole.sum(1)
        activation = whole[:, named]
        self.mass = (share_positions(latents.corpus.matrix).T @ tokens.corpus.matrix).toarray()
        self.live = total > 0
        self.best = activation.argmax(1)
        self.precision = activation.max(1) / np.maximum(total, 1e-9)
        frequency = tokens.counts / tokens.counts.sum()
        self.chance = float((frequency[self.best[self.live]]).mean())
        self.frequent = float((self.best[self.live] == frequency.argmax()).mean())

    def score(self, alignment: Alignment) -> dict:
        top = alignment.best(5)
        right = top[:, 0] == self.best
        within = (top == self.best[:, None]).any(1)
        answered = alignment.coupling.sum(1) > 0
        out: dict = {}
        for floor in (0.7, 0.5, 0.3, 0.0):
            rows = self.live & self.nameable & (self.precision > floor)
            out[f"precision>{floor:g}"] = {
                "n": int(rows.sum()),
                "p_at_1": float(right[rows].mean()),
                "p_at_5": float(within[rows].mean()),
                "interval": interval(right[rows]),
                "n_answered": int((rows & answered).sum()),
                "p_at_1_answered": float(right[rows & answered].mean()),
            }
        mine = self.mass[np.arange(len(top)), top[:, 0]][self.live].sum()
        out["share_of_paired_mass"] = float(mine / self.mass.max(1)[self.live].sum())
        confidence, truth = alignment.confidence[self.live], right[self.live]
        parts = np.array_split(np.argsort(confidence), 10)
        out["confidence"] = {
            "mean": float(confidence.mean()),
            "auc": float(roc_auc_score(truth, confidence)) if 0 < truth.sum() < len(truth) else None,
            "ece": float(sum(abs(truth[p].mean() - confidence[p].mean()) * len(p) for p in parts) / len(truth)),
            "reliability": [[float(confidence[p].mean()), float(truth[p].mean())] for p in parts],
        }
        return out


def encode_with(folder: Path, x: np.ndarray) -> tuple[sparse.csr_array, float]:
    """The latents of a saved SAE, and its normalised error."""
    from activation_cache.saes import load_sae

    sae = load_sae(folder)
    parts = torch.as_tensor(x, dtype=torch.float32).split(20_000)
    matrix = sparse.vstack([sae.encode_sparse(part).matrix for part in parts], format="csr")
    some = parts[0]
    left = sum(float((part - sae.sae.decode(sae.encode(part))).detach().pow(2).sum()) for part in some.split(2_000))
    return sparse.csr_array(matrix), left / float((some - some.mean(0)).pow(2).sum())


def measure(name: str, source: Language, target: Language, gold: Gold, config: DecipherConfig) -> dict:
    cpu, wall = time.process_time(), time.perf_counter()
    alone = decipher(source, target, config)
    verdict = alone.verdict
    alignment = in_context(alone, source, target, config).alignment
    row = {
        "case": name, "seed": config.seed, "source_positions": source.corpus.n_positions,
        "target_positions": target.corpus.n_positions, "explained_information": alignment.objective,
        "believed": verdict.believed, "unseen_lags": verdict.objective, "null": list(verdict.null),
        "threshold": verdict.threshold, "evidence": verdict.evidence, "steps": alignment.record["steps"],
        "cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, **gold.score(alignment),
        "without_context": gold.score(alone),
    }  # fmt: skip
    print(
        f"{name:42s} seed {config.seed}  explained {row['explained_information']:.3f}  unseen {row['unseen_lags']:.3f} "
        f"null {max(row['null']):.3f}  {'believed' if row['believed'] else 'abstains'}  "
        + "  ".join(f"P@1(>{f}) {row[f'precision>{f}']['p_at_1']:.3f}" for f in ("0.7", "0.5", "0.3", "0"))
        + f"  mass {row['share_of_paired_mass']:.3f}  conf {row['confidence']['mean']:.2f} "
        f"ece {row['confidence']['ece']:.3f}  cpu {row['cpu_seconds']:.1f}",
        flush=True,
    )
    return row


def table(rows: list[dict], settings: dict, command: str) -> str:
    """The figures as Markdown."""
    lines = [
        "| case | seeds | explained information | at unseen lags | backwards (null) | believed "
        "| P@1, precision > 0.7 | > 0.5 | > 0.3 | all live | > 0.5, answered "
        "| share of paired mass | confidence | ECE | CPU s | peak GiB "
        "| not read in context: > 0.5 | all live | share of paired mass |",
        "|" + "---|" * 19,
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        group = [row for row in rows if row["case"] == case]

        def mean(read, group=group) -> str:
            values = [read(row) for row in group]
            return f"{np.mean(values):.3f}" + (f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else "")

        lines.append(
            f"| {case} | {len(group)} | " + " | ".join([
                mean(lambda row: row["explained_information"]), mean(lambda row: row["unseen_lags"]),
                mean(lambda row: max(row["null"])), f"{sum(row['believed'] for row in group)} of {len(group)}",
                *(mean(lambda row, f=f: row[f"precision>{f}"]["p_at_1"]) for f in ("0.7", "0.5", "0.3", "0")),
                mean(lambda row: row["precision>0.5"].get("p_at_1_answered", row["precision>0.5"]["p_at_1"])),
                mean(lambda row: row["share_of_paired_mass"]), mean(lambda row: row["confidence"]["mean"]),
                mean(lambda row: row["confidence"]["ece"]), mean(lambda row: row["cpu_seconds"]),
                mean(lambda row: row["peak_gib"]) if all("peak_gib" in row for row in group) else "",
                *(mean(lambda row, f=f: row["without_context"][f"precision>{f}"]["p_at_1"]) for f in ("0.5", "0")),
                mean(lambda row: row["without_context"]["share_of_paired_mass"]),
            ]) + " |"
        )  # fmt: skip
    n = {f: rows[0][f"precision>{f}"]["n"] for f in ("0.7", "0.5", "0.3", "0")}
    about = (
        f"{settings['model']}, {settings['hook_name']}, {settings['d_sae']}-latent top-{settings['k']} SAE "
        f"(normalised error {settings['sae_error']:.3f}); {settings['live']} live latents, {settings['vocabulary']} "
        f"tokens to name; n = {n['0.7']} / {n['0.5']} / {n['0.3']} / {n['0']} latents whose token can be named, "
        f"with precision above 0.7 / 0.5 / 0.3 / 0. Chance P@1 (a token drawn by frequency) {settings['chance']:.4f}; "
        f"always the most frequent token {settings['frequent']:.4f}; "
        f"the paired ceiling is 1 by definition. Means over seeds (range)."
    )
    title = f"## {settings['model']}, {settings['hook_name']}, lags 1 to {max(settings['config']['lags'])}"
    return f"{title}\n\n{about}\n\n" + "\n".join(lines) + f"\n\n`{command}`\n"


def page(runs: list[dict]) -> str:
    """All runs that the report keeps, as Markdown."""
    body = "\n".join(table(run["rows"], run["settings"], run["command"]) for run in runs)
    return "# Decipherment of SAE latents without pairs\n\n" + __doc__.split("\n\n")[-1] + "\n" + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a Hugging Face causal language model")
    parser.add_argument("--dataset", type=Path, required=True, help="documents: .json list, .tsv or verses, also .gz")
    parser.add_argument("--hook-name", required=True, help="blocks.N.hook_resid_post")
    parser.add_argument("--vocabulary", type=int, default=None, help="name only so many of the most frequent tokens")
    parser.add_argument("--documents", type=int, default=None, help="use the first so many documents")
    parser.add_argument("--sae", type=Path, default=None, help="an SAE folder; by default one is trained here")
    parser.add_argument("--d-sae", type=int, default=512)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--sae-steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--control-seeds", type=int, default=6)
    parser.add_argument(
        "--controls", type=Path, nargs="*", default=[], help="texts that the latents never saw: PATH[#COLUMN]"
    )
    parser.add_argument("--lags", type=int, default=max(DecipherConfig().lags), help="compare at lags 1 to this one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "decipherment.json")
    args = parser.parse_args()
    knobs = DecipherConfig(lags=tuple(range(1, args.lags + 1)))
    torch.set_num_threads(args.threads)
    for path in (args.model, args.dataset):
        if not path.exists():
            sys.exit(f"{path} is not here: this benchmark reads real models and texts, give their paths")

    model = Model(args.model, args.hook_name)
    tokens, offsets, owners = model.tokens(documents_of(args.dataset)[: args.documents])
    x = model.activations(tokens, offsets)
    if args.sae:
        matrix, error = encode_with(args.sae, x)
    else:
        sae = sae_of(model, x, args.d_sae, args.k, args.sae_steps, seed=0)
        matrix, error = encode(sae, x), float(sae["error"])
    del x
    names = tuple(model.tokenizer.convert_ids_to_tokens(range(model.model.config.vocab_size)))
    latents = Language("latents", tuple(f"latent {i}" for i in range(matrix.shape[1])), Corpus(matrix, offsets, owners))
    text = token_language("tokens", tokens, offsets, owners, names)
    named = most_frequent(text, args.vocabulary or len(names))
    gold = Gold(latents, text, named)
    text = keep_items(text, named)

    rows = []
    for seed in range(args.seeds):
        source, target = halves(latents, seed)[0], halves(text, seed)[1]
        rows.append(measure("other half of the documents", source, target, gold, replace(knobs, seed=seed)))
    others = []
    for spec in args.controls:
        path, _, column = str(spec).partition("#")
        ids, bounds, owner = model.tokens(documents_of(Path(path), int(column or 0)))
        last = min(int(np.searchsorted(bounds, len(tokens) // 2)), len(owner))
        name = Path(path).name + (f" column {column}" if column else "")
        other = token_language(name, ids[: bounds[last]], bounds[: last + 1], owner[:last], names)
        others.append((name, keep_items(other, named)))
    for seed in range(args.control_seeds):
        source, target = halves(latents, seed)[0], halves(text, seed)[1]
        config = replace(knobs, seed=seed)
        for name, other in others:
            rows.append(measure(name, source, other, gold, config))
        rows.append(measure("tokens shuffled inside documents", source, shuffled(target, seed), gold, config))
        rows.append(measure("latents' rows moved between documents", rows_moved(source, seed), target, gold, config))
        rows.append(measure("each latent moved between documents", columns_moved(source, seed), target, gold, config))

    settings = {
        "model": args.model.name, "dataset": args.dataset.name, "hook_name": args.hook_name, "d_sae": matrix.shape[1],
        "k": args.k, "sae_error": error, "live": int(gold.live.sum()), "vocabulary": len(named),
        "tokens": len(tokens), "chance": gold.chance, "frequent": gold.frequent, "threads": args.threads,
        "config": asdict(knobs),
    }  # fmt: skip
    command = "python benchmarks/decipherment/run.py " + " ".join(sys.argv[1:])
    kept = json.loads(args.out.read_text()) if args.out.exists() else {"runs": []}
    same = ("model", "hook_name", "d_sae", "k")
    kept["runs"] = [
        run
        for run in kept["runs"]
        if any(run["settings"][key] != settings[key] for key in same)
        or list(run["settings"]["config"]["lags"]) != list(knobs.lags)
    ]
    kept["runs"].append({"command": command, "settings": settings, "rows": rows})
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(kept, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(page(kept["runs"]))


if __name__ == "__main__":
    main()
