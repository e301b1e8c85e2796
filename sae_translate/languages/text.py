"""Text as a Language: token ids of a model's tokenizer, or words."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int
from scipy import sparse

from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.tokens import split_words


def one_item_per_position(items: Int[np.ndarray, "n"], size: int) -> sparse.csr_array:
    """Positions x items with a single 1 in every row, and an empty row where the item is negative."""
    kept = items >= 0
    offsets = np.concatenate([[0], np.cumsum(kept)])
    columns = items[kept].astype(np.int32)
    return sparse.csr_array((np.ones(len(columns), np.float32), columns, offsets), shape=(len(items), size))


def token_language(
    tokens: Int[np.ndarray, "n"],
    segments: Int[np.ndarray, "bounds"],
    documents: Int[np.ndarray, "segments"],
    names: Sequence[str],
    name: str = "text",
) -> Language:
    """The text language of token ids: item i is token id i, called `names[i]`."""
    return Language(name, tuple(names), Corpus(one_item_per_position(tokens, len(names)), segments, documents))


def word_language(documents: Iterable[str], name: str = "text") -> Language:
    """The text language of words: one segment a document, one item a distinct word, the most frequent first."""
    split = [split_words(document) for document in documents]
    split = [words for words in split if words]
    vocabulary = [word for word, _ in Counter(word for words in split for word in words).most_common()]
    index = {word: i for i, word in enumerate(vocabulary)}
    items = np.array([index[word] for words in split for word in words], dtype=np.int64)
    segments = np.concatenate([[0], np.cumsum([len(words) for words in split])]).astype(np.int64)
    matrix = one_item_per_position(items, len(vocabulary))
    return Language(name, tuple(vocabulary), Corpus(matrix, segments, np.arange(len(split))))


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
