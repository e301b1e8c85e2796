"""Text, model and SAE to a cache: shard by shard, each whole or absent, continued where it was interrupted."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from activation_cache import layout, shards
from activation_cache.errors import UserError
from activation_cache.gather import begin, gathered, write_summaries
from activation_cache.layout import FileEntry, Manifest, Sidecar
from activation_cache.places import Place, locked, make_folder, place, remove_folder
from activation_cache.plan import RecordingPlan
from activation_cache.saes import stored
from activation_cache.transfers import Arriving, begin_copy, own_stream

LARGEST_HALF = 65504.0
HALF_MAGNITUDE, HALF_INFINITY = 0x7FFF, 0x7C00
"Bits of a float16 but its sign, and those of an infinity."


BEHIND = {"cuda"}
"Devices that compute the next shard while one is written. A CPU would gain nothing, and lose a shard more by a kill."


@dataclass(frozen=True)
class Progress:
    """How far a recording is."""

    n_tokens: int
    "Tokens on disk so far."
    total: int
    "Tokens it will have."
    n_bytes: int
    "Bytes of the shards so far."
    saturated: int
    "Values beyond float16 so far, stored as its largest number."
    kept: bool
    "Whether the last shard was there already."

    @classmethod
    def start(cls, total: int) -> "Progress":
        """Before any shard of a recording of so many tokens."""
        return cls(0, total, 0, 0, False)

    def after(self, sidecar: Sidecar, kept: bool) -> "Progress":
        """With one more shard on disk."""
        return Progress(self.n_tokens + sidecar.n_tokens, self.total, self.n_bytes + sidecar.n_bytes,
                        self.saturated + sidecar.saturated, kept)


def check_out(out: str | os.PathLike | Place, overwrite: bool = False, resume: bool = False) -> None:
    """A `UserError` where the folder holds something that a recording may not touch."""
    folder = place(out)
    if overwrite and resume:
        raise UserError("--overwrite and --resume contradict each other: give one of them")
    try:
        _check_content(folder, overwrite, resume)
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror or error}): choose another --out") from None


def _check_content(folder: Place, overwrite: bool, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another --out")
    if not folder.exists() or not any(_contents(folder)) or _barely_begun(folder):
        return
    if not (folder / layout.MANIFEST).is_file():
        raise UserError(f"{folder} holds something else than an activation cache: choose another --out")
    if not overwrite and not resume:
        raise UserError(f"{folder} already holds a cache: continue it with --resume, replace it with --overwrite, or "
                        "choose another --out")
    if overwrite and (strange := _strange(folder)):
        raise UserError(f"{folder} also holds {strange[0]}, which is no part of a cache: move it away, or choose "
                        "another --out")


def _contents(folder: Place) -> Iterator[Place]:
    """Everything in the folder but temporary files of an interrupted run."""
    return (path for path in folder.iterdir() if not path.name.endswith(".tmp"))


def _barely_begun(folder: Place) -> bool:
    """Whether a recording was interrupted here before its manifest was written: our rooms, no shard yet."""
    if {p.name for p in _contents(folder)} - {layout.SHARDS, layout.STATISTICS, layout.TOKENIZER}:
        return False
    shards_room, statistics_room = folder / layout.SHARDS, folder / layout.STATISTICS
    return shards_room.is_dir() and not any(
        any(_contents(room)) for room in (shards_room, statistics_room) if room.is_dir()
    )


def _strange(folder: Place) -> list[str]:
    """What no recording would have put into its folder."""
    rooms = {layout.SHARDS, layout.STATISTICS, layout.TOKENIZER}
    top = [p.name for p in _contents(folder) if p.name not in rooms | {layout.MANIFEST} or p.is_symlink()]
    inner = [f"{room}/{p.name}" for room in (layout.SHARDS, layout.STATISTICS) if (folder / room).is_dir()
             for p in _contents(folder / room) if p.suffix not in (".safetensors", ".json")]
    return top + inner


def record(
    plan: RecordingPlan, out: str | os.PathLike | Place, overwrite: bool = False, resume: bool = False
) -> Iterator[Progress]:
    """Write the cache, a value after every shard. Interrupt it at any moment; with `resume` it goes on to equal bytes.

    `out` is a folder or an fsspec URL. Errors: a `UserError` where it holds another recording, another process is
    writing it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        folder, manifest = stack.enter_context(begun(plan, out, overwrite, resume))
        beside = stack.enter_context(ThreadPoolExecutor(1))
        if torch.device(plan.model.device).type not in BEHIND:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            beside.submit(torch.set_num_threads, 1)  # the others compute the next shard
        gathering = beside.submit(begin, manifest)
        progress = Progress.start(manifest.n_tokens)
        steps = write_shards(plan, folder, range(manifest.n_shards))
        for index, (sidecar, arrays) in enumerate(stack.enter_context(contextlib.closing(steps))):
            kept = arrays is None
            arrays = shards.read_arrays(folder, layout.shard_file(index), manifest.key) if kept else arrays
            gathering = beside.submit(gathered, gathering.result(), arrays, manifest)  # while the next is computed
            yield (progress := progress.after(sidecar, kept))
        write_summaries(folder, manifest, gathering.result())


