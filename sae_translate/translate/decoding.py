"""Decoding: from a latent to items of a language, by the likeliest next item, by beam search or by sampling."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from activation_cache.errors import UserError, choose
from sae_translate.translate.batches import BEGIN, END, N_SIGNS, UNKNOWN, Batch, single
from sae_translate.translate.lm import NgramModel
from sae_translate.translate.network import Latent, Network
from sae_translate.translate.neural_lm import NeuralModel

LanguageModel = NgramModel | NeuralModel
"Of the language that is written."


@dataclass(frozen=True)
class DecodingConfig:
    """How translations are written."""

    method: str = "greedy"
    "greedy, beam or sample."
    beam: int = 4
    "Hypotheses kept by beam search."
    length_penalty: float = 1.0
    "Beam search ranks by log probability / length to this power (Wu et al. 2016, arXiv 1609.08144, section 7)."
    lm_weight: float = 0.0
    "What a language model's log probability of the next item counts in beam search, where one is given."
    rerank_weight: float = 0.0
    "What its log probability of the whole text counts when one of the hypotheses that are left is chosen."
    temperature: float = 1.0
    "Of sampling."
    max_length: int = 60
    seed: int = 0


def most(latent: Latent, config: DecodingConfig) -> int:
    """The longest translation: half as long again as the source and five items, and never beyond the limit."""
    return min(config.max_length, int(1.5 * latent.mask.shape[1]) + 5)


def next_scores(network: Network, side: int, latent: Latent, so_far: Int[Tensor, "b u"]) -> Float[Tensor, "b items"]:
    """Log probabilities of the next item."""
    before = single(so_far, torch.ones_like(so_far, dtype=torch.bool))
    hidden = network.hidden(side, latent, before)[:, -1]
    return network.adapters[side].scores(hidden).log_softmax(-1)


def written(texts: Int[Tensor, "b u"], size: int) -> Batch:
    """A batch of what stands before END; an empty translation becomes UNKNOWN."""
    ended = (texts == size + END).cumsum(1) > 0
    mask = ~ended
    empty = ~mask[:, 0]
    items = texts.clone()
    items[empty, 0] = size + UNKNOWN
    mask = mask.clone()
    mask[:, 0] = True
    length = int(mask.sum(1).max())
    return single(items[:, :length], mask[:, :length])


def _step_by_step(
    network: Network,
    side: int,
    latent: Latent,
    config: DecodingConfig,
    pick: Callable[[Float[Tensor, "b items"]], Int[Tensor, "b"]],
) -> Batch:
    size = network.adapters[side].size
    texts = torch.full((len(latent.mask), 1), size + BEGIN, device=latent.mask.device)
    ended = torch.zeros(len(texts), dtype=torch.bool, device=texts.device)
    past = None
    for _ in range(most(latent, config)):
        before = single(texts, torch.ones_like(texts, dtype=torch.bool))
        hidden, past = network.hidden_next(side, latent, before, past)
        item = pick(network.adapters[side].scores(hidden))
        texts = torch.cat([texts, item.masked_fill(ended, size + END)[:, None]], dim=1)
        ended |= item == size + END
        if ended.all():
            break
    return written(texts[:, 1:], size)


def _greedy(network: Network, side: int, latent: Latent, config: DecodingConfig, model: LanguageModel | None) -> Batch:
    return _step_by_step(network, side, latent, config, lambda scores: scores.argmax(-1))


def _sample(network: Network, side: int, latent: Latent, config: DecodingConfig, model: LanguageModel | None) -> Batch:
    generator = torch.Generator().manual_seed(config.seed)

    def pick(scores: Float[Tensor, "b items"]) -> Int[Tensor, "b"]:
        chances = (scores / max(config.temperature, 1e-6)).softmax(-1).cpu()
        return torch.multinomial(chances, 1, generator=generator)[:, 0].to(scores.device)

    return _step_by_step(network, side, latent, config, pick)


def _beam(network: Network, side: int, latent: Latent, config: DecodingConfig, model: LanguageModel | None) -> Batch:
    size, k, n = network.adapters[side].size, config.beam, len(latent.mask)
    wide = Latent(latent.vectors.repeat_interleave(k, 0), latent.mask.repeat_interleave(k, 0), latent.divergence)
    device = latent.mask.device
    texts = torch.full((n * k, 1), size + BEGIN, device=device)
    total = torch.full((n, k), -torch.inf, device=device)
    total[:, 0] = 0.0
    ended = torch.zeros(n, k, dtype=torch.bool, device=device)
    lengths = torch.zeros(n, k, device=device)
    for _ in range(most(latent, config)):
        scores = next_scores(network, side, wide, texts)
        if model is not None and config.lm_weight:
            scores = scores + config.lm_weight * fluency(model, texts, size).to(scores)
        scores = scores.view(n, k, -1)
        stay = torch.full_like(scores, -torch.inf)
        stay[..., size + END] = 0.0
        grown = total[..., None] + torch.where(ended[..., None], stay, scores)
        reach = lengths + (~ended).float()
        ranked = grown / reach.clamp_min(1)[..., None] ** config.length_penalty
        best = ranked.view(n, -1).topk(k, dim=1).indices
        parent, item = best // scores.shape[-1], best % scores.shape[-1]
        rows = (parent + torch.arange(n, device=device)[:, None] * k).flatten()
        texts = torch.cat([texts[rows], item.flatten()[:, None]], dim=1)
        total = grown.view(n, -1).gather(1, best)
        lengths = reach.gather(1, parent)
        ended = ended.gather(1, parent) | (item == size + END)
        if ended.all():
            break
    if model is not None and config.rerank_weight:
        total = total + config.rerank_weight * whole_fluency(model, texts[:, 1:], size).view(n, k).to(total)
    final = (total / lengths.clamp_min(1) ** config.length_penalty).argmax(1)
    return written(texts.view(n, k, -1)[torch.arange(n, device=device), final][:, 1:], size)


def fluency(model: LanguageModel, texts: Int[Tensor, "n u"], size: int) -> Float[Tensor, "n items"]:
    """Log P(next item | text) under the language model, for every item; END stands where the network has it, other
    signs cost of n-grams as much as the least likely item."""
    if isinstance(model, NeuralModel):
        return model.next_scores(texts)
    past = texts.cpu().numpy()
    past = np.where(past == size + BEGIN, model.begin, np.where(past < size, past, -1))[:, -(model.order - 1) :]
    items = np.append(np.arange(size), model.end)
    found = model.log_probability(past, np.tile(items, (len(past), 1)))
    scores = np.repeat(found.min(axis=1, keepdims=True), size + N_SIGNS, axis=1)
    scores[:, :size], scores[:, size + END] = found[:, :-1], found[:, -1]
    return torch.from_numpy(scores)


def whole_fluency(model: LanguageModel, texts: Int[Tensor, "n u"], size: int) -> Float[Tensor, "n"]:
    """Log P(text) under the language model, its end included, of texts without BEGIN; n-grams pass signs by."""
    ended = (texts == size + END).cumsum(1) > 0
    if isinstance(model, NeuralModel):
        return model.score(single(texts, ~ended))
    rows = [row[(row < size) & ~over] for row, over in zip(texts.cpu().numpy(), ended.cpu().numpy(), strict=True)]
    return torch.from_numpy(model.score(rows))


METHODS: dict[str, Callable[[Network, int, Latent, DecodingConfig, LanguageModel | None], Batch]] = {
    "greedy": _greedy,
    "beam": _beam,
    "sample": _sample,
}


@torch.no_grad()
def translate_batch(
    network: Network,
    origin: int,
    batch: Batch,
    config: DecodingConfig = DecodingConfig(),
    model: LanguageModel | None = None,
) -> Batch:
    """The batch, of side `origin`, in the other side's language. The network must be in evaluation mode for exactness.

    Raises UserError where the method is unknown, or a beam is asked of a backbone whose output stands at the input.
    """
    write = choose(METHODS, config.method, "decoding method")
    latent = network.encode(origin, batch)
    side = 1 - origin
    if not network.aligned:
        return write(network, side, latent, config, model)
    if config.method != "greedy":
        raise UserError(f"a backbone whose output stands at the positions of the input has no {config.method} search: "
                        "choose greedy")  # fmt: skip
    return network.adapters[side].read(network.hidden(side, latent), batch)


def copy_unknown(translated: list[str], unknown: str, source_unknown: list[str]) -> list[str]:
    """The translation with its unknown words replaced by the source's, in their order; those left over fall away."""
    waiting = iter(source_unknown)
    words = [next(waiting, "") if word == unknown else word for word in translated]
    return [word for word in words if word]
