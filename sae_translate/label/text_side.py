"""The text side of the unpaired method: other documents of the cache, or any text, by tokens or by words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from activation_cache.errors import UserError, choose
from activation_cache.text import load_documents
from sae_translate.label.config import LabelConfig
from sae_translate.label.evidence import Passage
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.latents import merge_positions
from sae_translate.languages.text import token_language, word_language
from sae_translate.languages.tokens import word_starts, word_texts

FOREIGN = 0.2
"Share of the cache's words that the text must know for word predicates to be run on the cache."
FERTILITY = 1.5
"How many times more pieces per word than the cached text a text may need before it is read by words."


@dataclass(frozen=True)
class TextSide:
    """What the unpaired method reads: a text language, and how its items are keys of a predicate."""

    language: Language
    keys: Int[np.ndarray, "items"]
    kind: str
    names: Sequence[str]
    words: Sequence[str]
    description: str
    foreign: bool = False


def token_segments(lengths: Sequence[int]) -> Int[np.ndarray, "bounds"]:
    """Segment bounds of consecutive runs of these lengths."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def taken_documents(text: str | Iterable[str], limit: int) -> list[str]:
    """Documents of a text up to about `limit` words: a path, hub name, or the documents themselves."""
    documents = load_documents(text) if isinstance(text, str) else text
    taken, words = [], 0
    for document in documents:
        taken.append(document)
        words += document.count(" ") + 1
        if words >= limit:
            break
    if not taken:
        raise UserError("the text for the unpaired side holds no document: give a file or dataset with text")
    return taken


def word_passage(passage: Passage, surfaces: list[str], index: dict[str, int]) -> Passage:
    """The passage with words as positions; `index` numbers the words and is added to, as numbers never change."""
    starts = word_starts(passage.tokens, passage.segments, surfaces)
    texts, _ = word_texts(passage.tokens, starts, surfaces)
    merged = merge_positions(Corpus(passage.latents, passage.segments, passage.documents), starts)
    items = np.array([index.setdefault(text, len(index)) for text in texts], dtype=np.int64)
    return Passage(items, merged.segments, merged.documents, merged.matrix, passage.vocabulary)


def pieces_per_word(tokens: Int[np.ndarray, "n"], segments: Int[np.ndarray, "bounds"], surfaces) -> float:
    """How finely the tokenizer cuts the words of this text."""
    return len(tokens) / max(int(word_starts(tokens, segments, surfaces).sum()), 1)


def without_repeats(documents: Sequence[str], cached: Iterable[str]) -> list[str]:
    """The documents that are not, word for word, among the cached ones."""
    known = {" ".join(text.split()) for text in cached}
    return [text for text in documents if " ".join(text.split()) not in known]


def context_texts(tokens, segments, documents, surfaces) -> list[str]:
    """The text of every document, joined from its contexts."""
    texts: dict[int, list[str]] = {}
    for i, document in enumerate(documents.tolist()):
        texts.setdefault(document, []).append(
            "".join(surfaces[t] for t in tokens[segments[i] : segments[i + 1]].tolist())
        )
    return ["".join(parts) for parts in texts.values()]


def text_side(
    text: str | Iterable[str] | None,
    passages: dict[str, Passage],
    tokenizer,
    surfaces: list[str],
    names: list[str],
    config: LabelConfig,
    words: dict[str, int],
) -> TextSide:
    """The language that latents are to be translated into: the cache's own other documents, or a given text."""
    vocabulary = len(names)
    if text is None:
        other = passages["text"]
        language = token_language(other.tokens, other.segments, other.documents, names)
        return TextSide(language, np.arange(vocabulary), "token", names, (), "other documents of the cached dataset")

    documents = taken_documents(text, config.text_tokens)
    read = [passages[name] for name in ("latents", "score")]
    kept = without_repeats(
        documents, (t for p in read for t in context_texts(p.tokens, p.segments, p.documents, surfaces))
    )
    if not kept:
        raise UserError(
            "every document of the text stands in the cache too: give a text that the model has not read here"
        )
    described = (text if isinstance(text, str) else "documents given") + f" ({len(kept)} documents)"
    ids = [tokenizer(document, add_special_tokens=False)["input_ids"] for document in kept]
    tokens, segments = (
        np.array([i for part in ids for i in part], dtype=np.int64),
        token_segments([len(p) for p in ids]),
    )
    own = passages["text"]
    unit = config.text_unit
    if unit == "auto":
        finer = pieces_per_word(tokens, segments, surfaces) / pieces_per_word(own.tokens, own.segments, surfaces)
        unit = "word" if finer > FERTILITY else "token"
    if unit == "token":
        language = token_language(tokens, segments, np.arange(len(ids)), names)
        return TextSide(language, np.arange(vocabulary), "token", names, (), described + ", by tokens")
    choose({"word": 1, "token": 1}, unit, "text unit")
    language = word_language(kept)
    keys = np.array([words.setdefault(word, len(words)) for word in language.items], dtype=np.int64)
    cached, _ = word_texts(own.tokens, word_starts(own.tokens, own.segments, surfaces), surfaces)
    known = set(language.items)
    foreign = np.mean([word in known for word in cached if word.isalpha()] or [0.0]) < FOREIGN
    return TextSide(language, keys, "word", tuple(words), tuple(words), described + ", by words", bool(foreign))
