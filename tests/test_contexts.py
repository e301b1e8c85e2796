"""Laws of alignment by contexts: a word order that differs does not hide a dictionary, strangers are not believed."""

import numpy as np
import pytest
import torch

from activation_cache.errors import UserError
from sae_translate.align.contexts import Contexts, ContextsConfig, align_contexts, chosen, paired, scored
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


def test_contexts_are_carried_over_by_pairs_that_choose_each_other():
    scores = torch.rand(6, 9, generator=torch.Generator().manual_seed(0))
    mutual, both = chosen(scores), chosen(scores, mutual=False)
    rows, columns = mutual.nonzero(as_tuple=True)
    assert len(rows) and torch.equal(scores[rows].argmax(1), columns)
    assert torch.equal(scores[:, columns].argmax(0), rows)
    assert torch.equal(both == 2, mutual == 1) and both.sum() == 6 + 9


def test_contexts_that_are_all_paired_are_compared_as_a_dictionary_carries_them():
    draw = torch.Generator().manual_seed(0)
    odds = torch.randn(2, 7, 5, generator=draw), torch.randn(2, 8, 5, generator=draw)
    source, target = (Contexts(np.arange(side.shape[1]), torch.ones(side.shape[1]), side) for side in odds)
    dictionary = torch.eye(5)[torch.randperm(5, generator=draw)]
    whole = paired(source, target, dictionary)
    assert torch.allclose(whole, scored(source, target, dictionary), atol=1e-5)
    dictionary[2] = 0
    known = [row for row in range(5) if row != 2]
    fewer = Contexts(source.items, source.frequency, source.odds[:, :, known])
    assert torch.allclose(paired(source, target, dictionary), paired(fewer, target, dictionary[known]), atol=1e-5)
    assert not torch.allclose(paired(source, target, dictionary), whole, atol=1e-2)


def test_too_little_text_is_an_error_that_names_the_figures(swapped):
    source, target, _, _ = swapped
    with pytest.raises(UserError, match="too little text to decipher: a has 40,000 positions, in which 1 of"):
        align_contexts(keep_items(source, np.array([0])), target, QUICK)
