"""`sae-translate cache`: record a model on a dataset, to disk."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activation_cache.errors import UserError, nearest

if TYPE_CHECKING:
    from activation_cache.engines import EngineConfig
    from activation_cache.layout import CooccurrenceEntry
    from activation_cache.plan import RecordingPlan

STORIES = {"stories:en": "en", "stories:de": "de"}


def run(
    model: Annotated[str | None, typer.Option(help="Hub name (short names such as pythia-70m resolve) or local folder. "
                                              "Default: the model of the SAE.")] = None,
    sae: Annotated[list[str] | None, typer.Option(help="SAE whose latents to record: SAELens release/sae_id, a SAELens "
                                                  "folder or a sparsify folder. May be given several times.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Hub name, a .txt/.json/.jsonl/.csv/.parquet file (also .gz), a "
                                                "folder of them, a URL of either, or stories:en, stories:de. "
                                                "Default: NeelNanda/pile-10k.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a hub dataset.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a hub dataset. Default: train.")] = None,
    column: Annotated[str | None, typer.Option(help="Column that holds the text. Default: found by its name.")] = None,
    streaming: Annotated[bool | None, typer.Option(help="Read a hub dataset as it arrives, or download it first. "
                                                   "Default: as it arrives.")] = None,
    hook_name: Annotated[list[str] | None, typer.Option(help="Hook point: blocks.3.hook_resid_post or a Hugging Face "
                                                        "module path. May be given several times. Default: the SAE's, "
                                                        "else the residual stream after the middle layer.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Exactly so many tokens. "
                                               "Default: all there are, up to 1,000,000.")] = None,
    context_size: Annotated[int | None, typer.Option(help="Most positions fed at once, BOS included. "
                                                     "Default: that of the SAE, else 128.")] = None,
    bos: Annotated[bool | None, typer.Option(help="Feed a BOS before every context; it is never recorded. "
                                             "Default: as the SAE, else the model, was trained.")] = None,
    mix_documents: Annotated[bool, typer.Option(help="Join documents before they are cut into contexts.")] = False,
    activations: Annotated[bool | None, typer.Option(help="Store dense activations. "
                                                     "Default: only where no SAE is given.")] = None,
    cooccurrence: Annotated[bool, typer.Option("--cooccurrence", help="Also gather which latents follow which, as "
                                               "`align` reads it.")] = False,
    lags: Annotated[str | None, typer.Option(help="With --cooccurrence: how many positions later. "
                                             "Default: 1,2,3,4,5,6,24.")] = None,
    cooccurrence_mb: Annotated[int | None, typer.Option(help="With --cooccurrence: most memory for it in MiB, all SAEs "
                                                        "together; latents that do not fit are counted as one. "
                                                        "Default: 1024.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the cache, or a URL that fsspec writes (s3://, gs://, "
                                            "...). Default: cache/MODEL-HOOK.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of generated stories and of the sampled contexts.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="What the model runs in: float32, bfloat16 or float16; by default "
                                                   "bfloat16 on a GPU, else float32.")] = None,
    batch_size: Annotated[int, typer.Option(help="Contexts in one forward.")] = 16,
    engine: Annotated[str, typer.Option(help="Who records: local, torchrun (every process started by torchrun or srun "
                                        "takes its share) or ray. The bytes are the same.")] = "local",
    workers: Annotated[int | None, typer.Option(help="With --engine ray: how many workers. Default: one a GPU, or as "
                                                "many as have CPUs.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="With --engine ray: the cluster to join. Default: one is "
                                                    "started on this machine.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache that is there.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a cache that was interrupted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan and the result as JSON, one object.")] = False,
) -> None:
    """Record a model's activations, or the latents of its SAEs, on a dataset."""
    from activation_cache.engines import EngineConfig, check_engine, device_of

    chosen_engine = EngineConfig(engine, workers, ray_address)
    resume = check_engine(chosen_engine, overwrite, resume)
    if out is not None:
        from activation_cache.record import check_out

        check_out(out, overwrite, resume)  # before anything is loaded
    if batch_size < 1 or (context_size is not None and context_size < 1) or seed < 0:
        raise UserError("--batch-size and --context-size must be at least 1, --seed at least 0")
    from activation_cache.plan import RecordingConfig, plan_recording

    chosen = RecordingConfig(
        model=model, saes=tuple(sae or ()), dataset=dataset, config=config, split=split, column=column,
        streaming=streaming, hook_names=tuple(hook_name or ()), n_tokens=tokens, context_size=context_size,
        prepend_bos=bos, mix_documents=mix_documents, activations=activations,
        device=device_of(chosen_engine, device), dtype=dtype, batch_size=batch_size, seed=seed,
        cooccurrence=cooccurrence_of(cooccurrence, lags, cooccurrence_mb),
    )
    plan = plan_recording(chosen, generated_documents(dataset, seed))
    out = out or str(default_out(plan))
    if not dry_run:
        from activation_cache.record import check_out

        check_out(out, overwrite, resume)
    first = is_first(chosen_engine)
    if first and not as_json:
        print_plan(plan, out)
    if not dry_run:
        record_with_progress(plan, out, overwrite, resume, quiet=as_json or not first, engine=chosen_engine)
    told = estimated(plan, out if resume else None, quiet=as_json) if dry_run and first else {}
    if first and as_json:
        print(json.dumps(described(plan, out, dry_run) | told))


