"""Atomic writing and verified reading of a cache: nothing is read that does not match its hash, nothing executed."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Int
from scipy import sparse

from activation_cache import layout
from activation_cache.errors import UserError, nearest
from activation_cache.layout import Cooccurrence, LatentStatistics, Manifest, SaeEntry, Sidecar
from activation_cache.places import Place, is_url, place, put, read, size

AT_ONCE = 32
"Sidecars that are asked for at once where each is a request over a network."
MEND = "mend it with `sae-translate verify --repair`"


def write_file(path: Place, content: bytes) -> None:
    """Put these bytes there whole or not at all; a `UserError` where they cannot be."""
    try:
        put(path, content)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): what is there is sound; make room or choose "
            "another --out, or mend it and continue with --resume"
        ) from None


def write_arrays(
    folder: Place, file: str, arrays: dict[str, np.ndarray], key: str, n_tokens: int, n_contexts: int,
    saturated: int = 0,
) -> Sidecar:
    """Write arrays and then their sidecar, which is returned. They exist once the sidecar does."""
    return write_content(folder, file, encode_arrays(arrays), key, n_tokens, n_contexts, saturated)


def encode_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes that equal arrays always have on disk."""
    return safetensors.numpy.save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})


def write_content(
    folder: Place, file: str, content: bytes, key: str, n_tokens: int, n_contexts: int, saturated: int = 0
) -> Sidecar:
    """Write encoded arrays and then their sidecar, which is returned."""
    sidecar = Sidecar(key, hashlib.sha256(content).hexdigest(), len(content), n_tokens, n_contexts, saturated)
    write_file(folder / file, content)
    write_file(folder / layout.sidecar_file(file), layout.sidecar_to_json(sidecar).encode())
    return sidecar


def read_sidecar(folder: Place, file: str, key: str) -> Sidecar | None:
    """The sidecar of a file; None where it has none yet. The file must have its size, and the cache's key."""
    path = folder / layout.sidecar_file(file)
    try:
        sidecar = layout.sidecar_from_json(read(path).decode(errors="replace"), str(path))
    except FileNotFoundError:
        return None
    if sidecar.key != key:
        raise UserError(f"{path} belongs to another recording than the cache's manifest: record again with --overwrite")
    try:
        n_bytes = size(folder / file)
    except FileNotFoundError:
        raise UserError(f"{folder / file} is gone, its sidecar is there: {MEND}") from None
    if n_bytes != sidecar.n_bytes:
        raise UserError(
            f"{folder / file} has {n_bytes:,} bytes where {sidecar.n_bytes:,} were written: it was truncated or "
            f"altered; {MEND}"
        )
    return sidecar


def read_arrays(folder: Place, file: str, key: str) -> dict[str, np.ndarray]:
    """The arrays of a file whose bytes match the hash in its sidecar; a `UserError` naming the file where not."""
    sidecar = read_sidecar(folder, file, key)
    if sidecar is None:
        raise UserError(f"{folder / file} is missing: the recording was interrupted, continue it with --resume; "
                        f"or else {MEND}")
    content = read(folder / file)
    if hashlib.sha256(content).hexdigest() != sidecar.sha256:
        raise UserError(
            f"{folder / file} does not match its sha256: its bytes were altered; {MEND}"
        )
    return safetensors.numpy.load(content)


def read_manifest(folder: Place) -> Manifest:
    """The manifest of a cache's folder; a `UserError` where the folder is missing or no cache of ours."""
    path = folder / layout.MANIFEST
    if not is_url(folder) and not folder.is_dir():
        raise UserError(f"no such folder: {folder}. Make a cache with `sae-translate cache`")
    try:
        text = read(path).decode(errors="replace")
    except OSError as error:
        why = f" ({error})" if is_url(folder) else ""
        raise UserError(f"{folder} is not an activation cache: it has no readable {layout.MANIFEST}{why}") from None
    return layout.manifest_from_json(text, str(path))


