"""Text as a Language: token ids of a model's tokenizer, or words."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int
from scipy import sparse

from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.tokens import split_sentences, split_words


def one_item_per_position(items: Int[np.ndarray, "n"], size: int) -> sparse.csr_array:
    """Positions x items with a single 1 in every row, and an empty row where the item is negative."""
    kept = items >= 0
    offsets = np.concatenate([[0], np.cumsum(kept)])
    columns = items[kept].astype(np.int32)
    return sparse.csr_array((np.ones(len(columns), np.float32), columns, offsets), shape=(len(items), size))


def corpus_of(texts: Sequence[Sequence[str]], items: Sequence[str]) -> Corpus:
    """A segment and a document for every text of words; the position of a word that is no item stays empty."""
    index = {item: i for i, item in enumerate(items)}
    bounds = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    found = np.array([index.get(word, -1) for text in texts for word in text], dtype=np.int64)
    return Corpus(one_item_per_position(found, len(index)), bounds, np.arange(len(texts)))


def token_language(
    tokens: Int[np.ndarray, "n"],
    segments: Int[np.ndarray, "bounds"],
    documents: Int[np.ndarray, "segments"],
    names: Sequence[str],
    name: str = "text",
) -> Language:
    """The text language of token ids: item i is token id i, called `names[i]`."""
    return Language(name, tuple(names), Corpus(one_item_per_position(tokens, len(names)), segments, documents))


def word_language(
    documents: Iterable[str], name: str = "text", sentences: bool = False, lower: bool = False
) -> Language:
    """The text language of words: one item a distinct word, the most frequent first; one segment a document, or with
    `sentences` one a sentence. Items and positions are the same either way. With `lower` case is not told apart."""
    parts = [split_sentences(document) if sentences else [document] for document in documents]
    split = [[words for part in pieces if (words := split_words(part.lower() if lower else part))] for pieces in parts]
    split = [segments for segments in split if segments]
    words = [word for segments in split for segment in segments for word in segment]
    vocabulary = [word for word, _ in Counter(words).most_common()]
    index = {word: i for i, word in enumerate(vocabulary)}
    items = np.array([index[word] for word in words], dtype=np.int64)
    lengths = [len(segment) for segments in split for segment in segments]
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    belongs = np.repeat(np.arange(len(split)), [len(segments) for segments in split])
    return Language(name, tuple(vocabulary), Corpus(one_item_per_position(items, len(vocabulary)), bounds, belongs))


def most_frequent(language: Language, size: int) -> Int[np.ndarray, "kept"]:
    """Indices of the most frequent items that occur at all, most frequent first; at most `size`."""
    counts = language.counts
    order = np.argsort(-counts, kind="stable")
    return order[: min(size, int((counts > 0).sum()))]


def keep_items(language: Language, items: Int[np.ndarray, "kept"]) -> Language:
    """The language over these items alone; positions of other items stay, empty."""
    matrix = sparse.csr_array(language.corpus.matrix[:, items])
    corpus = Corpus(matrix, language.corpus.segments, language.corpus.documents)
    vectors = None if language.vectors is None else language.vectors[items]
    return Language(language.name, tuple(language.items[i] for i in items), corpus, vectors)
