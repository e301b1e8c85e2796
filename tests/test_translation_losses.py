"""Losses against values that can be worked out."""

import math

import pytest
import torch

from sae_translate.translate.config import Schedule, TrainingConfig
from sae_translate.translate.losses import critic_loss, divergence, fooling_loss, moment_distance, prior_cost


def test_an_undecided_critic_costs_ln_2_whatever_the_side():
    for side in (0, 1):
        assert critic_loss(torch.zeros(5), side, 0.0) == pytest.approx(math.log(2))


def test_the_encoder_gains_where_the_critic_is_wrong():
    sure = torch.full((4,), 3.0)
    assert critic_loss(sure, 1, 0.0) < critic_loss(sure, 0, 0.0)
    assert fooling_loss(sure, 1) == critic_loss(sure, 0, 0.0)


def test_with_smoothing_the_best_critic_is_not_certain():
    logits = torch.linspace(-8, 8, 401)
    costs = torch.stack([critic_loss(logit[None], 1, 0.1) for logit in logits])
    assert torch.sigmoid(logits[costs.argmin()]) == pytest.approx(0.9, abs=0.01)


def test_the_standard_normal_diverges_by_nothing_and_free_bits_are_free():
    assert divergence(torch.zeros(3, 2), torch.zeros(3, 2), 0.0) == 0
    mean = torch.tensor([[1.0, 0.0]])
    assert divergence(mean, torch.zeros(1, 2), 0.0) == pytest.approx(0.25)
    assert divergence(mean, torch.zeros(1, 2), 0.5) == 0
    assert divergence(2 * mean, torch.zeros(1, 2), 0.5) == pytest.approx(0.75)


def test_the_moment_distance_is_zero_between_a_sample_and_itself_and_grows_with_shift_and_scale():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert moment_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-10)
    assert moment_distance(x, x + 1) == pytest.approx(1.0, abs=1e-5)
    assert moment_distance(x, 2 * x) > moment_distance(x, 1.5 * x) > 0


def test_the_prior_of_a_certain_text_is_its_cross_entropy_under_the_bigrams():
    chances = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    text = torch.nn.functional.one_hot(torch.tensor([[0, 1, 1]]), 2).float()
    by_hand = -(math.log(0.5) + math.log(0.1) + math.log(0.8)) / 3
    assert prior_cost(text, chances.log(), torch.ones(1, 3, dtype=torch.bool)) == pytest.approx(by_hand)
    padded = torch.cat([text, torch.rand(1, 2, 2)], dim=1)
    mask = torch.tensor([[True, True, True, False, False]])
    assert prior_cost(padded, chances.log(), mask) == pytest.approx(by_hand)


def test_the_prior_moves_a_soft_text_towards_likely_bigrams():
    chances = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    prior_cost(logits.softmax(-1), chances.log(), torch.ones(1, 2, dtype=torch.bool)).backward()
    assert logits.grad[0, 1, 0] < 0 < logits.grad[0, 1, 1]


def test_a_schedule_is_level_straight_level():
    weight = Schedule(1.0, 3.0, 10, 20)
    assert [weight(step) for step in (0, 10, 15, 20, 99)] == [1.0, 1.0, 2.0, 3.0, 3.0]
    assert Schedule(0.5, 0.5)(0) == 0.5 and [Schedule(0.0, 1.0, 7, 7)(step) for step in (6, 7)] == [0.0, 1.0]
    assert not Schedule().is_used


def test_the_learning_rate_cools_down_to_nothing_and_before_that_is_as_without():
    level, cooled = TrainingConfig(steps=100, warmup=10), TrainingConfig(steps=100, warmup=10, cooldown=40)
    assert all(cooled.rate(step) == level.rate(step) for step in range(60))
    assert cooled.rate(80) == pytest.approx(level.rate(80) / 2)
    assert 0 < cooled.rate(99) < level.rate(99) / 30
    assert cooled.rate(100) == 0
