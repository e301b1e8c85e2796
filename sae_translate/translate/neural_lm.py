"""A neural language model over item ids: a causal transformer (x-transformers) taught by the text of one language."""

from collections.abc import Generator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from activation_cache.errors import UserError
from sae_translate.languages.language import Corpus
from sae_translate.translate.adapters import Symbols
from sae_translate.translate.backbones import transformer_layers
from sae_translate.translate.batches import Batch, batch_of, short_segments, single
from sae_translate.translate.config import BackboneConfig, TrainingConfig
from sae_translate.translate.network import closed, opened

SMALL = BackboneConfig(d_model=64, depth=2, heads=2)
BRIEF = TrainingConfig(steps=500, lr=2e-3, warmup=50)


class NeuralModel(nn.Module):
    """P(item | all items before), with the signs that a translator has too, numbered alike."""

    def __init__(self, size: int, config: BackboneConfig):
        super().__init__()
        from x_transformers import Decoder

        self.size = size
        self.adapter = Symbols(size, config.d_model)
        self.body = Decoder(**transformer_layers(config))

    def hidden(self, before: Batch) -> Float[Tensor, "b u d"]:
        return self.body(self.adapter.embed(before), mask=before.mask)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Cross entropy (nats an item, the end counted as one)."""
        return self.adapter.loss(self.hidden(opened(batch, self.size)), closed(batch, self.size))

    def next_scores(self, texts: Int[Tensor, "n u"]) -> Float[Tensor, "n items"]:
        """log P(next item | text), of texts that start with BEGIN."""
        before = single(texts, torch.ones_like(texts, dtype=torch.bool))
        return self.adapter.scores(self.hidden(before)[:, -1]).log_softmax(-1)

    @torch.no_grad()
    def score(self, batch: Batch) -> Float[Tensor, "b"]:
        """Log probability of every segment, its end included."""
        ended = closed(batch, self.size)
        scores = self.adapter.scores(self.hidden(opened(batch, self.size))).log_softmax(-1)
        return (scores.gather(2, ended.items)[:, :, 0] * ended.mask).sum(1)


def fit_neural(
    corpus: Corpus, backbone: BackboneConfig = SMALL, training: TrainingConfig = BRIEF
) -> Generator[float, None, NeuralModel]:
    """Learn from the segments of a corpus of one item a position; the loss of every step, then the model.

    Raises UserError where no segment is of 1 to `max_length` positions.
    """
    rows = short_segments(corpus, training.max_length)
    if not len(rows):
        raise UserError(f"no text to learn a language model from: no segment has 1 to {training.max_length} positions")
    rng = np.random.default_rng(training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = NeuralModel(corpus.matrix.shape[1], backbone).to(training.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.lr)
    for number in range(training.steps):
        optimiser.param_groups[0]["lr"] = training.rate(number)
        batch = batch_of(corpus, rng.choice(rows, training.batch_size)).to(training.device)
        with torch.random.fork_rng(devices=[training.device] if training.device.startswith("cuda") else []):
            torch.manual_seed(training.seed * 1_000_003 + number)
            loss = model.loss(batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimiser.step()
        yield loss.item()
    return model.eval()
