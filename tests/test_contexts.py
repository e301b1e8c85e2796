"""Laws of alignment by contexts: a word order that differs does not hide a dictionary, strangers are not believed."""

import numpy as np
import pytest
import torch

from activation_cache.errors import UserError
from sae_translate.align.contexts import (
    COMPETING,
    Contexts,
    ContextsConfig,
    Pairs,
    align_contexts,
    carried,
    chosen,
    compared,
)
from sae_translate.align.retrieval import csls_scores, unit
from sae_translate.languages.hmm import bijective, sample, symbol_language
from sae_translate.languages.text import keep_items

SIZE = 100
QUICK = ContextsConfig(core=60, contexts=80, steps=6)


def languages(seed: int, same: bool = True, swapped: float = 0.0):
    """Two samples of a Markov language with Zipf's frequencies in symbols of their own; in the second, this share of
    neighbours change places. And the target symbol of every source symbol."""
    rng = np.random.default_rng(seed)
    zipf = 1 / np.arange(2, SIZE + 2)
    chains = [rng.dirichlet(10 * zipf / zipf.sum(), size=SIZE) for _ in range(2)]
    made = [bijective(chain, rng) for chain in (chains[0], chains[not same])]
    first, second = (sample(one, 2000, 20, rng)[1] for one in made)
    pairs = second.reshape(-1, 2)
    turned = rng.random(len(pairs)) < swapped
    pairs[turned] = pairs[turned, ::-1]
    texts = (symbol_language(text, SIZE, name) for text, name in ((first, "a"), (pairs.reshape(second.shape), "b")))
    return *texts, made[1].emissions.argmax(1)[made[0].emissions.argmax(0)]


@pytest.fixture(scope="module")
def swapped():
    source, target, answer = languages(0, swapped=0.3)
    return source, target, answer, align_contexts(source, target, QUICK)


def test_words_are_found_far_outside_the_core_though_neighbours_change_places(swapped):
    source, _, answer, alignment = swapped
    assert alignment.verdict.believed
    assert (alignment(np.arange(SIZE)) == answer).mean() > 0.95
    rare = np.argsort(source.counts)[:20]
    assert (alignment(rare) == answer[rare]).mean() > 0.8


def test_independent_languages_abstain():
    source, target, _ = languages(1, same=False)
    alignment = align_contexts(source, target, QUICK)
    assert not alignment.verdict.believed and (alignment.confidence == 0).all()


def test_the_coupling_is_a_joint_distribution_with_the_source_s_frequencies(swapped):
    source, _, _, alignment = swapped
    assert alignment.coupling.min() >= 0 and alignment.coupling.sum() == pytest.approx(1, abs=1e-4)
    assert np.allclose(alignment.coupling.sum(1), source.counts / source.counts.sum(), atol=1e-4)


def test_the_surer_half_is_no_less_right(swapped):
    _, _, answer, alignment = swapped
    right = alignment(np.arange(SIZE)) == answer
    sure = alignment.confidence > np.median(alignment.confidence)
    assert right[sure].mean() >= right[~sure].mean()
    assert abs(alignment.confidence.mean() - right.mean()) < 0.2


def test_the_same_seed_gives_the_same_bits(swapped):
    source, target, _, alignment = swapped
    assert np.array_equal(align_contexts(source, target, QUICK).coupling, alignment.coupling)


def test_sides_of_different_sizes_and_rare_items_are_left_out(swapped):
    source, target, answer, _ = swapped
    fewer = keep_items(target, np.sort(np.argsort(-target.counts)[:70]))
    alignment = align_contexts(source, fewer, ContextsConfig(core=50, contexts=60, steps=6, max_items=90))
    assert (alignment.coupling.sum(1) > 0).sum() == 90
    kept = {int(name): place for place, name in enumerate(fewer.items)}
    there = [i for i in np.argsort(-source.counts)[:60] if int(answer[i]) in kept]
    assert (alignment(np.array(there)) == [kept[int(answer[i])] for i in there]).mean() > 0.9