@contextlib.contextmanager
def begun(
    plan: RecordingPlan, out: str | os.PathLike | Place, overwrite: bool = False, resume: bool = False
) -> Iterator[tuple[Place, Manifest]]:
    """Hold a cache's folder for this process, its manifest written or found to be that of the plan."""
    check_out(out, overwrite, resume)
    folder = place(out)
    make_rooms(folder)
    with locked(folder):
        if overwrite:
            _clear(folder)
        yield folder, open_cache(plan, folder)


def make_rooms(folder: Place) -> None:
    """The folders of a cache. Errors: a `UserError` where they cannot be made."""
    try:
        for room in (layout.SHARDS, layout.STATISTICS, layout.TOKENIZER):
            make_folder(folder / room)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): choose another --out") from None


def write_shards(
    plan: RecordingPlan, folder: Place, indices: Iterable[int]
) -> Iterator[tuple[Sidecar, dict[str, np.ndarray] | None]]:
    """The sidecars of these shards, each once it is on disk, and the arrays of those that were not there before.

    A device of `BEHIND` computes the next shard while one is written: a kill then costs that one too.
    """
    with ThreadPoolExecutor(1) as writer:
        def computed(index: int) -> Future:
            sidecar = shards.read_sidecar(folder, layout.shard_file(index), plan.manifest.key)
            if sidecar is not None:
                return writer.submit(lambda: (sidecar, None))
            return writer.submit(_written, plan, folder, index, *compute_shard(plan, index))

        steps: Iterable[Future] = map(computed, indices)
        if torch.device(plan.model.device).type in BEHIND:
            steps = (step for step, _ in itertools.pairwise(itertools.chain(steps, [None])))
        for step in steps:
            yield step.result()


def write_shard(plan: RecordingPlan, folder: Place, index: int) -> None:
    """Compute a shard and write it, whole or not at all."""
    _written(plan, folder, index, *compute_shard(plan, index))


def _written(
    plan: RecordingPlan, folder: Place, index: int, arrays: dict[str, np.ndarray], saturated: int
) -> tuple[Sidecar, dict[str, np.ndarray]]:
    sidecar = shards.write_arrays(folder, layout.shard_file(index), arrays, plan.manifest.key, len(arrays["tokens"]),
                                  len(arrays["context_lengths"]), saturated)
    return sidecar, arrays


def _clear(folder: Place) -> None:
    """Remove a cache of ours, the manifest last, so that what an interruption leaves is still known as ours."""
    for room in (layout.SHARDS, layout.STATISTICS, layout.TOKENIZER):
        remove_folder(folder / room)
    (folder / layout.MANIFEST).unlink(missing_ok=True)
    make_rooms(folder)


def open_cache(plan: RecordingPlan, folder: Place) -> Manifest:
    """The manifest that is there: that of the recording being continued, which must be the same, or a new one."""
    sweep(folder)
    if (folder / layout.MANIFEST).exists():
        return same_recording(plan, folder)
    files = []
    for inner, content in tokenizer_files(plan).items():
        make_folder((folder / inner).parent)
        shards.write_file(folder / inner, content)
        files.append(FileEntry(inner, hashlib.sha256(content).hexdigest()))
    manifest = dataclasses.replace(plan.manifest, files=tuple(files))
    shards.write_file(folder / layout.MANIFEST, layout.manifest_to_json(manifest).encode())
    return manifest


def sweep(folder: Place) -> None:
    """Remove what killed processes left of their writes; no other process may be writing here."""
    for room in (folder, *(folder / room for room in (layout.SHARDS, layout.STATISTICS, layout.TOKENIZER))):
        for left in room.glob(".*.tmp"):
            left.unlink()


def same_recording(plan: RecordingPlan, folder: Place) -> Manifest:
    """The manifest that is there. Errors: a `UserError` where it is of another recording than the plan."""
    manifest = shards.read_manifest(folder)
    if manifest.key != plan.manifest.key:
        fields = ", ".join(layout.differences(plan.manifest, manifest))
        raise UserError(f"{folder} holds another recording, which differs in {fields}: it cannot be continued; "
                        "replace it with --overwrite, or choose another --out")
    return manifest


