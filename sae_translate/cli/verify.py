"""`sae-translate verify`: check every byte of a cache against its hashes."""

import json
from pathlib import Path
from typing import Annotated

import typer

from activation_cache.errors import UserError


def run(
    cache: Annotated[Path, typer.Argument(help="Folder of an activation cache.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, one object.")] = False,
) -> None:
    """Read a cache whole; exit 2 and name what is truncated, altered or missing."""
    from activation_cache.shards import ActivationCache

    opened = ActivationCache(cache)
    results = dict(opened.verify())
    bad = {file: reason for file, reason in results.items() if reason}
    if as_json:
        print(json.dumps({"cache": str(cache), "files": len(results), "bad": bad}))
    if bad:
        more = f" ({len(bad)} files are bad: {', '.join(bad)})" if len(bad) > 1 else ""
        raise UserError(next(iter(bad.values())) + more)
    if not as_json:
        print(f"{cache}: {len(results)} files, {opened.n_tokens:,} tokens, {opened.n_bytes:,} bytes, all as recorded")
