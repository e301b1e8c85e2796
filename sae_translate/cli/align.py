"""`sae-translate align`: a dictionary between two languages, without a pair: from vectors, from text or caches, or
from both."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activation_cache.errors import UserError, choose
from sae_translate.cli.sources import TEXT_SEED, is_cache, read_language, text_of, usual_ways, with_recorded
from sae_translate.cli.vector_files import SUFFIXES, read_pairs, read_vectors

if TYPE_CHECKING:
    import pandas as pd

    from sae_translate.align.alignment import Alignment
    from sae_translate.align.vectors import VectorsConfig
    from sae_translate.languages.language import Language

FORMAT = "sae-translate alignment 1"
ANCHORS = "anchors"
"The method that needs what two caches' models have read."


def run(
    source: Annotated[
        str,
        typer.Argument(
            help="Vectors (.npz with words and vectors, .vec, .safetensors; most frequent "
            "first), or what a corpus is read from: text in any form that `cache` reads, "
            "or a cache's folder."
        ),
    ],
    target: Annotated[str, typer.Argument(help="The other side, of the same kind. Dimensions and sizes may differ.")],
    out: Annotated[
        Path, typer.Option(help="Folder that gets dictionary.csv, summary.json and, from vectors, map.safetensors.")
    ] = Path("alignment"),
    n: Annotated[
        int | None,
        typer.Option(
            "--items", help="The most frequent items of each side: 20,000 of vectors and 4,000 of text unless told."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Targets listed for every source.")] = 10,
    method: Annotated[
        str | None,
        typer.Option(
            help="Of text and caches: contexts for words, profiles where every item has one partner, decipher for "
            "latents, anchors for two models' latents by tokens that each has read. By default a cache is deciphered, "
            "and of two texts the first two are tried in turn."
        ),
    ] = None,
    source_vectors: Annotated[
        Path | None,
        typer.Option(help="Vectors of the source text's words: both kinds of evidence are then used together."),
    ] = None,
    target_vectors: Annotated[Path | None, typer.Option(help="Vectors of the target text's words.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Known pairs to start from, `source target` a line; of vectors.")
    ] = None,
    retrieval: Annotated[str, typer.Option(help="How targets are ranked: csls, cosine or inverted_softmax.")] = "csls",
    index: Annotated[str, typer.Option(help="How targets are searched: exact, or faiss for millions.")] = "exact",
    start: Annotated[str, typer.Option(help="What a first coupling of vectors is read from.")] = "signature",
    normalisations: Annotated[
        int, typer.Option(help="How often rows are centred: 1, or 10 for spaces that differ in shape.")
    ] = 1,
    wide: Annotated[
        int,
        typer.Option(
            help="How many vectors a further search sees where the most frequent of each side have too little in "
            "common: more for points that come in no order; memory and time grow with its square."
        ),
    ] = 5000,
    lower: Annotated[bool, typer.Option("--lower", help="Fold the words of texts to lower case.")] = False,
    column: Annotated[str | None, typer.Option(help="Column of the texts, where they have several.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of starts and surrogates.")] = 0,
    device: Annotated[str, typer.Option(help="Where the products of matrices are done: cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an alignment that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, one object.")] = False,
) -> None:
    """Find a dictionary between two languages that nobody paired; say so where there is none."""
    from sae_translate.artifacts import SUMMARY, check_output, form_of, plain, write_folder

    check_output(out, overwrite, lambda folder: form_of(folder) == FORMAT)
    if (n is not None and n < 2) or wide < 2 or k < 1 or seed < 0 or normalisations < 0:
        raise UserError("--items and --wide must be at least 2, -k at least 1, --normalisations and --seed at least 0")
    of_vectors = [Path(side).suffix in SUFFIXES for side in (source, target)]
    if of_vectors[0] != of_vectors[1]:
        raise UserError(
            f"{source} and {target} are of two kinds: give vectors on both sides, or text or caches on both"
        )
    if of_vectors[0]:
        given = {"--source-vectors": source_vectors, "--target-vectors": target_vectors, "--column": column,
                 "--method": method}  # fmt: skip
        if any(given.values()):
            raise UserError(f"{' and '.join(key for key, value in given.items() if value)}: for text, not for vectors")
        from sae_translate.align.vectors import VectorsConfig

        config = VectorsConfig(
            k=k, retrieval=retrieval, index=index, start=start, normalisations=normalisations, wide=wide, seed=seed
        )
        table, summary, tensors = from_vectors(Path(source), Path(target), n or 20_000, config, pairs, as_json)
    else:
        if (source_vectors is None) != (target_vectors is None) or pairs is not None:
            raise UserError("text takes --source-vectors and --target-vectors together, and no --pairs")
        ways = (chosen_way(method),) if method else usual_ways(source, target)
        if ways == (ANCHORS,) and not (is_cache(source) and is_cache(target)):
            raise UserError(f"--method {ANCHORS} is for two caches, whose models have read text: give those, or "
                            "another method")  # fmt: skip
        languages = [read(side, n or 4000, lower, column, seed + number * TEXT_SEED)
                     for number, side in enumerate((source, target))]  # fmt: skip
        if source_vectors and target_vectors:
            files = (source_vectors, target_vectors)
            languages = [with_vectors(*side) for side in zip(languages, files, strict=True)]
            ways = ("together",)
        reads = [text_of(side) for side in (source, target)] if ways == (ANCHORS,) else None
        table, summary = from_text(*languages, ways, k, seed, device, as_json, reads)
        tensors = {}
    summary = plain({"format": FORMAT, "source": Path(source).name, "target": Path(target).name, **summary})

    def write(folder: Path) -> None:
        table.to_csv(folder / "dictionary.csv", index=False)
        if tensors:
            from safetensors.torch import save_file

            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "map.safetensors")
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")

    write_folder(out, write)
    if as_json:
        print(json.dumps({"out": str(out), **summary}))
        return
    verdict = summary["verdict"]
    tried = ", ".join(way["method"] for way in summary.get("record", {}).get("tried", ()))
    by = f"by {summary['method']}{f' (tried: {tried})' if ',' in tried else ''}"
    print(f"{out}/dictionary.csv: {summary['n_source']:,} sources x {k} targets {by}, mean confidence "
          f"{summary['mean_confidence']:.2f}\n"
          f"{'believed' if verdict['believed'] else 'NOT believed'}: {verdict['reason']}")  # fmt: skip


def chosen_way(method: str) -> str:
    from sae_translate.translate.portfolio import WAYS

    choose(dict.fromkeys((*WAYS, ANCHORS)), method, "method")
    return method


def from_vectors(
    source: Path, target: Path, n: int, config: "VectorsConfig", pairs_file: Path | None, quiet: bool
) -> "tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]":
    """Dictionary, summary and map of two files of vectors."""
    from dataclasses import asdict

    import pandas as pd
    import torch

    from sae_translate.align.retrieval import INDICES, METHODS, hubness
    from sae_translate.align.starts import STARTS
    from sae_translate.align.vectors import fit_vectors, ranked_targets
    from sae_translate.cli import progress

    choose(METHODS, config.retrieval, "retrieval method")
    choose(INDICES, config.index, "index")
    choose(STARTS, config.start, "start")
    (words, x), (others, y) = read_vectors(source, n), read_vectors(target, n)
    if config.k > len(others):
        raise UserError(f"-k is {config.k} and {target} holds {len(others):,} items: give a smaller -k")
    known = torch.tensor(read_pairs(pairs_file, words, others)) if pairs_file else None
    first, second = torch.from_numpy(x), torch.from_numpy(y)
    with progress.bar("aligning", config.searches, "searches", quiet) as advance:
        fit = fit_vectors(first, second, config, lambda stage, step, total: advance(step, stage), known)
    ranked = ranked_targets(fit, first, second, config)
    listed = ranked.best.indices.shape[1]
    table = pd.DataFrame({
        "source": [word for word in words for _ in range(listed)],
        "target": [others[j] for j in ranked.best.indices.flatten().tolist()],
        "rank": list(range(1, listed + 1)) * len(words),
        "score": ranked.best.scores.flatten().numpy(),
        "confidence": (ranked.posterior * (ranked.confidence / ranked.posterior[:, 0])[:, None]).flatten().numpy(),
    })  # fmt: skip
    hubs = asdict(hubness(ranked.best.indices, len(others)))
    summary = {
        "method": "vectors", "n_source": len(words), "n_target": len(others), "known_pairs": 0 if known is None else
        len(known), "dimensions": [x.shape[1], y.shape[1]], "objective": fit.objective, "objectives": fit.objectives,
        "verdict": asdict(fit.verdict), "mean_confidence": float(ranked.confidence.mean()),
        "mutual": float(ranked.mutual.mean()), "hubness": {**hubs, "hub": others[hubs["hub"]]},
        "config": asdict(config),
    }  # fmt: skip
    tensors = {"source_map": fit.map.source_map, "target_map": fit.map.target_map, "source_means": fit.source_means,
               "target_means": fit.target_means}  # fmt: skip
    return table, summary, tensors


def read(source: str, n: int, lower: bool, column: str | None, seed: int) -> "Language":
    """The language of a text or a cache, its most frequent n items."""
    from sae_translate.languages.text import keep_items, most_frequent

    language = read_language(source, n, lower, column, seed)[0]
    kept = keep_items(language, most_frequent(language, n))
    whole = len(kept.items) == len(language.items)
    return with_recorded(kept, source) if whole and is_cache(source) else kept


def with_vectors(language: "Language", path: Path) -> "Language":
    """The language over the words that the file has vectors of, with these."""
    from dataclasses import replace

    import numpy as np

    from sae_translate.languages.text import keep_items

    words, vectors = read_vectors(path, 10**9)
    place = {word: i for i, word in enumerate(words)}
    kept = np.array([i for i, word in enumerate(language.items) if word in place], dtype=np.int64)
    if len(kept) < 2:
        raise UserError(f"{path} has vectors of {len(kept)} of the {len(language.items):,} most frequent words of "
                        f"{language.name}: give vectors of its words (--lower folds the text's case)")  # fmt: skip
    small = keep_items(language, kept)
    return replace(small, vectors=vectors[[place[word] for word in small.items]])


def from_text(
    source: "Language",
    target: "Language",
    ways: tuple[str, ...],
    k: int,
    seed: int,
    device: str,
    quiet: bool,
    reads: "list[Language] | None" = None,
) -> "tuple[pd.DataFrame, dict[str, Any]]":
    """Dictionary and summary of two corpora by these ways in turn, by text and vectors together, or by what the models
    of two caches have read."""
    from dataclasses import asdict

    from sae_translate.align.anchors import AnchorsConfig, align_by_anchors
    from sae_translate.align.contexts import ContextsConfig
    from sae_translate.align.together import TogetherConfig, align_together
    from sae_translate.align.vectors import VectorsConfig
    from sae_translate.cli import progress
    from sae_translate.translate.portfolio import align_languages

    if k > len(target.items):
        raise UserError(f"-k is {k} and {target.name} holds {len(target.items):,} items: give a smaller -k")
    with progress.bar("aligning", 100, "%", quiet) as advance:
        told = progress.share(advance)
        if ways == ("together",):
            config = TogetherConfig(VectorsConfig(seed=seed), ContextsConfig(seed=seed, device=device))
            alignment = align_together(source, target, config, told)
        elif reads is not None:
            alignment = align_by_anchors(source, target, *reads, AnchorsConfig(seed=seed))
        else:
            alignment = align_languages(source, target, ways, seed, device, told)
    return dictionary_of(alignment, k), {
        "method": alignment.record["method"], "n_source": len(source.items), "n_target": len(target.items),
        "objective": alignment.objective, "verdict": asdict(alignment.verdict),
        "mean_confidence": float(alignment.confidence.mean()), "record": alignment.record,
    }  # fmt: skip


def dictionary_of(alignment: "Alignment", k: int) -> "pd.DataFrame":
    """The k best targets of every source that was aligned; a score is P(target | source)."""
    import numpy as np
    import pandas as pd

    posterior = alignment.posterior()
    rows = np.flatnonzero(posterior.sum(axis=1) > 0)
    best = alignment.best(k)[rows]
    scores = np.take_along_axis(posterior[rows], best, axis=1)
    share = scores / np.maximum(scores[:, :1], 1e-30)
    return pd.DataFrame({
        "source": [alignment.source_items[i] for i in rows for _ in range(k)],
        "target": [alignment.target_items[j] for j in best.ravel()],
        "rank": list(range(1, k + 1)) * len(rows),
        "score": scores.ravel(),
        "confidence": (alignment.confidence[rows, None] * share).ravel(),
    })  # fmt: skip
