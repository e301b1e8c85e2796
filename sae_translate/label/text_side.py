"""The text side of the unpaired method: other documents of the cache, or any text, by tokens or by words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from activation_cache.errors import UserError, choose
from activation_cache.text import load_documents
from sae_translate.label.config import LabelConfig
from sae_translate.label.evidence import Passage
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.latents import merge_positions
from sae_translate.languages.text import token_language, word_language
from sae_translate.languages.tokens import split_words, word_starts, word_texts

FOREIGN = 0.5
"Below this share of the cache's words (by occurrence) that the text knows too, the text is in another language."


@dataclass(frozen=True)
class TextSide:
    """What the unpaired method reads: a text language, and how its items are keys of a predicate."""

    language: Language
    keys: Int[np.ndarray, "items"]
    kind: str
    names: Sequence[str]
    description: str
    foreign: bool = False


def shown(name: str) -> str:
    """A name for a report that may be sent on: hub names as they are, of a local path only the last part."""
    return Path(name).name if Path(name).exists() else name


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


def shared_words(passage: Passage, documents: Sequence[str], surfaces: list[str]) -> float:
    """Share of the passage's words, by occurrence and without regard to case, that stand in the documents."""
    starts = word_starts(passage.tokens, passage.segments, surfaces)
    read = [word.casefold() for word in word_texts(passage.tokens, starts, surfaces)[0] if word.isalpha()]
    known = {word.casefold() for document in documents for word in split_words(document)}
    return sum(word in known for word in read) / max(len(read), 1)


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
        language = own_text(passages["text"], "token", surfaces, names)
        return TextSide(language, np.arange(vocabulary), "token", names, "other documents of the cached dataset")

    documents = taken_documents(text, config.text_tokens)
    read = [passages[name] for name in ("latents", "score")]
    kept = without_repeats(
        documents, (t for p in read for t in context_texts(p.tokens, p.segments, p.documents, surfaces))
    )
    if not kept:
        raise UserError(
            "every document of the text stands in the cache too: give a text that the model has not read here"
        )
    described = (shown(text) if isinstance(text, str) else "documents given") + f" ({len(kept)} documents)"
    foreign = shared_words(passages["text"], kept, surfaces) < FOREIGN
    unit = config.text_unit
    if unit == "auto":
        unit = "word" if foreign else "token"
    return choose(UNITS, unit, "text unit")(kept, tokenizer, names, words, described, foreign)


def own_text(passage: Passage, kind: str, surfaces: list[str], names: list[str]) -> Language:
    """The cache's own documents of this passage in the same units as a text: what a given text is measured against."""
    if kind == "word":
        return word_language(context_texts(passage.tokens, passage.segments, passage.documents, surfaces))
    return token_language(passage.tokens, passage.segments, passage.documents, names)


def by_tokens(documents, tokenizer, names, words, described, foreign) -> TextSide:
    """The text as token ids of the model's tokenizer."""
    ids = tokenizer(documents, add_special_tokens=False)["input_ids"]
    tokens = np.array([i for part in ids for i in part], dtype=np.int64)
    language = token_language(tokens, token_segments([len(part) for part in ids]), np.arange(len(ids)), names)
    return TextSide(language, np.arange(len(names)), "token", names, described + ", by tokens", foreign)


def by_words(documents, tokenizer, names, words, described, foreign) -> TextSide:
    """The text as words, numbered in `words`, which is added to."""
    language = word_language(documents)
    keys = np.array([words.setdefault(word, len(words)) for word in language.items], dtype=np.int64)
    return TextSide(language, keys, "word", tuple(words), described + ", by words", foreign)


UNITS = {"token": by_tokens, "word": by_words}
"What a text's items may be."
