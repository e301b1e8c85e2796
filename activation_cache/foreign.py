"""Caches of other libraries, read: delphi's latents and SAELens' activations.

    delphi     HOOKPOINT/START_END.safetensors, one file for the latents from START to END: `locations` [n, 3] (context,
               position, latent less START), `activations` [n], `tokens` [contexts, positions]; HOOKPOINT/config.json
    SAELens    a `datasets` folder: for each hook a column of activations [positions, d], and `token_ids` [positions]

Neither keeps documents.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from activation_cache.errors import UserError

SPLIT = re.compile(r"(\d+)_(\d+)\.safetensors")
"delphi's file of the latents from one number to another, both included."


@dataclass(frozen=True)
class Foreign:
    """What another library recorded, context by context, all of one length."""

    kind: str
    tokens: Int[np.ndarray, "contexts positions"]
    latents: dict[str, sparse.csr_array]
    "By hook name, [contexts * positions, d_sae]."
    widths: dict[str, int]
    "Width of the dense activations by hook name, where there are any."
    activations: Callable[[str, int, int], Float[np.ndarray, "n positions d"]]
    "The dense activations at a hook, from one context to before another."
    model: str | None
    "The model's name, where it is told."
    dataset: str | None


def read_foreign(folder: Path) -> Foreign:
    """The cache of another library in this folder. Errors: a `UserError` where it is none, or lacks its tokens."""
    if splits := delphi_splits(folder):
        return _delphi(folder, splits)
    if (folder / "dataset_info.json").is_file():
        return _saelens(folder)
    raise UserError(f"{folder} is no cache to import: it has neither delphi's HOOKPOINT/START_END.safetensors nor the "
                    "dataset_info.json of a SAELens activation dataset")  # fmt: skip


def delphi_splits(folder: Path) -> list[Path]:
    """The files of a delphi cache, or of one of its hook points."""
    paths = [*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")]
    return sorted(path for path in paths if SPLIT.fullmatch(path.name))


def _delphi(folder: Path, splits: list[Path]) -> Foreign:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    entries: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    widths: dict[str, int] = {}
    tokens: np.ndarray | None = None
    for path in splits:
        try:
            arrays = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read as safetensors ({error}): it was truncated or altered") from None
        if not {"locations", "activations", "tokens"} <= arrays.keys():
            raise UserError(f"{path} holds {', '.join(arrays)}: needed locations, activations and tokens; let delphi "
                            "save it with save_tokens")  # fmt: skip
        if tokens is not None and not np.array_equal(tokens, arrays["tokens"]):
            raise UserError(f"{path} has other tokens than the files before it: import the hook points one by one")
        tokens = arrays["tokens"]
        first, last = map(int, SPLIT.fullmatch(path.name).groups())
        places = arrays["locations"].astype(np.int64) + np.array([0, 0, first])
        bounds = np.array([*tokens.shape, last + 1])
        if places.size and (places.max(0) >= bounds).any():
            raise UserError(f"{path} names positions or latents that it does not have: it was altered")
        hook = path.parent.resolve().name
        entries.setdefault(hook, []).append((places, arrays["activations"].astype(np.float32)))
        widths[hook] = max(widths.get(hook, 0), last + 1)
    latents = {hook: _joined(parts, tokens.shape, widths[hook]) for hook, parts in entries.items()}
    config = read_json(splits[0].parent / "config.json")
    return Foreign("delphi", tokens, latents, {}, _no_activations, config.get("model_name"), config.get("dataset_repo"))


def _joined(parts: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int], d_sae: int) -> sparse.csr_array:
    places = np.concatenate([place for place, _ in parts])
    values = np.concatenate([value for _, value in parts])
    rows = places[:, 0] * shape[1] + places[:, 1]
    matrix = sparse.csr_array((values, (rows, places[:, 2])), shape=(shape[0] * shape[1], d_sae))
    matrix.sort_indices()
    return matrix


def _no_activations(hook: str, first: int, last: int) -> np.ndarray:
    raise AssertionError("a delphi cache holds no dense activations")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{path} is not valid JSON: it was truncated or altered") from None
    return raw if isinstance(raw, dict) else {}


def read_rows(folder: Path) -> Any:
    """The saved dataset in a folder. Errors: a `UserError` where it cannot be read."""
    import datasets

    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever it is, the folder cannot be read
        raise UserError(f"{folder} cannot be read as a dataset: {next(iter(str(error).splitlines()), error)}") from None


def _saelens(folder: Path) -> Foreign:
    import datasets

    rows = read_rows(folder)
    hooks = {name: feature.shape[1] for name, feature in rows.features.items() if isinstance(feature, datasets.Array2D)}
    if not hooks or "token_ids" not in rows.column_names or not len(rows):
        raise UserError(f"{folder} holds {len(rows)} rows of {', '.join(rows.column_names)}: needed a column of "
                        "activations for each hook, and token_ids")  # fmt: skip
    rows = rows.with_format("numpy")

    def activations(hook: str, first: int, last: int) -> Float[np.ndarray, "n positions d"]:
        return np.asarray(rows[first:last][hook])

    tokens = np.stack([np.asarray(ids) for ids in rows["token_ids"]])
    return Foreign("SAELens", tokens, {}, hooks, activations, None, None)
