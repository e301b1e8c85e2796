"""Caches of other libraries as caches of ours.

They do not keep documents: every context counts as one. They do not say which weights they were computed with, so what
was imported cannot be computed again, only imported again.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from activation_cache import layout, shards
from activation_cache.errors import UserError
from activation_cache.foreign import Foreign, read_foreign
from activation_cache.gather import begin, gathered, write_summaries
from activation_cache.layout import HookEntry, Manifest, SaeEntry
from activation_cache.models import Model, load_tokenizer
from activation_cache.places import Place
from activation_cache.plan import TOKENS_PER_SHARD, Contexts, RecordingPlan, bytes_of
from activation_cache.record import (
    LARGEST_HALF,
    Progress,
    begun,
    latent_arrays,
    text_arrays,
)


def plan_import(
    folder: str | os.PathLike, model: str | None = None, saes: tuple[str, ...] = (), tokenizer: Any = None
) -> tuple[RecordingPlan, Foreign]:
    """What importing a cache would write. `model` and `saes` (one a hook, in order) say what it was recorded from.

    Where every context begins with the tokenizer's BOS, that position is left out, as our own recordings do.
    """
    foreign = read_foreign(Path(folder).expanduser())
    name = model or foreign.model
    if name is None:
        raise UserError(f"{folder} does not say which model it is of: give --model, whose tokenizer is needed")
    if saes and len(saes) != len(foreign.latents):
        raise UserError(f"{len(saes)} SAEs were given for the latents of {len(foreign.latents)} hooks "
                        f"({', '.join(foreign.latents) or 'none'}): give one --sae a hook, in this order")  # fmt: skip
    tokenizer = tokenizer or load_tokenizer(name)
    bos = getattr(tokenizer, "bos_token_id", None)
    lead = int(bos is not None and foreign.tokens.shape[1] > 1 and bool((foreign.tokens[:, 0] == bos).all()))
    kept = np.ascontiguousarray(foreign.tokens[:, lead:], np.int32)
    n_contexts, length = kept.shape
    contexts = Contexts(kept.ravel(), np.arange(n_contexts + 1) * length, np.arange(n_contexts))
    manifest = Manifest(
        key="", model=name, model_identity=f"imported from {foreign.kind}", dataset=foreign.dataset or str(folder),
        dataset_identity=contexts.identity, hooks=_hooks(foreign), saes=_saes(foreign, saes),
        context_size=length + lead, prepend_bos=bool(lead), bos_token_id=bos if lead else None, mix_documents=True,
        centered=False, dtype="as imported", batch_size=1, seed=0, n_tokens=kept.size, n_contexts=n_contexts,
        n_documents=n_contexts, contexts_per_shard=max(1, TOKENS_PER_SHARD // length),
    )  # fmt: skip
    manifest = replace(manifest, key=layout.run_key(manifest))
    active = [matrix.nnz / foreign.tokens.size for matrix in foreign.latents.values()]
    n_bytes = bytes_of(manifest, contexts.offsets, active)
    note = f"{foreign.kind} does not keep documents: each of the {n_contexts:,} contexts counts as one"
    return RecordingPlan(manifest, contexts, Model(name, None, tokenizer), (), n_bytes, (note,)), foreign


def _hooks(foreign: Foreign) -> tuple[HookEntry, ...]:
    dense = (HookEntry(name, width, True) for name, width in foreign.widths.items())
    return (*dense, *(HookEntry(name, 0, False) for name in foreign.latents))


def _saes(foreign: Foreign, sources: tuple[str, ...]) -> tuple[SaeEntry, ...]:
    """Entries of SAEs of which only the latents are there; the bytes of those stand in for their weights'."""
    named = sources or ("",) * len(foreign.latents)
    return tuple(
        SaeEntry(hook, source, hook, 0, matrix.shape[1], "imported", _digest(matrix))
        for (hook, matrix), source in zip(foreign.latents.items(), named, strict=True)
    )


def _digest(matrix: sparse.csr_array) -> str:
    digest = hashlib.sha256()
    for array in (matrix.indptr, matrix.indices, matrix.data):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def import_cache(
    plan: RecordingPlan, foreign: Foreign, out: str | os.PathLike | Place, overwrite: bool = False, resume: bool = False
) -> Iterator[Progress]:
    """Write a planned import as a cache of ours, a value after every shard. Errors: as `record.record`."""
    with begun(plan, out, overwrite, resume) as (folder, manifest):
        states = begin(manifest)
        progress = Progress.start(manifest.n_tokens)
        for index in range(manifest.n_shards):
            file = layout.shard_file(index)
            arrays, cut = _shard(plan, foreign, index)
            sidecar = shards.write_arrays(folder, file, arrays, manifest.key, len(arrays["tokens"]),
                                          len(arrays["context_lengths"]), cut)  # fmt: skip
            states = gathered(states, arrays, manifest)
            yield (progress := progress.after(sidecar, kept=False))
        write_summaries(folder, manifest, states)


def _shard(plan: RecordingPlan, foreign: Foreign, index: int) -> tuple[dict[str, np.ndarray], int]:
    """The arrays of one shard, and how many values were beyond float16."""
    of_shard = plan.manifest.contexts_of(index)
    lead, whole = int(plan.manifest.prepend_bos), foreign.tokens.shape[1]
    arrays, _ = text_arrays(plan, index)
    saturated = 0
    for h, (name, width) in enumerate(foreign.widths.items()):
        block = foreign.activations(name, of_shard.start, of_shard.stop)[:, lead:].reshape(-1, width)
        saturated += int((np.abs(block) > LARGEST_HALF).sum())
        arrays[f"activations.{h}"] = np.clip(block, -LARGEST_HALF, LARGEST_HALF).astype(np.float16)
    rows = np.arange(of_shard.start * whole, of_shard.stop * whole).reshape(-1, whole)[:, lead:].ravel()
    for s, matrix in enumerate(foreign.latents.values()):
        part = matrix[rows]
        saturated += int((np.abs(part.data) > LARGEST_HALF).sum())
        part.data = np.clip(part.data, -LARGEST_HALF, LARGEST_HALF)
        arrays |= latent_arrays(s, part)
    return arrays, saturated
