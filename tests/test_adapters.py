"""Adapters: what enters the network and what is read out of it."""

import numpy as np
import pytest
import torch
from scipy import sparse

from activation_cache.errors import UserError
from sae_translate.languages.language import Corpus, Language
from sae_translate.translate.adapters import AdapterSpec, Dense, build_adapter, spec_of
from sae_translate.translate.batches import BLANK, UNKNOWN, batch_of, single


def language(rows: np.ndarray, vectors: np.ndarray | None = None) -> Language:
    """Two segments over the given positions x items."""
    rows = np.asarray(rows, np.float32)
    bounds = np.array([0, len(rows) // 2, len(rows)])
    corpus = Corpus(sparse.csr_array(rows), bounds, np.arange(2))
    return Language("rows", tuple(map(str, range(rows.shape[1]))), corpus, vectors)


SETS = np.array([[0, 2, 0, 1], [3, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])


def test_the_modality_is_found_from_what_a_position_holds():
    assert spec_of(language(np.eye(4))) == AdapterSpec("symbols", 4, 1, 1.0)
    assert spec_of(language(SETS)) == AdapterSpec("weighted_sets", 4, 2, float(np.float32(1.6)))


def test_what_does_not_fit_is_an_error_that_says_what_would():
    with pytest.raises(UserError, match="rows is empty"):
        spec_of(language(np.zeros((4, 4))))
    with pytest.raises(UserError, match="holds 2 items at a position, which symbols cannot: use weighted_sets"):
        spec_of(language(SETS), "symbols")
    with pytest.raises(UserError, match="rows has no vectors, which the dense modality needs"):
        spec_of(language(np.eye(4)), "dense")
    with pytest.raises(UserError, match="unknown modality 'symbol': choose one of symbols"):
        spec_of(language(np.eye(4)), "symbol")


def test_symbols_say_neither_a_blank_nor_a_beginning():
    adapter = build_adapter(AdapterSpec("symbols", 4), 8)
    scores = adapter.scores(100 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0)))
    assert set(scores.argmax(1).tolist()) <= {0, 1, 2, 3, 6, 7}


def test_the_loss_of_symbols_looks_at_no_padding():
    adapter = build_adapter(AdapterSpec("symbols", 4), 8)
    hidden = torch.randn(1, 3, 8)
    mask = torch.tensor([[True, True, False]])
    one, other = (adapter.loss(hidden, single(torch.tensor([[1, 2, item]]), mask)) for item in (0, 3))
    assert one == other


def test_a_weighted_set_enters_as_the_weighted_sum_of_its_items():
    adapter = build_adapter(spec_of(language(SETS)), 8)
    batch = batch_of(language(SETS).corpus, np.arange(2))
    table = adapter.embedding.weight * 8**0.5
    expected = (2 * table[1] + table[3]) / adapter.scale
    assert torch.allclose(adapter.embed(batch)[0, 0], expected, atol=1e-6)
    assert torch.allclose(adapter.embed(batch)[1, 1], table[4 + UNKNOWN])


def test_weighted_sets_learn_which_items_there_are_and_how_strong():
    torch.manual_seed(0)
    adapter = build_adapter(spec_of(language(SETS)), 8)
    batch = batch_of(language(SETS).corpus, np.array([0]))
    hidden = torch.randn(1, 2, 8)
    optimiser = torch.optim.Adam(adapter.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        adapter.loss(hidden, batch).backward()
        optimiser.step()
    read = adapter.read(hidden, batch)
    found = torch.zeros(2, 4).scatter_add_(1, read.items[0], read.weights[0].detach())
    assert torch.allclose(found, torch.tensor(SETS[:2]).float(), atol=0.1)


@pytest.fixture
def dense() -> Dense:
    adapter = Dense(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), 3)
    with torch.no_grad():
        for layer in (adapter.enter, adapter.leave):
            layer.weight.copy_(torch.eye(3))
            layer.bias.zero_()
    return adapter


def test_a_vector_is_read_as_the_nearest_code(dense):
    batch = single(torch.arange(5)[None], torch.ones(1, 5, dtype=torch.bool))
    hidden = dense.embed(batch) + 0.01
    assert dense.read(hidden, batch).items[0, :, 0].tolist() == [0, 1, 2, 3, 4]


def test_dense_costs_nothing_at_the_truth_and_signs_are_no_vectors(dense):
    batch = single(torch.tensor([[0, 3, 5 + UNKNOWN]]), torch.ones(1, 3, dtype=torch.bool))
    assert dense.loss(dense.vectors_of(batch), batch) == 0
    blank = single(torch.tensor([[5 + BLANK]]), torch.ones(1, 1, dtype=torch.bool))
    assert torch.equal(dense.embed(blank)[0, 0], dense.signs.weight[BLANK])