def tokenizer_files(plan: RecordingPlan) -> dict[str, bytes]:
    """The files of the plan's tokenizer, under their paths in a cache."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            plan.model.tokenizer.save_pretrained(temporary)
        except Exception as error:  # whatever the libraries make of a full or read-only disk
            raise UserError(f"the tokenizer of {plan.model.name} could not be saved to {tempfile.gettempdir()} "
                            f"({error}): make room there, or set TMPDIR to another folder") from None
        return {f"{layout.TOKENIZER}/{path.relative_to(temporary).as_posix()}": path.read_bytes()
                for path in sorted(Path(temporary).rglob("*")) if path.is_file()}


def compute_shard(plan: RecordingPlan, index: int) -> tuple[dict[str, np.ndarray], int]:
    """The arrays of one shard, and how many values were beyond float16. The same whenever and wherever it is run.

    What a batch gives is taken from the device when the next has been begun there.
    """
    manifest = plan.manifest
    arrays, offsets = text_arrays(plan, index)
    n, saturated = int(offsets[-1] - offsets[0]), 0
    dense = {h: np.empty((n, hook.d), np.float16) for h, hook in enumerate(manifest.hooks) if hook.recorded}
    found: list[list[sparse.csr_array]] = [[] for _ in plan.saes]
    rows: list[np.ndarray] = []
    for (places, arriving), _ in itertools.pairwise(itertools.chain(_batches(plan, offsets), [None])):
        parts = iter(arriving.wait())
        rows.append(places)
        for block, part in zip(dense.values(), parts, strict=False):
            saturated += _cut(half := part.numpy())
            block[places] = half
        for matrices, entry in zip(found, manifest.saes, strict=True):
            latents = stored(next(parts), next(parts), next(parts), (len(places), entry.d_sae))
            saturated += latents.saturated
            matrices.append(latents.matrix)
    back = np.argsort(np.concatenate(rows))
    arrays |= {f"activations.{h}": block for h, block in dense.items()}
    for s, parts in enumerate(found):
        arrays |= latent_arrays(s, sparse.vstack(parts, format="csr")[back])
    return arrays, saturated


def _batches(plan: RecordingPlan, offsets: np.ndarray) -> Iterator[tuple[np.ndarray, Arriving]]:
    """Places of some contexts' positions in a shard; their activations in float16, then entries of latents, on the way.

    Contexts of like length go together.
    """
    manifest, lengths = plan.manifest, np.diff(offsets)
    stream = own_stream(plan.model.device)
    order = np.argsort(lengths, kind="stable")
    for batch in np.array_split(order, -(-len(order) // manifest.batch_size)):
        values = _forward(plan, offsets, batch)
        dense = [values[hook.name].to(torch.float16) for hook in manifest.recorded_hooks]
        latents = [part for sae, entry in zip(plan.saes, manifest.saes, strict=True)
                   for part in sae.entries(values[entry.hook_name])]
        places = np.concatenate([np.arange(offsets[c], offsets[c + 1]) for c in batch]) - offsets[0]
        yield places, begin_copy((*dense, *latents), stream)


def text_arrays(plan: RecordingPlan, index: int) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "offsets"]]:
    """What a shard holds of its contexts, and where each of them begins among all tokens."""
    contexts, of_shard = plan.contexts, plan.manifest.contexts_of(index)
    offsets = contexts.offsets[of_shard.start : of_shard.stop + 1]
    arrays = {
        "tokens": contexts.tokens[offsets[0] : offsets[-1]],
        "context_lengths": np.diff(offsets).astype(np.int32),
        "document_ids": contexts.document_ids[of_shard.start : of_shard.stop],
    }
    return arrays, offsets


def latent_arrays(sae_index: int, matrix: sparse.csr_array) -> dict[str, np.ndarray]:
    """What a shard holds of an SAE's latents, which float16 can hold."""
    return {
        f"latents.{sae_index}.indptr": matrix.indptr.astype(np.int64),
        f"latents.{sae_index}.indices": matrix.indices.astype(layout.index_dtype(matrix.shape[1])),
        f"latents.{sae_index}.values": matrix.data.astype(np.float16),
    }


def _cut(halves: Float[np.ndarray, "n d"]) -> int:
    """Put float16's largest numbers in the place of its infinities; how many there were."""
    beyond = halves.view(np.uint16) & HALF_MAGNITUDE == HALF_INFINITY  # many times faster than np.isinf
    if beyond.any():
        halves[beyond] = np.copysign(LARGEST_HALF, halves[beyond])
    return int(np.count_nonzero(beyond))


def _forward(plan: RecordingPlan, offsets: np.ndarray, batch: np.ndarray) -> dict[str, Tensor]:
    """Activations of some contexts at every hook, positions in the contexts' order, BOS and padding left out.

    Contexts of like length are padded on the right: causal attention keeps what follows from being seen.
    """
    manifest = plan.manifest
    lead = int(manifest.prepend_bos)
    lengths = [int(offsets[c + 1] - offsets[c]) for c in batch]
    fed = np.zeros((len(batch), max(lengths) + lead), np.int64)
    there = np.zeros(fed.shape, bool)
    if lead:
        fed[:, 0] = manifest.bos_token_id
    for row, (context, length) in enumerate(zip(batch, lengths, strict=True)):
        fed[row, lead : lead + length] = plan.contexts.tokens[offsets[context] : offsets[context] + length]
        there[row, lead : lead + length] = True
    values = plan.model.activations(torch.from_numpy(fed).to(plan.model.device), manifest.hook_names)
    recorded = None if there.all() else torch.from_numpy(np.flatnonzero(there)).to(plan.model.device)
    out = {}
    for name, value in values.items():
        value = value.flatten(0, 1) if recorded is None else value.flatten(0, 1)[recorded]
        tap = plan.model.tap_of(name)
        out[name] = value - value.mean(-1, keepdim=True) if manifest.centered and tap and tap.residual else value
    return out
