"""Dictionary: a translator without a network, which every network is to be set beside."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from sae_translate.align.alignment import Alignment, conditional
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.text import corpus_of, one_item_per_position
from sae_translate.translate.lm import NgramModel, fit_ngrams
from sae_translate.translate.pseudo import heaviest_items, texts_of, word_by_word
from sae_translate.translate.translator import UNKNOWN_WORD


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
    models = [
        fit_ngrams(texts_of(one.corpus, np.arange(len(one.corpus.documents))), len(one.items), order)
        for one in languages
    ]
    return Dictionary((languages[0].items, languages[1].items), coupling, (models[0], models[1]), weight)


def in_context(
    alignment: Alignment, source: Language, target: Language, order: int = 3, weight: float = 0.5
) -> Alignment:
    """The alignment counted anew: the source is read in context by its dictionary and a language model of the target,
    and every source item is then the targets that were read where it stands, weighted by its activation.

    What co-occurrence left open for an item alone, its neighbours settle. One step of Viterbi training. The confidence
    of a source item is at least the share of its activation that its best target was read under, where the alignment
    is believed.
    """
    model = fit_ngrams(texts_of(target.corpus, np.arange(len(target.corpus.documents))), len(target.items), order)
    told = heaviest_items(word_by_word(source.corpus, alignment.coupling.astype(np.float32), model, weight))
    joint = (source.corpus.matrix.T @ one_item_per_position(told, len(target.items))).toarray()
    coupling = joint / max(float(joint.sum(dtype=np.float64)), 1e-30)
    share = conditional(coupling).max(axis=1)
    believed = alignment.verdict is None or alignment.verdict.believed
    confidence = np.maximum(alignment.confidence, share * believed).astype(np.float32)
    return replace(alignment, coupling=coupling, confidence=confidence)
