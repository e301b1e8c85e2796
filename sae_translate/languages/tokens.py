"""What a token looks like to a reader: surfaces of token ids, where words start, names such as `cat` and `-ing`."""

import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int

WORD_PATTERN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
"Words with their inner apostrophes, and single punctuation marks."

SENTENCE_END = re.compile(r"(?<=[.?!…])[\"”“»'’)]*\s+(?![a-zß-öø-ÿ])")
"Behind a sentence: its closing quotation marks and a space, unless the next word is in lower case."

VISIBLE = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


def byte_of_character() -> dict[str, int]:
    """The printable stand-in that byte-level BPE (GPT-2) writes for each byte, reversed.

    Printable Latin-1 bytes stand for themselves; the other 68 take the code points from 256 on, in order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def decode_bytes(raw: bytes) -> str:
    """UTF-8 text; bytes that are only a part of a character are written as `\\xE2`."""
    return raw.decode("utf-8", errors="backslashreplace")


def token_surfaces(tokenizer) -> list[str]:
    """The text each token id adds, its leading space included (` cat`, `ing`, `\\n`).

    Understands byte-level BPE (`Ġcat`), sentencepiece (`▁cat`, `<0x0A>`), word pieces (`##ing`) and tokenizers whose
    tokens are whole words or single characters. Special tokens keep their own name.
    """
    pieces = [
        piece if piece is not None else "" for piece in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    ]
    special = set(tokenizer.all_special_tokens)
    bytes_of = byte_of_character()
    if any("Ġ" in piece for piece in pieces):

        def surface(piece):
            known = all(character in bytes_of for character in piece)
            return decode_bytes(bytes(bytes_of[character] for character in piece)) if known else piece

    elif any(piece.startswith("▁") for piece in pieces):

        def surface(piece):
            byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece)
            return decode_bytes(bytes([int(byte[1], 16)])) if byte else piece.replace("▁", " ")

    elif any(piece.startswith("##") for piece in pieces):

        def surface(piece):
            return piece[2:] if piece.startswith("##") else " " + piece

    else:
        probe = [i for i, piece in enumerate(pieces) if piece not in special and piece.strip()][:2]
        spaced = len(probe) == 2 and " " in tokenizer.decode(probe).strip()

        def surface(piece):
            return " " + piece if spaced else piece

    return [piece if piece in special else surface(piece) for piece in pieces]


def is_word_character(character: str) -> bool:
    """Letters, digits, marks and stray bytes belong to words; spaces and punctuation do not."""
    return character.isalnum() or character == "_"


def word_starts(
    tokens: Int[np.ndarray, "n"], segments: Int[np.ndarray, "bounds"], surfaces: list[str]
) -> Bool[np.ndarray, "n"]:
    """True where a position begins a new word: after a space, at punctuation, at the start of a segment."""
    if len(tokens) == 0:
        return np.zeros(0, dtype=bool)
    opens_apart = np.array([not s or s[0].isspace() or not (is_word_character(s[0]) or s[0] == "\\") for s in surfaces])
    closes_word = np.array([bool(s) and (is_word_character(s[-1])) for s in surfaces])
    starts = opens_apart[tokens]
    starts[1:] |= ~closes_word[tokens[:-1]]
    starts[segments[:-1][segments[:-1] < len(tokens)]] = True
    return starts


def word_texts(
    tokens: Int[np.ndarray, "n"], starts: Bool[np.ndarray, "n"], surfaces: list[str]
) -> tuple[list[str], Int[np.ndarray, "n"]]:
    """The text of every word, and for each position the word it belongs to."""
    word_of = np.cumsum(starts) - 1
    bounds = np.append(np.flatnonzero(starts), len(tokens))
    seen: dict[tuple, str] = {}
    texts = []
    ids = tokens.tolist()
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        key = tuple(ids[start:end])
        if key not in seen:
            seen[key] = "".join(surfaces[i] for i in key).strip()
        texts.append(seen[key])
    return texts, word_of


def visible(surface: str) -> str:
    """A surface without its leading space, or a visible sign where nothing else is left."""
    stripped = surface.strip()
    if stripped:
        return stripped
    return "".join(VISIBLE.get(character, "␣") for character in surface) or "∅"


def token_names(
    tokens: Int[np.ndarray, "n"],
    segments: Int[np.ndarray, "bounds"],
    surfaces: list[str],
    dominance: float = 0.5,
) -> list[str]:
    """A reader's name for every token id, judged by how the token is used in this text.

    A piece that mostly continues a word is `-ing`, one that mostly is continued is `wa-`; where more than `dominance`
    of such a piece's occurrences lie in one word, the word follows in brackets: `-ily (Lily)`.
    """
    starts = word_starts(tokens, segments, surfaces)
    n = len(surfaces)
    count = np.bincount(tokens, minlength=n)
    continues = np.bincount(tokens[~starts], minlength=n) > 0.5 * np.maximum(count, 1)
    goes_on = np.append(~starts[1:], False) if len(starts) else starts
    continued = np.bincount(tokens[goes_on], minlength=n) > 0.5 * np.maximum(count, 1)
    partial = (continues | continued) & (count > 0)

    texts, word_of = word_texts(tokens, starts, surfaces)
    words: dict[int, Counter] = defaultdict(Counter)
    for position in np.flatnonzero(partial[tokens]).tolist():
        words[int(tokens[position])][texts[word_of[position]]] += 1

    names = []
    for i, surface in enumerate(surfaces):
        name = visible(surface)
        if partial[i] and is_word_character(name[0]):
            name = ("-" if continues[i] else "") + name + ("-" if continued[i] else "")
            word, hits = words[i].most_common(1)[0]
            if hits > dominance * count[i] and len(words[i]) < count[i]:
                name += f" ({word})"
        names.append(name)
    return names


def split_words(text: str) -> list[str]:
    """Words and punctuation marks of a text, in order, with their case."""
    return WORD_PATTERN.findall(text)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, their marks included."""
    bounds = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    parts = (text[begin:end].strip() for begin, end in pairwise(bounds))
    return [part for part in parts if part]
