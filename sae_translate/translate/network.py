"""The network: adapters of two languages around one backbone. Only the decoder is told which language it speaks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from activation_cache.errors import UserError
from sae_translate.languages.language import Language
from sae_translate.translate.adapters import AdapterSpec, Dense, Symbols, WeightedSets, build_adapter
from sae_translate.translate.backbones import build_backbone
from sae_translate.translate.batches import BEGIN, END, Batch, single
from sae_translate.translate.config import TranslatorConfig
from sae_translate.translate.losses import divergence


@dataclass(frozen=True)
class Latent:
    """What the encoder makes of a batch: the interlingua."""

    vectors: Float[Tensor, "b t d"]
    mask: Bool[Tensor, "b t"]
    divergence: Float[Tensor, ""]
    "Of a variational latent from the standard normal, beyond the free bits; 0 where the latent is not variational."

    @property
    def positions(self) -> Float[Tensor, "n d"]:
        """The vectors of the positions that are there."""
        return self.vectors[self.mask]


class Network(nn.Module):
    """Two languages, one interlingua. Side 0 is the source, side 1 the target."""

    def __init__(self, specs: tuple[AdapterSpec, AdapterSpec], config: TranslatorConfig):
        super().__init__()
        self.backbone = build_backbone(config.backbone)
        self.aligned: bool = self.backbone.aligned
        self.free_bits = config.training.free_bits
        odd = next((spec.modality for spec in specs if spec.modality != "symbols"), None)
        if not self.aligned and odd is not None:
            raise UserError(
                f"the backbone {config.backbone.name} writes symbol after symbol and cannot write {odd}: "
                "choose feedforward or tagger, whose output stands at the positions of the input"
            )
        d = self.backbone.d_model
        self.adapters = nn.ModuleList(build_adapter(spec, d, config.training.label_smoothing) for spec in specs)
        self.speaks = nn.Parameter(0.02 * torch.randn(2, d))
        self.variational = nn.Linear(d, 2 * d) if config.losses.bottleneck.is_used else None

    def encode(self, side: int, batch: Batch) -> Latent:
        """The latent of a batch of one side; sampled where it is variational and the network trains."""
        vectors = self.backbone.encode(self.adapters[side].embed(batch), batch.mask)
        if self.variational is None:
            return Latent(vectors, batch.mask, vectors.new_zeros(()))
        mean, log_variance = self.variational(vectors).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-8, 8)
        cost = divergence(mean[batch.mask], log_variance[batch.mask], self.free_bits)
        if self.training:
            mean = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return Latent(mean, batch.mask, cost)

    def hidden(self, side: int, latent: Latent, before: Batch | None = None) -> Float[Tensor, "b u d"]:
        """What the decoder, speaking this side's language, holds at every position of its output.

        `before` is the text so far, which begins with BEGIN, where output is written symbol after symbol.
        """
        if self.aligned:
            previous = self.speaks[side].expand_as(latent.vectors)
        else:
            previous = self.adapters[side].embed(before) + self.speaks[side]
        return self.backbone.decode(previous, latent.vectors, latent.mask)

    def hidden_next(
        self, side: int, latent: Latent, before: Batch, past: Any = None
    ) -> tuple[Float[Tensor, "b d"], Any]:
        """What `hidden` is at the last position of `before`, and what to give as `past` with one position more.

        A backbone that can go on from what it has computed is not run over the earlier positions again.
        """
        go_on = getattr(self.backbone, "decode_next", None)
        if go_on is None:
            return self.hidden(side, latent, before)[:, -1], None
        last = Batch(before.items[:, -1:], before.weights[:, -1:], before.mask[:, -1:])
        found, past = go_on(self.adapters[side].embed(last) + self.speaks[side], latent.vectors, latent.mask, past)
        return found[:, -1], past

    def loss(self, side: int, latent: Latent, truth: Batch) -> Float[Tensor, ""]:
        """What it costs to tell `truth` in this side's language."""
        adapter = self.adapters[side]
        if self.aligned:
            return adapter.loss(self.hidden(side, latent), truth)
        return adapter.loss(self.hidden(side, latent, opened(truth, adapter.size)), closed(truth, adapter.size))


def opened(batch: Batch, size: int) -> Batch:
    """The text with BEGIN before it, as long as it is with its end."""
    begin = torch.full_like(batch.items[:, :1, 0], size + BEGIN)
    items = torch.cat([begin, batch.items[:, :, 0]], dim=1)
    return single(items, torch.cat([batch.mask.new_ones(len(items), 1), batch.mask], dim=1))


def closed(batch: Batch, size: int) -> Batch:
    """The text with END after it."""
    items = torch.cat([batch.items[:, :, 0], torch.zeros_like(batch.items[:, :1, 0])], dim=1)
    lengths = batch.mask.sum(1, keepdim=True)
    items = items.scatter(1, lengths, size + END)
    mask = torch.cat([batch.mask.new_ones(len(items), 1), batch.mask], dim=1)
    return single(items, mask)


def seeded_network(
    languages: tuple[Language, Language],
    specs: tuple[AdapterSpec, AdapterSpec],
    coupling: Float[np.ndarray, "source target"] | None,
    config: TranslatorConfig,
) -> Network:
    """A fresh network; with an alignment's coupling, items that translate each other have the same embedding.

    A source embedding is the mean of the target's, weighted by P(target | source).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        network = Network(specs, config)
    for adapter, language in zip(network.adapters, languages, strict=True):
        if isinstance(adapter, Dense):
            adapter.vectors.copy_(torch.from_numpy(np.asarray(language.vectors, np.float32)))
    mapped = [adapter for adapter in network.adapters if isinstance(adapter, Symbols | WeightedSets)]
    if coupling is not None and len(mapped) == 2:
        map_embeddings(mapped[0], mapped[1], coupling)
    return network.to(config.training.device)


def map_embeddings(
    source: Symbols | WeightedSets, target: Symbols | WeightedSets, coupling: Float[np.ndarray, "source target"]
) -> None:
    """Set the source's embeddings to the mean of those of its translations, at the length a random one has."""
    joint = torch.from_numpy(coupling).float()
    with torch.no_grad():
        mean = joint @ target.embedding.weight[: target.size]
        found = joint.sum(1) > 0
        mean = mean / mean.norm(dim=1, keepdim=True).clamp_min(1e-12)
        rows: Int[Tensor, n] = torch.nonzero(found)[:, 0]
        source.embedding.weight[rows] = mean[rows]
        source.embedding.weight[source.size :] = target.embedding.weight[target.size :]
