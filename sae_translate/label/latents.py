"""Labelling a cache: every live latent read by every method, scored on documents that no method saw."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from scipy import sparse

import sae_translate
from activation_cache.errors import UserError, choose
from activation_cache.models import load_model
from activation_cache.saes import load_sae
from activation_cache.shards import ActivationCache
from sae_translate.align.decipher import decipher
from sae_translate.label.config import LabelConfig
from sae_translate.label.details import decoder_map, latents_table
from sae_translate.label.evidence import FeatureCounts, Passage, count_features
from sae_translate.label.labels import Labels
from sae_translate.label.lens import logit_lens
from sae_translate.label.methods import (
    LENS_KINDS,
    PAIRED_KINDS,
    calibrated,
    frequent_answers,
    logit_lens_answers,
    paired_answers,
    random_answers,
    unpaired_answers,
)
from sae_translate.label.scores import NOT_SCORED, score_predicate
from sae_translate.label.splits import passage_of, split_documents
from sae_translate.label.tables import choose_answers, gold_keys, method_summary, rows_of
from sae_translate.label.text_side import text_side, word_passage
from sae_translate.languages.language import Language
from sae_translate.languages.latents import latent_language, merge_positions
from sae_translate.languages.text import keep_items, most_frequent
from sae_translate.languages.tokens import token_names, token_surfaces, word_starts


def latents_side(passage: Passage, kind: str, surfaces: list[str]) -> Language:
    """The language of the latents of a passage, all the unpaired method sees of it.

    Which tokens the latents fired on is not part of it; where the text is read by words, latents are summed over the
    pieces of each word.
    """
    live = np.arange(passage.latents.shape[1])
    source = latent_language(passage.latents, passage.segments, passage.documents, live)
    if kind != "word":
        return source
    starts = word_starts(passage.tokens, passage.segments, surfaces)
    return replace(source, corpus=merge_positions(source.corpus, starts))


def directions_and_lens(
    cache: ActivationCache, entry, live: Int[np.ndarray, "live"]
) -> tuple[np.ndarray | None, tuple[np.ndarray, np.ndarray] | None, str]:
    """Decoder directions of the live latents, the logit lens of them, and why one is missing (empty if none is)."""
    try:
        sae = load_sae(entry.source)
    except UserError as error:
        return None, None, f"the SAE could not be read: {error}"
    directions = torch.as_tensor(sae.W_dec).float()[torch.as_tensor(live)]
    try:
        unembedding = load_model(cache.manifest.model).folded_unembedding()
    except UserError as error:
        return directions.numpy(), None, f"the model could not be read: {error}"
    if unembedding.shape[0] != directions.shape[1]:
        return directions.numpy(), None, "the SAE does not live in the residual stream, which the unembedding reads"
    tokens, scores = logit_lens(directions, unembedding.float())
    return directions.numpy(), (tokens.numpy(), scores.numpy()), ""


def counted(passage: Passage, words: Passage | None, kinds: Iterable[str]) -> dict[str, FeatureCounts]:
    """Counts per kind; `word` from the passage whose positions are words, where there is one."""
    counts = {kind: count_features(passage, kind) for kind in kinds}
    return counts if words is None else counts | {"word": count_features(words, "word")}


def sae_entry(cache: ActivationCache, name: str | None):
    """The cache's SAE of this name or source, or its only one; UserError where there is none or the choice is open."""
    entries = {entry.name: entry for entry in cache.manifest.saes}
    if not entries:
        raise UserError(f"{cache.path} holds no SAE latents: cache again with --sae")
    if name is None and len(entries) == 1:
        return next(iter(entries.values()))
    if name is None:
        raise UserError(f"{cache.path} holds {len(entries)} SAEs: choose one with --sae: {', '.join(entries)}")
    for entry in entries.values():
        if name in (entry.name, entry.source):
            return entry
    return choose(entries, name, "SAE of this cache")


