"""The language models that `translate` may write with, by kind; each is learnt from a text when it is asked for."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from activation_cache.errors import UserError, choose

if TYPE_CHECKING:
    from sae_translate.languages.language import Corpus
    from sae_translate.translate.decoding import LanguageModel
    from sae_translate.translate.lm import NgramModel
    from sae_translate.translate.neural_lm import NeuralModel
    from sae_translate.translate.translator import Translator


def sentences_of(text: str, lower: bool) -> list[list[str]]:
    """The words and marks of every sentence."""
    from sae_translate.languages.tokens import split_sentences, split_words

    return [split_words(part.lower() if lower else part) for part in split_sentences(text)]


def ngram(corpus: "Corpus", seed: int, device: str) -> "NgramModel":
    """Of the two words before."""
    from sae_translate.translate.pseudo import ngrams_of

    return ngrams_of(corpus)


def neural(corpus: "Corpus", seed: int, device: str) -> "NeuralModel":
    """Of all words before, by a small transformer."""
    from dataclasses import replace
    from itertools import count

    from sae_translate.cli import progress
    from sae_translate.translate.neural_lm import BRIEF, fit_neural

    steps = fit_neural(corpus, training=replace(BRIEF, seed=seed, device=device))
    with progress.bar("language model", BRIEF.steps, "steps") as advance:
        number = count(1)
        return progress.returned(steps, lambda loss: advance(next(number), f"{loss:.2f} nats a word"))


KINDS: "dict[str, Callable[[Corpus, int, str], LanguageModel]]" = {"ngram": ngram, "neural": neural}


def learn(text: str, kind: str, translator: "Translator", side: int, seed: int, device: str) -> "LanguageModel":
    """The language model of a text in the language of this side, over the translator's words.

    Raises UserError where the kind is unknown, or the text holds none of these words.
    """
    from itertools import islice

    from sae_translate.cli.sources import GENERATED, documents_of
    from sae_translate.languages.text import corpus_of

    fit = choose(KINDS, kind, "kind of language model")
    lower = translator.record.get("lower", True)
    documents: Iterator[str] = documents_of(text, None, seed)
    told = islice(documents, GENERATED if text.startswith("stories") else None)
    corpus = corpus_of([words for document in told for words in sentences_of(document, lower)], translator.items[side])
    if not corpus.matrix.nnz:
        raise UserError(f"{text} holds no word that the translator knows of {translator.names[side]}: give text in it")
    return fit(corpus, seed, device)
