"""Ways to align tried in turn: what one does not find another does, and what none finds is not believed."""

import numpy as np
import pytest
from test_decipher import chain_language

from activation_cache.errors import UserError
from sae_translate.align.profiles import match_profiles
from sae_translate.translate import portfolio
from sae_translate.translate.portfolio import OF_WORDS, align_languages


@pytest.fixture(scope="module")
def plain():
    return chain_language(100, 30_000, 0, 2)


@pytest.fixture(scope="module")
def cipher():
    return chain_language(100, 30_000, 0, 10, np.random.default_rng(3).permutation(100))


def test_a_cipher_that_contexts_do_not_find_is_found_by_the_next_way(plain, cipher):
    key = np.random.default_rng(3).permutation(100)
    found = align_languages(cipher, plain)
    assert found.verdict.believed and (found.best()[:, 0] == np.argsort(key)).mean() > 0.97
    told = found.record["tried"]
    assert [way["method"] for way in told] == ["contexts", "profiles"] and found.record["method"] == "profiles"
    assert [way["believed"] for way in told] == [False, True]


def test_another_language_is_not_believed_by_any_way_and_the_nearest_is_returned(plain):
    found = align_languages(chain_language(100, 30_000, 20, 10), plain)
    told = found.record["tried"]
    assert not found.verdict.believed and [way["method"] for way in told] == list(OF_WORDS)
    margins = {way["method"]: (way["objective"] - way["threshold"]) / way["threshold"] for way in told}
    assert found.record["method"] == max(margins, key=margins.get)


def test_all_items_are_matched_where_the_heaviest_are_believed_and_only_there(plain, cipher, monkeypatch):
    sizes = []

    def counted(source, target, config):
        sizes.append(config.max_items)
        return match_profiles(source, target, config)

    monkeypatch.setattr(portfolio, "match_profiles", counted)
    monkeypatch.setattr(portfolio, "GLANCE", 60)
    align_languages(cipher, plain, ("profiles",))
    align_languages(chain_language(100, 30_000, 20, 10), plain, ("profiles",))
    assert sizes == [60, 5000, 60]


def test_a_way_that_finds_too_little_text_leaves_it_to_the_others(plain, cipher):
    few = [chain_language(900, 500, 0, seed) for seed in (2, 10)]
    with pytest.raises(UserError, match="too little text"):
        align_languages(*few, ("contexts",))
    assert [way["method"] for way in align_languages(*few).record["tried"]] == ["profiles"]
    with pytest.raises(UserError, match=r"unknown method 'context'.*contexts"):
        align_languages(cipher, plain, ("context",))
    with pytest.raises(UserError, match="no method"):
        align_languages(cipher, plain, ())
