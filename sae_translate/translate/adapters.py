"""Adapters: how items of a language enter the network, and how the network's hidden states are read as items.

symbols         one item a position: words, subwords, codes, hidden-Markov symbols
weighted_sets   several items with weights: SAE latents; out by a multi-label head and a magnitude head
dense           vectors (activations, by the vector of their code); out by a vector, read as the nearest code
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from activation_cache.errors import UserError, choose
from sae_translate.languages.language import Language
from sae_translate.translate.batches import BEGIN, BLANK, N_SIGNS, Batch


@dataclass(frozen=True)
class AdapterSpec:
    """What has to be known of a language to build its adapter."""

    modality: str
    size: int
    "Items of the vocabulary."
    most_items: int = 1
    "Items at a position, at most."
    mean_weight: float = 1.0
    "Of the items that are there."
    width: int = 0
    "Of the items' vectors, where the modality is dense."


def positions_mean(values: Float[Tensor, "b t"], batch: Batch) -> Float[Tensor, ""]:
    """The mean over positions that are there."""
    return (values * batch.mask).sum() / batch.mask.sum().clamp_min(1)


class Symbols(nn.Module):
    """An embedding, used both ways."""

    def __init__(self, size: int, d_model: int, label_smoothing: float = 0.0):
        super().__init__()
        self.size, self.label_smoothing = size, label_smoothing
        self.embedding = nn.Embedding(size + N_SIGNS, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.bias = nn.Parameter(torch.zeros(size + N_SIGNS))
        never = torch.zeros(size + N_SIGNS)
        never[[size + BLANK, size + BEGIN]] = -1e4
        self.register_buffer("never", never, persistent=False)

    def embed(self, batch: Batch) -> Float[Tensor, "b t d"]:
        vectors = (self.embedding(batch.items) * batch.weights[..., None]).sum(2)
        return vectors * self.embedding.embedding_dim**0.5

    def scores(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n items"]:
        """A logit per item and sign; a blank and a beginning are never said."""
        return functional.linear(hidden, self.embedding.weight, self.bias + self.never)

    def loss(self, hidden: Float[Tensor, "b t d"], batch: Batch) -> Float[Tensor, ""]:
        """Cross entropy (nats a position)."""
        there = batch.mask  # the classes lie last and positions that are padding are left out: half the time
        return functional.cross_entropy(
            self.scores(hidden[there]), batch.items[:, :, 0][there], label_smoothing=self.label_smoothing
        )

    def read(self, hidden: Float[Tensor, "b t d"], batch: Batch) -> Batch:
        """The likeliest item of every position of `batch`, whose mask alone is looked at."""
        items = self.scores(hidden).argmax(-1, keepdim=True)
        return Batch(items, batch.mask[:, :, None].float(), batch.mask)


class WeightedSets(nn.Module):
    """In by the weighted sum of embeddings; out by which items there are and how strong each is."""

    def __init__(self, size: int, d_model: int, k: int, scale: float):
        super().__init__()
        self.size, self.k, self.scale = size, k, scale
        self.embedding = nn.Embedding(size + N_SIGNS, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.bias = nn.Parameter(torch.full((size,), -3.0))
        self.magnitude = nn.Linear(d_model, size)

    def embed(self, batch: Batch) -> Float[Tensor, "b t d"]:
        weights = torch.where(batch.items < self.size, batch.weights / self.scale, batch.weights)
        return (self.embedding(batch.items) * weights[..., None]).sum(2) * self.embedding.embedding_dim**0.5

    def scores(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n items"]:
        """A logit per item of being there at all."""
        return hidden @ self.embedding.weight[: self.size].T + self.bias

    def loss(self, hidden: Float[Tensor, "b t d"], batch: Batch) -> Float[Tensor, ""]:
        """Binary cross entropy over items (nats a position), and squared error of the log weights of those there."""
        shape = (*batch.items.shape[:2], self.size + N_SIGNS)
        weights = torch.zeros(shape, device=hidden.device).scatter_add_(2, batch.items, batch.weights)[..., : self.size]
        there = weights > 0
        present = functional.binary_cross_entropy_with_logits(self.scores(hidden), there.float(), reduction="none")
        apart = self.magnitude(hidden) - (weights / self.scale).clamp_min(1e-3).log()
        strength = (apart**2 * there).sum(2) / there.sum(2).clamp_min(1)
        return positions_mean(present.sum(2) + strength, batch)

    def read(self, hidden: Float[Tensor, "b t d"], batch: Batch) -> Batch:
        """The items more likely there than not, the k likeliest at most and one at least."""
        best = self.scores(hidden).topk(min(self.k, self.size), dim=-1)
        there = best.values > 0
        there[..., 0] = True
        weights = self.magnitude(hidden).gather(2, best.indices).exp() * self.scale
        return Batch(best.indices, weights * there * batch.mask[:, :, None], batch.mask)


class Dense(nn.Module):
    """In by the weighted sum of the items' own vectors; out by a vector, read as the item whose vector is nearest."""

    def __init__(self, vectors: Float[Tensor, "items e"], d_model: int):
        super().__init__()
        self.size = len(vectors)
        self.register_buffer("vectors", vectors)
        self.signs = nn.Embedding(N_SIGNS, d_model)
        self.enter, self.leave = nn.Linear(vectors.shape[1], d_model), nn.Linear(d_model, vectors.shape[1])

    def vectors_of(self, batch: Batch) -> Float[Tensor, "b t e"]:
        """The vector that stands at every position; 0 at a sign."""
        weights = batch.weights * (batch.items < self.size)
        return (self.vectors[batch.items.clamp_max(self.size - 1)] * weights[..., None]).sum(2)

    def embed(self, batch: Batch) -> Float[Tensor, "b t d"]:
        sign = batch.items[:, :, 0] - self.size
        is_sign = (sign >= 0)[..., None]
        return torch.where(is_sign, self.signs(sign.clamp_min(0)), self.enter(self.vectors_of(batch)))

    def scores(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n items"]:
        """Minus half the squared distance to every item's vector, up to what is the same for all items."""
        return self.leave(hidden) @ self.vectors.T - 0.5 * (self.vectors**2).sum(1)

    def loss(self, hidden: Float[Tensor, "b t d"], batch: Batch) -> Float[Tensor, ""]:
        """Squared error of the vector, a dimension; positions that hold a sign are left out."""
        error = ((self.leave(hidden) - self.vectors_of(batch)) ** 2).mean(2)
        return positions_mean(error * (batch.items[:, :, 0] < self.size), batch)

    def read(self, hidden: Float[Tensor, "b t d"], batch: Batch) -> Batch:
        items = self.scores(hidden).argmax(-1, keepdim=True)
        return Batch(items, batch.mask[:, :, None].float(), batch.mask)


Adapter = Symbols | WeightedSets | Dense


def _symbols(spec: AdapterSpec, d_model: int, label_smoothing: float) -> Symbols:
    return Symbols(spec.size, d_model, label_smoothing)


def _weighted_sets(spec: AdapterSpec, d_model: int, label_smoothing: float) -> WeightedSets:
    return WeightedSets(spec.size, d_model, spec.most_items, spec.mean_weight)


def _dense(spec: AdapterSpec, d_model: int, label_smoothing: float) -> Dense:
    return Dense(torch.zeros(spec.size, spec.width), d_model)


MODALITIES: dict[str, Callable[[AdapterSpec, int, float], Adapter]] = {
    "symbols": _symbols,
    "weighted_sets": _weighted_sets,
    "dense": _dense,
}


def spec_of(language: Language, modality: str | None = None) -> AdapterSpec:
    """What an adapter for this language must be; without a modality, symbols where no position holds two items, else
    weighted_sets.

    Raises UserError where the language is empty, the modality is unknown or does not fit the language.
    """
    matrix = language.corpus.matrix
    if not matrix.nnz:
        raise UserError(f"{language.name} is empty: it holds no item at any position; give text")
    most = int(np.diff(matrix.indptr).max())
    modality = modality or ("symbols" if most == 1 else "weighted_sets")
    choose(MODALITIES, modality, "modality")
    if modality == "symbols" and most > 1:
        raise UserError(f"{language.name} holds {most} items at a position, which symbols cannot: use weighted_sets")
    if modality == "dense" and language.vectors is None:
        raise UserError(f"{language.name} has no vectors, which the dense modality needs: use symbols")
    width = language.vectors.shape[1] if modality == "dense" else 0
    return AdapterSpec(modality, len(language.items), most, float(matrix.data.mean()), width)


def build_adapter(spec: AdapterSpec, d_model: int, label_smoothing: float = 0.0) -> Adapter:
    """A fresh adapter; the vectors of a dense one are still to be filled in."""
    return MODALITIES[spec.modality](spec, d_model, label_smoothing)
