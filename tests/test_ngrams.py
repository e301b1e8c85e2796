"""N-gram models are distributions, and decoding with them is the search it says it is."""

from itertools import product

import numpy as np
import pytest

from activation_cache.errors import UserError
from sae_translate.translate.lm import Channel, channel_of, decode_words, fit_ngrams


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [rng.choice(12, size=rng.integers(0, 9), p=rng.dirichlet(np.ones(12))) for _ in range(200)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one_after_every_context_seen_or_not(texts, order):
    model = fit_ngrams(texts, 12, order)
    for context in ([12, 12, 12], [12, 3, 4], [5, 5, 11], [-1, -1, 2], [1, 2, 3]):
        rows = np.tile(context, (13, 1))
        items = np.array([*range(12), model.end])
        probability = np.exp(model.log_probability(rows, items))
        assert probability.sum() == pytest.approx(1.0) and probability.min() > 0


def test_a_bigram_model_is_interpolated_kneser_ney():
    model = fit_ngrams([np.array([0, 1, 0, 1, 0, 2])], 3, 2)
    # bigrams: begin-0, 0-1 twice, 1-0 twice, 0-2, 2-end; three of five occur once, two occur twice
    discount = 3 / (3 + 2 * 2)
    contexts_of_1, added, total = 1, 0.5, 5 + 0.5 * 4
    expected = (2 - discount) / 3 + (discount * 2 / 3) * (contexts_of_1 + added) / total
    assert np.exp(model.log_probability(np.array([[0]]), np.array([1])))[0] == pytest.approx(expected)


def test_the_score_of_a_segment_is_the_sum_over_its_items_and_its_end(texts):
    model = fit_ngrams(texts, 12, 3)
    text = np.array([3, 4])
    context = np.array([[12, 12], [12, 3], [3, 4]])
    by_hand = model.log_probability(context, np.array([3, 4, model.end])).sum()
    assert model.score([np.array([], int), text])[1] == pytest.approx(by_hand)


def test_decoding_with_a_bigram_model_finds_the_best_of_all_translations(texts):
    model = fit_ngrams(texts, 12, 2)
    rng = np.random.default_rng(1)
    channel = channel_of(rng.dirichlet(np.full(12, 0.5), size=8).astype(np.float32) / 8, k=3)
    sources = [rng.integers(0, 8, size=length) for length in (1, 5, 4, 0)]
    for source, found in zip(sources, decode_words(sources, channel, model, 0.7), strict=True):

        def total(choice, source=source):
            told = sum(channel.log_likelihood[x, c] for x, c in zip(source, choice, strict=True))
            words = np.array([channel.candidates[x, c] for x, c in zip(source, choice, strict=True)], int)
            return told + 0.7 * model.score([words])[0], tuple(words.tolist())

        assert tuple(found.tolist()) == max(total(choice) for choice in product(range(3), repeat=len(source)))[1]


def test_an_item_without_a_candidate_gives_minus_one_and_the_model_looks_past_it(texts):
    model = fit_ngrams(texts, 12, 2)
    channel = Channel(np.array([[4, 5], [-1, -1]]), np.array([[-0.1, -0.2], [-np.inf, -np.inf]]))
    (found,) = decode_words([np.array([0, 1, 0])], channel, model)
    (apart,) = decode_words([np.array([0, 0])], channel, model)
    assert found[1] == -1 and np.array_equal(found[[0, 2]], apart)


def test_without_a_language_model_every_word_gets_the_target_that_tells_it_best(texts):
    coupling = np.array([[0.3, 0.1], [0.3, 0.3]], np.float32)
    channel = channel_of(coupling)
    (found,) = decode_words([np.array([0, 1])], channel, fit_ngrams(texts, 12, 2), 0.0)
    assert found.tolist() == [0, 1]


def test_no_text_and_an_order_out_of_range_are_errors(texts):
    with pytest.raises(UserError, match="every segment is empty"):
        fit_ngrams([np.array([], int)], 12, 2)
    with pytest.raises(UserError, match="order 9 was asked for: choose 1 to 5"):
        fit_ngrams(texts, 12, 9)
