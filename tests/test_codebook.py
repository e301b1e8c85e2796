"""Codebooks: activations in heaps become one code a heap, whatever the scale of their directions."""

import numpy as np
import pytest

from activation_cache.errors import UserError
from sae_translate.languages.codebook import codebook_language, fit_codebook, fit_whitening


@pytest.fixture(scope="module")
def heaps():
    """Activations around six centres, in directions of very different scale, and which centre each is of."""
    rng = np.random.default_rng(0)
    centre_of = rng.integers(0, 6, 600)
    centres = rng.standard_normal((6, 5))
    spread = centres[centre_of] + 0.02 * rng.standard_normal((600, 5))
    return (spread * [100, 10, 1, 0.1, 0.5] + 7).astype(np.float32), centre_of


def test_whitened_activations_have_mean_0_and_covariance_1(heaps):
    white = fit_whitening(heaps[0])(heaps[0])
    assert np.allclose(white.mean(0), 0, atol=1e-3)
    assert np.allclose(np.cov(white.T), np.eye(white.shape[1]), atol=1e-2)


def test_a_direction_without_variance_is_left_out(heaps):
    flat = np.concatenate([heaps[0], np.ones((600, 1), np.float32)], axis=1)
    assert fit_whitening(flat)(flat).shape[1] == 5


def test_positions_of_one_heap_share_a_code_and_its_vector_is_their_mean(heaps):
    activations, centre_of = heaps
    language = codebook_language(activations, np.array([0, 300, 600]), np.array([0, 1]), 6)
    codes = language.corpus.matrix.indices
    assert len({(a, b) for a, b in zip(codes, centre_of, strict=True)}) == 6
    white = fit_whitening(activations)(activations)
    for code in range(6):
        assert np.allclose(language.vectors[code], white[codes == code].mean(0), atol=0.1)


def test_a_codebook_codes_activations_that_it_was_not_fitted_on(heaps):
    activations, centre_of = heaps
    codes = fit_codebook(activations[:300], 6)(activations)
    for code in range(6):
        assert len(set(centre_of[codes == code])) == 1, "also in the half that it never saw"


def test_fewer_positions_than_codes_is_an_error(heaps):
    with pytest.raises(UserError, match="activations has 600 positions for 601 codes"):
        codebook_language(heaps[0], np.array([0, 600]), np.array([0]), 601)
