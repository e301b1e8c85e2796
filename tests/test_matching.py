"""Laws of matching by what items do to each other: renaming is undone, what cannot be told is not believed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sae_translate.align.invariants import invariants, log_odds, thinned
from sae_translate.align.matching import (
    SPARSE,
    MatchConfig,
    balanced,
    climbed,
    correlation,
    departures,
    factored,
    frank_wolfe,
    match_counts,
    reliability,
)
from sae_translate.languages.hmm import bijective, random_transitions, sample

NOTHING = torch.zeros(0, 2, dtype=torch.int64)


def counts_of(transitions: np.ndarray, n: int, rng: np.random.Generator) -> torch.Tensor:
    """Counts of the steps of `n` positions of a chain, one relation."""
    states = sample(bijective(transitions, rng), n // 200, 200, rng)[0]
    size = len(transitions)
    pairs = np.bincount(states[:, :-1].ravel() * size + states[:, 1:].ravel(), minlength=size * size)
    return torch.from_numpy(pairs.reshape(1, size, size)).float()


def renamed(counts: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The counts with item i called key[i]."""
    back = key.argsort()
    return counts[:, back][:, :, back]


def chain(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Transitions without a symmetry, the same in every state but turned, or twice the same side by side."""
    if kind == "turned":
        row = random_transitions(size, rng)[0]
        return np.stack([np.roll(row, i) for i in range(size)])
    if kind == "doubled":
        half = random_transitions(size // 2, rng)
        return np.block([[0.9 * half, 0.1 * half], [0.1 * half, 0.9 * half]])
    return random_transitions(size, rng)


def problem(kind: str, size: int, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts of two samples of a chain, the second renamed, and the names."""
    rng = np.random.default_rng(seed)
    transitions = chain(kind, size, rng)
    key = torch.from_numpy(rng.permutation(size))
    other = chain("independent", size, rng) if kind == "independent" else transitions
    return counts_of(transitions, n, rng), renamed(counts_of(other, n, rng), key), key


@pytest.mark.parametrize(("size", "n"), [(16, 4_000), (60, 12_000), (200, 60_000)])
def test_a_renamed_chain_is_found_without_an_error_and_believed(size, n):
    for seed in range(2):
        source, target, key = problem("plain", size, n, seed)
        found, verdict, _ = match_counts(source, target, NOTHING, MatchConfig(seed=seed))
        assert torch.equal(found.partner, key)
        assert verdict.believed and verdict.evidence["ambiguous"] == 0
        assert found.objective == pytest.approx(correlation(departures(source), departures(target), key))


@pytest.mark.parametrize("kind", ["independent", "turned", "doubled"])
@pytest.mark.parametrize("seed", range(4))
def test_independent_chains_and_chains_with_a_symmetry_abstain(kind, seed):
    source, target, _ = problem(kind, 60, 20_000, seed)
    assert not match_counts(source, target, NOTHING, MatchConfig(seed=seed))[1].believed


def test_an_answer_is_never_more_alike_than_the_counts_allow():
    source, target, key = problem("plain", 60, 12_000, 0)
    most = (reliability(source, torch.Generator())[1] * reliability(target, torch.Generator())[1]) ** 0.5
    assert correlation(departures(source), departures(target), key) == pytest.approx(most, abs=0.06)


def test_an_anchor_is_kept_even_where_it_is_wrong():
    source, target, key = problem("plain", 16, 4_000, 0)
    wrong = torch.tensor([[3, int(key[5])]])
    found, _, _ = match_counts(source, target, wrong, MatchConfig(null_surrogates=0))
    assert found.partner[3] == key[5]


def test_anchors_break_a_symmetry_that_nothing_else_can():
    source, target, key = problem("doubled", 40, 40_000, 1)
    anchors = torch.stack([torch.arange(6), key[:6]], dim=1)
    found, _, _ = match_counts(source, target, anchors, MatchConfig(null_surrogates=0))
    assert torch.equal(found.partner, key)


def test_a_part_of_the_items_is_matched_with_the_whole():
    source, target, key = problem("plain", 60, 60_000, 2)
    found, _, _ = match_counts(source[:, :50, :50], target, NOTHING, MatchConfig(null_surrogates=0))
    assert (found.partner == key[:50]).float().mean() > 0.9
    back, _, _ = match_counts(target, source[:, :50, :50], NOTHING, MatchConfig(null_surrogates=0))
    assert (back.partner == -1).sum() == 10


def test_frank_wolfe_never_loses_agreement():
    source, target, _ = problem("plain", 60, 6_000, 3)
    a, b = factored(source), factored(target)
    start = balanced(log_odds(source, target, NOTHING, 4, torch.Generator()))
    end = frank_wolfe(a, b, start, NOTHING)
    (a,), (b,) = a.whole, b.whole
    assert (a * (end @ b @ end.T)).sum() >= (a * (start @ b @ start.T)).sum()


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_products_with_departures_are_those_of_the_whole_matrix_however_few_counts_there_are(share):
    draw = torch.Generator().manual_seed(0)
    counts = torch.rand(2, 150, 150, generator=draw).lt(share) * torch.rand(2, 150, 150, generator=draw).mul(9).ceil()
    found, other = factored(counts), torch.randn(150, 90, generator=draw)
    for whole, after, before in zip(departures(counts), found.after, found.before, strict=True):
        assert torch.allclose(after @ other, whole @ other, atol=1e-3)
        assert torch.allclose(before @ other.T.contiguous().T, whole.T @ other, atol=1e-3)
        assert isinstance(after.roots, torch.Tensor) == (share > SPARSE)


def test_polishing_tells_states_apart_that_annealing_alone_does_not():
    right = []
    for polished in (0, 1000):
        rng = np.random.default_rng(0)
        one = random_transitions(60, rng)
        other = one.copy()
        other[:18] = random_transitions(60, rng)[:18]
        source, target = counts_of(one, 30_000, rng), counts_of(other, 30_000, rng)
        config = MatchConfig(polished=polished)
        prior = log_odds(source, target, NOTHING, 4, torch.Generator().manual_seed(0))
        trust = reliability(source, torch.Generator().manual_seed(0))[0]
        found = climbed(factored(source), factored(target), prior, NOTHING, trust, config)
        right.append(float((found.partner == torch.arange(60)).float().mean()))
    assert right[1] > 0.9 and right[1] >= right[0]


def test_invariants_do_not_see_a_renaming():
    source, _, key = problem("plain", 30, 6_000, 0)
    landmark = torch.tensor([4])
    here, there = invariants(source, landmark, 4), invariants(renamed(source, key), key[landmark], 4)
    assert torch.allclose(here, there[key], atol=1e-4)


def test_the_likeliest_pairs_by_invariants_are_mostly_the_right_ones():
    source, target, key = problem("plain", 200, 200_000, 0)
    odds = log_odds(source, target, NOTHING, 4, torch.Generator().manual_seed(0))
    assert (odds.argmax(1) == key).float().mean() > 0.5


def test_halves_add_up_to_the_counts():
    source, _, _ = problem("plain", 30, 6_000, 0)
    first, second = thinned(source, torch.Generator().manual_seed(0))
    assert torch.equal(first + second, source) and abs(float(first.sum() / source.sum()) - 0.5) < 0.02


def test_a_balanced_plan_shares_columns_alike():
    plan = balanced(torch.randn(20, 20, generator=torch.Generator().manual_seed(0)), 50)
    assert torch.allclose(plan.sum(0), torch.ones(20), atol=1e-4)
    assert torch.allclose(plan.sum(1), torch.ones(20), atol=1e-4)


def test_one_seed_gives_the_same_bits():
    source, target, _ = problem("plain", 60, 12_000, 0)
    config = replace(MatchConfig(), seed=3)
    first, again = (match_counts(source, target, NOTHING, config) for _ in range(2))
    assert torch.equal(first[0].plan, again[0].plan) and first[1] == again[1]
