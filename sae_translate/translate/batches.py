"""Segments of a corpus as padded tensors, whatever a position holds; and their corruption."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_translate.languages.language import Corpus
from sae_translate.translate.config import NoiseConfig

BLANK, BEGIN, END, UNKNOWN = range(4)
"Signs that every vocabulary has besides its items: sign s is item `size + s`."
N_SIGNS = 4


@dataclass(frozen=True)
class Batch:
    """Segments side by side: at every position a weighted set of items, of one item where the language is text."""

    items: Int[Tensor, "b t k"]
    weights: Float[Tensor, "b t k"]
    "0 where a position has fewer than k items."
    mask: Bool[Tensor, "b t"]
    "False behind the end of a segment."

    @property
    def heaviest(self) -> Int[Tensor, "b t"]:
        """The item of the greatest weight at every position."""
        return self.items.gather(2, self.weights.argmax(2, keepdim=True))[:, :, 0]

    def to(self, device: str) -> "Batch":
        return Batch(self.items.to(device), self.weights.to(device), self.mask.to(device))


def batch_of(corpus: Corpus, segments: Int[np.ndarray, "b"]) -> Batch:
    """These segments of a corpus. A position that holds no item is UNKNOWN, of weight 1."""
    size = corpus.matrix.shape[1]
    begins, lengths = corpus.segments[segments], corpus.segments[segments + 1] - corpus.segments[segments]
    steps = np.arange(max(1, lengths.max(initial=0)))
    mask = steps < lengths[:, None]
    positions = (begins[:, None] + steps)[mask]
    offsets = corpus.matrix.indptr.astype(np.int64)
    counts = offsets[positions + 1] - offsets[positions]
    k = max(1, int(counts.max(initial=1)))
    held = np.arange(k) < counts[:, None]
    found = np.where(held, offsets[positions][:, None] + np.arange(k), 0)
    items = np.zeros((*mask.shape, k), np.int64)
    weights = np.zeros((*mask.shape, k), np.float32)
    if len(corpus.matrix.indices):
        items[mask] = np.where(held, corpus.matrix.indices[found], 0)
        weights[mask] = np.where(held, corpus.matrix.data[found], 0)
    empty = mask & (weights.sum(axis=2) == 0)
    items[empty, 0], weights[empty, 0] = size + UNKNOWN, 1.0
    return Batch(torch.from_numpy(items), torch.from_numpy(weights), torch.from_numpy(mask))


def single(items: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Batch:
    """A batch of one item a position."""
    return Batch(items[:, :, None], mask[:, :, None].float(), mask)


def reorder(batch: Batch, order: Int[Tensor, "b t"]) -> Batch:
    """The positions of every segment in another order."""
    wide = order[:, :, None].expand_as(batch.items)
    return Batch(batch.items.gather(1, wide), batch.weights.gather(1, wide), batch.mask.gather(1, order))


def corrupt(batch: Batch, size: int, noise: NoiseConfig, generator: torch.Generator, aligned: bool) -> Batch:
    """A copy with positions left out, blanked and locally shuffled (Lample et al. 2018, arXiv 1711.00043, section 2.3).

    With `aligned` no position moves: what would be left out is blanked. At least one position of a segment is left.
    """

    def uniform() -> Float[Tensor, "b t"]:
        return torch.rand(batch.mask.shape, generator=generator).to(batch.mask.device)

    lost, blanked = uniform() < noise.drop, uniform() < noise.blank
    if aligned:
        return _blank(batch, size, lost | blanked)
    place = torch.arange(batch.mask.shape[1], device=batch.mask.device) + noise.shuffle * uniform()
    moved = reorder(_blank(batch, size, blanked), place.masked_fill(~batch.mask, torch.inf).argsort(1))
    lost[:, 0] = False
    kept = moved.mask & ~lost
    packed = reorder(replace(moved, mask=kept), (~kept).int().argsort(dim=1, stable=True))
    length = int(packed.mask.sum(1).max())
    return Batch(packed.items[:, :length], packed.weights[:, :length], packed.mask[:, :length])


def _blank(batch: Batch, size: int, blanked: Bool[Tensor, "b t"]) -> Batch:
    first = torch.arange(batch.items.shape[2], device=batch.items.device) == 0
    hidden = blanked[:, :, None]
    items = batch.items.masked_fill(hidden & first, size + BLANK)
    weights = torch.where(hidden, first.float(), batch.weights)
    return Batch(items, weights * batch.mask[:, :, None], batch.mask)


def short_segments(corpus: Corpus, longest: int) -> Int[np.ndarray, "kept"]:
    """The segments that are neither empty nor longer than this."""
    lengths = np.diff(corpus.segments)
    return np.flatnonzero((lengths > 0) & (lengths <= longest))
