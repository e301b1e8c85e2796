"""A damaged cache back to the bytes it was recorded with: what is damaged is computed again, no more."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from activation_cache import layout, shards
from activation_cache.errors import UserError
from activation_cache.gather import gathered_from, summaries
from activation_cache.layout import Manifest
from activation_cache.places import Place, locked, make_folder, place, read
from activation_cache.plan import RecordingConfig, RecordingPlan
from activation_cache.record import compute_shard, tokenizer_files


def recording_config(
    manifest: Manifest, model: str | None = None, saes: tuple[str, ...] = (), dataset: str | None = None,
    config: str | None = None, split: str | None = None, column: str | None = None, device: str = "cpu",
) -> RecordingConfig:
    """The configuration that made a cache; what is given stands in for what the manifest names.

    Errors: a `UserError` where the manifest names a folder that is not here and nothing is given for it.
    """
    if manifest.model_identity.startswith("imported"):
        raise UserError(f"this cache was {manifest.model_identity}, and what it holds cannot be computed here: import "
                        "it again with --overwrite")
    if saes and len(saes) != len(manifest.saes):
        raise UserError(f"{len(saes)} SAEs were given for a cache of {len(manifest.saes)}: give --sae once for each of "
                        f"{', '.join(entry.name for entry in manifest.saes)}, in this order")
    sources = saes or tuple(entry.source for entry in manifest.saes)
    named = {"--model": model or manifest.model, "--dataset": dataset or manifest.dataset,
             **{f"--sae (for {entry.name})": source for entry, source in zip(manifest.saes, sources, strict=True)}}
    for option, name in named.items():
        if Path(name).is_absolute() and not Path(name).exists():
            raise UserError(f"{name}, from which the cache was recorded, is not here: say where it is with {option}")
    return RecordingConfig(
        model=named["--model"], saes=sources, dataset=named["--dataset"], config=config, split=split, column=column,
        hook_names=manifest.hook_names, n_tokens=manifest.n_tokens, context_size=manifest.context_size,
        prepend_bos=manifest.prepend_bos, mix_documents=manifest.mix_documents,
        activations=bool(manifest.recorded_hooks), device=device, dtype=manifest.dtype,
        batch_size=manifest.batch_size, seed=manifest.seed, cooccurrence=manifest.cooccurrence,
    )


def repair(cache: str | os.PathLike | Place, plan: Callable[[], RecordingPlan]) -> Iterator[str]:
    """Compute again every file that `shards.check` finds damaged or missing, to its recorded bytes; yields each.

    `plan` is called once, and only where a shard or a file of the tokenizer is damaged: statistics need no model.
    Errors: a `UserError` where the plan is another recording than the cache, another process is writing, or what is
    computed here is not what was recorded; the file in question is then as it was.
    """
    folder = place(cache)
    with locked(_existing(folder)):
        manifest = shards.read_manifest(folder)
        damaged = [file for file, wrong in shards.check(folder) if wrong]
        planned = _same(plan(), manifest, folder) if set(damaged) - set(manifest.summary_files) else None
        for index in range(manifest.n_shards):
            if (file := layout.shard_file(index)) in damaged:
                _mend_shard(planned, folder, manifest, index)
                yield file
        if files := {file.path: file.sha256 for file in manifest.files if file.path in damaged}:
            _mend_tokenizer(planned, folder, files)
            yield from files
        if set(damaged) & set(manifest.summary_files):
            yield from _mend_summaries(folder, manifest, damaged)


def _existing(folder: Place) -> Place:
    shards.read_manifest(folder)
    for room in (layout.SHARDS, layout.STATISTICS, layout.TOKENIZER):
        make_folder(folder / room)
    return folder


def _same(plan: RecordingPlan, manifest: Manifest, folder: Place) -> RecordingPlan:
    if plan.manifest.key != manifest.key:
        fields = ", ".join(layout.differences(plan.manifest, manifest))
        raise UserError(f"{folder} was recorded from something else than what was found or given, which differs in "
                        f"{fields}: give the --model, --dataset and --sae it was recorded from")
    return plan


def _mend_shard(plan: RecordingPlan, folder: Place, manifest: Manifest, index: int) -> None:
    file = layout.shard_file(index)
    arrays, saturated = compute_shard(plan, index)
    content = shards.encode_arrays(arrays)
    _must_be_recorded(folder, file, content, manifest.key)
    shards.write_content(folder, file, content, manifest.key, len(arrays["tokens"]), len(arrays["context_lengths"]),
                         saturated)


def _must_be_recorded(folder: Place, file: str, content: bytes, key: str) -> None:
    """What is computed must have the hash in the sidecar, or be the file itself where the sidecar is damaged."""
    sha256 = hashlib.sha256(content).hexdigest()
    known = set()
    with contextlib.suppress(UserError, FileNotFoundError):
        path = folder / layout.sidecar_file(file)
        sidecar = layout.sidecar_from_json(read(path).decode(errors="replace"), str(path))
        known |= {sidecar.sha256} if sidecar.key == key else set()
    if known and (folder / file).is_file():
        known.add(hashlib.sha256(read(folder / file)).hexdigest())
    if known and sha256 not in known:
        raise UserError(f"{folder / file} cannot be repaired here: computed again it has other bytes than recorded "
                        "(another device, number of threads or library version rounds otherwise); repair it where it "
                        "was recorded, or record it again with --overwrite")


def _mend_tokenizer(plan: RecordingPlan, folder: Place, files: dict[str, str]) -> None:
    """Write the files of these paths and hashes from the model's tokenizer."""
    saved = tokenizer_files(plan)
    for inner, sha256 in files.items():
        if hashlib.sha256(saved.get(inner, b"")).hexdigest() != sha256:
            raise UserError(f"{folder / inner} cannot be repaired here: the tokenizer of {plan.model.name} is saved "
                            "with other bytes than were recorded (another library version, or another tokenizer)")
        make_folder((folder / inner).parent)
        shards.write_file(folder / inner, saved[inner])


def _mend_summaries(folder: Place, manifest: Manifest, damaged: list[str]) -> Iterator[str]:
    for file, arrays in summaries(gathered_from(folder, manifest)):
        if file in damaged:
            content = shards.encode_arrays(arrays)
            _must_be_recorded(folder, file, content, manifest.key)
            shards.write_content(folder, file, content, manifest.key, manifest.n_tokens, manifest.n_contexts)
            yield file
