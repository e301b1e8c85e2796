"""Dense activations of a cache as the `datasets` folder that SAELens writes, reads and trains from."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activation_cache.errors import UserError, choose
from activation_cache.shards import ActivationCache

TOKEN_IDS = "token_ids"
"SAELens' column of tokens."


@dataclass(frozen=True)
class ArrowPlan:
    """What will be written: rows of equally many positions, in the cache's order."""

    hook_names: tuple[str, ...]
    row_length: int
    "Positions a row: what SAELens must be told as `context_size`."
    n_rows: int
    n_left_over: int
    "Positions at the end that fill no row; they are left out."


def plan_arrow(cache: ActivationCache, hook_names: tuple[str, ...] = (), row_length: int | None = None) -> ArrowPlan:
    """Rows as long as the cache's contexts without their BOS, unless told otherwise; a row may hold several contexts.

    SAEs are trained position by position, so where a row begins does not matter. Errors: a `UserError` where the cache
    holds no activations, none at such a hook, or too few.
    """
    recorded = cache.recorded_hooks()
    for name in hook_names:
        choose(dict.fromkeys(recorded), name, f"hook of {cache.path}")
    length = row_length or cache.manifest.context_size - int(cache.manifest.prepend_bos)
    if not 1 <= length <= cache.n_tokens:
        raise UserError(f"rows of {length} positions cannot be made of {cache.n_tokens:,}: give another --context-size")
    n_rows, left_over = divmod(cache.n_tokens, length)
    return ArrowPlan(hook_names or tuple(recorded), length, n_rows, left_over)


def write_arrow(cache: ActivationCache, plan: ArrowPlan, folder: Path) -> None:
    """Write the rows into this folder, float16 as they were stored; one shard is in memory at a time."""
    import datasets

    width = {hook.name: hook.d for hook in cache.manifest.hooks}
    features = datasets.Features({
        **{name: datasets.Array2D(shape=(plan.row_length, width[name]), dtype="float16") for name in plan.hook_names},
        TOKEN_IDS: datasets.Sequence(datasets.Value("int32"), length=plan.row_length),
    })  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary, _no_bars():
        rows = datasets.Dataset.from_generator(
            rows_of, features=features, cache_dir=temporary, gen_kwargs={"path": str(cache.path), "plan": plan}
        )
        rows.save_to_disk(str(folder))


def rows_of(path: str, plan: ArrowPlan) -> Iterator[dict[str, np.ndarray]]:
    """The rows of a cache."""
    cache = ActivationCache(path)
    columns = {TOKEN_IDS: "tokens"} | {
        name: f"activations.{cache.manifest.hook_names.index(name)}" for name in plan.hook_names
    }
    held: dict[str, np.ndarray] = {}
    for shard in cache.shards():
        held = {name: np.concatenate([held[name], shard[array]]) if held else shard[array]
                for name, array in columns.items()}  # fmt: skip
        n_whole = len(held[TOKEN_IDS]) // plan.row_length * plan.row_length
        for start in range(0, n_whole, plan.row_length):
            yield {name: array[start : start + plan.row_length] for name, array in held.items()}
        held = {name: array[n_whole:] for name, array in held.items()}


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Keep `datasets` from drawing on the screen."""
    import datasets

    drawn = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if drawn:
            datasets.enable_progress_bars()
