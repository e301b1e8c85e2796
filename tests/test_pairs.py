"""Pairs for measuring: their ceilings hold, and what aligns them looks at no pair."""

import numpy as np
import pytest

from activation_cache.errors import UserError
from sae_translate.align.alignment import conditional
from sae_translate.demo.pairs import build_pair
from sae_translate.translate.dictionary import read_dictionary


def test_a_cipher_s_dictionary_reaches_its_ceiling_from_text_alone():
    pair = build_pair("markov:12", 6000, 0)
    assert pair.ceiling == pytest.approx(1.0) and pair.chance < 0.4
    assert pair.score(read_dictionary(pair.align(0).coupling, pair.trained)) > 0.98


def test_a_hidden_markov_dictionary_lies_between_frequency_and_the_ceiling():
    pair = build_pair("hmm:3:9", 2000, 0)
    alignment = pair.align(0)
    assert alignment.coupling.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.allclose(alignment.confidence, conditional(alignment.coupling).max(1))
    score = pair.score(read_dictionary(alignment.coupling, pair.trained))
    assert pair.chance + 0.5 * (pair.ceiling - pair.chance) < score <= pair.ceiling


def test_the_network_is_shown_the_aligner_s_text_in_pieces():
    pair = build_pair("markov:6", 1000, 3)
    for whole, cut in zip(pair.aligned, pair.trained, strict=True):
        assert (whole.corpus.matrix != cut.corpus.matrix).nnz == 0
        assert np.isin(whole.corpus.segments, cut.corpus.segments).all()


def test_a_size_in_the_name_comes_before_the_other():
    own, other = build_pair("unrelated:5@400", 9000, 0), build_pair("unrelated:5", 400, 0)
    assert own.aligned[0].corpus.n_positions == other.aligned[0].corpus.n_positions == 400
    with pytest.raises(UserError, match="a number of states or symbols of 2 or more was needed, not 'x'"):
        build_pair("markov:5@x", 400, 0)
