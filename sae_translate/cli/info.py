"""`sae-translate info`: what is in a cache, ours or another library's, on one screen."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activation_cache.errors import UserError
from sae_translate.cli.cache import size

if TYPE_CHECKING:
    from activation_cache.places import Place


def run(
    cache: Annotated[str, typer.Argument(help="An activation cache, a delphi latent cache or a SAELens activation "
                                          "dataset.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, one object.")] = False,
) -> None:
    """Say what is in a cache: ours, delphi's or SAELens'."""
    told = describe(cache)
    if as_json:
        print(json.dumps(told))
        return
    width = max(map(len, told)) + 1
    for key, value in told.items():
        for i, line in enumerate(value if isinstance(value, list) else [value]):
            name = f"{key.replace('_', ' ')}:" if i == 0 else ""
            print(f"{name:{width}} {_written(key, line)}")


def _written(key: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_written(name, inner)}" for name, inner in value.items())
    if key == "bytes":
        return size(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def describe(cache: str) -> dict:
    """What a cache of any known kind holds. Errors: a `UserError` where the folder is none of them, or broken."""
    from activation_cache.foreign import delphi_splits
    from activation_cache.places import is_url, place

    folder = place(cache)
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    if (folder / "manifest.json").is_file():
        return _ours(folder)
    if is_url(folder):
        raise UserError(f"{folder} is no cache of ours, and those of other libraries are read from disk: copy it here")
    if splits := delphi_splits(folder):
        return _delphi(folder, splits)
    if (folder / "dataset_info.json").is_file():
        return _saelens(folder)
    raise UserError(f"{folder} is no cache: it has neither our manifest.json, nor delphi's "
                    "HOOKPOINT/START_END.safetensors, nor the dataset_info.json of a SAELens activation dataset")


def _ours(folder: "Place") -> dict:
    from activation_cache import layout, shards

    manifest = shards.read_manifest(folder)
    files = map(layout.shard_file, range(manifest.n_shards)), manifest.summary_files
    there, summaries = ([shards.read_sidecar(folder, file, manifest.key) for file in part] for part in files)
    whole = [sidecar for sidecar in there if sidecar is not None]
    complete = len(whole) == len(there) and None not in summaries
    told = {
        "kind": "activation cache", "complete": complete, "shards": f"{len(whole)} of {len(there)}",
        "model": manifest.model, "dataset": manifest.dataset, "tokens": manifest.n_tokens,
        "contexts": manifest.n_contexts, "documents": manifest.n_documents, "context_size": manifest.context_size,
        "bos": "fed, not recorded" if manifest.prepend_bos else "none", "dtype": manifest.dtype,
        "hooks": [{"name": hook.name, "width": hook.d, "activations_stored": hook.recorded} for hook in manifest.hooks],
        "saes": [{"name": sae.name, "architecture": sae.architecture, "latents": sae.d_sae, "hook": sae.hook_name,
                  **(_activity(folder, i) if complete else {})} for i, sae in enumerate(manifest.saes)],
        "bytes": sum(sidecar.n_bytes for sidecar in [*whole, *summaries] if sidecar is not None), "key": manifest.key,
    }
    return {key: value for key, value in told.items() if value != []}


def _activity(folder: "Place", sae_index: int) -> dict:
    """How many latents ever fire, and how many at once; what co-occurrence there is of them."""
    from activation_cache.shards import ActivationCache

    opened = ActivationCache(folder)
    name, asked = opened.manifest.saes[sae_index].name, opened.manifest.cooccurrence
    density = opened.statistics(name).density
    told = {"live": int((density > 0).sum()), "active_at_once": round(float(density.sum()), 1)}
    if asked:
        found = opened.cooccurrence(asked.lags[0], name)
        told["cooccurrence"] = {"lags": " ".join(map(str, asked.lags)), "told_apart": len(found.latents),
                                "of_the_weight": round(found.covered, 4)}
    return told


def _delphi(folder: Path, splits: list[Path]) -> dict:
    from activation_cache.foreign import SPLIT, read_json

    hooks: dict[str, dict] = {}
    tokens, config = [0, 0], {}
    for path in splits:
        shapes = _shapes(path)
        if not {"locations", "activations"} <= shapes.keys():
            raise UserError(f"{path} is no file of a delphi cache: it holds {', '.join(shapes)} instead of locations "
                            "and activations")
        hook = hooks.setdefault(path.parent.resolve().name, {"latents": 0, "files": 0, "active": 0})
        hook["latents"] = max(hook["latents"], int(SPLIT.fullmatch(path.name)[2]) + 1)
        hook["files"] += 1
        hook["active"] += shapes["activations"][0]
        tokens = shapes.get("tokens", tokens)
        config |= read_json(path.parent / "config.json")
    n_tokens = tokens[0] * tokens[1]
    for hook in hooks.values():
        hook |= {"active_at_once": round(hook["active"] / n_tokens, 1)} if n_tokens else {}
    told = {
        "kind": "delphi latent cache", "model": config.get("model_name"), "dataset": config.get("dataset_repo"),
        "tokens": n_tokens or "not stored", "contexts": tokens[0], "context_size": tokens[1],
        "hooks": [{"name": name, **hook} for name, hook in hooks.items()],
        "bytes": sum(path.stat().st_size for path in splits),
    }
    return {key: value for key, value in told.items() if value}


def _shapes(path: Path) -> dict[str, list[int]]:
    """The arrays in a safetensors file, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}): it was truncated or altered") from None


def _saelens(folder: Path) -> dict:
    import datasets

    from activation_cache.foreign import read_rows

    rows = read_rows(folder)
    hooks = {name: feature.shape for name, feature in getattr(rows, "features", {}).items()
             if isinstance(feature, datasets.Array2D)}
    if not hooks:
        raise UserError(f"{folder} is a dataset of {', '.join(rows.column_names)}, and no activations: SAELens' have a "
                        "column of activations for each hook")
    context_size = next(iter(hooks.values()))[0]
    return {
        "kind": "SAELens activation dataset", "tokens": len(rows) * context_size, "contexts": len(rows),
        "context_size": context_size, "token_ids": "stored" if "token_ids" in rows.column_names else "not stored",
        "hooks": [{"name": name, "width": shape[1], "dtype": rows.features[name].dtype}
                  for name, shape in hooks.items()],
        "bytes": sum(path.stat().st_size for path in folder.glob("*.arrow")),
    }
