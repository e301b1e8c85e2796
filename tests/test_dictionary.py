"""A dictionary translates position by position, both ways; what it does not know it says or copies."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from sae_translate.align.alignment import Alignment, NullVerdict
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.languages.hmm import bijective, joint_symbols, random_transitions, sample, symbol_language
from sae_translate.languages.language import Corpus
from sae_translate.languages.text import corpus_of
from sae_translate.translate.dictionary import Dictionary, decipher_and_read, in_context, read_dictionary
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


def test_context_settles_what_the_dictionary_alone_has_wrong(cipher):
    """An item that the dictionary takes for another is counted right where its neighbours say what it is."""
    dictionary, languages, key = cipher
    wrong = dictionary.coupling.copy()
    other = int(key[1])
    wrong[0] = wrong[0].sum() * (0.45 * np.eye(SIZE)[key[0]] + 0.55 * np.eye(SIZE)[other])
    verdict = NullVerdict(0.9, (0.1,), 0.2, True, "")
    given = Alignment(languages[0].items, languages[1].items, wrong, 0.9, np.full(SIZE, 0.3, np.float32), verdict)
    found = in_context(given, *languages).alignment
    assert given(np.array([0]))[0] == other and (found(np.arange(SIZE)) == key).all()
    assert found.coupling.sum() == pytest.approx(1, abs=1e-5) and found.confidence.min() > 0.4
    held = languages[0].counts
    assert (found.confidence <= held / (held + DecipherConfig().min_count) + 1e-6).all(), "sure of what was hardly seen"
    doubted = in_context(replace(given, verdict=replace(verdict, believed=False)), *languages).alignment
    assert (doubted.confidence == given.confidence).all()


def test_only_text_is_read_in_context():
    """Sets of items have no order within a position, so no language model reads them."""
    rng = np.random.default_rng(3)
    chain = random_transitions(SIZE, rng)
    one, other = (symbol_language(sample(bijective(chain, rng), 80, 30, rng)[1], SIZE, "cipher") for _ in range(2))
    quick = DecipherConfig(null_surrogates=0, iterations=20)
    reading = decipher_and_read(one, other, quick)
    assert len(reading.items) == one.corpus.n_positions and reading.corpus is one.corpus
    assert np.array_equal(np.unique(reading.items), np.unique(reading.items.clip(0, SIZE - 1)))
    corpus = other.corpus
    sets = Corpus(sparse.csr_array(corpus.matrix + 0.1 * corpus.matrix[::-1]), corpus.segments, corpus.documents)
    unread = decipher_and_read(one, replace(other, corpus=sets), quick)
    assert unread.corpus is None and len(unread.items) == 0
    assert np.array_equal(unread.alignment.coupling, decipher(one, replace(other, corpus=sets), quick).coupling)
