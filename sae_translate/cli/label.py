"""`sae-translate label`: read every latent of an SAE in words, and write the labels and their report."""

import json
import re
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activation_cache.errors import UserError
from sae_translate.cli import summary
from sae_translate.cli.cache import described, estimated, generated_documents, print_plan, record_with_progress
from sae_translate.cli.sources import TEXT_SEED

if TYPE_CHECKING:
    from activation_cache.plan import RecordingPlan
    from activation_cache.shards import ActivationCache
    from sae_translate.label.config import LabelConfig
    from sae_translate.label.labels import Labels


def run(
    sae: Annotated[str | None, typer.Option(help="SAELens release/sae_id, a SAELens folder or a sparsify folder; "
                                            "with --cache, which of its SAEs.")] = None,
    cache: Annotated[str | None, typer.Option(help="A cache of the SAE's latents, a folder or a URL. "
                                              "Default: record one.")] = None,
    model: Annotated[str | None, typer.Option(help="Hub name or local folder. Default: the SAE's model.")] = None,
    dataset: Annotated[str | None, typer.Option(help="What the model reads: hub name, file, folder, or stories:en. "
                                                "Default: NeelNanda/pile-10k.")] = None,
    text: Annotated[str | None, typer.Option(help="Text of the unpaired labels: file, folder, hub name, or stories:de; "
                                             "also in another language. Default: other documents of the "
                                             "dataset.")] = None,
    text_unit: Annotated[str, typer.Option(help="What unpaired labels are made of: token, word, or auto.")] = "auto",
    tokens: Annotated[int | None, typer.Option(help="How many tokens to cache. Default: all there are, up to "
                                               "1,000,000.")] = None,
    vocabulary: Annotated[int, typer.Option(help="How many of the text's most frequent items may be labels.")] = 2000,
    min_confidence: Annotated[float, typer.Option(help="Below this confidence an unpaired label abstains.")] = 0.3,
    out: Annotated[Path | None, typer.Option(help="Folder of the labels. Default: labels/MODEL-SAE.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits, the decipherment and the floors.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="What the model runs in: float32, bfloat16 or float16; by default "
                                                   "bfloat16 on a GPU, else float32.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace labels that are there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be recorded and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Label every live latent: unpaired, paired, logit lens and the floors side by side, scored on unseen documents."""
    from sae_translate.artifacts import check_output

    if sae is None and cache is None:
        raise UserError("nothing to label: give --sae (a SAELens release/sae_id or a folder), or --cache")
    if out is not None:
        check_output(out, overwrite)
    if vocabulary < 2 or not 0 <= min_confidence <= 1 or seed < 0:
        raise UserError("--vocabulary must be at least 2, --min-confidence from 0 to 1, --seed at least 0")
    if text_unit not in ("auto", "token", "word"):
        raise UserError(f"unknown text unit {text_unit!r}: choose one of auto, token, word")
    if cache is not None:
        contradicted = {"--model": model, "--dataset": dataset, "--tokens": tokens}
        for option, value in contradicted.items():
            if value is not None:
                raise UserError(f"{option} {value} goes with recording, but --cache {cache} is recorded: leave it out")

    from sae_translate.align.decipher import DecipherConfig
    from sae_translate.label.config import LabelConfig

    if cache is None:
        plan, folder = planned(sae, model, dataset, tokens, seed, device, dtype)
        if not as_json:
            print_plan(plan, folder)
    if dry_run:
        told = {"cache": str(cache)} if cache else described(plan, folder, dry_run) | estimated(plan, folder, as_json)
        if as_json:
            print(json.dumps(told))
        elif cache is not None:
            print(f"{cache} is recorded already: only labels would be made")
        return
    recorded = opened(cache) if cache else recorded_by(plan, folder, as_json)
    name = recorded.sae_entry(sae if cache else None).name
    out = out or default_out(recorded, name)
    check_output(out, overwrite)
    config = LabelConfig(
        vocabulary=vocabulary,
        text_unit=text_unit,
        min_confidence=min_confidence,
        seed=seed,
        decipherment=DecipherConfig(device=device),
    )
    labels = labelled(recorded, name, text, config, quiet=as_json, plan=None if cache else plan)
    report = write(labels, out, overwrite)
    if as_json:
        print(json.dumps({"out": str(out), "report": str(report), **summary.finite(labels.summary)}))
    else:
        summary.show(labels)
        print(f"labels: {out}/labels.csv\nreport: {report}")


def opened(folder: Path | str) -> "ActivationCache":
    """The cache in a folder or under a URL."""
    from activation_cache.shards import ActivationCache

    return ActivationCache(folder)


def planned(
    sae: str, model: str | None, dataset: str | None, tokens: int | None, seed: int, device: str, dtype: str | None
) -> "tuple[RecordingPlan, Path]":
    """What has to be recorded of the SAE's latents, and its folder under `cache/`, which no other recording shares."""
    from activation_cache.plan import RecordingConfig, plan_recording

    chosen = RecordingConfig(
        model=model, saes=(sae,), dataset=dataset, n_tokens=tokens, device=device, dtype=dtype, seed=seed
    )
    plan = plan_recording(chosen, generated_documents(dataset, seed))
    name = file_name(plan.manifest.model, plan.manifest.saes[0].name)
    return plan, Path("cache") / f"{name}-{plan.manifest.key[:8]}"


def recorded_by(plan: "RecordingPlan", folder: Path, quiet: bool) -> "ActivationCache":
    """The cache of a plan; what is there of it already is kept."""
    record_with_progress(plan, folder, overwrite=False, resume=True, quiet=quiet)
    return opened(folder)


def file_name(model: str, sae: str) -> str:
    """`MODEL-SAE` as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", f"{model.rstrip('/').rsplit('/', 1)[-1]}-{sae.strip('/.')}")[:100]


def default_out(cache: "ActivationCache", sae: str) -> Path:
    """`labels/MODEL-SAE` in the working folder."""
    return Path("labels") / file_name(cache.manifest.model, sae)


def labelled(
    cache: "ActivationCache",
    sae: str,
    text: str | None,
    config: "LabelConfig",
    quiet: bool = False,
    plan: "RecordingPlan | None" = None,
) -> "Labels":
    """Label the cache, saying what is being done."""
    from sae_translate.label.latents import label_latents

    generated = generated_documents(text, config.seed + TEXT_SEED)
    with stages(quiet) as say:
        labels = label_latents(cache, generated if generated is not None else text, sae, config, say, plan)
    command = shlex.join(["sae-translate", *sys.argv[1:]])
    return replace(labels, summary={**labels.summary, "command": command})


def stages(quiet: bool) -> AbstractContextManager:
    """A context whose value takes the name of each stage: a spinner on a terminal, a line each elsewhere."""
    if quiet:
        return nullcontext(lambda stage: None)
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext(lambda stage: print(f"{stage} ...", flush=True))

    class Spinner:
        def __enter__(self):
            self.status = console.status("starting")
            self.status.start()
            return lambda stage: self.status.update(f"{stage} ...")

        def __exit__(self, *failure):
            self.status.stop()

    return Spinner()


def write(labels: "Labels", out: Path, overwrite: bool) -> Path:
    """Write the labels folder with its report in it; the report's path."""
    from sae_translate.report.html import write_report

    labels.save(out, overwrite)
    report = out / "report.html"
    write_report(labels, report)
    return report
