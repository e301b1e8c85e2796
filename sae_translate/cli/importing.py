"""`sae-translate import`: a cache of delphi or SAELens as one of ours."""

import json
from pathlib import Path
from typing import Annotated

import typer

from activation_cache.errors import UserError
from sae_translate.cli.cache import size


def run(
    cache: Annotated[Path, typer.Argument(help="A delphi latent cache, or a SAELens activation dataset.")],
    out: Annotated[str, typer.Option(help="Folder or URL of the cache to write.")],
    model: Annotated[str | None, typer.Option(help="The model it was recorded from, whose tokenizer is saved with it: "
                                              "hub name or local folder. Default: as it says.")] = None,
    sae: Annotated[list[str] | None, typer.Option(help="The SAE of each hook point of a delphi cache, in order: "
                                                  "labels then have a logit lens.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, one object.")] = False,
) -> None:  # fmt: skip
    """Read a cache of delphi or SAELens in, so that every command here takes it."""
    from activation_cache.record import check_out

    check_out(out, overwrite)
    if not cache.is_dir():
        raise UserError(f"no such folder: {cache}")
    from activation_cache.importing import import_cache, plan_import

    plan, foreign = plan_import(cache, model, tuple(sae or ()))
    last = list(import_cache(plan, foreign, out, overwrite))[-1]
    manifest = plan.manifest
    if as_json:
        print(json.dumps({
            "out": out, "kind": foreign.kind, "tokens": last.n_tokens, "contexts": manifest.n_contexts,
            "bytes": last.n_bytes, "hook_names": list(manifest.hook_names),
            "saes": [entry.name for entry in manifest.saes], "notes": list(plan.notes),
        }))  # fmt: skip
        return
    for note in plan.notes:
        print(f"note: {note}")
    print(f"{out}: {last.n_tokens:,} tokens at {', '.join(manifest.hook_names)} from {foreign.kind}, "
          f"{size(last.n_bytes)}")  # fmt: skip
