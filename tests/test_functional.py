"""Laws of functional alignment: states are found by what they lead to, and foreign ones are told from the others."""

import numpy as np
import pytest
import torch
from test_matching import counts_of, renamed

from activation_cache.errors import UserError
from sae_translate.align.functional import FunctionalConfig, alignable_parts, functional_align
from sae_translate.languages.hmm import random_transitions


def systems(foreign: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts of two systems of 60 states, the second renamed and its first `foreign` states with other principles."""
    rng = np.random.default_rng(seed)
    one = random_transitions(60, rng)
    other = one.copy()
    other[:foreign] = random_transitions(60, rng)[:foreign]
    key = torch.from_numpy(rng.permutation(60))
    return counts_of(one, 30_000, rng)[0], renamed(counts_of(other, 30_000, rng), key)[0], key


def area_under_curve(score: torch.Tensor, foreign: int) -> float:
    """How often a state with principles of its own scores below one that shares them."""
    return float((score[:foreign, None] < score[None, foreign:]).float().mean())


@pytest.mark.parametrize("anchors", [0, 2, 20])
def test_sixty_states_are_matched_with_no_or_few_anchors(anchors):
    source, target, key = systems(0, anchors)
    known = torch.stack([torch.arange(anchors), key[:anchors]], dim=1)
    found = functional_align(source, target, known)
    assert torch.equal(found.partner, key) and found.verdict.believed
    assert found.confidence.min() > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_states_that_follow_other_principles_are_told_from_the_rest(seed):
    source, target, key = systems(18, seed)
    found = functional_align(source, target)
    parts = alignable_parts(source, target, found)
    assert (found.partner == key).float().mean() > 0.9
    assert area_under_curve(parts.score, 18) > 0.95
    assert (parts.p_value[18:] < 0.05).float().mean() > 0.9 and (parts.p_value[:18] < 0.05).float().mean() < 0.2


def test_independent_systems_abstain_and_share_no_part():
    rng = np.random.default_rng(5)
    source, target = (counts_of(random_transitions(60, rng), 30_000, rng)[0] for _ in range(2))
    found = functional_align(source, target)
    assert not found.verdict.believed and (found.confidence == 0).all()
    parts = alignable_parts(source, target, found)
    assert (parts.p_value < 0.05).float().mean() < 0.2


def test_probabilities_are_matched_where_it_is_said_what_they_rest_on():
    rng = np.random.default_rng(1)
    one, key = torch.from_numpy(random_transitions(40, rng)).float(), torch.from_numpy(rng.permutation(40))
    found = functional_align(one, renamed(one[None], key)[0], config=FunctionalConfig(observations=500.0))
    assert torch.equal(found.partner, key)


def test_two_relations_say_more_than_one():
    rng = np.random.default_rng(2)
    chains = [random_transitions(60, rng) for _ in range(2)]
    key = torch.from_numpy(rng.permutation(60))
    source = torch.cat([counts_of(chain, 800, rng) for chain in chains])
    target = renamed(torch.cat([counts_of(chain, 800, rng) for chain in chains]), key)
    right = [(functional_align(source[:n], target[:n]).partner == key).float().mean() for n in (1, 2)]
    assert right[1] > right[0] and right[1] > 0.9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: {"source": a[:2, :2]}, "2 states: matching needs 3"),
        (lambda a: {"source": -a}, "negative"),
        (lambda a: {"source": a / a.sum(1, keepdim=True)}, "set observations"),
        (lambda a: {"source": torch.stack([a, a])}, "2 relations and target 1"),
        (lambda a: {"anchors": torch.tensor([[0, 60]])}, "target state 60, and there are 0 to 59"),
        (lambda a: {"anchors": torch.tensor([[0, 1], [0, 2]])}, "the same source state"),
    ],
)
def test_what_cannot_be_matched_is_one_clear_line(change, says):
    source, target, _ = systems(0, 0)
    with pytest.raises(UserError, match=says) as error:
        functional_align(**{"source": source, "target": target, **change(source)})
    assert "\n" not in str(error.value)
