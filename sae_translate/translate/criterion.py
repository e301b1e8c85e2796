"""The unsupervised criterion: is a text the same after a round trip, and does its translation read like the language?

Neither alone is enough: any one-to-one renaming of items survives a round trip, and a network that always tells the
same fluent sentence reads well. Autoencoder loss is no criterion: it is perfect where nothing is aligned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from sae_translate.translate.batches import Batch
from sae_translate.translate.decoding import DecodingConfig, translate_batch
from sae_translate.translate.lm import NgramModel
from sae_translate.translate.network import Network


@dataclass(frozen=True)
class Criterion:
    """How well a network seems to translate, judged without a pair; figures of the source's way, then the target's."""

    round_trip: tuple[float, float]
    "1 - edit distance / length, of held-out text after translation there and back."
    fluency: tuple[float, float]
    "Perplexity of real text over that of the translations of this side's text, under the other's model; at most 1."

    @property
    def value(self) -> float:
        """The mean over both ways of round trip times fluency; from 0 to 1, higher is better."""
        return float(np.mean([trip * reads for trip, reads in zip(self.round_trip, self.fluency, strict=True)]))


def edit_distance(first: Int[np.ndarray, "n"], second: Int[np.ndarray, "m"]) -> int:
    """Fewest insertions, deletions and replacements that make one sequence of the other (Levenshtein)."""
    row = np.arange(len(second) + 1)
    steps = np.arange(len(second) + 1)
    for i, item in enumerate(first, start=1):
        kept = np.concatenate([[i], np.minimum(row[1:] + 1, row[:-1] + (second != item))])
        row = np.minimum.accumulate(kept - steps) + steps
    return int(row[-1])


def similarity(first: Sequence[Int[np.ndarray, "_"]], second: Sequence[Int[np.ndarray, "_"]]) -> float:
    """1 - edit distance / length of the longer, over all segments together."""
    distance = sum(edit_distance(a, b) for a, b in zip(first, second, strict=True))
    return 1 - distance / max(1, sum(max(len(a), len(b)) for a, b in zip(first, second, strict=True)))


def texts_in(batch: Batch) -> list[Int[np.ndarray, "_"]]:
    """The heaviest items of every segment of a batch, signs included."""
    items, lengths = batch.heaviest.cpu().numpy(), batch.mask.sum(1).tolist()
    return [row[:length] for row, length in zip(items, lengths, strict=True)]


def perplexity(model: NgramModel, texts: Sequence[Int[np.ndarray, "_"]]) -> float:
    """Per item, ends included; signs are left out of the texts."""
    plain = [text[text < model.size].astype(np.int64) for text in texts]
    return float(np.exp(-model.score(plain).sum() / sum(len(text) + 1 for text in plain)))


def judge_network(
    network: Network, held_out: tuple[Batch, Batch], models: tuple[NgramModel, NgramModel], max_length: int
) -> Criterion:
    """The criterion on held-out text of both sides. Leaves the network in the mode it was in."""
    config = DecodingConfig(max_length=max_length)
    was_training = network.training
    network.eval()
    trips, reads = [], []
    with torch.no_grad():
        for side, batch in enumerate(held_out):
            there = translate_batch(network, side, batch, config)
            back = translate_batch(network, 1 - side, there, config)
            trips.append(similarity(texts_in(batch), texts_in(back)))
            other = models[1 - side]
            real = perplexity(other, texts_in(held_out[1 - side]))
            reads.append(min(1.0, real / perplexity(other, texts_in(there))))
    network.train(was_training)
    return Criterion((trips[0], trips[1]), (reads[0], reads[1]))
