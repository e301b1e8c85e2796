"""`sae-translate align`: a dictionary between two sets of vectors, without a pair."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activation_cache.errors import UserError, choose

if TYPE_CHECKING:
    import numpy as np

FORMAT = "sae-translate alignment 1"


def run(
    source: Annotated[Path, typer.Argument(help="Vectors of the source: .npz (words, vectors; most frequent first), "
                                           "or .vec (fastText's text format).")],
    target: Annotated[Path, typer.Argument(help="Vectors of the target, in the same formats. The number of dimensions "
                                           "may differ.")],
    out: Annotated[Path, typer.Option(help="Folder that gets dictionary.csv, map.safetensors and summary.json.")]
    = Path("alignment"),
    n: Annotated[int, typer.Option("--items", help="The most frequent items of each side that are read.")] = 20_000,
    k: Annotated[int, typer.Option("-k", help="Targets listed for every source.")] = 10,
    retrieval: Annotated[str, typer.Option(help="How targets are ranked: csls, cosine or inverted_softmax.")] = "csls",
    normalisations: Annotated[int, typer.Option(help="How often rows are centred: 1, or 10 for spaces that differ in "
                                                "shape.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the further runs and of the surrogates.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an alignment that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, one object.")] = False,
) -> None:
    """Find a dictionary between two sets of vectors from their shape alone; say so where there is none."""
    from sae_translate.artifacts import check_output, plain, write_folder

    check_output(out, overwrite, is_alignment_folder)
    if n < 2 or k < 1 or seed < 0 or normalisations < 0:
        raise UserError("--items must be at least 2, -k at least 1, --normalisations and --seed at least 0")
    (words, x), (others, y) = read_vectors(source, n), read_vectors(target, n)
    if k > len(others):
        raise UserError(f"-k is {k} and {target} holds {len(others):,} items: give a smaller -k")

    from dataclasses import asdict

    import pandas as pd
    import torch
    from safetensors.torch import save_file

    from sae_translate.align.retrieval import METHODS
    from sae_translate.align.vectors import VectorsConfig, fit_vectors, ranked_targets
    from sae_translate.cli import progress

    choose(METHODS, retrieval, "retrieval method")
    config = VectorsConfig(k=k, retrieval=retrieval, normalisations=normalisations, seed=seed)
    first, second = torch.from_numpy(x), torch.from_numpy(y)
    most = config.null_surrogates + config.restarts + config.patience
    with progress.bar("aligning", most, "runs", as_json) as advance:
        done = []

        def told(stage: str, step: int, total: int) -> None:
            done.append(stage)
            advance(len(done), stage)

        fit = fit_vectors(first, second, config, told)
    ranked = ranked_targets(fit, first, second, config)
    listed = ranked.best.indices.shape[1]
    table = pd.DataFrame({
        "source": [word for word in words for _ in range(listed)],
        "target": [others[j] for j in ranked.best.indices.flatten().tolist()],
        "rank": list(range(1, listed + 1)) * len(words),
        "score": ranked.best.scores.flatten().numpy(),
        "confidence": (ranked.posterior * (ranked.confidence / ranked.posterior[:, 0])[:, None]).flatten().numpy(),
    })  # fmt: skip
    summary = plain({
        "format": FORMAT, "source": source.name, "target": target.name, "n_source": len(words), "n_target": len(others),
        "dimensions": [x.shape[1], y.shape[1]], "objective": fit.objective, "objectives": fit.objectives,
        "verdict": asdict(fit.verdict), "mean_confidence": float(ranked.confidence.mean()),
        "mutual": float(ranked.mutual.mean()), "config": asdict(config),
    })  # fmt: skip

    def write(folder: Path) -> None:
        table.to_csv(folder / "dictionary.csv", index=False)
        tensors = {"source_map": fit.map.source_map, "target_map": fit.map.target_map,
                   "source_means": fit.source_means, "target_means": fit.target_means}  # fmt: skip
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "map.safetensors")
        (folder / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")

    write_folder(out, write)
    if as_json:
        print(json.dumps({"out": str(out), **summary}))
        return
    print(f"{out}/dictionary.csv: {len(words):,} sources x {listed} targets, {summary['mutual']:.0%} choose each "
          f"other, mean confidence {summary['mean_confidence']:.2f}\n"
          f"{'believed' if fit.verdict.believed else 'NOT believed'}: {fit.verdict.reason}")  # fmt: skip


def is_alignment_folder(path: Path) -> bool:
    """Whether the folder holds an alignment that we wrote."""
    try:
        return json.loads((path / "summary.json").read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def read_vectors(path: Path, n: int) -> tuple[list[str], "np.ndarray"]:
    """The first n words and their vectors, float32. Raises `UserError` where the file is not what its name says."""
    if not path.is_file():
        raise UserError(f"no file {path}: give vectors as .npz or .vec")
    words, vectors = choose({".npz": read_npz, ".vec": read_vec}, path.suffix, "format of vectors")(path, n)
    if len(words) != len(set(words)):
        seen: set[str] = set()
        twice = next(word for word in words if word in seen or seen.add(word))
        raise UserError(f"{path} has {len(words) - len(set(words)):,} words twice (first: {twice!r}): keep one of each")
    return words, vectors


def read_npz(path: Path, n: int) -> tuple[list[str], "np.ndarray"]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in ("words", "vectors") if key not in file]
            if missing:
                raise UserError(f"{path} lacks {' and '.join(missing)} (it holds {', '.join(file)}): save both")
            words, vectors = file["words"], file["vectors"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a sound .npz file ({error})") from error
    if vectors.ndim != 2 or words.ndim != 1 or len(words) != len(vectors) or vectors.dtype.kind != "f":
        raise UserError(f"{path}: words {words.shape} and vectors {vectors.shape} of {vectors.dtype} do not fit: one "
                        "vector of floats a word is needed")  # fmt: skip
    return [str(word) for word in words[:n]], np.ascontiguousarray(vectors[:n], dtype=np.float32)


def read_vec(path: Path, n: int) -> tuple[list[str], "np.ndarray"]:
    """A first line `count dimensions`, then a word and its numbers a line, by spaces."""
    import numpy as np

    words: list[str] = []
    rows = []
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        try:
            d = int(file.readline().split()[1])
        except (ValueError, IndexError):
            raise UserError(f"{path}: the first line must be `count dimensions`, as fastText writes it") from None
        for number, line in enumerate(file, 2):
            if len(words) == n:
                break
            parts = line.rstrip().rsplit(" ", d)
            try:
                rows.append(np.array([float(part) for part in parts[1:]], np.float32))
            except ValueError:
                raise UserError(f"{path}, line {number}: a word and {d} numbers are needed") from None
            if len(rows[-1]) != d:
                raise UserError(f"{path}, line {number}: {len(rows[-1])} numbers, {d} were announced")
            words.append(parts[0])
    if not rows:
        raise UserError(f"{path} holds no vectors")
    return words, np.stack(rows)
