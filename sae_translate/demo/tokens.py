"""Tokens of a story: words and marks, each with its concept, set into a line of text."""

from dataclasses import dataclass

Words = list[tuple[str, str]]
"Word or mark, and its concept; `<` and `>` stand for opening and closing quotation marks."


@dataclass(frozen=True)
class Token:
    """A word or a mark of the text."""

    text: str
    concept: str
    space: bool
    "Whether a space stands before it."


def join(sentences: list[Words], opening: str, closing: str) -> tuple[Token, ...]:
    """Sentences with capitals, spaces and quotation marks in their places."""
    tokens: list[Token] = []
    for sentence in sentences:
        capital = True
        for word, concept in sentence:
            tight = not tokens or word in (".", ",", "?", "!", ">") or tokens[-1].text == opening
            text = {"<": opening, ">": closing}.get(word, word)
            if capital and text != opening:
                text, capital = text[0].upper() + text[1:], False
            tokens.append(Token(text, concept, not tight))
    return tuple(tokens)
