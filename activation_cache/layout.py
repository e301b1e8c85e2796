"""The on-disk format, in one place: what a cache folder holds, under which names, and how its parts are validated.

    manifest.json                     what was recorded, and from what (`Manifest`)
    tokenizer/                        the model's tokenizer, so that a cache can be read without the model
    shards/00000.safetensors          tokens, contexts, activations and latents of consecutive contexts
    shards/00000.json                 its sidecar (`Sidecar`): sha256, sizes. A shard exists when its sidecar does
    statistics/0.safetensors, .json   statistics of the manifest's SAE number 0 (`LatentStatistics`), and their sidecar
    statistics/0-lag-6.safetensors, .json   where asked for, its co-occurrence six positions apart (`Cooccurrence`)

Inside a shard: `tokens` int32 [n], `context_lengths` int32 [contexts], `document_ids` int64 [contexts];
`activations.H` float16 [n, d] for recorded hook number H; and for SAE number S the token-major CSR
`latents.S.indptr` int64 [n+1], `latents.S.indices` uint16 (uint32 above 65,536 latents), `latents.S.values` float16.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from activation_cache.errors import UserError, nearest

FORMAT = "activation-cache/3"
"Name and version of the format that is written."
FORMAT_WITH_COOCCURRENCE = "activation-cache/4"
"That of caches with co-occurrence, of which readers of the other would not know. Both are current."
READABLE = (FORMAT, "activation-cache/2", FORMAT_WITH_COOCCURRENCE)
"The formats that are read; in 2 statistics have neither second moments nor tokens nor random contexts."
ARITHMETIC = 2
"Raised whenever equal input gives other bytes of the same format: such caches are read, but never continued."
MANIFEST = "manifest.json"
SHARDS = "shards"
STATISTICS = "statistics"
TOKENIZER = "tokenizer"

N_TOP = 20
"Top contexts kept of every latent."
N_RANDOM = 20
"Random contexts kept of every latent."
N_TOKENS = 16
"Tokens told of every latent."
N_BANDS, N_PER_BAND = 5, 4
"Quantile bands of a latent's activations, and the contexts kept in each."
HISTOGRAM_EDGES = np.concatenate(
    [2.0 ** np.arange(-6, 10)[:, None] * (1 + np.arange(4) / 4), [[2.0**10] + [np.nan] * 3]]
).ravel()[:65]
"64 bins, four an octave from 1/64 to 1024; the first bin also holds what is below, the last what is above."


def shard_file(index: int) -> str:
    return f"{SHARDS}/{index:05d}.safetensors"


def statistics_file(sae_index: int) -> str:
    return f"{STATISTICS}/{sae_index}.safetensors"


def cooccurrence_file(sae_index: int, lag: int) -> str:
    return f"{STATISTICS}/{sae_index}-lag-{lag}.safetensors"


def sidecar_file(file: str) -> str:
    return file.removesuffix(".safetensors") + ".json"


def index_dtype(d_sae: int) -> type:
    """The smallest unsigned type that numbers the latents of an SAE of this width."""
    return np.uint16 if d_sae <= 1 << 16 else np.uint32


@dataclass(frozen=True)
class HookEntry:
    """One hook point of a recording."""

    name: str
    d: int
    "Width of its activations."
    recorded: bool
    "Whether the dense activations are in the shards, or were only fed to SAEs."


@dataclass(frozen=True)
class SaeEntry:
    """One SAE whose latents a cache holds."""

    name: str
    "What `ActivationCache.latents` takes."
    source: str
    "Where it was loaded from: a folder, or `release/sae_id`."
    hook_name: str
    d_in: int
    d_sae: int
    architecture: str
    identity: str
    "sha256 of its weights."


@dataclass(frozen=True)
class FileEntry:
    """A small file beside the shards, with its hash."""

    path: str
    sha256: str


@dataclass(frozen=True)
class CooccurrenceEntry:
    """Which co-occurrence is gathered of every SAE of a recording."""

    lags: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 24)
    "How many positions later; by default those that decipherment reads."
    megabytes: int = 1024
    "Most memory for it in MiB, all SAEs together. Latents that do not fit are one \"other\"."

    def n_apart(self, d_sae: int, n_saes: int) -> int:
        """How many latents of an SAE of this width fit, each with each at every lag, in float32."""
        cells = max(self.megabytes << 20, 0) // (4 * n_saes * len(self.lags))
        return min(d_sae, math.isqrt(cells) - 1)


@dataclass(frozen=True)
class Manifest:
    """What a cache holds and what it was made from."""

    key: str
    "sha256 over everything that decides the bytes of the shards: caches of different keys are never mixed."
    model: str
    "The hub's full name, or the absolute path of a folder."
    model_identity: str
    "sha256 of the model's weights as they were used."
    dataset: str
    "Name on the hub or of a generator, or the absolute path of a file or folder."
    dataset_identity: str
    "sha256 of the recorded tokens with their contexts and documents."
    hooks: tuple[HookEntry, ...]
    saes: tuple[SaeEntry, ...]
    context_size: int
    "Most positions fed at once, BOS included."
    prepend_bos: bool
    bos_token_id: int | None
    "The token fed before every context and not recorded; None where there is none."
    mix_documents: bool
    centered: bool
    "Whether the mean over the width was taken off the residual stream, as the SAEs' training did."
    dtype: str
    "The dtype the model ran in; activations and latents are stored as float16."
    batch_size: int
    seed: int
    "Chooses the sample behind the random and the quantile contexts."
    n_tokens: int
    n_contexts: int
    n_documents: int
    contexts_per_shard: int
    files: tuple[FileEntry, ...] = ()
    "The tokenizer's files; not part of the key."
    arithmetic: int = ARITHMETIC
    "`ARITHMETIC` of the code that recorded it."
    format: str = FORMAT
    cooccurrence: CooccurrenceEntry | None = None
    "None where none is gathered: the manifest is then that of `FORMAT`, to the byte."

    @property
    def hook_names(self) -> tuple[str, ...]:
        return tuple(hook.name for hook in self.hooks)

    @property
    def recorded_hooks(self) -> tuple[HookEntry, ...]:
        return tuple(hook for hook in self.hooks if hook.recorded)

    @property
    def n_shards(self) -> int:
        return -(-self.n_contexts // self.contexts_per_shard)

    def contexts_of(self, shard: int) -> range:
        """The contexts that a shard holds."""
        first = shard * self.contexts_per_shard
        return range(first, min(first + self.contexts_per_shard, self.n_contexts))


    @property
    def summary_files(self) -> list[str]:
        """The files of what was gathered over all shards: statistics of every SAE, and its co-occurrence."""
        lags = self.cooccurrence.lags if self.cooccurrence else ()
        return [file for i in range(len(self.saes))
                for file in (statistics_file(i), *(cooccurrence_file(i, lag) for lag in lags))]


@dataclass(frozen=True)
class Sidecar:
    """What must be true of the file beside it."""

    key: str
    "The cache's key."
    sha256: str
    n_bytes: int
    n_tokens: int
    n_contexts: int
    saturated: int = 0
    "Values beyond float16, stored as its largest number."


@dataclass(frozen=True)
class LatentStatistics:
    """What one pass over a cache says of every latent of an SAE. Positions are global, in `[0, n_tokens)`, or -1.

    Integers are in the smallest signed type that holds them.
    """

    density: Float[np.ndarray, "d_sae"]
    "Share of positions on which the latent is active."
    mean: Float[np.ndarray, "d_sae"]
    "Mean over the positions on which it is active; 0 for a dead latent."
    max: Float[np.ndarray, "d_sae"]
    histogram: Int[np.ndarray, "d_sae bins"]
    "Active positions in every bin of activation."
    histogram_edges: Float[np.ndarray, "bins+1"]
    top_positions: Int[np.ndarray, "d_sae top"]
    "Positions of the highest activations, at most one a context, best first; -1 pads."
    top_values: Float[np.ndarray, "d_sae top"]
    quantile_positions: Int[np.ndarray, "d_sae bands per_band"]
    "Positions from equal bands, lowest first, of a uniform sample of its active contexts; -1 pads."
    quantile_values: Float[np.ndarray, "d_sae bands per_band"]
    random_positions: Int[np.ndarray, "d_sae random"] | None = None
    "Positions from a uniform sample of its active contexts, in random order; -1 pads. An older cache lacks all below."
    random_values: Float[np.ndarray, "d_sae random"] | None = None
    second_moment: Float[np.ndarray, "d_sae"] | None = None
    "Mean of the square over the positions on which it is active."
    token_ids: Int[np.ndarray, "d_sae tokens"] | None = None
    "The tokens on which it is active most often, most frequent first; -1 pads."
    token_counts: Int[np.ndarray, "d_sae tokens"] | None = None
    "How often, less at most `token_counts_lack`."
    token_counts_lack: Int[np.ndarray, "d_sae"] | None = None
    "0 where the counts are exact; else at most its active positions over `examples.N_COUNTED + 1`."


@dataclass(frozen=True)
class Cooccurrence:
    """Which latents of an SAE follow which, a number of positions later in the same context.

    What a position holds are its activations divided by their sum, so that every position weighs 1. Latents for which
    there was no memory are one "other", which stands last; it also holds the positions on which nothing is active.
    """

    latents: Int[np.ndarray, "n"]
    "Those told apart, in the order in which they were met."
    counts: Float[np.ndarray, "n+1"]
    "How many positions each holds, and the other, float64: the sum is the number of positions."
    pairs: Float[np.ndarray, "n+1 n+1"]
    "[i, j] = weight of i followed by j, float32: the sum is the number of pairs of positions so far apart."

    @property
    def covered(self) -> float:
        """Share of all weight that is told apart: 1 where the pairs are exact for every latent."""
        return 1.0 - float(self.counts[-1] / self.counts.sum())


def shard_bytes(manifest: Manifest, n_tokens: int, n_contexts: int, active: list[int]) -> int:
    """Bytes of a shard of so many tokens and contexts, and of so many active latents of each SAE."""
    arrays: dict[str, tuple[tuple[int, ...], np.dtype]] = {
        "tokens": ((n_tokens,), np.dtype(np.int32)), "context_lengths": ((n_contexts,), np.dtype(np.int32)),
        "document_ids": ((n_contexts,), np.dtype(np.int64)),
    }
    for h, hook in enumerate(manifest.hooks):
        if hook.recorded:
            arrays[f"activations.{h}"] = (n_tokens, hook.d), np.dtype(np.float16)
    for s, (sae, n) in enumerate(zip(manifest.saes, active, strict=True)):
        arrays[f"latents.{s}.indptr"] = (n_tokens + 1,), np.dtype(np.int64)
        arrays[f"latents.{s}.indices"] = (n,), np.dtype(index_dtype(sae.d_sae))
        arrays[f"latents.{s}.values"] = (n,), np.dtype(np.float16)
    return encoded_bytes(arrays)


SAFETENSORS_NAMES = {"int64": "I64", "int32": "I32", "uint32": "U32", "uint16": "U16", "float16": "F16"}


def encoded_bytes(arrays: dict[str, tuple[tuple[int, ...], np.dtype]]) -> int:
    """Bytes of a safetensors file of arrays of these shapes and types: 8, a header in JSON padded to eights, the data.

    The header names each with its place in the data, where wider types come first, and equal ones by name.
    """
    header, end = {}, 0
    kinds = list(SAFETENSORS_NAMES)
    for name in sorted(arrays, key=lambda name: (-arrays[name][1].itemsize, kinds.index(str(arrays[name][1])), name)):
        shape, dtype = arrays[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": SAFETENSORS_NAMES[str(dtype)], "shape": shape, "data_offsets": [begin, end]}
    return 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8 + end


def _deciding(manifest: Manifest) -> dict[str, Any]:
    """What decides the bytes of the shards: identities and settings, not the names under which things were found."""
    content = {k: v for k, v in _as_json(manifest).items() if k not in ("key", "files", "model", "dataset")}
    content["saes"] = [{k: v for k, v in entry.items() if k != "source"} for entry in content["saes"]]
    return content


def run_key(manifest: Manifest) -> str:
    """sha256 over everything that decides the bytes of the shards."""
    return hashlib.sha256(json.dumps(_deciding(manifest), sort_keys=True).encode()).hexdigest()


def differences(ours: Manifest, theirs: Manifest) -> list[str]:
    """The fields in which two recordings differ."""
    mine, other = _deciding(ours), _deciding(theirs)
    return [name for name in {**mine, **other} if mine.get(name) != other.get(name)]


def _as_json(manifest: Manifest) -> dict[str, Any]:
    """The fields of a manifest; no co-occurrence is no field."""
    return {k: v for k, v in asdict(manifest).items() if k != "cooccurrence" or v is not None}


def manifest_to_json(manifest: Manifest) -> str:
    return json.dumps(_as_json(manifest), indent=1, sort_keys=True) + "\n"


def manifest_from_json(text: str, where: str) -> Manifest:
    """The manifest in this text, wholly validated; a `UserError` naming the place where it is not one of ours."""
    raw = _json_object(text, where)
    if raw.get("format") not in READABLE:
        raise UserError(f"{where} is of format {raw.get('format')!r}; this version reads {', '.join(READABLE)}: "
                        "record it again")
    parts = {"hooks": HookEntry, "saes": SaeEntry, "files": FileEntry}
    for name, kind in parts.items():
        if not isinstance(raw.get(name), list):
            raise UserError(f"{where}: {name} must be a list; the file was altered, record the cache again")
        raw[name] = tuple(_build(kind, item, where) for item in raw[name])
    raw["cooccurrence"] = _cooccurrence(raw, where)
    manifest = _build(Manifest, raw, where)
    for file in manifest.files:
        _inside(file.path, where)
    counts_fit = manifest.n_documents >= 1 and 1 <= manifest.n_contexts <= manifest.n_tokens
    if not counts_fit or manifest.contexts_per_shard < 1 or manifest.context_size < 1:
        raise UserError(f"{where}: its counts cannot be true; the file was altered, record the cache again")
    if manifest.key != run_key(manifest):
        raise UserError(f"{where} does not match its own key: the file was altered, record the cache again")
    return manifest


def _cooccurrence(raw: dict[str, Any], where: str) -> CooccurrenceEntry | None:
    if raw["format"] != FORMAT_WITH_COOCCURRENCE and "cooccurrence" not in raw:
        return None
    told = raw.get("cooccurrence")
    if isinstance(told, dict) and "lags" in told:
        lags = told["lags"]
        if not isinstance(lags, list) or not lags or not all(type(lag) is int and lag > 0 for lag in lags):
            raise UserError(f"{where}: lags is {lags!r}, which it cannot be; the file was altered")
        told = {**told, "lags": tuple(lags)}
    return _build(CooccurrenceEntry, told, where)


def sidecar_to_json(sidecar: Sidecar) -> str:
    return json.dumps(asdict(sidecar), sort_keys=True) + "\n"


def sidecar_from_json(text: str, where: str) -> Sidecar:
    return _build(Sidecar, _json_object(text, where), where)


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except ValueError:
        raise UserError(f"{where} is not valid JSON: it is no part of an activation cache, or it was cut off") from None
    if not isinstance(raw, dict):
        raise UserError(f"{where} is not a JSON object: it is no part of an activation cache")
    return raw


_PLAIN = {int: int, str: str, bool: bool, int | None: (int, type(None))}


def _build(kind: type, raw: Any, where: str):
    """A dataclass from JSON: every field there, none unknown, plain fields of the right type, counts not negative."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: an entry of {kind.__name__} is not an object; the file was altered")
    known = {field.name: field for field in fields(kind)}
    for name in raw:
        if name not in known:
            raise UserError(f"{where}: unknown field {name!r}. {nearest(name, known)}".strip())
    for name, field in known.items():
        if name not in raw:
            raise UserError(f"{where}: the field {name!r} is missing; the file was altered or cut off")
        expected = _PLAIN.get(field.type)
        value = raw[name]
        wrong = expected and (not isinstance(value, expected) or (isinstance(value, bool) and field.type is not bool))
        if wrong or (isinstance(value, int) and value < 0):
            raise UserError(f"{where}: {name} is {value!r}, which it cannot be; the file was altered")
    return kind(**raw)


def _inside(path: str, where: str) -> None:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\\" in path or "\0" in path:
        raise UserError(f"{where}: the path {path!r} leaves the cache's folder; do not trust this cache")
