"""Pairs of languages whose translation is known, for measuring: each with its score's ceiling and chance."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from activation_cache.errors import UserError, choose
from sae_translate.align.alignment import Alignment, conditional
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.align.hidden import HiddenConfig, fit_tied
from sae_translate.demo.stories import generate_documents
from sae_translate.languages.hmm import (
    HiddenMarkov,
    beliefs,
    bijective,
    ceiling,
    expected_accuracy,
    hidden_markov,
    joint_symbols,
    random_transitions,
    sample,
    symbol_language,
)
from sae_translate.languages.language import Language
from sae_translate.languages.text import word_language
from sae_translate.languages.tokens import split_sentences, split_words
from sae_translate.translate.criterion import similarity
from sae_translate.translate.dictionary import Dictionary
from sae_translate.translate.translator import Translator

DOCUMENT, SEGMENT = 100, 20
"Positions of a document of a sampled language, and of the segments that a network is shown of it."
TEST_SEGMENTS = 150
TEST_STORIES = 20


@dataclass(frozen=True)
class Pair:
    """Two languages with unpaired text, and what tells how well they are translated."""

    aligned: tuple[Language, Language]
    "For the aligner: whole documents."
    trained: tuple[Language, Language]
    "For the network: the same cut into sentences."
    align: Callable[[int], Alignment]
    "The alignment that training starts from, given a seed; no pair is looked at."
    score: Callable[[Translator | Dictionary], float]
    "From source to target on text that nobody saw; higher is better."
    ceiling: float
    "The best score there can be."
    chance: float
    "The score of always giving the most frequent item."


def _deciphered(source: Language, target: Language) -> Callable[[int], Alignment]:
    return lambda seed: decipher(source, target, DecipherConfig(seed=seed, null_surrogates=0, min_count=5.0))


def _tied(source: Language, target: Language, states: int) -> Callable[[int], Alignment]:
    """What two hidden Markov languages, estimated together, say of single symbols."""

    def align(seed: int) -> Alignment:
        texts = [one.corpus.matrix.indices.reshape(-1, DOCUMENT) for one in (source, target)]
        config = HiddenConfig(states=states, restarts=6, kept=2, seed=seed)
        fit = fit_tied(*texts, len(source.items), len(target.items), config)
        coupling = joint_symbols(*fit.languages).astype(np.float32)
        confidence = conditional(coupling).max(axis=1)
        return Alignment(source.items, target.items, coupling, fit.log_likelihood, confidence)

    return align


def _sampled(
    source: HiddenMarkov, target: HiddenMarkov, size: int, rng: np.random.Generator, tied: bool = False
) -> Pair:
    texts = [(sample(one, max(2, size // DOCUMENT), DOCUMENT, rng)[1], one.emissions.shape[1], name)
             for one, name in ((source, "source"), (target, "target"))]  # fmt: skip
    aligned = tuple(symbol_language(*text) for text in texts)
    trained = tuple(symbol_language(symbols.reshape(-1, SEGMENT), *rest) for symbols, *rest in texts)
    test = sample(source, TEST_SEGMENTS, SEGMENT, rng)[1]
    bound, posterior = ceiling(source, target, test), beliefs(source, test).posterior
    corpus = symbol_language(test, source.emissions.shape[1], "test").corpus

    def score(translator: Translator | Dictionary) -> float:
        told = translator.translate(corpus)
        return expected_accuracy(target, posterior, read_back(told, test.shape[1], target.emissions.shape[1]))

    align = _tied(*aligned, len(source.start)) if tied else _deciphered(*aligned)
    return Pair(aligned, trained, align, score, bound.bayes, bound.frequency)


def read_back(told: list[list[str]], length: int, size: int) -> Int[np.ndarray, "n"]:
    """Numbers of translated symbols, `length` a segment; what is no symbol or missing counts as the last of `size`."""
    rows = []
    for text in told:
        numbers = [int(word) if word.isdecimal() else size - 1 for word in text[:length]]
        rows.append(numbers + [size - 1] * (length - len(numbers)))
    return np.array(rows).ravel()


def _markov(states: str, size: int, seed: int) -> Pair:
    rng = np.random.default_rng(seed)
    chain = random_transitions(_number(states), rng)
    return _sampled(bijective(chain, rng), bijective(chain, rng), size, rng)


def _hmm(shape: str, size: int, seed: int) -> Pair:
    rng = np.random.default_rng(seed)
    states, _, symbols = shape.partition(":")
    chain = random_transitions(_number(states), rng)
    source, target = (hidden_markov(chain, _number(symbols), rng) for _ in range(2))
    return _sampled(source, target, size, rng, tied=True)


def _unrelated(states: str, size: int, seed: int) -> Pair:
    """Two chains that have nothing to do with each other: the control that must fail."""
    rng = np.random.default_rng(seed)
    n = _number(states)
    return _sampled(bijective(random_transitions(n, rng), rng), bijective(random_transitions(n, rng), rng), size, rng)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"a number of states or symbols of 2 or more was needed, not {text!r}: such as hmm:8:32@5000")
    return int(text)


def story_sentences(language: str, n: int, seed: int) -> list[list[list[str]]]:
    """The words of every sentence of n stories, in lower case."""
    return [
        [[word.lower() for word in split_words(part)] for part in split_sentences(document)]
        for document in generate_documents(language, n, seed)
    ]


def story_test(source: str, target: str, n: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Sentences of n stories in both languages, those that stand for each other side by side."""
    both = zip(story_sentences(source, n, seed), story_sentences(target, n, seed), strict=True)
    pairs = [pair for one, other in both if len(one) == len(other) for pair in zip(one, other, strict=True)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _stories(names: str, size: int, seed: int) -> Pair:
    source, _, target = names.partition("-")
    aligned, trained = [], []
    for number, name in enumerate((source, target)):
        documents = list(generate_documents(name, max(20, size // 70), 3 * seed + number + 1))
        aligned.append(word_language(documents, name, lower=True))
        trained.append(word_language(documents, name, sentences=True, lower=True))
    test, truth = story_test(source, target, TEST_STORIES, 3 * seed + 3)
    index = {word: i for i, word in enumerate(dict.fromkeys(word for text in truth for word in text))}

    def score(translator: Translator | Dictionary) -> float:
        told = [[index.get(word, -1) for word in text] for text in translator.translate_words(test)]
        known = [[index[word] for word in text] for text in truth]
        return similarity([np.array(text, np.int64) for text in told], [np.array(text, np.int64) for text in known])

    return Pair((aligned[0], aligned[1]), (trained[0], trained[1]), _deciphered(*aligned), score, 1.0, 0.0)


PAIRS: dict[str, Callable[[str, int, int], Pair]] = {
    "markov": _markov,
    "hmm": _hmm,
    "unrelated": _unrelated,
    "stories": _stories,
}


def build_pair(name: str, size: int, seed: int) -> Pair:
    """The pair of this name, such as markov:32, hmm:8:32, unrelated:32 or stories:en-de, with about `size` positions of
    text on each side; a name with a size of its own, such as markov:32@3000, keeps to that.

    Raises UserError where there is none of that name.
    """
    kind, _, shape = name.partition(":")
    shape, _, own = shape.partition("@")
    return choose(PAIRS, kind, "pair")(shape, _number(own) if own else size, seed)
