"""Laws of matching by what both have read: partners are found on disjoint text, unrelated latents are withheld."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from activation_cache.errors import UserError
from sae_translate.align.anchors import AnchorsConfig, align_by_anchors, around, regression
from sae_translate.align.moments import in_standard_deviations
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.text import one_item_per_position

TOKENS, LATENTS, POSITIONS, CONTEXT = 60, 40, 12_000, 50
SEGMENTS = np.arange(0, POSITIONS + 1, CONTEXT)


def corpus(matrix: sparse.csr_array) -> Corpus:
    return Corpus(matrix, SEGMENTS, np.arange(len(SEGMENTS) - 1))


def text(seed: int) -> np.ndarray:
    """Token ids, some far more frequent than others."""
    share = 1 / np.arange(1, TOKENS + 1)
    return np.random.default_rng(seed).choice(TOKENS, size=POSITIONS, p=share / share.sum())


def meaning(seed: int = 3) -> np.ndarray:
    """What every latent answers to: a few tokens, here or just before."""
    rng = np.random.default_rng(seed)
    return (rng.random((2, LATENTS, TOKENS)) < 0.06) * rng.random((2, LATENTS, TOKENS))


def model(seed: int, order: np.ndarray, means: np.ndarray) -> tuple[Language, Language]:
    """Latents in an order of the model's own, with noise, over a text of its own; and that text."""
    tokens = text(seed)
    before = np.roll(tokens, 1)
    before[SEGMENTS[:-1]] = 0
    noise = np.random.default_rng(seed + 100).random((POSITIONS, LATENTS)) < 0.02
    active = means[0][:, tokens].T + means[1][:, before].T + 0.5 * noise
    latents = sparse.csr_array(active[:, order].astype(np.float32))
    read = one_item_per_position(tokens, TOKENS)
    return (Language("latents", tuple(map(str, range(LATENTS))), corpus(latents)),
            Language("text", tuple(f"t{i}" for i in range(TOKENS)), corpus(read)))  # fmt: skip


@pytest.fixture(scope="module")
def pair():
    orders = [np.random.default_rng(seed).permutation(LATENTS) for seed in (5, 6)]
    (first, read), (second, other) = (model(seed, order, meaning()) for seed, order in enumerate(orders))
    partner = np.array([int(np.flatnonzero(orders[1] == latent)[0]) for latent in orders[0]])
    return first, second, read, other, partner


def test_latents_of_two_models_are_matched_on_texts_that_share_no_document(pair):
    *sides, partner = pair
    alignment = align_by_anchors(*sides)
    assert alignment.verdict.believed
    assert (alignment.best()[:, 0] == partner).mean() > 0.9
    assert alignment.coupling.sum() == pytest.approx(1, abs=1e-4)
    assert 0.3 < alignment.confidence.mean() <= 1


def test_tokens_are_known_by_their_names_and_not_by_their_place(pair):
    first, second, read, other, partner = pair
    order = np.random.default_rng(9).permutation(TOKENS)
    matrix = sparse.csr_array(other.corpus.matrix[:, order])
    moved = Language("moved", tuple(other.items[i] for i in order), corpus(matrix))
    assert (align_by_anchors(first, second, read, moved).best()[:, 0] == partner).mean() > 0.9


def test_tokens_under_wrong_names_are_not_believed(pair):
    first, second, read, other, _ = pair
    wrong = replace(other, items=tuple(np.random.default_rng(2).permutation(other.items).tolist()))
    alignment = align_by_anchors(first, second, read, wrong)
    assert not alignment.verdict.believed and (alignment.confidence == 0).all()


def test_latents_of_noise_are_not_believed(pair):
    first, _, read, other, _ = pair
    noise = sparse.random_array((POSITIONS, LATENTS), density=0.05, rng=np.random.default_rng(1), format="csr")
    second = Language("noise", first.items, corpus(sparse.csr_array(noise.astype(np.float32))))
    assert not align_by_anchors(first, second, read, other).verdict.believed


def test_latents_that_fire_somewhere_in_the_same_contexts_are_not_believed(pair):
    """Topics alone: the right latents in the right contexts, at positions of no meaning."""
    first, second, read, other, _ = pair
    moved = replace(second, corpus=second.corpus.shuffled(second.corpus.segment_of_position, np.random.default_rng(0)))
    alignment = align_by_anchors(first, moved, read, other)
    assert not alignment.verdict.believed
    assert align_by_anchors(first, second, read, other).objective > alignment.objective + 0.3


def test_means_around_a_token_are_those_counted_by_hand():
    active = np.array([[1.0], [0.0], [3.0], [0.0]], np.float32)
    small = Corpus(sparse.csr_array(active), np.array([0, 2, 4]), np.arange(2))
    read = one_item_per_position(np.array([0, 1, 1, 0]), 2)
    mean, spread = active.mean(), active.std()
    active = in_standard_deviations(small)
    here, count = around(active, small.segments, read, 0)
    assert count.tolist() == [2, 2]
    assert here[0] == pytest.approx([(0.5 - mean) / spread, (1.5 - mean) / spread])
    # the latent stands one position before the token, in one segment
    ahead, count = around(active, small.segments, read, 1)
    assert count.tolist() == [1, 1]
    assert ahead[0] == pytest.approx([(3.0 - mean) / spread, (1.0 - mean) / spread])


def test_the_ridge_is_light_where_there_is_no_noise_and_heavy_where_there_is_nothing_else():
    rng = np.random.default_rng(0)
    weights, target = rng.normal(size=(5, 8)), rng.normal(size=(8, 400))
    assert np.allclose(regression(weights @ target, target), weights, atol=1e-2)
    assert np.abs(regression(rng.normal(size=(5, 400)), target)).mean() < 0.05


def test_texts_that_do_not_fit_are_one_clear_line(pair):
    first, second, read, other, _ = pair
    short = Language("short", other.items, Corpus(other.corpus.matrix[:50], np.array([0, 50]), np.zeros(1, np.int64)))
    with pytest.raises(UserError, match="same positions"):
        align_by_anchors(first, second, read, short)
    foreign = replace(other, items=tuple(f"u{i}" for i in range(TOKENS)))
    with pytest.raises(UserError, match="share 0 tokens"):
        align_by_anchors(first, second, read, foreign)
    with pytest.raises(UserError, match="give more text"):
        align_by_anchors(first, second, read, other, AnchorsConfig(min_count=1e6))
