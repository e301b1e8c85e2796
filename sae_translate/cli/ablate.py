"""`sae-translate ablate`: a grid of trainings, a line of JSON each, and tables of what is needed."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activation_cache.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sae_translate.translate.ablation import AblationConfig, Cell


def run(
    config: Annotated[Path, typer.Argument(help="Configuration, such as configs/ablation.json.")],
    out: Annotated[
        Path,
        typer.Option(help="File that gets a line of JSON a training. Those that are there already are not done again."),
    ] = Path("ablation.jsonl"),
    processes: Annotated[int, typer.Option(help="Trainings at once.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many trainings there are and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON, one object.")] = False,
) -> None:
    """Train over a grid of starts, losses, backbones, pairs, sizes and seeds, and say what is needed."""
    from sae_translate.config import read_config
    from sae_translate.translate.ablation import AblationConfig, cells_of

    chosen = read_config(AblationConfig, config)
    if processes < 1:
        raise UserError("--processes must be at least 1")
    cells = list(cells_of(chosen))
    done = read_rows(out)
    keys = {row["key"] for row in done}
    waiting = [cell for cell in cells if cell.key not in keys]
    if not as_json:
        print(f"{len(cells):,} trainings, {len(cells) - len(waiting):,} of them done; at most {chosen.budget:g} s each "
              f"besides alignment", flush=True)  # fmt: skip
    if dry_run:
        if as_json:
            print(json.dumps({"trainings": len(cells), "waiting": len(waiting)}))
        return
    run_cells(waiting, chosen, out, processes, as_json)
    wanted = {cell.key for cell in cells}
    show([row for row in read_rows(out) if row["key"] in wanted], chosen, as_json)


def read_rows(path: Path) -> list[dict]:
    """The lines of JSON in a file; none where there is no file. A last line without its end is left out."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is no file of JSON lines ({error}): give another --out") from None


def run_cells(cells: "Sequence[Cell]", config: "AblationConfig", out: Path, processes: int, quiet: bool) -> None:
    """Train them all; cells of one pair, size and seed share their alignment and their process."""
    from itertools import groupby
    from multiprocessing import get_context

    from sae_translate.artifacts import append_line, compact_json
    from sae_translate.cli import progress

    groups = [list(group) for _, group in groupby(cells, key=lambda cell: (cell.pair, cell.size, cell.seed))]
    if not groups:
        return
    finished = 0
    with progress.bar("ablation", len(cells), "trainings", quiet) as advance:

        def keep(row: dict) -> None:
            nonlocal finished
            finished += 1
            append_line(out, compact_json(row))
            advance(finished, f"{row['key']}: {row['score']:.3f}")

        if processes == 1:
            for group in groups:
                for row in train_group(group, config):
                    keep(row)
            return
        with get_context("spawn").Pool(processes) as pool:
            for rows in pool.imap_unordered(_whole_group, [(group, config) for group in groups]):
                for row in rows:
                    keep(row)


def _whole_group(job: "tuple[list[Cell], AblationConfig]") -> list[dict]:
    import torch

    torch.set_num_threads(1)
    return list(train_group(*job))


def train_group(cells: "Sequence[Cell]", config: "AblationConfig"):
    """A row for every cell; all are of one pair, size and seed."""
    from time import process_time

    from sae_translate.cli import progress
    from sae_translate.demo.pairs import build_pair
    from sae_translate.translate.ablation import translator_config
    from sae_translate.translate.dictionary import read_dictionary
    from sae_translate.translate.training import train

    first = cells[0]
    pair = build_pair(first.pair, first.size, first.seed)
    alignment = pair.align(first.seed)
    dictionary = pair.score(read_dictionary(alignment.coupling, pair.trained))
    for cell in cells:
        began = process_time()
        translator = progress.returned(train(*pair.trained, alignment, translator_config(cell, config)))
        yield {
            "key": cell.key, "cell": asdict(cell), "score": pair.score(translator), "ceiling": pair.ceiling,
            "chance": pair.chance, "dictionary": dictionary, "criterion": translator.record["best"],
            "steps": translator.record["step"], "alignment_objective": alignment.objective,
            "cpu_seconds": process_time() - began,
        }  # fmt: skip


def show(rows: "Sequence[dict]", config: "AblationConfig", as_json: bool) -> None:
    """The tables, on the screen."""
    from sae_translate.artifacts import compact_json
    from sae_translate.translate.ablation import agreement, effects, needed

    found, follows = effects(rows, config), agreement(rows)
    if as_json:
        print(compact_json({"trainings": len(rows), "effects": [asdict(effect) for effect in found],
                            "needed": needed(found), "agreement": asdict(follows)}))  # fmt: skip
        return
    print(f"{'what':24} {'how':22} {'pair':18} {'difference':>10}   95 % interval   n")
    for effect in found:
        print(f"{effect.name:24} {effect.kind:22} {effect.pair:18} {effect.difference:+10.3f}   "
              f"{effect.low:+.3f} {effect.high:+.3f}   {effect.n}")  # fmt: skip
    print(f"needed on two pairs or more: {', '.join(needed(found)) or 'nothing'}")
    for pair, value in follows.by_pair.items():
        print(f"{pair}: the criterion ranks trainings as the truth does with correlation {value:.2f}; its best has "
              f"{follows.picked[pair]:.2f} of the best score")  # fmt: skip
