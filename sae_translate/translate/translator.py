"""Translator: what training returns. Frozen, callable, saved and loaded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from activation_cache.errors import UserError
from sae_translate.artifacts import read_tensors, write_tensors
from sae_translate.config import from_table
from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.text import corpus_of
from sae_translate.translate.adapters import AdapterSpec
from sae_translate.translate.batches import UNKNOWN, batch_of
from sae_translate.translate.config import TranslatorConfig
from sae_translate.translate.criterion import texts_in
from sae_translate.translate.decoding import DecodingConfig, LanguageModel, copy_unknown, translate_batch
from sae_translate.translate.network import Network

FORMAT = "sae-translate translator 1"
UNKNOWN_WORD = "<unknown>"


@dataclass(frozen=True)
class Translator:
    """Two languages and the network between them. Side 0 is the source, side 1 the target."""

    names: tuple[str, str]
    items: tuple[tuple[str, ...], tuple[str, ...]]
    "What the items of each vocabulary are called."
    specs: tuple[AdapterSpec, AdapterSpec]
    config: TranslatorConfig
    network: Network
    record: dict[str, Any] = field(default_factory=dict)
    "How training went: step, best (criterion), best_step, history."

    def translate(
        self,
        corpus: Corpus,
        side: int = 0,
        decoding: DecodingConfig = DecodingConfig(),  # noqa: B008  (frozen)
        model: LanguageModel | None = None,
        batch_size: int = 64,
    ) -> list[list[str]]:
        """Every segment of a corpus of this side, as the names of the other side's items.

        Raises UserError where the corpus is over another vocabulary.
        """
        size = self.specs[side].size
        if corpus.matrix.shape[1] != size:
            raise UserError(
                f"the translator's {self.names[side]} has {size:,} items and the text is over "
                f"{corpus.matrix.shape[1]:,}: read the text with the translator's vocabulary"
            )
        names, other = self.items[1 - side], len(self.items[1 - side])
        lengths = np.diff(corpus.segments)
        device = str(next(self.network.parameters()).device)
        found: list[list[str]] = [[] for _ in lengths]
        rows = np.argsort(-lengths, kind="stable")
        rows = rows[lengths[rows] > 0]
        with torch.no_grad():
            for begin in range(0, len(rows), batch_size):
                part = rows[begin : begin + batch_size]
                batch = batch_of(corpus, part).to(device)
                for row, text in zip(part, texts_in(translate_batch(self.network, side, batch, decoding, model)),
                                     strict=True):  # fmt: skip
                    words = (names[i] if i < other else UNKNOWN_WORD for i in text if i < other or i == other + UNKNOWN)
                    found[row] = list(words)
        return found

    def translate_words(
        self,
        texts: Sequence[Sequence[str]],
        side: int = 0,
        decoding: DecodingConfig = DecodingConfig(),  # noqa: B008  (frozen)
        model: LanguageModel | None = None,
    ) -> list[list[str]]:
        """Texts of words; a word that the vocabulary lacks is copied where the network says that it knows none."""
        translated = self.translate(corpus_of(texts, self.items[side]), side, decoding, model)
        known = set(self.items[side])
        missing = ([word for word in text if word not in known] for text in texts)
        return [copy_unknown(words, UNKNOWN_WORD, lost) for words, lost in zip(translated, missing, strict=True)]

    def check_language(self, language: Language, side: int) -> None:
        """Raises UserError where the language's vocabulary is not that of this side."""
        if language.items != self.items[side]:
            raise UserError(
                f"the translator's {self.names[side]} has {len(self.items[side]):,} items, {language.name} has "
                f"{len(language.items):,} and not the same: use the language it was trained on"
            )

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a translator folder. Raises UserError where it exists and `overwrite` is not given."""
        summary = {
            "names": self.names, "items": self.items, "specs": [asdict(spec) for spec in self.specs],
            "config": asdict(self.config), "record": self.record,
        }  # fmt: skip
        tensors = {name: value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}
        write_tensors(Path(path), FORMAT, summary, tensors, overwrite)


def load_translator(path: str | Path, device: str = "cpu") -> Translator:
    """The translator in a folder. Raises UserError where there is none, or it is damaged."""
    summary, arrays = read_tensors(Path(path), FORMAT, "a translator folder", "sae-translate train")
    config = from_table(TranslatorConfig, summary["config"], str(path))
    specs = tuple(AdapterSpec(**spec) for spec in summary["specs"])
    network = Network((specs[0], specs[1]), config)
    try:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path} is damaged ({reason}): run `sae-translate train` again") from None
    items = tuple(tuple(names) for names in summary["items"])
    names = tuple(summary["names"])
    return Translator(names, (items[0], items[1]), (specs[0], specs[1]), config, network.to(device).eval(),
                      summary["record"])  # fmt: skip
