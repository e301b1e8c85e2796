"""Laws of alignment under noise: what is known of a rotation, what a feature survives, and what the fit never saw."""

import pytest
import torch
from scipy.special import ive
from test_vectors import cloud, rotation

from sae_translate.align.invariants import ranked_normal
from sae_translate.align.posterior import features, fit_posterior, reliability, rotation_mean
from sae_translate.align.retrieval import retrieve
from sae_translate.align.selflearning import scaled
from sae_translate.align.vectors import VectorsConfig, fit_vectors


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centred(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x, x - x.mean(dim=0)


def some(n: int, every: int = 10) -> torch.Tensor:
    return torch.arange(n) % every == 0


def test_features_do_not_see_a_rotation():
    x = cloud(300, 20)
    plain, turned = features(x, 5), features(x @ rotation(20), 5)
    assert ((plain * turned).mean(dim=0) > 0.98).all()


def test_normal_scores_keep_the_order_and_are_standard():
    scores = ranked_normal(torch.rand(2000, generator=draw()).exp())
    assert scores.mean().abs() < 1e-3 and scores.std().item() == pytest.approx(1, abs=0.01)
    assert ranked_normal(torch.tensor([3.0, 1.0, 2.0])).argsort().tolist() == [1, 2, 0]


def test_reliability_is_what_noise_that_was_never_simulated_leaves():
    x = cloud(1500, 30)
    y = x @ rotation(30) + 0.8 * x.std(dim=0).square().mean().sqrt() * torch.randn(x.shape, generator=draw(5))
    measured = (features(x, 4) * features(y, 4)).mean(dim=0)
    assert torch.allclose(reliability(x, 0.8, 4, draw()), measured, atol=0.12)


def test_reliability_falls_with_noise():
    x = cloud(800, 20)
    little, much = (reliability(x, noise, 4, draw()).mean() for noise in (0.2, 2.0))
    assert little > much + 0.2


def test_what_says_much_gives_a_rotation_and_what_says_nothing_gives_none():
    turn = rotation(12)
    assert torch.allclose(rotation_mean(1e5 * turn), turn, atol=1e-3)
    assert rotation_mean(1e-3 * turn).norm() < 1e-3


@pytest.mark.parametrize("strength", [1.0, 5.0, 20.0, 100.0])
def test_one_known_direction_is_as_sure_as_on_the_sphere(strength):
    """Where one direction alone is told, its image is von Mises-Fisher, whose mean length is a ratio of Bessel
    functions."""
    told = torch.zeros(20, 20)
    told[0, 0] = strength
    exact = ive(10, strength) / ive(9, strength)
    assert rotation_mean(told)[0, 0].item() == pytest.approx(exact, abs=0.01)


def test_scaled_rows_sum_to_one_however_far_apart_they_lie():
    scores = torch.randn(40, 60, generator=draw()) - 400 * torch.arange(40)[:, None]
    kernel, left, right = scaled(scores, 20)
    coupling = 40 * left[:, None] * kernel * right
    assert torch.allclose(coupling.sum(dim=1), torch.ones(40), atol=1e-4)
    assert torch.allclose(coupling.sum(dim=0), torch.full((60,), 40 / 60), atol=2e-2)


@pytest.fixture(scope="module")
def noisy():
    """Points and the same turned, in another order, with more noise than signal; and where each went."""
    x = cloud(1200, 60)
    y = x @ rotation(60) + 1.2 * x.std() * torch.randn(1200, 60, generator=draw(2))
    order = torch.randperm(1200, generator=draw(3))
    return x, y[order], order.argsort()


def right_share(mapped: torch.Tensor, y: torch.Tensor, answer: torch.Tensor) -> float:
    return float((retrieve(mapped, y).indices[:, 0] == answer).float().mean())


def test_points_under_more_noise_than_signal_are_found_as_with_the_true_rotation(noisy):
    x, y, answer = noisy
    fit = fit_posterior(centred(x), centred(y), some(1200), 2.0, 40, 0.05, draw())
    oracle = right_share(centred(x @ rotation(60))[1], centred(y)[1], answer)
    assert right_share(centred(x)[1] @ fit.rotation, centred(y)[1], answer) > 0.95 * oracle
    assert fit.held_out > 0.5
    assert fit.noise == pytest.approx(1.2, abs=0.3)


def test_held_out_points_do_not_bear_out_a_fit_to_unrelated_points(noisy):
    x = noisy[0]
    y = cloud(1200, 60, 40)
    assert fit_posterior(centred(x), centred(y), some(1200), 2.0, 40, 0.05, draw()).held_out < 0.25


def test_the_search_under_noise_finds_what_the_others_do_not_and_is_believed(noisy):
    x, y, answer = noisy
    quick = VectorsConfig(core=300, axes=40, steps=20)
    found = fit_vectors(x, y, quick)
    assert found.verdict.believed and "kept out of the fit" in found.verdict.reason
    assert right_share(found.source(x), found.target(y), answer) > 0.8


def test_known_pairs_find_points_that_have_no_shape_at_all():
    """Isotropic points under as much noise as signal: nothing to hold on to, but for forty pairs in two thousand."""
    x = torch.randn(2000, 60, generator=draw(7))
    y = x @ rotation(60) + torch.randn(2000, 60, generator=draw(8))
    known = torch.arange(0, 2000, 50)
    blind, told = (
        fit_posterior((x, x), (y, y), some(2000), 2.0, 40, 0.05, draw(), pairs)
        for pairs in (None, (x[known], y[known]))
    )
    answer = torch.arange(2000)
    oracle = right_share(x @ rotation(60), y, answer)
    assert right_share(x @ blind.rotation, y, answer) < 0.1
    assert right_share(x @ told.rotation, y, answer) > 0.9 * oracle
    assert told.held_out > blind.held_out + 0.3


def test_dimensions_may_differ_under_noise(noisy):
    x = cloud(800, 40)
    y = x @ rotation(60)[:40]
    fit = fit_posterior(centred(x), centred(y), some(800), 2.0, 40, 0.05, draw())
    assert right_share(centred(x)[1] @ fit.rotation, centred(y)[1], torch.arange(800)) > 0.95
