"""Decoding against a network whose scores are known: every search finds what it says it finds."""

from functools import cache
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from steps import finished

from activation_cache.errors import UserError
from sae_translate.languages.text import corpus_of
from sae_translate.translate.adapters import AdapterSpec
from sae_translate.translate.batches import END, UNKNOWN, single
from sae_translate.translate.config import BackboneConfig, TrainingConfig, TranslatorConfig
from sae_translate.translate.decoding import DecodingConfig, copy_unknown, fluency, translate_batch, whole_fluency
from sae_translate.translate.lm import NgramModel, fit_ngrams
from sae_translate.translate.network import Latent, Network
from sae_translate.translate.neural_lm import NeuralModel, fit_neural

SIZE, BOUND = 3, 7


class Chain(Network):
    """Writes by a table: the score of the next item given the last one and the source's first item."""

    aligned = False
    backbone = None

    def __init__(self, seed: int = 0):
        torch.nn.Module.__init__(self)
        table = torch.randn(SIZE, SIZE + 4, SIZE + 4, generator=torch.Generator().manual_seed(seed))
        table[..., [SIZE, SIZE + 1, SIZE + 3]] = -1e4
        self.table = table
        self.adapters = [SimpleNamespace(size=SIZE, scores=lambda hidden: hidden)] * 2

    def encode(self, side, batch):
        return Latent(batch.items.float(), batch.mask, torch.zeros(()))

    def hidden(self, side, latent, before):
        return self.table[latent.vectors[:, 0, 0].long()[:, None], before.items[:, :, 0]]

    def log_probability(self, source: int, text: tuple[int, ...]) -> float:
        rows = self.table[source].log_softmax(-1)
        return float(sum(rows[a, b] for a, b in zip((SIZE + 1, *text[:-1]), text, strict=True)))


SOURCES = single(torch.tensor([[0], [1], [2]]), torch.ones(3, 1, dtype=torch.bool))
"Of length 1, so that translations have at most six items."


def texts(batch) -> list[tuple[int, ...]]:
    return [tuple(row[keep].tolist()) for row, keep in zip(batch.items[:, :, 0], batch.mask, strict=True)]


def test_greedy_takes_the_likeliest_next_item_until_the_end():
    chain = Chain()
    for source, text in enumerate(texts(translate_batch(chain, 0, SOURCES))):
        last, by_hand = SIZE + 1, []
        while len(by_hand) < 6:
            last = int(chain.table[source, last].argmax())
            if last == SIZE + END:
                break
            by_hand.append(last)
        assert text == (tuple(by_hand) or (SIZE + UNKNOWN,))


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_keeps_everything_finds_the_best_of_all_texts(seed):
    chain = Chain(seed)
    config = DecodingConfig("beam", beam=700, length_penalty=0.0, max_length=5)
    ends = [
        (*text, SIZE + END) for length in range(5) for text in product(range(SIZE), repeat=length)
    ] + list(product(range(SIZE), repeat=5))  # fmt: skip
    for source, found in enumerate(texts(translate_batch(chain, 0, SOURCES, config))):
        best = max(ends, key=lambda text: chain.log_probability(source, text))
        expected = best[:-1] if best[-1] == SIZE + END else best
        assert found == (expected or (SIZE + UNKNOWN,))


@torch.no_grad()
@pytest.mark.parametrize("name", ["xtransformers", "encoder_decoder"])
def test_going_on_from_what_was_computed_writes_what_computing_all_anew_does(name):
    torch.manual_seed(0)
    specs = AdapterSpec("symbols", 9), AdapterSpec("symbols", 9)
    network = Network(specs, TranslatorConfig(backbone=BackboneConfig(name, d_model=32, depth=2, heads=2))).eval()
    mask = torch.arange(6) < torch.tensor([[6], [3], [1]])
    latent = network.encode(0, single(torch.randint(9, (3, 6)), mask))
    texts, past = torch.randint(9, (3, 8)), None
    for length in range(1, 9):
        before = single(texts[:, :length], torch.ones(3, length, dtype=torch.bool))
        found, past = network.hidden_next(1, latent, before, past)
        assert torch.allclose(found, network.hidden(1, latent, before)[:, -1], atol=1e-5)


def test_a_beam_of_one_is_greedy():
    for seed in range(4):
        chain = Chain(seed)
        beam = translate_batch(chain, 0, SOURCES, DecodingConfig("beam", beam=1))
        assert texts(beam) == texts(translate_batch(chain, 0, SOURCES))


def test_sampling_follows_the_network_and_its_seed_and_is_greedy_when_cold():
    chain = Chain()
    many = single(torch.zeros(4000, 1, dtype=torch.int64), torch.ones(4000, 1, dtype=torch.bool))
    drawn = translate_batch(chain, 0, many, DecodingConfig("sample", seed=1))
    first = torch.bincount(drawn.items[:, 0, 0], minlength=SIZE + 4) / 4000
    chances = chain.table[0, SIZE + 1].softmax(-1)
    assert torch.allclose(first[:SIZE], chances[:SIZE], atol=0.03)
    again = translate_batch(chain, 0, many, DecodingConfig("sample", seed=1))
    assert torch.equal(drawn.items, again.items)
    cold = translate_batch(chain, 0, SOURCES, DecodingConfig("sample", temperature=1e-4))
    assert texts(cold) == texts(translate_batch(chain, 0, SOURCES))