def test_words_far_beyond_the_contexts_are_compared_in_the_last_step(swapped):
    source, target, answer, _ = swapped
    alignment = align_contexts(source, target, ContextsConfig(core=50, contexts=50, steps=6, null_surrogates=0))
    beyond = np.argsort(-source.counts)[int(50 * COMPETING) :]
    assert len(beyond) == 25
    assert (alignment(beyond) == answer[beyond]).mean() > 0.8


def test_contexts_are_paired_by_best_choices_among_the_other_s_nearest():
    scores = torch.rand(9, 12, generator=torch.Generator().manual_seed(0))
    mutual, two = chosen(scores, 1, 9, 12), chosen(scores, 2, 9, 12)
    assert torch.equal(scores[mutual.source].argmax(1), mutual.target)
    assert torch.equal(scores[:, mutual.target].argmax(0), mutual.source)
    assert (mutual.weight == 1).all()

    def place(values, item):
        return int((values > values[item]).sum())

    expected = {
        (i, j)
        for i in range(9)
        for j in range(12)
        if sorted((place(scores[i], j), place(scores[:, j], i))) in ([0, 0], [0, 1])
    }
    found = list(zip(two.source.tolist(), two.target.tolist(), strict=True))
    assert set(found) == expected and len(found) == len(expected) > len(mutual.weight) > 1
    for (i, j), weight in zip(found, two.weight.tolist(), strict=True):
        sharing = sum(a == i for a, _ in found) * sum(b == j for _, b in found)
        assert weight == pytest.approx(sharing**-0.5)
    few = chosen(scores, 2, 5, 4)
    assert set(zip(few.source.tolist(), few.target.tolist(), strict=True)) == {
        (i, j) for i, j in expected if i < 5 and j < 4
    }


def test_contexts_that_find_no_partner_leave_nothing_to_compare():
    scores = torch.tensor([[0.0, 2.0], [0.0, 1.0]])
    pairs = chosen(scores[:, :1] - scores[:, 1:], 1, 1, 0)
    assert len(pairs.weight) == 0
    side = Contexts(np.arange(3), torch.ones(3), torch.randn(2, 3, 1))
    assert torch.equal(compared(side, side, pairs), torch.zeros(3, 3))


def test_items_are_compared_by_correlation_in_the_contexts_that_are_paired_alone():
    draw = torch.Generator().manual_seed(0)
    odds = torch.randn(2, 7, 5, generator=draw), torch.randn(2, 8, 5, generator=draw)
    source, target = (Contexts(np.arange(side.shape[1]), torch.ones(side.shape[1]), side) for side in odds)
    rows, columns = torch.tensor([0, 1, 3, 4]), torch.tensor([2, 0, 4, 1])
    pairs = Pairs(rows, columns, torch.ones(4))
    x, y = odds[0][:, :, rows], odds[1][:, :, columns]
    x, y = ((side - side.mean(2, keepdim=True)).transpose(0, 1).flatten(1) for side in (x, y))
    expected = csls_scores(unit(x), unit(y))
    assert torch.allclose(compared(source, target, pairs), expected, atol=1e-5)
    twice = Pairs(rows.repeat(2), columns.repeat(2), torch.full((8,), 0.5))
    assert torch.allclose(compared(source, target, twice), expected, atol=1e-5)
    left_out = source.odds.clone()
    left_out[:, :, 2] += 10
    louder = Contexts(source.items, source.frequency, left_out + torch.arange(7.0)[:, None])
    assert torch.allclose(compared(louder, target, pairs), expected, atol=1e-4)


def test_contexts_of_either_side_are_carried_over_by_a_dictionary():
    draw = torch.Generator().manual_seed(1)
    odds = torch.randn(2, 7, 5, generator=draw)
    order = torch.randperm(5, generator=draw)
    source = Contexts(np.arange(7), torch.ones(7), odds)
    target = Contexts(np.arange(7), torch.ones(7), odds[:, :, order])
    scores = carried(source, target, torch.eye(5)[:, order])
    x = unit(odds.transpose(0, 1).flatten(1))
    assert torch.allclose(scores, csls_scores(x, x), atol=1e-5)


def test_too_little_text_is_an_error_that_names_the_figures(swapped):
    source, target, _, _ = swapped
    with pytest.raises(UserError, match="too little text to decipher: a has 40,000 positions, in which 1 of"):
        align_contexts(keep_items(source, np.array([0])), target, QUICK)
