"""`sae-translate export`: a cache in the form that another library reads."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from activation_cache.errors import UserError, choose


def run(
    cache: Annotated[str, typer.Argument(help="Folder or URL of an activation cache.")],
    to: Annotated[str, typer.Option(help="saelens: a `datasets` Arrow folder of dense activations, from which SAELens "
                                    "trains.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    hook_name: Annotated[list[str] | None, typer.Option(help="Hook point to export. May be given several times. "
                                                        "Default: all that are stored.")] = None,
    context_size: Annotated[int | None, typer.Option(help="Positions a row. Default: the cache's contexts without "
                                                     "their BOS.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, one object.")] = False,
) -> None:  # fmt: skip
    """Write a cache for another library."""
    write = choose(FORMATS, to, "format")
    told = write(cache, out, tuple(hook_name or ()), context_size, overwrite)
    print(json.dumps(told) if as_json else told["note"])


def _saelens(cache: str, out: Path, hook_names: tuple[str, ...], context_size: int | None, overwrite: bool) -> dict:
    from sae_translate.artifacts import check_output, write_folder

    check_output(out, overwrite, is_dataset_folder)
    if context_size is not None and context_size < 1:
        raise UserError(f"--context-size {context_size}: needed at least 1")
    from activation_cache.arrow import plan_arrow, write_arrow
    from activation_cache.shards import ActivationCache

    opened = ActivationCache(cache)
    plan = plan_arrow(opened, hook_names, context_size)
    write_folder(out, lambda folder: write_arrow(opened, plan, folder))
    left = f"; {plan.n_left_over:,} positions at the end fill no row and are left out" if plan.n_left_over else ""
    return {
        "out": str(out), "hook_names": list(plan.hook_names), "context_size": plan.row_length, "rows": plan.n_rows,
        "tokens": plan.n_rows * plan.row_length,
        "note": f"{out}: {plan.n_rows:,} rows of {plan.row_length} positions at {', '.join(plan.hook_names)}{left}. "
                f"Train with use_cached_activations=True, cached_activations_path={str(out)!r}, "
                f"context_size={plan.row_length}",
    }  # fmt: skip


def is_dataset_folder(path: Path) -> bool:
    """Whether a folder holds a saved dataset and nothing else."""
    names = {file.name for file in path.iterdir()}
    known = {name for name in names if name in ("dataset_info.json", "state.json") or name.endswith(".arrow")}
    return names == known and {"dataset_info.json", "state.json"} <= names


FORMATS: dict[str, Any] = {"saelens": _saelens}
"Every form a cache can be written in."
