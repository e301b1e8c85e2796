"""Stories: the same plots told in English and in German, the concept behind every token known."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from types import MappingProxyType

from activation_cache.errors import choose
from sae_translate.demo.arcs import generate_plot
from sae_translate.demo.english import render_english
from sae_translate.demo.german import render_german
from sae_translate.demo.tokens import Token

LANGUAGES = MappingProxyType({"en": render_english, "de": render_german})


@dataclass(frozen=True)
class Story:
    """A story with what every token of it stands for."""

    tokens: tuple[Token, ...]
    plot: str
    "The plot's seed; stories of one plot in two languages say the same."
    arc: str

    @property
    def text(self) -> str:
        return "".join((" " if token.space else "") + token.text for token in self.tokens)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Start and end of every token in the text, in characters."""
        spans, position = [], 0
        for token in self.tokens:
            start = position + token.space
            position = start + len(token.text)
            spans.append((start, position))
        return tuple(spans)


def generate(language: str, n: int | None = None, seed: int = 0) -> Iterator[Story]:
    """n distinct stories (without end where n is None); other seeds have other plots.

    Raises UserError where the language is unknown.
    """
    return islice(_stories(choose(dict(LANGUAGES), language, "language"), seed), n)


def _stories(render, seed: int) -> Iterator[Story]:
    told = set()
    for index in count():
        plot = generate_plot(f"{seed}:{index}")
        if plot.sentences not in told:
            told.add(plot.sentences)
            yield Story(render(plot), plot.seed, plot.arc)


def generate_documents(language: str, n: int | None = None, seed: int = 0) -> Iterator[str]:
    """The texts of `generate`."""
    return (story.text for story in generate(language, n, seed))


@cache
def concepts_of(language: str, n: int = 3000, seed: int = 0) -> MappingProxyType:
    """Every word in lower case, with its concepts, the most frequent first, counted over n stories."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for story in generate(language, n, seed):
        for token in story.tokens:
            counts[token.text.lower()][token.concept] += 1
    return MappingProxyType(
        {word: tuple(concept for concept, _ in found.most_common()) for word, found in counts.items()}
    )


@cache
def translations(source: str = "en", target: str = "de", n: int = 3000, seed: int = 0) -> MappingProxyType:
    """Every word of the source in lower case, with the words of the target that share a concept with it."""
    words: dict[str, list[str]] = defaultdict(list)
    for word, concepts in concepts_of(target, n, seed).items():
        for concept in concepts:
            words[concept].append(word)
    return MappingProxyType(
        {
            word: tuple(dict.fromkeys(other for concept in concepts for other in words[concept]))
            for word, concepts in concepts_of(source, n, seed).items()
        }
    )
