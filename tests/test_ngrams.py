"""N-gram models are distributions, and decoding with them is the search it says it is."""

from itertools import product

import numpy as np
import pytest

from activation_cache.errors import UserError
from sae_translate.translate.lm import Index, decode_positions, fit_ngrams


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
    candidates = [rng.permuted(np.tile(np.arange(12), (length, 1)), axis=1)[:, :3] for length in (1, 5, 4, 0)]
    likelihood = [np.log(rng.random(options.shape)) for options in candidates]
    told = decode_positions(candidates, likelihood, model, 0.7)
    for options, log, found in zip(candidates, likelihood, told, strict=True):

        def total(choice, options=options, log=log):
            words = np.array([row[c] for row, c in zip(options, choice, strict=True)], int)
            channel = sum(row[c] for row, c in zip(log, choice, strict=True))
            return channel + 0.7 * model.score([words])[0], tuple(words.tolist())

        assert tuple(found.tolist()) == max(total(choice) for choice in product(range(3), repeat=len(options)))[1]


def test_an_item_without_a_candidate_gives_minus_one_and_the_model_looks_past_it(texts):
    model = fit_ngrams(texts, 12, 2)
    candidates = np.array([[4, 5], [-1, -1], [4, 5]])
    likelihood = np.array([[-0.1, -0.2], [-np.inf, -np.inf], [-0.1, -0.2]])
    (found,) = decode_positions([candidates], [likelihood], model)
    (apart,) = decode_positions([candidates[[0, 2]]], [likelihood[[0, 2]]], model)
    assert found[1] == -1 and np.array_equal(found[[0, 2]], apart)


def test_without_a_language_model_every_position_gets_its_likeliest_candidate(texts):
    (found,) = decode_positions([np.array([[7, 2], [3, 9]])], [np.log([[0.6, 0.4], [0.3, 0.7]])],
                                fit_ngrams(texts, 12, 2), 0.0)  # fmt: skip
    assert found.tolist() == [7, 9]


def test_no_text_and_an_order_out_of_range_are_errors(texts):
    with pytest.raises(UserError, match="every segment is empty"):
        fit_ngrams([np.array([], int)], 12, 2)
    with pytest.raises(UserError, match="order 9 was asked for: choose 1 to 5"):
        fit_ngrams(texts, 12, 9)


def test_an_index_tells_where_every_key_stands_and_that_others_do_not():
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 10_000, 3_000) * 1_000_003)[::-1].copy()
    index = Index(keys)
    assert np.array_equal(index.find(keys[None])[0], np.arange(len(keys)))
    absent = np.setdiff1d(np.arange(20_000) * 1_000_003, keys)
    assert (index.find(absent) == -1).all()
    assert np.array_equal(Index(keys[:1]).find(keys[:3]), [0, -1, -1])
