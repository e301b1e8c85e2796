"""What `align` and `train` read a language from: text, generated stories, or a cache's latents."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from activation_cache.errors import UserError
from sae_translate.cli.cache import generated_documents

if TYPE_CHECKING:
    from sae_translate.languages.language import Language


TEXT_SEED = 1_000_003
"Added to the seed of a generated text, so that it tells other plots than the one it is set against."
GENERATED = 5000
"Documents read of generated stories, which never end, where nothing else is asked for."


def is_cache(source: str) -> bool:
    """Whether the name is a folder that `sae-translate cache` wrote."""
    return (Path(source).expanduser() / "manifest.json").is_file()


def usual_ways(source: str, target: str) -> tuple[str, ...]:
    """The ways of alignment that suit what these names stand for."""
    from sae_translate.translate.portfolio import OF_LATENTS, OF_WORDS

    return OF_LATENTS if is_cache(source) or is_cache(target) else OF_WORDS


def documents_of(source: str, column: str | None, seed: int) -> Iterator[str]:
    """The documents of a text: a file, a folder, a hub name, or generated stories. `FILE:2` is column 2 of the file."""
    from activation_cache.text import load_documents

    generated = generated_documents(source, seed)
    if generated is not None:
        return generated
    path, _, number = source.rpartition(":")
    if path and number.isdecimal() and not Path(source).exists():
        return load_documents(path, column=number)
    return load_documents(source, column=column)


def read_language(
    source: str, vocabulary: int, lower: bool, column: str | None, seed: int, n_documents: int | None = None
) -> "tuple[Language, Language]":
    """The language of whole documents, for aligning, and the same cut into sentences, for training.

    Of a text the most frequent `vocabulary` words of `n_documents` (all by default) are kept. A cache's latents are not
    cut: its contexts are segments.
    Raises UserError where the source holds nothing.
    """
    from itertools import islice

    from sae_translate.languages.text import keep_items, most_frequent, word_language

    if is_cache(source):
        return (language := latents_of(source), language)
    most = n_documents or (GENERATED if source.startswith("stories") else None)
    documents = list(islice(documents_of(source, column, seed), most))
    whole = word_language(documents, source, lower=lower)
    cut = word_language(documents, source, sentences=True, lower=lower)
    if not len(whole.items):
        raise UserError(f"{source} holds no word: give a text")
    kept = most_frequent(whole, vocabulary)
    return keep_items(whole, kept), keep_items(cut, kept)


def latents_of(cache: str) -> "Language":
    """The latents of a cache's first SAE that fire at all."""
    import numpy as np

    from activation_cache.shards import ActivationCache
    from sae_translate.languages.latents import latent_language

    opened = ActivationCache(Path(cache).expanduser())
    latents = opened.latents()
    live = np.flatnonzero(np.bincount(latents.indices, minlength=latents.shape[1]))
    return latent_language(latents, opened.context_offsets, opened.document_ids, live, cache)


def text_of(cache: str) -> "Language":
    """The tokens that the model of a cache has read, each called what it looks like; positions are the latents'."""
    from activation_cache.shards import ActivationCache
    from sae_translate.label.latents import cached_text
    from sae_translate.languages.text import token_language

    opened = ActivationCache(Path(cache).expanduser())
    tokens, segments, documents, surfaces, _ = cached_text(opened, opened.tokenizer())
    return token_language(tokens, segments, documents, surfaces, cache)


def with_recorded(language: "Language", cache: str) -> "Language":
    """The language of all live latents of a cache, with the co-occurrence that was recorded of them, if any was."""
    from dataclasses import replace

    import numpy as np

    from activation_cache.shards import ActivationCache
    from sae_translate.languages.language import RecordedPairs

    opened = ActivationCache(Path(cache).expanduser())
    if opened.manifest.cooccurrence is None:
        return language
    lags = opened.manifest.cooccurrence.lags
    place = {item: i for i, item in enumerate(language.items)}
    items = np.array([place[str(latent)] for latent in opened.cooccurrence(lags[0]).latents])
    recorded = RecordedPairs(items, lags, lambda lag: opened.cooccurrence(lag).pairs)
    return replace(language, corpus=replace(language.corpus, recorded=recorded))
