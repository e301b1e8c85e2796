"""A dictionary translates position by position, both ways; what it does not know it says or copies."""

import numpy as np
import pytest

from sae_translate.languages.hmm import bijective, joint_symbols, random_transitions, sample, symbol_language
from sae_translate.languages.text import corpus_of
from sae_translate.translate.dictionary import Dictionary, read_dictionary
from sae_translate.translate.lm import fit_ngrams
from sae_translate.translate.translator import UNKNOWN_WORD

SIZE = 12


@pytest.fixture(scope="module")
def cipher():
    """The dictionary of the true key between two ciphers of a chain, text of both, and the key."""
    rng = np.random.default_rng(0)
    chain = random_transitions(SIZE, rng)
    one, other = bijective(chain, rng), bijective(chain, rng)
    languages = tuple(symbol_language(sample(each, 80, 30, rng)[1], SIZE, "cipher") for each in (one, other))
    joint = joint_symbols(one, other).astype(np.float32)
    return read_dictionary(joint, languages), languages, joint.argmax(1)


def symbols(language) -> list[list[str]]:
    """The text of a language, segment by segment."""
    items = np.array(language.items)[language.corpus.matrix.indices]
    return [list(part) for part in np.split(items, language.corpus.segments[1:-1])]


def test_the_true_key_translates_a_cipher_both_ways_without_error(cipher):
    dictionary, languages, key = cipher
    there = dictionary.translate(languages[0].corpus)
    assert there == [[str(key[int(word)]) for word in text] for text in symbols(languages[0])]
    back = dictionary.translate_words(there, side=1)
    assert back == symbols(languages[0])


def test_what_is_not_known_is_said_so_and_a_word_copied():
    coupling = np.array([[0.0, 0.5], [0.0, 0.0]], np.float32)
    model = fit_ngrams([np.array([0, 1])], 2, 2)
    dictionary = Dictionary((("der", "und"), ("and", "the")), coupling, (model, model))
    told = dictionary.translate(corpus_of([["der", "und"], ["Zaphod"]], ("der", "und")))
    assert told == [["the", UNKNOWN_WORD], [UNKNOWN_WORD]]
    assert dictionary.translate_words([["der", "und", "Zaphod"], []]) == [["the", "und", "Zaphod"], []]
