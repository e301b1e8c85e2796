"""`sae-translate report`: a labels folder as one HTML file that opens offline."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    labels: Annotated[Path, typer.Argument(help="Folder that `sae-translate label` wrote.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write; NAME.json goes beside it.", show_default="LABELS/report.html"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing report.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a self-contained HTML report of a labels folder: table, latents, map and summary in one file."""
    import json

    from activation_cache.errors import UserError
    from sae_translate.label.labels import load_labels
    from sae_translate.report.html import write_report

    path = out or labels / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path} does not end in .html: give the name of the HTML file to write")
    taken = next((there for there in (path, path.with_suffix(".json")) if there.exists()), None)
    if taken is not None and taken.is_dir():
        raise UserError(f"{taken} is a folder: give --out the name of an HTML file")
    if taken is not None and not overwrite:
        raise UserError(f"{taken} exists: give another --out, or --overwrite to replace it")
    page, summary = write_report(load_labels(labels), path)
    size = page.stat().st_size
    if as_json:
        print(json.dumps({"report": str(page), "summary": str(summary), "bytes": size}))
    else:
        print(f"{page} ({size / 1e6:.1f} MB)")
