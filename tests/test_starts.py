"""Laws of starts: what each gives is better than noise, blind to rotation, and fixed by its generator."""

import pytest
import torch
from test_vectors import cloud, rotation

from activation_cache.errors import UserError
from sae_translate.align.adversarial import AdversarialConfig, adversarial_map, critic_of, judged
from sae_translate.align.retrieval import unit
from sae_translate.align.starts import gromov_wasserstein_start, landmark_scores


def hits(scores: torch.Tensor) -> float:
    return float((scores.argmax(1) == torch.arange(len(scores))).float().mean())


def test_gromov_wasserstein_finds_a_turned_space():
    pytest.importorskip("ot")
    x = cloud(60, 10)
    turned = x @ rotation(10)
    scores = gromov_wasserstein_start(x, turned, torch.Generator())
    assert hits(scores) > 0.9 and scores.std() == pytest.approx(1, abs=1e-4)


def test_landmarks_place_all_others():
    x = cloud(200, 10)
    y = x @ rotation(10)
    assert hits(landmark_scores(x, y, x[:12], y[:12])) > 0.9


def test_the_adversarial_map_is_orthogonal_and_moves_the_cloud_over_the_other():
    """Two lopsided clouds: turned upon each other the mapped mean is the target's, which unturned it is not."""
    draw = torch.Generator().manual_seed(0)
    x = unit(torch.randn(400, 2, generator=draw) * torch.tensor([0.2, 0.2]) + torch.tensor([1.0, 0.0]))
    y = x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    turn = adversarial_map(x, y, torch.Generator().manual_seed(1), AdversarialConfig(steps=400, hidden=32))
    assert torch.allclose(turn @ turn.T, torch.eye(2), atol=1e-4)
    assert ((x @ turn).mean(0) - y.mean(0)).norm() < 0.3 < (x.mean(0) - y.mean(0)).norm()


def test_the_adversarial_start_needs_equal_dimensions_and_says_so():
    with pytest.raises(UserError, match="equal dimensions, and these are 4 and 5"):
        adversarial_map(torch.zeros(9, 4), torch.zeros(9, 5), torch.Generator())


def test_a_critic_gives_one_figure_a_vector():
    layers = critic_of(7, AdversarialConfig(hidden=16), torch.Generator().manual_seed(0))
    assert judged(layers, torch.zeros(5, 7)).shape == (5,)
    assert torch.equal(judged(layers, torch.zeros(5, 7)), torch.zeros(5))


def test_the_same_generator_gives_the_same_map():
    x = unit(cloud(50, 4))
    config = AdversarialConfig(steps=5)
    first, again = (adversarial_map(x, x, torch.Generator().manual_seed(3), config) for _ in range(2))
    assert torch.equal(first, again)
