"""Laws of evidence from ranks of frequency and from the other direction: it knows its own worth, and the scores'."""

import math

import pytest
import torch

from sae_translate.align.ranks import (
    RankEvidence,
    both_ways,
    evidence_of_all,
    likeliest_sharpness,
    rank_evidence,
    two_way,
)
from sae_translate.align.retrieval import Neighbours


def noisy_order(n: int, spread: float, seed: int = 0) -> torch.Tensor:
    """Which target every source is, where log ranks differ by about `spread`."""
    draw = torch.Generator().manual_seed(seed)
    noisy = torch.arange(1, n + 1).log() + spread * torch.randn(n, generator=draw)
    return noisy.argsort().argsort()


def test_the_ratio_is_that_of_two_normal_densities():
    evidence = RankEvidence((0.1, 0.25), (-0.2, 2.0))
    own, other = torch.tensor([4, 99]), torch.tensor([6, 9])
    apart = (own + 1).log() - (other + 1).log()
    of_pairs = torch.distributions.Normal(0.1, 0.5).log_prob(apart)
    of_any = torch.distributions.Normal(-0.2, math.sqrt(2)).log_prob(apart)
    assert torch.allclose(evidence(own, other), of_pairs - of_any, atol=1e-5)


def test_the_spread_of_pairs_is_read_off_the_mutual_choices_alone():
    order = noisy_order(4000, 0.4)
    apart = torch.arange(1, 4001).log() - (order + 1).log()
    wandering = order.clone()
    wandering[::2] = order.roll(1)[::2]
    for forward in (order, wandering):
        evidence = rank_evidence(forward, order.argsort())
        assert evidence.of_pairs[1] == pytest.approx(float(apart.var()), rel=0.1)


def test_orders_that_have_nothing_to_do_with_each_other_say_nothing():
    for seed in range(40):
        order = torch.randperm(400, generator=torch.Generator().manual_seed(seed))
        assert rank_evidence(order, order.argsort()) is None


def test_what_is_not_mutual_tells_nothing():
    assert rank_evidence(torch.zeros(500, dtype=torch.int64), torch.arange(500)) is None


def test_all_pairs_are_told_of_at_once_and_few_mutual_choices_tell_nothing():
    scores = torch.eye(300)[:, noisy_order(300, 0.4).argsort()]
    evidence = rank_evidence(scores.argmax(1), scores.argmax(0))
    whole = evidence_of_all(scores)
    assert float(whole[7, 31]) == pytest.approx(float(evidence(torch.tensor(7), torch.tensor(31))), abs=1e-5)
    assert whole[7, 7] > 0 > whole[7, 290]
    assert evidence_of_all(scores[:5]) is None


@pytest.mark.parametrize("truth", [8.0, 25.0])
def test_ranks_tell_how_sharp_the_scores_are(truth):
    """Targets are drawn by a softmax of that sharpness, and their ranks are near their sources'."""
    n, draw = 4000, torch.Generator().manual_seed(0)
    near = torch.randint(n, (n, 40), generator=draw)
    scores = 0.3 * torch.randn(n, 40, generator=draw)
    partner = torch.multinomial((truth * scores).softmax(1), 1, generator=draw)
    own = noisy_order(n, 0.1)
    near.scatter_(1, partner, own[:, None])
    evidence = RankEvidence((0.0, 0.01), (0.0, 2.0))(torch.arange(n)[:, None], near)
    assert likeliest_sharpness(scores, evidence) == pytest.approx(truth, rel=0.16)


def test_what_is_near_to_all_is_chosen_less_in_either_direction():
    nats = torch.tensor([[3.0, 2.8, 0.0], [3.0, 0.0, 1.0], [3.0, 0.0, 0.0]])
    whole = torch.arange(3).expand(3, 3)
    forward, backward = both_ways(Neighbours(nats, whole), Neighbours(nats.T, whole))
    assert forward.indices[:, 0].tolist() == [1, 0, 0]
    expected = two_way(nats)
    chances = nats.softmax(1) * nats.softmax(0)
    assert torch.allclose(expected.exp(), chances.sqrt(), atol=1e-6)
    assert torch.allclose(torch.zeros(3, 3).scatter(1, forward.indices, forward.scores), expected, atol=1e-6)
    assert torch.allclose(torch.zeros(3, 3).scatter(1, backward.indices, backward.scores), expected.T, atol=1e-6)
    assert (forward.scores.diff(dim=1) <= 0).all()
