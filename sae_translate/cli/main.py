"""The `sae-translate` command: a table of verbs, and one place where a user's mistake becomes one line and exit 2."""

import os
import sys

import typer

from activation_cache.errors import UserError
from sae_translate.cli import (
    ablate,
    align,
    cache,
    demo,
    export,
    importing,
    info,
    label,
    read,
    report,
    train,
    train_sae,
    translate,
    verify,
)

app = typer.Typer(
    help="Read the latents of sparse autoencoders by unsupervised translation: no LLM, no paired data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
for verb, run in {
    "demo": demo.run,
    "cache": cache.run,
    "train-sae": train_sae.run,
    "label": label.run,
    "read": read.run,
    "align": align.run,
    "train": train.run,
    "translate": translate.run,
    "ablate": ablate.run,
    "report": report.run,
    "verify": verify.run,
    "info": info.run,
    "import": importing.run,
    "export": export.run,
}.items():
    app.command(verb)(run)


def main() -> None:
    """Run the command line; a `UserError` is printed on one line and ends with exit code 2."""
    # OpenMP threads that spin while they wait make small models 15 times slower on a machine that others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except UserError as error:
        print(f"sae-translate: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
