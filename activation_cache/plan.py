"""What a recording would do: looked up, checked against what the SAEs know, and counted before it starts."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from activation_cache import layout
from activation_cache.errors import UserError
from activation_cache.layout import CooccurrenceEntry, HookEntry, Manifest, SaeEntry
from activation_cache.models import Model, hub_name, load_model
from activation_cache.text import load_documents

DEFAULT_DATASET = "NeelNanda/pile-10k"
"A small open sample of the Pile, one parquet file."
DEFAULT_TOKENS = 1_000_000
DEFAULT_CONTEXT_SIZE = 128
TOKENS_PER_SHARD = 1 << 14
ACTIVE_GUESS = 64
"Active latents a position that a plan counts with, where the SAE does not fix their number."


@dataclass(frozen=True)
class RecordingConfig:
    """What to record. None means: as the SAE's metadata says, else the default."""

    model: str | None = None
    "Hub name or local folder; by default the SAE's."
    saes: tuple[str, ...] = ()
    "SAEs, each `release/sae_id` or a folder."
    dataset: str | None = None
    "Hub name, local file or folder."
    config: str | None = None
    "Configuration of a hub dataset."
    split: str | None = None
    "Split of a hub dataset."
    column: str | None = None
    "Column that holds the text."
    streaming: bool | None = None
    "Whether a hub dataset is read as it arrives instead of downloaded first; by default all but `DEFAULT_DATASET` are."
    hook_names: tuple[str, ...] = ()
    "Hook points; by default those of the SAEs, else the residual stream after the middle layer."
    n_tokens: int | None = None
    "Exactly so many tokens; by default all there are up to `DEFAULT_TOKENS`."
    context_size: int | None = None
    "Most positions fed at once, BOS included."
    prepend_bos: bool | None = None
    "Whether a BOS is fed before every context."
    mix_documents: bool = False
    "Whether documents are joined, with an end-of-text token between, before they are cut into contexts."
    activations: bool | None = None
    "Whether dense activations are stored; by default only where no SAE is given."
    device: str = "cpu"
    dtype: str | None = None
    "What model and SAEs run in: float32, bfloat16 or float16; by default `default_dtype` of the device."
    batch_size: int = 16
    "Contexts in one forward."
    seed: int = 0
    "Chooses the sample behind the random and the quantile contexts."
    cooccurrence: CooccurrenceEntry | None = None
    "Which co-occurrence of latents is gathered; None: none."


@dataclass(frozen=True)
class Contexts:
    """Tokenised text, cut into contexts that tile the positions."""

    tokens: Int[np.ndarray, "n"]
    offsets: Int[np.ndarray, "offsets"]
    "First position of every context, and the number of positions at the end."
    document_ids: Int[np.ndarray, "contexts"]

    @property
    def identity(self) -> str:
        digest = hashlib.sha256()
        for array in (self.tokens, self.offsets, self.document_ids):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


@dataclass(frozen=True)
class RecordingPlan:
    """A recording ready to start."""

    manifest: Manifest
    contexts: Contexts
    model: Model
    saes: tuple[Any, ...]
    "`saes.LoadedSae`, one an entry of the manifest."
    n_bytes: int
    "What the shards will take: about, where SAEs do not fix how many latents are active."
    notes: tuple[str, ...] = field(default=())
    "What a user should know before it starts, a sentence each."

    def sae(self, name: str) -> Any:
        """The `saes.LoadedSae` of this name in the manifest."""
        return self.saes[[entry.name for entry in self.manifest.saes].index(name)]


