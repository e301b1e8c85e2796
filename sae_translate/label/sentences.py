"""Sentences: the whole text that a cache's latents stand for, read without a pair.

The dictionary says what a latent stands for. Here every position's latents are read together, in context: deciphered on
some documents into the text of others, mended by a language model of that text, and by a reader that its own
translations teach (`sae_translate.translate.reader`).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy import sparse

from activation_cache.errors import UserError
from activation_cache.shards import ActivationCache
from sae_translate.align.alignment import Alignment
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.label.evidence import Passage
from sae_translate.label.latents import cached_text, latents_side
from sae_translate.label.splits import passage_of, split_documents
from sae_translate.languages.text import keep_items, most_frequent, token_language
from sae_translate.translate.pseudo import heaviest_items, ngrams_of, word_by_word
from sae_translate.translate.reader import ReaderConfig, teach_reader


@dataclass(frozen=True)
class SentencesConfig:
    """Knobs of `read_sentences`."""

    vocabulary: int = 2000
    "The most frequent tokens that latents are read as."
    latents: int = 4096
    "The latents that fire most are read; the reader holds this squared."
    lm_weight: float = 0.5
    "What the language model counts against the dictionary, whose translations teach the reader."
    decipherment: DecipherConfig = field(default_factory=DecipherConfig)
    "Knobs of the dictionary."
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    "Knobs of the reader."
    seed: int = 0
    "Seed of the splits, the decipherment and the reader."


@dataclass(frozen=True)
class Sentences:
    """What was read of documents that neither dictionary nor reader saw."""

    table: pd.DataFrame
    "A row a context: document, context, read (text), true (text), right (share of its tokens)."
    summary: dict
    "Shares of the tokens right (reader, dictionary with the language model, most frequent token) and the verdict."


def read_sentences(
    cache: ActivationCache | str | Path,
    sae: str | None = None,
    config: SentencesConfig = SentencesConfig(),
    progress: Callable[[str], None] | None = None,
) -> Sentences:
    """Read a fifth of a cache's documents from their latents alone.

    cache: a cache with latents, or its folder. sae: which of its SAEs, where it has several. Latents of two fifths of
    the documents and the text of two others are all that is learnt from; tokens under the latents are only scored by.
    Raises UserError where the cache holds no latents, too few documents, or too little text.
    """
    say = progress or (lambda stage: None)
    cache = cache if isinstance(cache, ActivationCache) else ActivationCache(cache)
    name = cache.sae_entry(sae).name
    say("reading the cache")
    own, text, apart, surfaces, names = _dealt(cache, name, config)

    say(f"deciphering {own.latents.shape[1]:,} latents from lagged co-occurrence")
    source, test = (latents_side(passage, "token", surfaces) for passage in (own, apart))
    target = token_language(text.tokens, text.segments, text.documents, names)
    items = most_frequent(target, config.vocabulary)
    target = keep_items(target, items)
    knobs = replace(config.decipherment, seed=config.seed)
    alignment = decipher(source, target, knobs)

    say("teaching a reader by what the dictionary tells")
    model = ngrams_of(target.corpus)
    coupling = alignment.coupling.astype(np.float32)
    told, looked_up = (
        heaviest_items(word_by_word(side.corpus, coupling, model, config.lm_weight)) for side in (source, test)
    )
    taught = replace(config.reader, seed=config.seed)
    reader = teach_reader(own.latents, own.segments, told, target.counts, model, taught)[-1]

    say("reading documents that it has not seen")
    read = items[reader(apart.latents, apart.segments, model)]
    summary = {
        "reader": float((read == apart.tokens).mean()),
        "dictionary": float((np.where(looked_up >= 0, items[looked_up], -1) == apart.tokens).mean()),
        "most_frequent": float((apart.tokens == items[0]).mean()),
        "n_tokens": len(apart.tokens),
        "n_latents": own.latents.shape[1],
        "sae": name,
        "seed": config.seed,
        **judged(alignment),
    }
    return Sentences(as_table(read, apart.tokens, apart.segments, apart.documents, surfaces), summary)


def _dealt(
    cache: ActivationCache, sae: str, config: SentencesConfig
) -> tuple[Passage, Passage, Passage, list[str], list[str]]:
    """Documents whose latents, whose text, and neither of which is learnt from, over the latents that fire most; what
    every token looks like, and what it is called."""
    tokens, segments, documents, surfaces, names = cached_text(cache, cache.tokenizer())
    latents = cache.latents(sae)
    firing = np.bincount(latents.indices, minlength=latents.shape[1])
    live = np.sort(np.argsort(-firing, kind="stable")[: min(config.latents, int((firing > 0).sum()))])
    if len(live) < 2:
        raise UserError(f"{len(live)} latents of {sae} fire in this cache: check SAE and hook, or cache more tokens")
    split = split_documents(documents, np.diff(segments), config.seed)
    kept = sparse.csr_array(latents[:, live])
    own, text, apart = (
        passage_of(tokens, segments, documents, kept, split[part], len(surfaces))
        for part in ("latents", "text", "score")
    )
    return own, text, apart, surfaces, names


def judged(alignment: Alignment) -> dict:
    """The verdict of the dictionary, flat; nothing where none was asked for."""
    verdict = {} if alignment.verdict is None else asdict(alignment.verdict)
    return {name: verdict[name] for name in ("believed", "reason") if name in verdict}


def as_table(
    read: Int[np.ndarray, "n"],
    true: Int[np.ndarray, "n"],
    segments: Int[np.ndarray, "bounds"],
    documents: Int[np.ndarray, "segments"],
    surfaces: list[str],
) -> pd.DataFrame:
    """A row a context, both texts spelt out; a token that was not read is a question mark."""

    def spelt(part: Int[np.ndarray, "_"]) -> str:
        return "".join(surfaces[token] if token >= 0 else " ?" for token in part.tolist())

    cuts = segments[1:-1]
    rows = [
        {"document": int(document), "context": number, "read": spelt(ours), "true": spelt(theirs),
         "right": float((ours == theirs).mean()) if len(theirs) else 0.0}
        for number, (document, ours, theirs) in enumerate(
            zip(documents, np.split(read, cuts), np.split(true, cuts), strict=True))
    ]  # fmt: skip
    return pd.DataFrame(rows)