def label_latents(
    cache: ActivationCache | str | Path,
    text: str | Iterable[str] | None = None,
    sae: str | None = None,
    config: LabelConfig = LabelConfig(),
    progress: Callable[[str], None] | None = None,
) -> Labels:
    """Label every live latent of a cache by every method.

    cache: a cache with latents, or its folder. text: what the unpaired side reads, a path, a hub name or documents;
    by default the cache's own other documents. sae: which of the cache's SAEs, where it has several. progress: called
    with a sentence at the beginning of each stage.

    Raises UserError where the cache holds no latents, too few documents, or too little text.
    """
    started = time.perf_counter()
    say = progress or (lambda stage: None)
    cache = cache if isinstance(cache, ActivationCache) else ActivationCache(cache)
    entry = sae_entry(cache, sae)
    say("reading the cache")
    tokenizer = cache.tokenizer()
    surfaces = token_surfaces(tokenizer)
    tokens = cache.tokens.astype(np.int64)
    surfaces += [""] * max(0, int(tokens.max()) + 1 - len(surfaces))
    segments = cache.context_offsets.astype(np.int64)
    documents = cache.document_ids.astype(np.int64)
    names = token_names(tokens, segments, surfaces)
    vocabulary = len(surfaces)
    latents = cache.latents(entry.name)
    split = split_documents(documents, np.diff(segments), config.seed)
    everything = {
        name: passage_of(tokens, segments, documents, latents, chosen, vocabulary) for name, chosen in split.items()
    }
    live = np.flatnonzero(everything["latents"].n_active)
    if len(live) == 0:
        raise UserError(
            f"no latent of {entry.name} fires in this cache: check that SAE and hook fit, or cache more tokens"
        )
    passages = {name: replace(p, latents=sparse.csr_array(p.latents[:, live])) for name, p in everything.items()}

    words: dict[str, int] = {}
    side = text_side(text, passages, tokenizer, surfaces, names, config, words)
    by_word = (
        {name: word_passage(passages[name], surfaces, words) for name in ("text", "score")}
        if side.kind == "word"
        else {}
    )
    say(f"deciphering {len(live)} latents from lagged co-occurrence")
    source = latents_side(passages["latents"], side.kind, surfaces)
    items = most_frequent(side.language, config.vocabulary)
    clock = time.process_time()
    alignment = decipher(
        source, keep_items(side.language, items), replace(config.decipherment, seed=config.seed), progress=None
    )
    cpu_seconds = time.process_time() - clock

    say("counting what each latent fires on")
    kinds = tuple(dict.fromkeys((*PAIRED_KINDS, *LENS_KINDS)))
    fit = counted(passages["latents"], None, PAIRED_KINDS)
    check = counted(passages["text"], by_word.get("text"), kinds)
    score = counted(passages["score"], by_word.get("score"), kinds)
    say("reading the model's unembedding and the SAE's decoder")
    directions, lens, missing = directions_and_lens(cache, entry, live)

    density = passages["latents"].n_active / passages["latents"].latents.shape[0]
    firing = np.bincount(source.corpus.matrix.indices, minlength=len(live)) / source.corpus.n_positions
    counts = side.language.counts
    generator = np.random.default_rng(config.seed)
    answers = {
        "unpaired": unpaired_answers(
            alignment.coupling,
            alignment.confidence,
            firing,
            counts[items] / side.language.corpus.n_positions,
            side.keys[items],
            side.kind,
            side.names,
            vocabulary,
            alignment.verdict is None or alignment.verdict.believed,
            config.min_confidence,
            side.words,
        ),
        "paired": calibrated(paired_answers(fit, check, names, surfaces), check),
    }
    if lens is not None:
        answers["logit_lens"] = calibrated(logit_lens_answers(*lens, check, names), check)
    answers["random"] = calibrated(random_answers(check["token"], len(live), names, generator), check)
    answers["frequent"] = calibrated(frequent_answers(check["token"], len(live), names), check)

    say("scoring on documents that no method saw")
    scores = {
        method: [
            NOT_SCORED
            if answer.predicate is None or (method == "unpaired" and side.foreign)
            else score_predicate(answer.predicate, answer.latent, score)
            for answer in given
        ]
        for method, given in answers.items()
    }
    chosen = choose_answers(answers, check, side.foreign)
    table = rows_of(answers, scores, chosen, live, density, score)
    gold = {kind: gold_keys(score[kind], len(live)) for kind in ("token", "word") if kind in score}
    if side.foreign:
        gold.pop("word")

    say("placing decoder directions on a map")
    places = decoder_map(directions, config.seed) if directions is not None else np.zeros((len(live), 2))
    live_latents = sparse.csr_array(latents[:, live])
    details = latents_table(cache, entry.name, live_latents, live, surfaces, places, score["token"], names, config)
    verdict = alignment.verdict
    summary = {
        "model": cache.manifest.model,
        "sae": entry.source,
        "hook_name": entry.hook_name,
        "dataset": str(cache.manifest.dataset),
        "text": side.description,
        "text_unit": side.kind,
        "foreign_text": side.foreign,
        "version": sae_translate.__version__,
        "seed": config.seed,
        "d_sae": int(entry.d_sae),
        "n_live": len(live),
        "tokens": {
            "latents": len(passages["latents"].tokens),
            "text": side.language.corpus.n_positions,
            "score": len(passages["score"].tokens),
        },
        "documents": {name: len(ids) for name, ids in split.items()},
        "methods": method_summary(table, answers, gold, np.random.default_rng(config.seed)),
        "left_out": {"logit_lens": missing} if lens is None else {},
        "decipherment": {
            "objective": alignment.objective,
            "vocabulary": len(items),
            "cpu_seconds": cpu_seconds,
            **(asdict(verdict) if verdict is not None else {}),
            "objective_of_each_restart": alignment.record.get("objectives", []),
        },
        "seconds": time.perf_counter() - started,
    }
    return Labels(table, details, summary)