def plan_recording(
    config: RecordingConfig, documents: Iterable[str] | None = None, model: Model | None = None
) -> RecordingPlan:
    """Look everything up, settle every choice, tokenise the text and count.

    `documents` and `model` stand in for what `config.dataset` and `config.model` would load; the dataset then is only
    a name in the manifest. Nothing is written. Errors: a `UserError` where something is missing or contradicts an SAE.
    """
    if config.n_tokens is not None and config.n_tokens < 1:
        raise UserError(f"asked for {config.n_tokens} tokens: needed at least 1")
    config = dataclasses.replace(config, dtype=config.dtype or default_dtype(config.device))
    saes = _load_saes(config)
    model = model or load_model(_model_name(config, saes), config.device, config.dtype)
    hook_names = _hook_names(config, saes, model)
    prepend_bos = _agreed("prepend_bos", config.prepend_bos, saes, model.default_prepend_bos)
    bos = _bos_token(model) if prepend_bos else None
    context_size = _context_size(config, saes, model)
    if context_size - prepend_bos < 1:
        raise UserError(f"a context size of {context_size} leaves no position to record: needed at least "
                        f"{1 + prepend_bos}")
    centered = _centered(saes, hook_names, model)
    widths = _widths(model, hook_names, saes)
    dataset, documents = _documents(config, documents)
    contexts = cut_contexts(
        tokenized(documents, model.tokenizer), context_size - prepend_bos, config.n_tokens, dataset,
        _separator(model) if config.mix_documents else None,
    )
    store_dense = config.activations if config.activations is not None else not saes
    if not store_dense and not saes:
        raise UserError("nothing to record: --no-activations needs an --sae")
    if config.cooccurrence:
        _check_cooccurrence(config.cooccurrence, saes, context_size - prepend_bos)
    manifest = Manifest(
        key="", model=_place(model.name) or hub_name(model.name), model_identity=model.identity,
        dataset=_place(dataset) or dataset,
        dataset_identity=contexts.identity,
        hooks=tuple(HookEntry(name, widths[name], store_dense) for name in hook_names),
        saes=_entries(saes, hook_names[0]),
        context_size=context_size, prepend_bos=prepend_bos, bos_token_id=bos, mix_documents=config.mix_documents,
        centered=centered, dtype=model.dtype, batch_size=config.batch_size, seed=config.seed,
        n_tokens=len(contexts.tokens), n_contexts=len(contexts.document_ids),
        n_documents=int(contexts.document_ids[-1]) + 1,
        contexts_per_shard=max(1, TOKENS_PER_SHARD // context_size),
        format=layout.FORMAT_WITH_COOCCURRENCE if config.cooccurrence else layout.FORMAT,
        cooccurrence=config.cooccurrence,
    )
    manifest = dataclasses.replace(manifest, key=layout.run_key(manifest))
    active = [float(min(getattr(sae.sae.cfg, "k", ACTIVE_GUESS), sae.d_sae)) for sae in saes]
    n_bytes = bytes_of(manifest, contexts.offsets, active)
    return RecordingPlan(manifest, contexts, model, saes, n_bytes, _notes(manifest, saes, config))


def default_dtype(device: str) -> str:
    """What runs on this device unless something else is asked for: half the bits on a GPU."""
    return "bfloat16" if device.startswith("cuda") else "float32"


def _place(name: str) -> str | None:
    """The absolute path of what this name is on disk; None where it is nothing on disk."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else None


def _load_saes(config: RecordingConfig) -> tuple[Any, ...]:
    if not config.saes:
        return ()
    from activation_cache.saes import load_sae  # SAELens takes seconds to import

    return tuple(load_sae(source, config.device, config.dtype) for source in config.saes)


def _same_model(a: str, b: str) -> bool:
    """Whether two names mean one model: their last parts agree, wherever the folders or owners."""
    def last(name: str) -> str:
        return hub_name(name.rstrip("/").rsplit("/", 1)[-1]).rsplit("/", 1)[-1].lower()

    return last(a) == last(b)


def _model_name(config: RecordingConfig, saes: tuple[Any, ...]) -> str:
    told = {sae.source: sae.metadata.model_name for sae in saes if sae.metadata.model_name}
    for source, name in told.items():
        if config.model and not _same_model(config.model, name):
            raise UserError(f"--model {config.model} contradicts the SAE {source}, which was trained on {name}: "
                            "leave --model out, or choose an SAE of that model")
        first = next(iter(told.values()))
        if not _same_model(first, name):
            raise UserError(f"the SAEs are of different models, {first} and {name}: cache them one by one")
    if config.model:
        return config.model
    if not told:
        raise UserError("the SAE does not say which model it is of: give --model" if saes
                        else "no model given: give --model, a hub name such as pythia-70m or a local folder")
    name = next(iter(told.values()))
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise UserError(f"the SAE was trained on a model at {name}, which is not here: give --model with the folder "
                        f"called {Path(name).name} on this machine")
    return name


def _agreed(what: str, given: Any, saes: tuple[Any, ...], default: Any) -> Any:
    """The value that the command line and every SAE agree on; a `UserError` where they contradict each other."""
    told = {sae.source: getattr(sae.metadata, what) for sae in saes if getattr(sae.metadata, what) is not None}
    values = list(told.values())
    if len(set(values)) > 1:
        each = ", ".join(f"{source} has {value}" for source, value in told.items())
        raise UserError(f"the SAEs contradict each other in {what}: {each}; cache them one by one")
    if given is not None and values and given != values[0]:
        raise UserError(f"{what} {given} contradicts the SAE {next(iter(told))}, which was trained with {values[0]}: "
                        "leave the option out")
    return given if given is not None else values[0] if values else default


def _hook_names(config: RecordingConfig, saes: tuple[Any, ...], model: Model) -> tuple[str, ...]:
    told = [sae.metadata.hook_name for sae in saes]
    for sae, hook in zip(saes, told, strict=True):
        if hook is None and len(config.hook_names) != 1:
            raise UserError(f"the SAE {sae.source} does not say which hook it reads: give one --hook-name")
        if hook is not None and config.hook_names and hook not in config.hook_names:
            raise UserError(f"--hook-name {', '.join(config.hook_names)} contradicts the SAE {sae.source}, which reads "
                            f"{hook}: leave --hook-name out")
    names = config.hook_names or tuple(hook for hook in told if hook)
    if not names:
        names = (f"blocks.{max((model.n_layers + 1) // 2 - 1, 0)}.hook_resid_post",)
    names = tuple(dict.fromkeys(names))
    for name in names:
        model.tap_of(name)
    return names


def _context_size(config: RecordingConfig, saes: tuple[Any, ...], model: Model) -> int:
    limit = model.max_context
    default = min(DEFAULT_CONTEXT_SIZE, limit or DEFAULT_CONTEXT_SIZE)
    size = _agreed("context_size", config.context_size, saes, default)
    if limit is not None and size > limit:
        raise UserError(f"a context size of {size} is more than the {limit} positions {model.name} takes")
    return size


def _bos_token(model: Model) -> int:
    for name in ("bos_token_id", "eos_token_id", "cls_token_id"):
        token = getattr(model.tokenizer, name, None)
        if token is not None:
            return token
    raise UserError(f"a BOS is asked for, but the tokenizer of {model.name} has none: record with --no-bos")


def _separator(model: Model) -> int:
    token = model.tokenizer.eos_token_id
    return token if token is not None else _bos_token(model)


def _centered(saes: tuple[Any, ...], hook_names: tuple[str, ...], model: Model) -> bool:
    if len({sae.metadata.centered for sae in saes}) > 1:
        raise UserError("one SAE was trained on a centred residual stream, another was not: cache them one by one")
    centered = bool(saes and saes[0].metadata.centered)
    off = [name for name in hook_names if not ((tap := model.tap_of(name)) and tap.residual)]
    if centered and off:
        raise UserError(f"the SAE was trained with center_writing_weights, which cannot be reproduced at {off[0]}: "
                        "only the residual stream and what is written to it can be centred")
    return centered


def _check_cooccurrence(asked: CooccurrenceEntry, saes: tuple[Any, ...], longest: int) -> None:
    if not saes:
        raise UserError("--cooccurrence is of latents: give an --sae")
    if not asked.lags or min(asked.lags) < 1 or len(set(asked.lags)) < len(asked.lags):
        raise UserError(f"--lags are {asked.lags}: needed one or more, 1 or higher, each once")
    if min(asked.lags) >= longest:
        raise UserError(f"contexts of at most {longest} positions hold no two that are {min(asked.lags)} apart: give "
                        "smaller --lags, or a larger --context-size")
    if (n := min(asked.n_apart(sae.d_sae, len(saes)) for sae in saes)) < 2:
        raise UserError(f"{asked.megabytes} MiB are room for the co-occurrence of {max(n, 0)} latents at "
                        f"{len(asked.lags)} lags: give more --cooccurrence-mb or fewer --lags")


def _widths(model: Model, hook_names: tuple[str, ...], saes: tuple[Any, ...]) -> dict[str, int]:
    """Width of every hook, by one forward of two tokens; every SAE must fit its hook."""
    probe = model.activations(torch.zeros((1, 2), dtype=torch.long, device=model.device), hook_names)
    widths = {name: probe[name].shape[-1] for name in hook_names}
    for sae in saes:
        hook = sae.metadata.hook_name or hook_names[0]
        if sae.d_in != widths[hook]:
            raise UserError(f"the SAE {sae.source} reads {sae.d_in} dimensions, but {hook} of {model.name} has "
                            f"{widths[hook]}: it belongs to another model or hook")
    return widths


def _documents(config: RecordingConfig, documents: Iterable[str] | None) -> tuple[str, Iterable[str]]:
    name = config.dataset or DEFAULT_DATASET
    if documents is not None:
        return config.dataset or "documents", documents
    streaming = config.streaming
    if streaming is None and name == DEFAULT_DATASET:
        streaming = False  # it is small, and once downloaded it is there without a network
    return name, load_documents(name, config.config, config.split, config.column, streaming)


def _entries(saes: tuple[Any, ...], default_hook: str) -> tuple[SaeEntry, ...]:
    return tuple(
        SaeEntry(name, _place(sae.source) or sae.source, sae.metadata.hook_name or default_hook, sae.d_in, sae.d_sae,
                 sae.architecture, sae.identity)
        for sae, name in zip(saes, _distinct([sae.name for sae in saes]), strict=True)
    )


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    counts: dict[str, int] = {}
    out = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{counts[name]}")
    return out


def tokenized(documents: Iterable[str], tokenizer: Any) -> Iterator[list[int]]:
    """Token ids of every document, no special token added."""
    stream = iter(documents)
    while batch := list(itertools.islice(stream, 256)):
        yield from tokenizer(batch, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def cut_contexts(
    documents: Iterable[list[int]], length: int, n_tokens: int | None, name: str, separator: int | None = None
) -> Contexts:
    """Documents cut into contexts of at most `length` tokens, no context holding two documents, until enough.

    With a `separator`, documents are joined by it first, and a context belongs to the document it begins in. Where
    `n_tokens` is None, all there are up to `DEFAULT_TOKENS`. Documents without tokens are left out and not numbered.
    Errors: a `UserError` where there are fewer than asked.
    """
    limit = DEFAULT_TOKENS if n_tokens is None else n_tokens
    pieces, total = [], 0
    for document in documents:
        if document:
            piece = document if separator is None or not pieces else [separator, *document]
            pieces.append(np.asarray(piece[: limit - total], np.int32))
            total += len(pieces[-1])
            if total == limit:
                break
    if total < limit and n_tokens is not None:
        raise UserError(f"{n_tokens:,} tokens were asked for, but {name} has {total:,}: ask for --tokens {total}, or "
                        "give more text")
    if not total:
        raise UserError(f"the dataset {name} is empty: it has no token")
    ends = np.cumsum([len(piece) for piece in pieces])
    if separator is None:
        starts = np.concatenate([np.arange(end - len(piece), end, length)
                                 for piece, end in zip(pieces, ends, strict=True)])
    else:
        starts = np.arange(0, total, length)
    return Contexts(
        np.concatenate(pieces), np.append(starts, total).astype(np.int64),
        np.searchsorted(ends, starts, side="right").astype(np.int64),
    )


def bytes_of(manifest: Manifest, offsets: Int[np.ndarray, "offsets"], active: list[float]) -> int:
    """Bytes of all shards of contexts at these offsets, with so many active latents a position for each SAE."""
    total = 0
    for of_shard in map(manifest.contexts_of, range(manifest.n_shards)):
        n = int(offsets[of_shard.stop] - offsets[of_shard.start])
        total += layout.shard_bytes(manifest, n, len(of_shard), [round(rate * n) for rate in active])
    return total


def _told_apart(manifest: Manifest, entry: SaeEntry) -> str:
    n, lags = manifest.cooccurrence.n_apart(entry.d_sae, len(manifest.saes)), manifest.cooccurrence.lags
    which = "all" if n == entry.d_sae else f"the first {n:,} met, the heaviest of a shard first,"
    return (f"{entry.name}: co-occurrence of {which} of {entry.d_sae:,} latents at lags "
            f"{', '.join(map(str, lags))}, up to {4 * len(lags) * (n + 1) ** 2:,} bytes more")


def _notes(manifest: Manifest, saes: tuple[Any, ...], config: RecordingConfig) -> tuple[str, ...]:
    notes = [f"{sae.name}: no sparse path for {sae.architecture} SAEs, sae.encode is used"
             for sae in saes if not sae.sparse_path]
    if any(not hasattr(sae.sae.cfg, "k") for sae in saes):
        notes.append(f"the bytes count with {ACTIVE_GUESS} active latents a position")
    if manifest.cooccurrence:
        notes += [_told_apart(manifest, entry) for entry in manifest.saes]
    if manifest.centered:
        notes.append("the mean over the width is taken off the residual stream, as in the SAE's training "
                     "(center_writing_weights)")
    if manifest.n_tokens < DEFAULT_TOKENS and config.n_tokens is None:
        notes.append(f"that is all the text there is; the default would be {DEFAULT_TOKENS:,} tokens")
    return tuple(notes)
