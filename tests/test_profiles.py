"""Laws of bijective decipherment: a cipher is read from few occurrences a word, strangers are not."""

import numpy as np
import pytest

from activation_cache.errors import UserError
from sae_translate.align.profiles import ProfilesConfig, match_profiles
from sae_translate.languages.hmm import bijective, random_transitions, sample, symbol_language
from sae_translate.languages.text import keep_items


def ciphers(size: int, n: int, seed: int, same: bool = True):
    """Two samples of a Markov language in symbols of their own, and the target symbol of every source symbol."""
    rng = np.random.default_rng(seed)
    transitions = random_transitions(size, rng)
    other = transitions if same else random_transitions(size, rng)
    made = [bijective(chain, rng) for chain in (transitions, other)]
    texts = [
        symbol_language(sample(one, n // 200, 200, rng)[1], size, name) for one, name in zip(made, "ab", strict=True)
    ]
    answer = made[1].emissions.argmax(1)[made[0].emissions.argmax(0)]
    return *texts, answer


def test_a_cipher_is_read_at_150_occurrences_a_word():
    source, target, answer = ciphers(200, 30_000, 0)
    alignment = match_profiles(source, target)
    assert alignment.verdict.believed
    assert (alignment(np.arange(200)) == answer).mean() > 0.99


def test_independent_languages_abstain():
    source, target, _ = ciphers(100, 20_000, 1, same=False)
    alignment = match_profiles(source, target)
    assert not alignment.verdict.believed and (alignment.confidence == 0).all()


def test_what_is_left_out_stands_together_and_gets_no_answer():
    source, target, answer = ciphers(100, 60_000, 2)
    alignment = match_profiles(source, target, ProfilesConfig(max_items=80))
    matched = alignment.coupling.sum(1) > 0
    assert matched.sum() == 80
    assert (alignment(np.flatnonzero(matched)) == answer[matched]).mean() > 0.8
    assert (alignment.confidence[~matched] == 0).all()


def test_the_coupling_is_a_distribution_and_the_partner_is_its_best():
    source, target, _ = ciphers(60, 20_000, 3)
    alignment = match_profiles(source, target)
    assert alignment.coupling.sum() == pytest.approx(1, abs=1e-4) and alignment.coupling.min() >= 0
    assert len(set(alignment(np.arange(60)).tolist())) == 60


def test_too_little_text_is_an_error_that_names_the_figures():
    source, target, _ = ciphers(60, 2_000, 4)
    with pytest.raises(UserError, match="too little text to match: a has 2,000 positions, in which 0 items occur"):
        match_profiles(source, target, ProfilesConfig(min_count=1e6))
    one = keep_items(source, np.array([0]))
    with pytest.raises(UserError, match="2 are needed"):
        match_profiles(one, target)