def check(folder: Place) -> Iterator[tuple[str, str | None]]:
    """Read every file a cache should have; each with what is wrong with it, None where nothing is.

    Errors: a `UserError` where the manifest itself cannot be read.
    """
    manifest = read_manifest(folder)
    for file in [*map(layout.shard_file, range(manifest.n_shards)), *manifest.summary_files]:
        try:
            arrays = read_arrays(folder, file, manifest.key)
            sidecar = read_sidecar(folder, file, manifest.key)
            counts = (sidecar.n_tokens, sidecar.n_contexts)
            if "tokens" in arrays and counts != (len(arrays["tokens"]), len(arrays["context_lengths"])):
                raise UserError(f"{folder / layout.sidecar_file(file)} has other counts than its shard: {MEND}")
            yield file, None
        except UserError as error:
            yield file, str(error)
    for entry in manifest.files:
        yield entry.path, _wrong_with(folder / entry.path, entry.sha256)


def _wrong_with(path: Place, sha256: str) -> str | None:
    """What is wrong with one of the tokenizer's files."""
    content = read(path) if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        return f"{path} was altered or is missing: mend it with `sae-translate verify --repair`"
    return None


class ActivationCache:
    """A recorded model: tokens, dense activations and SAE latents, position by position. Read only.

    Opening checks that the manifest is ours, that every shard is there and has its size; each shard's sha256 is
    checked when it is read. Errors: a `UserError` of one line.
    """

    def __init__(self, path: str | os.PathLike | Place):
        self.path = place(path)
        self.manifest: Manifest = read_manifest(self.path)
        n_shards = self.manifest.n_shards
        files = [*map(layout.shard_file, range(n_shards)), *self.manifest.summary_files]
        if is_url(self.path):
            with ThreadPoolExecutor(AT_ONCE) as pool:
                sidecars = list(pool.map(self._sidecar, files))
        else:
            sidecars = [self._sidecar(file) for file in files]
        self._sidecars = sidecars[:n_shards]
        if sum(sidecar.n_tokens for sidecar in self._sidecars) != self.manifest.n_tokens:
            raise UserError(f"the shards of {self.path} do not add up to its {self.manifest.n_tokens:,} tokens: "
                            "its files were altered, record it again with --overwrite")

    def _sidecar(self, file: str) -> Sidecar:
        sidecar = read_sidecar(self.path, file, self.manifest.key)
        if sidecar is None:
            raise UserError(f"{self.path} is incomplete, {file} is missing: continue the recording with --resume")
        return sidecar

    @property
    def n_tokens(self) -> int:
        return self.manifest.n_tokens

    @property
    def n_contexts(self) -> int:
        return self.manifest.n_contexts

    @property
    def n_documents(self) -> int:
        return self.manifest.n_documents

    @property
    def n_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(sidecar.n_bytes for sidecar in self._sidecars)

    def shard(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one shard, verified; names as in `layout`."""
        return read_arrays(self.path, layout.shard_file(index), self.manifest.key)

    def shards(self) -> Iterator[dict[str, np.ndarray]]:
        """All shards in order, one in memory at a time."""
        return (self.shard(i) for i in range(self.manifest.n_shards))

    @cached_property
    def _text(self) -> dict[str, np.ndarray]:
        parts = [
            {name: shard[name] for name in ("tokens", "context_lengths", "document_ids")} for shard in self.shards()
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @property
    def tokens(self) -> Int[np.ndarray, "n"]:
        """Token ids of every recorded position, in order. A BOS that was only fed is not among them."""
        return self._text["tokens"]

    @cached_property
    def context_offsets(self) -> Int[np.ndarray, "offsets"]:
        """First position of every context, and the number of positions at the end; contexts tile the positions."""
        return np.concatenate([[0], np.cumsum(self._text["context_lengths"], dtype=np.int64)])

    @property
    def document_ids(self) -> Int[np.ndarray, "contexts"]:
        """The document each context belongs to, numbered from 0 in the order they were read."""
        return self._text["document_ids"]

    def _sae_index(self, sae: str | None) -> int:
        names = [entry.name for entry in self.manifest.saes]
        sources = [entry.source for entry in self.manifest.saes]
        if not names:
            raise UserError(f"{self.path} holds no latents: record it with --sae")
        if sae is None and len(names) == 1:
            return 0
        if sae in names:
            return names.index(sae)
        if sources.count(sae) == 1:
            return sources.index(sae)
        given = "which SAE is not said" if sae is None else f"no SAE {sae!r}"
        hint = nearest(sae or "", names)
        raise UserError(f"{given} in {self.path}: choose one of {', '.join(names)}. {hint}".strip())

    def sae_entry(self, sae: str | None = None) -> SaeEntry:
        """The manifest's entry of an SAE, by its name or source; the only one where none is given."""
        return self.manifest.saes[self._sae_index(sae)]

    def latents(self, sae: str | None = None) -> sparse.csr_array:
        """Latents of every position, float32 [n_tokens, d_sae], as they were stored (float16)."""
        i = self._sae_index(sae)
        lengths, indices, values = [], [], []
        for shard in self.shards():
            lengths.append(np.diff(shard[f"latents.{i}.indptr"]))
            indices.append(shard[f"latents.{i}.indices"].astype(np.int32))
            values.append(shard[f"latents.{i}.values"].astype(np.float32))
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        shape = (self.n_tokens, self.manifest.saes[i].d_sae)
        return sparse.csr_array((np.concatenate(values), np.concatenate(indices), indptr), shape=shape)

    def recorded_hooks(self) -> list[str]:
        """Hook points whose dense activations are stored; a `UserError` where there is none."""
        recorded = [hook.name for hook in self.manifest.recorded_hooks]
        if not recorded:
            raise UserError(f"{self.path} holds no dense activations: record it with --activations")
        return recorded

    def activations(self, hook_name: str | None = None) -> Float[np.ndarray, "n d"]:
        """Dense activations at a recorded hook point, float32 [n_tokens, d], as they were stored (float16)."""
        recorded = self.recorded_hooks()
        if hook_name is None and len(recorded) == 1:
            hook_name = recorded[0]
        if hook_name not in recorded:
            given = "which hook is not said" if hook_name is None else f"no activations at {hook_name!r}"
            raise UserError(f"{given} in {self.path}: choose one of {', '.join(recorded)}")
        i = self.manifest.hook_names.index(hook_name)
        out = np.empty((self.n_tokens, self.manifest.hooks[i].d), np.float32)
        start = 0
        for shard in self.shards():
            block = shard[f"activations.{i}"]
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def statistics(self, sae: str | None = None) -> LatentStatistics:
        """Density, moments, histogram, tokens, and top, random and quantile contexts of every latent."""
        file = layout.statistics_file(self._sae_index(sae))
        return LatentStatistics(**read_arrays(self.path, file, self.manifest.key))

    def cooccurrence(self, lag: int, sae: str | None = None) -> Cooccurrence:
        """Which latents follow which this many positions later, [n + 1, n + 1] with an "other" last; where all latents
        fit, it is exact for each. Errors: a `UserError` where it was not recorded at this lag."""
        i, recorded = self._sae_index(sae), self.manifest.cooccurrence
        if recorded is None:
            raise UserError(f"{self.path} holds no co-occurrence: record it with --cooccurrence")
        if lag not in recorded.lags:
            raise UserError(f"{self.path} holds no co-occurrence at lag {lag}: choose one of "
                            f"{', '.join(map(str, recorded.lags))}, or record it with --lags")
        return Cooccurrence(**read_arrays(self.path, layout.cooccurrence_file(i, lag), self.manifest.key))

    def tokenizer(self) -> Any:
        """The tokenizer saved with the cache; the model itself is not needed."""
        from transformers import AutoTokenizer

        self.verify_files()
        with tempfile.TemporaryDirectory() as temporary:
            for entry in self.manifest.files:
                (copy := Path(temporary, entry.path)).parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(read(self.path / entry.path))
            return AutoTokenizer.from_pretrained(str(Path(temporary, layout.TOKENIZER)), local_files_only=True)

    def verify_files(self) -> None:
        """Check the hashes of the tokenizer's files."""
        for file in self.manifest.files:
            if wrong := _wrong_with(self.path / file.path, file.sha256):
                raise UserError(wrong)

    def verify(self) -> Iterator[tuple[str, str | None]]:
        """Read everything; each file with what is wrong with it, None where nothing is."""
        return check(self.path)
