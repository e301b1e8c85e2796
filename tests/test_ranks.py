"""Laws of evidence from ranks of frequency: it knows its own worth, and changes no more than near ties."""

import math

import pytest
import torch

from sae_translate.align.ranks import RankEvidence, rank_evidence, reranked, with_ranks
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
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(1))
    evidence = rank_evidence(order, order.argsort())
    if evidence is not None:
        near, far = evidence(torch.tensor([10, 10]), torch.tensor([10, 3000])).tolist()
        assert near - far < 0.6


def test_what_is_not_mutual_tells_nothing():
    assert rank_evidence(torch.zeros(500, dtype=torch.int64), torch.arange(500)) is None


def test_a_near_tie_goes_to_the_rank_that_fits_and_a_clear_choice_stays():
    near = Neighbours(torch.tensor([[0.50, 0.49], [0.90, 0.20]]), torch.tensor([[7, 3], [7, 3]]))
    told = reranked(near, torch.tensor([[-0.05, 0.05], [-0.05, 0.05]]), 1)
    assert told.indices.tolist() == [[3], [7]]
    assert told.scores.flatten().tolist() == pytest.approx([0.54, 0.85])


def test_scores_of_all_pairs_gain_what_their_ranks_say():
    scores = torch.eye(300)[:, noisy_order(300, 0.4).argsort()]
    evidence = rank_evidence(scores.argmax(1), scores.argmax(0))
    gained = (with_ranks(scores, 0.5) - scores)[7, 31]
    assert float(gained) == pytest.approx(0.5 * float(evidence(torch.tensor(7), torch.tensor(31))), abs=1e-5)
    assert torch.equal(with_ranks(scores[:5], 0.5), scores[:5])
