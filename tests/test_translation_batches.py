"""Batches hold what the corpus holds; corruption loses no more than it says."""

import numpy as np
import torch
from scipy import sparse

from sae_translate.languages.language import Corpus
from sae_translate.translate.batches import BLANK, UNKNOWN, batch_of, corrupt, short_segments
from sae_translate.translate.config import NoiseConfig

SIZE = 9


def text(*segments: list[int]) -> Corpus:
    """A corpus of one item a position; a negative item leaves its position empty."""
    items = np.array([item for segment in segments for item in segment])
    matrix = sparse.lil_array((len(items), SIZE), dtype=np.float32)
    for position, item in enumerate(items):
        if item >= 0:
            matrix[position, item] = 1
    bounds = np.concatenate([[0], np.cumsum([len(segment) for segment in segments])])
    return Corpus(sparse.csr_array(matrix), bounds, np.arange(len(segments)))


def test_a_batch_holds_the_segments_asked_for_in_their_order():
    batch = batch_of(text([1, 2, 3], [4], [5, -1]), np.array([2, 0]))
    assert batch.items[:, :, 0].masked_fill(~batch.mask, -9).tolist() == [[5, SIZE + UNKNOWN, -9], [1, 2, 3]]


def test_a_position_of_several_items_keeps_all_of_them_with_their_weights():
    matrix = sparse.csr_array(np.array([[0, 2, 0, 5], [0, 0, 0, 0], [1, 0, 0, 0]], np.float32))
    batch = batch_of(Corpus(matrix, np.array([0, 3]), np.array([0])), np.array([0]))
    dense = torch.zeros(1, 3, 8).scatter_add_(2, batch.items, batch.weights)[0]
    assert torch.equal(dense[:, :4], torch.from_numpy(matrix.toarray()))
    assert dense[1].nonzero()[:, 0].tolist() == [4 + UNKNOWN]
    assert batch.heaviest.tolist() == [[3, 4 + UNKNOWN, 0]]


def test_without_noise_nothing_changes():
    batch = batch_of(text([1, 2, 3], [4], [5, 6]), np.arange(3))
    for aligned in (True, False):
        same = corrupt(batch, SIZE, NoiseConfig(0.0, 0.0, 0.0), torch.Generator().manual_seed(0), aligned)
        assert torch.equal(same.items, batch.items) and torch.equal(same.mask, batch.mask)


def test_dropping_keeps_the_order_and_leaves_at_least_one_position():
    batch = batch_of(text(list(range(9)), [3]), np.arange(2))
    generator = torch.Generator().manual_seed(0)
    lengths = []
    for _ in range(50):
        shorter = corrupt(batch, SIZE, NoiseConfig(0.5, 0.0, 0.0), generator, aligned=False)
        kept = shorter.items[0, :, 0][shorter.mask[0]]
        assert kept[0] == 0 and (kept.diff() > 0).all()
        assert shorter.mask[1].sum() == 1
        lengths.append(len(kept))
    assert 4 < np.mean(lengths) < 6


def test_shuffling_moves_no_item_further_than_it_says_and_loses_none():
    batch = batch_of(text(list(range(9)), [1, 2]), np.arange(2))
    generator = torch.Generator().manual_seed(0)
    moved = False
    for _ in range(50):
        order = corrupt(batch, SIZE, NoiseConfig(0.0, 0.0, 3.0), generator, aligned=False).items[0, :, 0]
        assert sorted(order.tolist()) == list(range(9))
        assert (order - torch.arange(9)).abs().max() <= 3
        moved |= bool((order != torch.arange(9)).any())
    assert moved


def test_where_output_stands_at_the_input_no_position_moves_or_goes():
    batch = batch_of(text(list(range(9))), np.arange(1))
    noisy = corrupt(batch, SIZE, NoiseConfig(0.3, 0.3, 3.0), torch.Generator().manual_seed(0), aligned=True)
    hidden = noisy.items[0, :, 0] == SIZE + BLANK
    assert hidden.any() and not hidden.all()
    assert torch.equal(noisy.items[0, :, 0][~hidden], torch.arange(9)[~hidden])
    assert batch.items.max() < SIZE, "the batch itself was changed"


def test_empty_and_long_segments_are_left_out():
    assert short_segments(text([1], [], [1, 2, 3], [2, 2]), 2).tolist() == [0, 3]