def cooccurrence_of(asked: bool, lags: str | None, megabytes: int | None) -> "CooccurrenceEntry | None":
    """What the three options ask for. Errors: a `UserError` where they do not go together, or lags are no numbers."""
    from activation_cache.layout import CooccurrenceEntry

    if not asked and (lags is not None or megabytes is not None):
        raise UserError("--lags and --cooccurrence-mb go with --cooccurrence: add it, or leave them out")
    if not asked:
        return None
    try:
        chosen = {} if lags is None else {"lags": tuple(int(lag) for lag in lags.split(","))}
    except ValueError:
        raise UserError(f"--lags {lags}: needed whole numbers with commas between, such as 1,2,3") from None
    return CooccurrenceEntry(**chosen, **({} if megabytes is None else {"megabytes": megabytes}))


def is_first(engine: "EngineConfig") -> bool:
    """Whether this process speaks for all: rank 0 of a job, and the only one otherwise."""
    import os

    from activation_cache.engines import rank_of

    return engine.name != "torchrun" or rank_of(os.environ).number == 0


def generated_documents(dataset: str | None, seed: int) -> Iterator[str] | None:
    """The documents of a generated dataset such as `stories:en`; None where the dataset is no generated one."""
    if dataset is None or not dataset.startswith("stories"):
        return None
    if dataset not in STORIES:
        if Path(dataset).exists() or "/" in dataset:
            return None
        raise UserError(f"no dataset {dataset!r}: {nearest(dataset, STORIES) or 'choose stories:en or stories:de'}")
    from sae_translate.demo.stories import generate_documents

    return generate_documents(STORIES[dataset], None, seed)


def default_out(plan: "RecordingPlan") -> Path:
    """`cache/MODEL-HOOK` in the working folder."""
    model = plan.manifest.model.rstrip("/").rsplit("/", 1)[-1]
    name = "-".join([model, *plan.manifest.hook_names])
    return Path("cache") / re.sub(r"[^\w.-]", "_", name)[:120]


def described(plan: "RecordingPlan", out: Path | str, dry_run: bool) -> dict:
    """The plan and where it went, for machines."""
    manifest = plan.manifest
    return {
        "out": str(out), "recorded": not dry_run, "model": manifest.model, "dataset": manifest.dataset,
        "hook_names": list(manifest.hook_names), "saes": [entry.name for entry in manifest.saes],
        "n_tokens": manifest.n_tokens, "n_contexts": manifest.n_contexts, "n_documents": manifest.n_documents,
        "context_size": manifest.context_size, "prepend_bos": manifest.prepend_bos, "dtype": manifest.dtype,
        "n_bytes": plan.n_bytes, "key": manifest.key, "notes": list(plan.notes),
    }


ESTIMATED = (("local", 1), *((engine, workers) for engine in ("torchrun", "ray") for workers in (2, 8, 64)))
"Engines and numbers of machines or GPUs for which a dry run says how long it would take."