def test_a_strong_language_model_overrules_the_network_in_beam_search():
    model = fit_ngrams([np.array([2, 0, 1])] * 50, SIZE, 2)
    config = DecodingConfig("beam", beam=8, lm_weight=50.0, length_penalty=0.0)
    assert texts(translate_batch(Chain(), 0, SOURCES, config, model)) == [(2, 0, 1)] * 3


TOLD = ("201", "201", "01", "1")
"What the language models have read."


def ngrams() -> NgramModel:
    return fit_ngrams([np.array([int(item) for item in text]) for text in TOLD], SIZE, 2)


@cache
def neural() -> NeuralModel:
    steps = fit_neural(corpus_of(TOLD, ("0", "1", "2")), BackboneConfig(d_model=16, depth=1, heads=2),
                       TrainingConfig(steps=40, batch_size=8, lr=1e-2, warmup=5))  # fmt: skip
    return finished(steps)[0]


def ending(seed: int) -> Chain:
    """A chain whose texts are short, so that no limit cuts them."""
    chain = Chain(seed)
    chain.table[..., SIZE + END] += 1.0
    return chain


@pytest.mark.parametrize("make", [ngrams, neural])
def test_a_language_model_of_weight_nothing_changes_nothing(make):
    for method in ("greedy", "beam"):
        config = DecodingConfig(method, beam=3)
        assert texts(translate_batch(Chain(), 0, SOURCES, config, make())) == texts(
            translate_batch(Chain(), 0, SOURCES, config)
        )


@pytest.mark.parametrize("make", [ngrams, neural])
@pytest.mark.parametrize(("step", "whole"), [(0.7, 0.0), (0.0, 0.7), (0.3, 0.4)])
def test_a_beam_that_keeps_everything_finds_the_best_sum_of_network_and_language_model(make, step, whole):
    chain, model = ending(3), make()
    config = DecodingConfig("beam", beam=400, length_penalty=0.0, max_length=5, lm_weight=step, rerank_weight=whole)
    ends = [(*text, SIZE + END) for length in range(5) for text in product(range(SIZE), repeat=length)]
    padded = torch.tensor([[*text, *[SIZE + END] * (5 - len(text))] for text in ends])
    reads = whole_fluency(model, padded, SIZE)
    for source, found in enumerate(texts(translate_batch(chain, 0, SOURCES, config, model))):
        sums = [chain.log_probability(source, text) + 0.7 * float(read) for text, read in zip(ends, reads, strict=True)]
        assert found == (ends[int(np.argmax(sums))][:-1] or (SIZE + UNKNOWN,))


@pytest.mark.parametrize("make", [ngrams, neural])
@pytest.mark.parametrize("name", ["lm_weight", "rerank_weight"])
def test_the_more_a_language_model_counts_the_likelier_it_finds_the_translation(make, name):
    model, found = make(), []
    for weight in (0.0, 0.5, 1.0, 4.0):
        config = DecodingConfig("beam", beam=400, length_penalty=0.0, max_length=5, **{name: weight})
        told = [translate_batch(ending(seed), 0, SOURCES, config, model).items[:, :, 0] for seed in range(3)]
        rows = [text.where(text < SIZE, SIZE + END) for text in told]
        found.append(sum(float(whole_fluency(model, row, SIZE).sum()) for row in rows))
    assert found == sorted(found) and found[-1] > found[0] + 1


@pytest.mark.parametrize("make", [ngrams, neural])
def test_the_fluency_of_a_text_is_the_sum_of_its_items_and_its_end(make):
    model = make()
    by_hand = sum(
        fluency(model, torch.tensor([[SIZE + 1, *(2, 0, 1)[:place]]]), SIZE)[0, item]
        for place, item in enumerate((2, 0, 1, SIZE + END))
    )
    whole = whole_fluency(model, torch.tensor([[2, 0, 1, SIZE + END, SIZE + END]]), SIZE)
    assert float(whole) == pytest.approx(float(by_hand), rel=1e-5)


def test_fluency_is_the_language_model_s_next_item():
    model = fit_ngrams([np.array([0, 1, 2]), np.array([0, 2])], SIZE, 3)
    scores = fluency(model, torch.tensor([[SIZE + 1, 0]]), SIZE)[0]
    by_hand = model.log_probability(np.array([[model.begin, 0]] * 4), np.array([0, 1, 2, model.end]))
    assert np.allclose(scores[[0, 1, 2, SIZE + END]], by_hand)


def test_unknown_words_are_copied_in_their_order_and_those_too_many_fall_away():
    assert copy_unknown(["the", "?", "and", "?", "?"], "?", ["Ob", "Xu"]) == ["the", "Ob", "and", "Xu"]


def test_an_unknown_method_is_an_error_that_names_the_known_ones():
    with pytest.raises(UserError, match="unknown decoding method 'beams': choose one of greedy, beam, sample"):
        translate_batch(Chain(), 0, SOURCES, DecodingConfig("beams"))
