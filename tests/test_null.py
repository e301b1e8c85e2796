"""The verdict: related languages are believed, unrelated ones are not, whatever the objective says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_decipher import chain_language

from activation_cache.errors import UserError
from sae_translate.align.core import core_of, start_emission
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.align.emission import mutual_information
from sae_translate.align.null import backwards, folds, information_beyond_frequency, judge, trial
from sae_translate.languages.language import Corpus

CONFIG = DecipherConfig(null_surrogates=1)


@pytest.fixture(scope="module")
def plain():
    return chain_language(48, 30_000, 0, 2)


def in_random_order(language):
    corpus = language.corpus
    order = np.random.default_rng(0).permutation(corpus.n_positions)
    return replace(language, corpus=Corpus(corpus.matrix[order], corpus.segments, corpus.documents))


def test_a_cipher_of_the_same_language_is_believed_for_every_seed(plain):
    key = np.random.default_rng(3).permutation(48)
    for seed in range(3):
        alignment = decipher(chain_language(48, 30_000, 0, 10 + seed, key), plain, replace(CONFIG, seed=seed))
        assert alignment.verdict.believed, alignment.verdict.reason
        assert alignment.confidence.mean() > 0.45


def test_an_unrelated_language_is_not_believed_for_any_seed(plain):
    for seed in range(4):
        alignment = decipher(chain_language(48, 30_000, 20 + seed, 30 + seed), plain, replace(CONFIG, seed=seed))
        assert not alignment.verdict.believed, alignment.verdict.reason
        assert alignment.confidence.mean() < 0.25


def test_bad_first_starts_do_not_decide(plain, monkeypatch):
    sides = [core_of(side, 48, CONFIG) for side in (chain_language(48, 30_000, 0, 10, np.arange(48)[::-1]), plain)]
    made = []

    def start(cipher, plain, config, generator):
        made.append(start_emission(cipher, plain, config, generator))
        every_row_alike = cipher.frequency.expand(len(plain.frequency), -1).clone()
        return every_row_alike if len(made) <= len(folds(len(config.lags))) else made[-1]

    monkeypatch.setattr("sae_translate.align.null.start_emission", start)
    verdict, _ = judge(*sides, CONFIG, torch.Generator().manual_seed(0))
    assert verdict.believed, verdict.reason


def test_a_look_that_cannot_convince_is_not_set_against_surrogates(plain, monkeypatch):
    sides = [core_of(side, 48, CONFIG) for side in (plain, in_random_order(plain))]
    tried = []

    def counted(*arguments):
        tried.append(trial(*arguments))
        return tried[-1]

    monkeypatch.setattr("sae_translate.align.null.trial", counted)
    verdict, found = judge(*sides, CONFIG, torch.Generator().manual_seed(0))
    assert tried[0].score <= CONFIG.margin * tried[0].learnt
    assert len(tried) == 3, "a look of one start without surrogates, then one of many with one"
    assert not verdict.believed and found is tried[1] and verdict.null == (tried[2].score,)


def test_text_in_random_order_is_not_believed(plain):
    shuffled = in_random_order(plain)
    for source, target in ((plain, shuffled), (shuffled, plain)):
        assert not decipher(source, target, CONFIG).verdict.believed


def test_no_fold_judges_by_a_lag_it_was_fitted_on_and_every_lag_is_judged():
    for n_lags in range(2, 9):
        pairs = folds(n_lags)
        assert all(seen and not set(seen) & set(unseen) for seen, unseen in pairs)
        assert {lag for _, unseen in pairs for lag in unseen} == set(range(n_lags))


def test_the_true_key_explains_all_unseen_information_and_frequencies_explain_none(plain):
    joint = core_of(plain, 48, CONFIG).joint
    assert information_beyond_frequency(joint, joint, torch.eye(48)) == pytest.approx(1.0, abs=1e-2)
    frequencies = joint[0].sum(1).expand(48, 48)
    assert information_beyond_frequency(joint, joint, frequencies) == pytest.approx(0.0, abs=1e-3)


def test_the_surrogate_keeps_counts_and_mutual_information(plain):
    core = core_of(plain, 48, CONFIG)
    surrogate = backwards(core)
    assert torch.allclose(surrogate.frequency, core.frequency)
    assert torch.allclose(surrogate.joint.sum(1), core.joint.sum(2))
    assert mutual_information(surrogate.joint) == pytest.approx(mutual_information(core.joint), rel=1e-4)
    assert not torch.allclose(surrogate.joint, core.joint, atol=1e-4)


def test_a_verdict_from_a_single_lag_is_refused(plain):
    with pytest.raises(UserError, match="a verdict needs two lags or more"):
        decipher(plain, plain, DecipherConfig(lags=(1,)))
