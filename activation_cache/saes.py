"""SAEs by name or folder: a SAELens release `release/sae_id`, a SAELens folder, or a sparsify folder."""

import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from activation_cache.errors import UserError, nearest
from activation_cache.hub import hub_error, look_for_hub
from activation_cache.text import looks_like_path

GROUP = 16
"Latents that share a maximum in the first stage of the two-stage top-k."
BLOCK_BYTES = 1 << 28
"Most memory for the encoder's dense output; more positions are encoded block by block."
LARGEST_HALF, SMALLEST_HALF = np.float32(65504.0), np.float32(2.0**-24)


@dataclass(frozen=True)
class SaeMetadata:
    """What an SAE knows of how it was trained; None where it does not say."""

    model_name: str | None = None
    hook_name: str | None = None
    context_size: int | None = None
    prepend_bos: bool | None = None
    dataset: str | None = None
    centered: bool = False
    "Whether it was trained on a residual stream whose mean over the width was taken off (center_writing_weights)."


@dataclass(frozen=True)
class SparseLatents:
    """Latents of some positions in the types that are stored."""

    matrix: sparse.csr_array
    "float32 values that float16 can hold, sorted indices, no explicit zeros."
    saturated: int
    "Values beyond float16, cut to its largest number."


@dataclass(frozen=True)
class Room:
    """Memory that serves every batch again: fresh pages cost a tenth of what the encoder computes into them."""

    held: dict[str, Tensor]
    "By what it is for."

    def take(self, purpose: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor whose content is whatever was there; it is taken away by the next call for the same purpose."""
        held, size = self.held.get(purpose), math.prod(shape)
        if held is None or held.numel() < size:
            self.held[purpose] = held = torch.empty(size, dtype=dtype, device=device)
        return held[:size].view(shape)


@dataclass(frozen=True)
class LoadedSae:
    """An SAE ready to encode, with what its metadata knows."""

    name: str
    source: str
    sae: Any
    "The SAELens object."
    metadata: SaeMetadata
    identity: str
    "sha256 of its weights."

    @property
    def d_in(self) -> int:
        return self.sae.cfg.d_in

    @property
    def d_sae(self) -> int:
        return self.sae.cfg.d_sae

    @property
    def architecture(self) -> str:
        return self.sae.cfg.architecture()

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_in"]:
        return self.sae.W_dec.detach()

    @property
    def sparse_path(self) -> bool:
        """Whether latents are selected without a dense matrix of them; otherwise `sae.encode` is called."""
        return self.architecture in SPARSE_PATHS

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Dense latents, by the SAE's own `encode`."""
        with torch.no_grad():
            return self.sae.encode(self._shaped(x))

    def encode_sparse(self, x: Float[Tensor, "n d_in"]) -> SparseLatents:
        """Active latents of every position, equal to `encode` to the rounding of float16."""
        return stored(*(part.cpu() for part in self.entries(x)), (len(x), self.d_sae))

    def entries(self, x: Float[Tensor, "n d_in"]) -> "Entries":
        """Active latents of every position, on the SAE's device; those with value 0 are none."""
        blocks = x.split(max(1, BLOCK_BYTES // (self.d_sae * self.sae.dtype.itemsize)))
        path = SPARSE_PATHS.get(self.architecture)
        with torch.no_grad():
            found = [path(self.sae, block, self._room) if path else _nonzero(self.encode(block)) for block in blocks]
        firsts = np.cumsum([0, *(len(block) for block in blocks)])
        rows = torch.cat([rows + int(first) for first, (rows, _, _) in zip(firsts, found, strict=False)])
        columns, values = (torch.cat([entries[part] for entries in found]) for part in (1, 2))
        return rows, columns, values

    @cached_property
    def _room(self) -> "Room":
        return Room({})

    def _shaped(self, x: Float[Tensor, "*batch d_in"]) -> Tensor:
        """The shape its encode wants: SAEs of hook_z take (heads, d_head), which they then flatten again."""
        return x.unsqueeze(-2) if self.sae.cfg.reshape_activations == "hook_z" else x


def load_sae(source: str | os.PathLike, device: str = "cpu", dtype: str = "float32") -> LoadedSae:
    """An SAE by its folder (SAELens or sparsify), SAELens' `release/sae_id`, or `owner/repo/path` of the hub.

    Errors: a `UserError` where there is no such SAE, its files are not those of an SAE, or its kind cannot be cached.
    """
    folder = Path(source).expanduser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SAELens warns of model_from_pretrained_kwargs, which are honoured here
        if folder.is_dir():
            sae, hook_name = _from_folder(folder, device, dtype)
            name = folder.resolve().name
        elif looks_like_path(str(source)) and str(source).startswith((".", "/", "~")):
            raise UserError(f"no such SAE folder: {source}")
        else:
            sae, hook_name = _from_release(str(source), device, dtype), None
            name = str(source)
    sae.eval()
    if sae.cfg.architecture() == "temporal":
        raise UserError(f"{source} is a temporal SAE, whose latents depend on the whole context: not supported")
    return LoadedSae(name, str(source), sae, _metadata(sae, hook_name), _identity(sae))


def _from_folder(folder: Path, device: str, dtype: str) -> tuple[Any, str | None]:
    files = {path.name for path in folder.iterdir()}
    for weights, load in FOLDER_KINDS.items():
        if {"cfg.json", weights} <= files:
            try:
                return load(folder, device, dtype)
            except UserError:
                raise
            except Exception as error:  # whatever a file that is not what its name says makes the loaders raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"{folder} could not be loaded as an SAE: {reason}") from None
    inner = sorted(path.parent.relative_to(folder) for path in folder.glob("**/cfg.json"))
    if inner:
        raise UserError(f"{folder} is no SAE itself but holds some: give one of {', '.join(map(str, inner[:8]))}")
    raise UserError(f"{folder} is no SAE: needed cfg.json with one of {', '.join(FOLDER_KINDS)}, "
                    f"found {', '.join(sorted(files)[:8]) or 'nothing'}")


def _from_saelens(folder: Path, device: str, dtype: str) -> tuple[Any, None]:
    from sae_lens import SAE  # takes seconds to import, and a recording without SAEs does not need it

    return SAE.load_from_disk(folder, device=device, dtype=dtype), None


def _from_sparsify(folder: Path, device: str, dtype: str) -> tuple[Any, str | None]:
    """A sparsify SAE (github.com/EleutherAI/sparsify): relu, then the k largest, of an encoder fed x - b_dec.

    Its decoder is (d_sae, d_in) as ours; one found transposed is turned. A folder named after a module is its hook.
    """
    from sae_lens import TopKSAE, TopKSAEConfig
    from safetensors.torch import load_file

    raw = json.loads((folder / "cfg.json").read_text())
    weights = load_file(folder / "sae.safetensors", device=device)
    if raw.get("activation", "topk") != "topk":
        raise UserError(f"{folder} is a sparsify SAE with activation {raw['activation']!r}: only topk can be read")
    d_sae, d_in = weights["encoder.weight"].shape
    decoder = weights["W_dec"]
    config = TopKSAEConfig(
        d_in=d_in, d_sae=d_sae, k=int(raw["k"]), dtype=dtype, device=device,
        apply_b_dec_to_input=not raw.get("transcode", False),
    )
    sae = TopKSAE(config)
    sae.load_state_dict({
        "W_enc": weights["encoder.weight"].T.contiguous(),
        "b_enc": weights["encoder.bias"],
        "W_dec": decoder if decoder.shape == (d_sae, d_in) else decoder.T.contiguous(),
        "b_dec": weights["b_dec"],
    })
    run = folder.parent / "config.json"
    told = json.loads(run.read_text()) if run.is_file() else {}
    sae.cfg.metadata.model_name = told.get("model")
    sae.cfg.metadata.context_size = told.get("ctx_len")
    sae.cfg.metadata.dataset_path = told.get("dataset")
    sae.cfg.metadata.prepend_bos = None
    named_hook = re.fullmatch(r"(?:[a-z_]+\.)*(?:layers|h|blocks)\.\d+(?:\.\w+)*|embed_tokens", folder.resolve().name)
    return sae, folder.resolve().name if named_hook else None


FOLDER_KINDS: dict[str, Callable[[Path, str, str], tuple[Any, str | None]]] = {
    "sae_weights.safetensors": _from_saelens,
    "sae.safetensors": _from_sparsify,
}


def _from_release(source: str, device: str, dtype: str) -> Any:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    releases = get_pretrained_saes_directory()
    parts = source.split("/")
    release, sae_id = parts[0], "/".join(parts[1:])
    if release not in releases and len(parts) > 2:
        release, sae_id = "/".join(parts[:2]), "/".join(parts[2:])
    elif release not in releases:
        raise UserError(
            f"no SAE {source!r}: it is no folder here, and {release!r} is no release of SAELens. "
            f"{nearest(release, releases)} Give release/sae_id, owner/repository/path, or a folder"
        )
    elif sae_id not in releases[release].saes_map:
        known = list(releases[release].saes_map)
        hint = nearest(sae_id, known) or f"it has {', '.join(known[:4])}{', ...' if len(known) > 4 else ''}"
        raise UserError(f"the release {release} has no SAE {sae_id!r}: {hint}")
    look_for_hub()
    try:
        return SAE.from_pretrained(release, sae_id, device=device, dtype=dtype)
    except Exception as error:  # the hub's libraries raise a dozen kinds; all mean that the SAE cannot be had
        raise hub_error("SAE", source, error) from None


def _metadata(sae: Any, hook_name: str | None) -> SaeMetadata:
    told = sae.cfg.metadata
    if told.hook_head_index is not None:
        raise UserError(f"the SAE reads head {told.hook_head_index} of {told.hook_name} alone: not supported")
    loading = told.model_from_pretrained_kwargs or {}
    return SaeMetadata(
        model_name=told.model_name,
        hook_name=hook_name or told.hook_name,
        context_size=told.context_size,
        prepend_bos=told.prepend_bos,
        dataset=told.dataset_path,
        centered=bool(loading.get("center_writing_weights", False)),
    )


def _identity(sae: Any) -> str:
    digest = hashlib.sha256(repr((sae.cfg.architecture(), getattr(sae.cfg, "k", None))).encode())
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


Entries = tuple[Tensor, Tensor, Tensor]
"Rows, columns and values of the active latents, rows in order and columns in order within a row."


def _hidden(sae: Any, x: Float[Tensor, "n d_in"], bias: Tensor, room: Room) -> Float[Tensor, "n d_sae"]:
    """The encoder's product, in the room's memory."""
    x = sae.run_time_activation_norm_fn_in(x.to(sae.dtype))
    x = x - sae.b_dec if sae.cfg.apply_b_dec_to_input else x
    out = room.take("hidden", (len(x), sae.cfg.d_sae), x.dtype, x.device)
    return torch.addmm(bias, x, sae.W_enc, out=out)


def _topk_entries(sae: Any, x: Float[Tensor, "n d_in"], room: Room) -> Entries:
    hidden = _hidden(sae, x, sae.b_enc, room)
    if sae.cfg.rescale_acts_by_decoder_norm:
        hidden *= sae.W_dec.norm(dim=-1)
    return (largest_on_cpu if hidden.device.type == "cpu" else largest_on_device)(hidden, sae.cfg.k)


def largest_on_device(hidden: Float[Tensor, "n d"], k: int) -> Entries:
    """The k largest values of every row, on whatever device they are, 0 for those that are not above it.

    How many are is not looked at: that would have to be waited for.
    """
    values, columns = top_k(hidden, k)
    columns, order = columns.sort(dim=-1)
    rows = torch.arange(len(hidden), device=hidden.device)[:, None].expand_as(columns)
    return rows.flatten(), columns.flatten(), values.gather(-1, order).clamp_min(0).flatten()


def top_k(hidden: Float[Tensor, "n d"], k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of every row and their columns, in no order: exact, in two stages.

    Strided groups of `GROUP` columns are ranked by their maximum; the k largest values lie in the k best groups.
    """
    n, d = hidden.shape
    n_groups = d // GROUP
    if d % GROUP or n_groups <= k:
        return hidden.topk(k, dim=-1, sorted=False)
    grouped = hidden.view(n, GROUP, n_groups)
    groups = grouped.amax(dim=1).topk(k, dim=-1, sorted=False).indices
    candidates = grouped.gather(2, groups[:, None, :].expand(n, GROUP, k)).reshape(n, GROUP * k)
    values, place = candidates.topk(k, dim=-1, sorted=False)
    return values, place // k * n_groups + groups.gather(1, place % k)


BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
"Integers of a float's width: those of positive floats are in the floats' order, and above those of all others."
HALF_KEY, NO_KEY = 32, np.iinfo(np.int64).max


def largest_on_cpu(hidden: Float[Tensor, "n d"], k: int) -> Entries:
    """The k largest values of every row that are above 0, of equal ones those of the lowest columns.

    The k-th highest maximum of groups of columns is a floor under the k largest values. What reaches it lies in little
    more than k strided groups of `GROUP`, and is little more than k values, which are sorted as integers, row by row.
    """
    bits, (n, d) = hidden.view(BITS[hidden.dtype]), hidden.shape
    size = GROUP if d % GROUP == 0 and d // GROUP > k else 1
    n_groups = d // size
    highest = bits.view(n, size, n_groups).amax(dim=1)
    coarse = highest.view(n, 4, -1).amax(dim=1) if n_groups % 4 == 0 and n_groups >= 8 * k else highest
    floors = np.maximum(np.partition(coarse.numpy(), -k, axis=1)[:, -k], 1)
    rows, groups = np.divmod(np.flatnonzero(highest.numpy() >= floors[:, None]), n_groups)
    columns = groups[:, None] + np.arange(0, d, n_groups)
    found = bits.numpy().reshape(-1).take(rows[:, None] * d + columns)
    inside = np.flatnonzero(found >= floors[rows, None])
    rows, columns, found = rows[inside // size], columns.reshape(-1)[inside], found.reshape(-1)[inside]
    counts = np.bincount(rows, minlength=n)
    keys = np.full((n, max(counts.max(initial=0), 1)), NO_KEY)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys[rows, slots] = (np.iinfo(np.int32).max - found.astype(np.int64)) << HALF_KEY | columns
    keys.sort(axis=1)
    best = keys[:, :k]
    falling, columns = np.divmod(best, 1 << HALF_KEY)
    by_column = np.where(best == NO_KEY, NO_KEY, columns << HALF_KEY | falling)
    by_column.sort(axis=1)
    rows, place = np.nonzero(by_column != NO_KEY)
    columns, falling = np.divmod(by_column[rows, place], 1 << HALF_KEY)
    values = (np.iinfo(np.int32).max - falling).astype(found.dtype)
    return torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(values).view(hidden.dtype)


def _relu_entries(sae: Any, x: Float[Tensor, "n d_in"], room: Room) -> Entries:
    return _above(_hidden(sae, x, sae.b_enc, room), torch.zeros_like(sae.b_enc), room)


def _jumprelu_entries(sae: Any, x: Float[Tensor, "n d_in"], room: Room) -> Entries:
    return _above(_hidden(sae, x, sae.b_enc, room), sae.threshold.clamp_min(0), room)


def _gated_entries(sae: Any, x: Float[Tensor, "n d_in"], room: Room) -> Entries:
    """The gate's own product serves both paths: the magnitude's weights are the gate's times exp(r_mag)."""
    rows, columns, gated = _above(_hidden(sae, x, sae.b_gate, room), torch.zeros_like(sae.b_gate), room)
    values = (gated - sae.b_gate[columns]) * sae.r_mag.exp()[columns] + sae.b_mag[columns]
    active = values > 0
    return rows[active], columns[active], values[active]


def _above(hidden: Float[Tensor, "n d_sae"], floors: Float[Tensor, "d_sae"], room: Room) -> Entries:
    """What lies above its column's floor."""
    mask = torch.gt(hidden, floors, out=room.take("mask", hidden.shape, torch.bool, hidden.device))
    return _selected(mask, hidden)


def _selected(mask: Tensor, values: Float[Tensor, "n d_sae"]) -> Entries:
    if mask.device.type == "cpu":
        flat = torch.from_numpy(np.flatnonzero(mask.numpy()))  # several times faster than torch.nonzero
    else:
        flat = mask.flatten().nonzero().squeeze(1)
    return flat // mask.shape[1], flat % mask.shape[1], values.flatten()[flat]


def _nonzero(latents: Float[Tensor, "n d_sae"]) -> Entries:
    return _selected(latents != 0, latents)


SPARSE_PATHS: dict[str, Callable[[Any, Tensor, Room], Entries]] = {
    "topk": _topk_entries,
    "standard": _relu_entries,
    "jumprelu": _jumprelu_entries,  # BatchTopK and matryoshka SAEs are saved as this
    "gated": _gated_entries,
}
"Architectures whose active latents are selected straight from the encoder's output."


def stored(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> SparseLatents:
    """Entries, on a CPU, as CSR of float16 values: cut to its range, and never so small that an active latent vanishes.

    Entries of value 0 are left out.
    """
    data = values.float().numpy()
    active = np.flatnonzero(data)
    data = data[active]
    saturated = int((np.abs(data) > LARGEST_HALF).sum())
    data = np.copysign(np.clip(np.abs(data), SMALLEST_HALF, LARGEST_HALF), data).astype(np.float16).astype(np.float32)
    counts = np.bincount(rows.numpy()[active], minlength=shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = columns.numpy()[active].astype(np.int32)
    return SparseLatents(sparse.csr_array((data, indices, indptr), shape=shape), saturated)
