"""`sae-translate demo`: cache, label and report on the embedded model, SAE and stories, with no network."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from activation_cache.errors import UserError
from sae_translate.cli import summary
from sae_translate.cli.cache import generated_documents, print_plan, record_with_progress
from sae_translate.cli.label import labelled, write

DATA = Path(__file__).resolve().parents[1] / "demo" / "data"
MODEL, SAE = DATA / "model", DATA / "sae"


def run(
    out: Annotated[Path, typer.Option(help="Folder that gets cache/ and labels/ with the report.")] = Path("demo"),
    tokens: Annotated[int, typer.Option(help="How many tokens of stories the model reads.")] = 400_000,
    text: Annotated[str | None, typer.Option(help="Text of the unpaired labels, such as stories:de. Default: other "
                                             "stories that the model read.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the stories, the splits and the decipherment.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
) -> None:
    """Read the latents of a small embedded model in words: cache, label and report, in minutes and offline."""
    from sae_translate.artifacts import check_output

    cache_folder, labels_folder = out / "cache", out / "labels"
    if tokens < 20_000:
        raise UserError(f"--tokens {tokens:,} is too little to decipher: give 20,000 or more")
    check_output(labels_folder, overwrite)

    from activation_cache.plan import RecordingConfig, plan_recording
    from activation_cache.record import check_out
    from activation_cache.shards import ActivationCache
    from sae_translate.label.config import LabelConfig

    check_out(cache_folder, overwrite)
    chosen = RecordingConfig(model=str(MODEL), saes=(str(SAE),), dataset="stories:en", n_tokens=tokens, seed=seed)
    plan = plan_recording(chosen, generated_documents("stories:en", seed))
    print_plan(plan, cache_folder)
    record_with_progress(plan, cache_folder, overwrite=overwrite, resume=False)
    cache = ActivationCache(cache_folder)
    labels = labelled(cache, cache.sae_entry().name, text, LabelConfig(seed=seed), plan=plan)
    labels = replace(labels, summary={**labels.summary, "model": "embedded story model", "sae": "embedded SAE"})
    report = write(labels, labels_folder, overwrite)
    summary.show(labels)
    print(f"labels: {labels_folder}/labels.csv\nreport: {report}")