def estimated(plan: "RecordingPlan", out: Path | str | None = None, quiet: bool = False) -> dict:
    """Bytes and seconds by engine and number of workers, from a little of the recording done now.

    What `out` holds of it already counts as done.
    """
    from activation_cache.estimate import estimate, tokens_there

    found = estimate(plan, tokens_there(plan, out) if out is not None else 0)
    seconds: dict[str, dict[str, float]] = {}
    for engine, workers in ESTIMATED:
        seconds.setdefault(engine, {})[str(workers)] = round(found.seconds(engine, workers), 1)
    if not quiet:
        for engine, by_workers in seconds.items():
            each = ", ".join(f"{duration(s)} on {workers}" for workers, s in by_workers.items())
            print(f"{engine + ':':10} about {each} such machine{'s' * (engine != 'local')} or GPU"
                  f"{'s' * (engine != 'local')}")
        gathered = f", and about {found.n_bytes_gathered:,} gathered over them" if found.n_bytes_gathered else ""
        print(f"bytes:     {found.n_bytes:,} of shards{gathered}")
    return {"n_bytes": found.n_bytes, "n_bytes_gathered": found.n_bytes_gathered, "seconds": seconds}


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def size(n_bytes: int | float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:,.0f} {unit}" if unit == "B" else f"{n_bytes:,.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def print_plan(plan: "RecordingPlan", out: Path | str) -> None:
    """What will be done, before it is."""
    manifest = plan.manifest
    bos = f"BOS {manifest.bos_token_id} fed, not recorded" if manifest.prepend_bos else "no BOS"
    lines = {
        "model": f"{plan.model.name} ({plan.model.n_layers} layers, width {plan.model.d_model}, {manifest.dtype})",
        "dataset": f"{manifest.dataset}: {manifest.n_tokens:,} tokens in {manifest.n_contexts:,} contexts of "
                   f"{manifest.n_documents:,} documents",
        "contexts": f"at most {manifest.context_size} positions, {bos}, "
                    f"documents {'mixed' if manifest.mix_documents else 'kept apart'}",
        "hooks": ", ".join(f"{hook.name} ({hook.d}{', stored' if hook.recorded else ''})" for hook in manifest.hooks),
        **{f"SAE {i + 1}": f"{entry.name} ({entry.architecture}, {entry.d_sae:,} latents at {entry.hook_name})"
           for i, entry in enumerate(manifest.saes)},
        "out": f"{out}: about {size(plan.n_bytes)} in {manifest.n_shards:,} shards",
        **{f"note {i + 1}": note for i, note in enumerate(plan.notes)},
    }
    for key, value in lines.items():
        print(f"{key + ':':10} {value}", flush=True)


def record_with_progress(
    plan: "RecordingPlan", out: Path | str, overwrite: bool, resume: bool, quiet: bool = False,
    engine: "EngineConfig | None" = None,
) -> None:
    """Record, drawing the progress: a bar on a terminal, a line a tenth elsewhere, nothing where quiet."""
    import sys
    import time

    from activation_cache.engines import EngineConfig, own_tokens, record_with
    from sae_translate.cli import progress

    engine = engine or EngineConfig()
    began, kept, before, last = time.monotonic(), 0, 0, None
    total = own_tokens(engine, plan)
    try:
        with progress.bar("caching", total, "tokens", quiet) as advance:
            for last in record_with(engine, plan, out, overwrite, resume):
                kept += last.n_tokens - before if last.kept else 0
                before = last.n_tokens
                advance(last.n_tokens, size(last.n_bytes))
    except KeyboardInterrupt:
        print(f"\ninterrupted: what is in {out} is sound; go on with --resume", file=sys.stderr)
        raise
    if quiet or last is None:
        return
    if last.saturated:
        print(f"warning: {last.saturated:,} values were beyond float16 and are stored as 65504", file=sys.stderr)
    rate = (last.n_tokens - kept) / max(time.monotonic() - began, 1e-9)
    done = f", {kept:,} of them there before" if kept else ""
    share = f" (this rank's, of {plan.manifest.n_tokens:,})" if total < plan.manifest.n_tokens else ""
    print(f"{out}: {last.n_tokens:,} tokens{share}{done}, {size(last.n_bytes)}, {rate:,.0f} tokens/s")
