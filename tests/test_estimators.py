"""Laws of the estimators: they are scikit-learn's, and say what the plain functions say."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from test_profiles import ciphers
from test_vectors import QUICK, cloud, rotation

from activation_cache.errors import UserError
from sae_translate.align.estimators import LanguageAligner, VectorAligner
from sae_translate.align.matching import MatchConfig
from sae_translate.align.profiles import ProfilesConfig, match_profiles
from sae_translate.align.vectors import fit_vectors


@pytest.fixture(scope="module")
def sides():
    x = cloud(300, 30)
    return x.numpy(), (x @ rotation(30)).numpy()


@pytest.fixture(scope="module")
def fitted(sides):
    return VectorAligner(QUICK).fit(*sides)


def test_vectors_are_mapped_as_by_the_plain_function(sides, fitted):
    x, y = map(torch.from_numpy, sides)
    fit = fit_vectors(x, y, QUICK)
    assert np.array_equal(fitted.transform(sides[0]), fit.source(x).numpy())
    assert np.array_equal(fitted.transform_target(sides[1]), fit.target(y).numpy())
    assert fitted.score(sides[0]) == fit.objective and fitted.verdict_.believed


def test_every_source_finds_its_own(sides, fitted):
    assert np.array_equal(fitted.predict(sides[0]), np.arange(300))
    assert fitted.score(sides[0], [(i, i) for i in range(300)]) == 1.0
    assert fitted.score(sides[0], [(0, 1), (0, 0), (5, 6)]) == 0.5


def test_a_clone_is_unfitted_has_the_same_knobs_and_ends_in_the_same_bits(sides, fitted):
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        again.transform(sides[0])
    assert np.array_equal(again.fit(*sides).transform(sides[0]), fitted.transform(sides[0]))


def test_the_callers_arrays_stay_as_they_are(sides):
    before = [side.copy() for side in sides]
    VectorAligner(QUICK, pairs=[(0, 0)]).fit(*sides)
    assert all(np.array_equal(*pair) for pair in zip(before, sides, strict=True))


def test_languages_are_aligned_as_their_config_says():
    source, target, answer = ciphers(60, 20_000, 0)
    config = ProfilesConfig(match=MatchConfig(null_surrogates=0))
    fitted = clone(LanguageAligner(config)).fit(source, target)
    plain = match_profiles(source, target, config)
    items = np.arange(60)
    assert np.array_equal(fitted.predict(items), plain(items)) and fitted.score() == plain.objective
    assert np.array_equal(fitted.transform(items[:3]), plain.posterior()[:3])
    assert fitted.score(None, np.stack([items, answer], axis=1)) > 0.95


def test_no_pair_to_score_by_is_one_line(sides, fitted):
    with pytest.raises(UserError, match="one known pair"):
        fitted.score(sides[0], [])
