"""Laws of the linear maps: known rotations come back, weights count, reweighting keeps what agrees."""

import pytest
import torch

from activation_cache.errors import UserError
from sae_translate.align.procrustes import normalised, normalising_means, procrustes, reweighted
from sae_translate.align.retrieval import retrieve


def points(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def rotation(d: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(points(d, d, seed + 100)).Q


def test_a_known_rotation_comes_back():
    x, turn = points(200, 30), rotation(30)
    assert torch.allclose(procrustes(x, x @ turn), turn, atol=1e-5)


def test_the_map_is_orthonormal_on_any_data():
    found = procrustes(points(50, 12, 1), points(50, 12, 2))
    assert torch.allclose(found @ found.T, torch.eye(12), atol=1e-5)


def test_a_smaller_space_is_embedded_isometrically():
    x = points(100, 8)
    y = x @ rotation(20)[:8]
    assert torch.allclose(x @ procrustes(x, y), y, atol=1e-4)


def test_no_other_rotation_comes_nearer():
    x, y = points(80, 6, 3), points(80, 6, 4)
    best = (x @ procrustes(x, y) - y).norm()
    assert all((x @ rotation(6, seed) - y).norm() > best for seed in range(20))


def test_pairs_of_weight_zero_have_no_say():
    x, turn = points(60, 10), rotation(10)
    y = x @ turn
    y[30:] = points(30, 10, 9)
    weights = (torch.arange(60) < 30).float()
    assert torch.allclose(procrustes(x, y, weights), turn, atol=1e-5)


@pytest.mark.parametrize("weights", [-torch.ones(5), torch.zeros(5), torch.full((5,), torch.nan)])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(UserError, match="weights"):
        procrustes(points(5, 3), points(5, 3), weights)


def test_normalised_rows_have_unit_length_and_more_rounds_centre_them():
    x = points(300, 10) + 2
    for times in (1, 30):
        out = normalised(x, normalising_means(x, times))
        assert torch.allclose(out.norm(dim=1), torch.ones(300), atol=1e-5)
    assert out.mean(dim=0).norm() < 1e-4
    assert normalised(x, normalising_means(x, 1)).mean(dim=0).norm() > 1e-3


def test_reweighting_with_power_zero_and_true_pairs_rotates_alone():
    x = normalised(points(300, 12), torch.zeros(0, 12))
    turn = rotation(12)
    fit = reweighted(x, x @ turn, torch.eye(300), power=0.0)
    assert torch.allclose(fit.source(x), fit.target(x @ turn), atol=1e-4)


def test_reweighting_finds_pairs_where_half_the_axes_are_unrelated():
    shared, own, other = points(400, 20, 1), points(400, 20, 2), points(400, 20, 3)
    x, y = torch.cat([shared, 2 * own], 1), torch.cat([shared, 2 * other], 1) @ rotation(40)
    right = {}
    for power in (0.0, 0.5):
        fit = reweighted(x, y, torch.eye(400), power=power)
        found = retrieve(fit.source(x), fit.target(y)).indices[:, 0]
        right[power] = (found == torch.arange(400)).float().mean()
    assert right[0.5] > right[0.0] + 0.1 and right[0.5] > 0.9
    assert fit.singular_values[:20].min() > 0.9 and fit.singular_values[25:].max() < 0.6


def test_a_coupling_without_weight_is_refused():
    with pytest.raises(UserError, match="no weight"):
        reweighted(points(5, 3), points(5, 3), torch.zeros(5, 5))
