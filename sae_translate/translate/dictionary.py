"""Dictionary: a translator without a network, which every network is to be set beside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from sae_translate.align.alignment import Alignment, conditional
from sae_translate.align.decipher import DecipherConfig, decipher, settle
from sae_translate.align.null import SHARPNESS
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.text import corpus_of, one_item_per_position
from sae_translate.translate.lm import NgramModel
from sae_translate.translate.pseudo import heaviest_items, ngrams_of, part_of, word_by_word
from sae_translate.translate.translator import UNKNOWN_WORD

READ = (100_000, 64), (250_000, 256)
"""Positions of the source that are read before what was read is brought back to co-occurrence, and after it: so many,
or so many for every source item where that is more."""
CANDIDATES = 6
"Targets of a position that a reading chooses from."


@dataclass(frozen=True)
class Dictionary:
    """An alignment's coupling, read position by position with a language model of the language it translates into."""

    items: tuple[tuple[str, ...], tuple[str, ...]]
    coupling: Float[np.ndarray, "source target"]
    models: tuple[NgramModel, NgramModel]
    "Language models of source and target."
    weight: float = 0.5
    "What they count; 0 gives every item its likeliest translation."

    def translate(self, corpus: Corpus, side: int = 0) -> list[list[str]]:
        """Every segment of a corpus of this side, in as many items of the other; `<unknown>` where nothing is known."""
        coupling = self.coupling if side == 0 else np.ascontiguousarray(self.coupling.T)
        told = heaviest_items(word_by_word(corpus, coupling, self.models[1 - side], self.weight))
        names = np.array([*self.items[1 - side], UNKNOWN_WORD], dtype=object)
        return [list(names[text]) for text in np.split(told, corpus.segments[1:-1])]

    def translate_words(self, texts: Sequence[Sequence[str]], side: int = 0) -> list[list[str]]:
        """Texts of words; a word without a translation is copied."""
        told = self.translate(corpus_of(texts, self.items[side]), side)
        return [
            [word if found == UNKNOWN_WORD else found for word, found in zip(text, other, strict=True)]
            for text, other in zip(texts, told, strict=True)
        ]


def read_dictionary(
    coupling: Float[np.ndarray, "source target"],
    languages: tuple[Language, Language],
    order: int = 3,
    weight: float = 0.5,
) -> Dictionary:
    """The dictionary of a coupling, with language models of both languages' whole texts."""
    models = [ngrams_of(one.corpus, order) for one in languages]
    return Dictionary((languages[0].items, languages[1].items), coupling, (models[0], models[1]), weight)


@dataclass(frozen=True)
class Reading:
    """What a language was read as, and the alignment counted from that."""

    alignment: Alignment
    corpus: Corpus | None
    "What was read of the source; None where the alignment was not believed and nothing was read."
    items: Int[np.ndarray, "n"]
    "The target item that each of its positions was read as; -1 for none."


def decipher_and_read(
    source: Language,
    target: Language,
    config: DecipherConfig = DecipherConfig(),
    progress: Callable[[str, int, int], None] | None = None,
) -> Reading:
    """The source deciphered into the target, and read in context where the target is text, one item a position.

    `progress` as of `decipher`. Raises as `decipher` does.
    """
    alignment = decipher(source, target, config, progress)
    if np.diff(target.corpus.matrix.indptr).max(initial=0) > 1:
        return Reading(alignment, None, np.empty(0, np.int64))
    return in_context(alignment, source, target, config)


def in_context(
    alignment: Alignment,
    source: Language,
    target: Language,
    config: DecipherConfig = DecipherConfig(),
    order: int = 3,
    weight: float = 0.5,
) -> Reading:
    """The source read in context by its dictionary and a language model of the target, and the alignment counted anew:
    every source item is the targets that were read where it stands, weighted by its activation.

    What co-occurrence left open for an item alone, its neighbours settle. Part of the source is read first, what was
    read is brought back to what co-occurrence bears out (`align.decipher.settle`), as a language model left to itself
    hears what it likes, and more is read by that. The confidence of a source item is at least its sharpened share of
    the best target, less where it was seen `config.min_count` times or not much more. An alignment that is not believed
    comes back as it is.
    """
    if alignment.verdict is not None and not alignment.verdict.believed:
        return Reading(alignment, None, np.empty(0, np.int64))
    model = ngrams_of(target.corpus, order)
    rng = np.random.default_rng(config.seed)
    parts = [_at_most(max(least, each * len(source.items)), source.corpus, rng) for least, each in READ]
    first = _reread(alignment, parts[0], model, weight).alignment
    second = _reread(settle(first, source, target, config), parts[1], model, weight)
    share = conditional(second.alignment.coupling) ** SHARPNESS
    held = np.bincount(source.corpus.matrix.indices, minlength=len(source.items))
    firm = conditional(share).max(axis=1) * held / (held + config.min_count)
    confidence = np.maximum(alignment.confidence, firm).astype(np.float32)
    return replace(second, alignment=replace(second.alignment, confidence=confidence))


def _at_most(positions: int, corpus: Corpus, rng: np.random.Generator) -> Corpus:
    """The corpus, or segments drawn from it where it has more positions."""
    return corpus if corpus.n_positions <= positions else part_of(corpus, positions, rng)


def _reread(alignment: Alignment, part: Corpus, model: NgramModel, weight: float) -> Reading:
    """One reading, and the coupling counted from it; items that nothing was read of keep what they had."""
    items = heaviest_items(word_by_word(part, alignment.coupling.astype(np.float32), model, weight, k=CANDIDATES))
    joint = (part.matrix.T @ one_item_per_position(items, model.size)).toarray()
    joint = joint / max(float(joint.sum(dtype=np.float64)), 1e-30)
    unread = joint.sum(axis=1) == 0
    joint[unread] = alignment.coupling[unread]
    return Reading(replace(alignment, coupling=joint / max(float(joint.sum(dtype=np.float64)), 1e-30)), part, items)
