"""Labelling a cache: every live latent read by every method, scored on documents that no method saw."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse

import sae_translate
from activation_cache.errors import UserError
from activation_cache.layout import SaeEntry
from activation_cache.models import load_model
from activation_cache.plan import RecordingPlan
from activation_cache.saes import load_sae
from activation_cache.shards import ActivationCache
from sae_translate.align.alignment import Alignment, through
from sae_translate.align.contexts import ContextsConfig, align_contexts
from sae_translate.align.decipher import explained_by
from sae_translate.label.config import LabelConfig
from sae_translate.label.details import decoder_map, latents_table
from sae_translate.label.evidence import FeatureCounts, Passage, count_features
from sae_translate.label.labels import Labels
from sae_translate.label.lens import logit_lens
from sae_translate.label.methods import (
    LENS_KINDS,
    PAIRED_KINDS,
    Answer,
    calibrated,
    frequent_answers,
    logit_lens_answers,
    paired_answers,
    random_answers,
    trusted,
    unpaired_answers,
)
from sae_translate.label.scores import NOT_SCORED, score_predicate
from sae_translate.label.splits import dealt, passage_of, split_documents
from sae_translate.label.tables import choose_answers, gold_keys, method_summary, rows_of
from sae_translate.label.text_side import TextSide, own_text, shown, text_side, word_passage
from sae_translate.languages.language import Language
from sae_translate.languages.latents import latent_language, merge_positions
from sae_translate.languages.text import keep_items, most_frequent
from sae_translate.languages.tokens import token_names, token_surfaces, word_starts
from sae_translate.translate.dictionary import Reading, decipher_and_read


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


def cached_text(
    cache: ActivationCache, tokenizer: Any
) -> tuple[
    Int[np.ndarray, "n"], Int[np.ndarray, "bounds"], Int[np.ndarray, "segments"], list[str], list[str]
]:
    """Tokens of a cache, bounds of its contexts and the document of each; what every token looks like and is called."""
    tokens, segments = cache.tokens.astype(np.int64), cache.context_offsets.astype(np.int64)
    surfaces = token_surfaces(tokenizer)
    surfaces += [""] * max(0, int(tokens.max()) + 1 - len(surfaces))
    return tokens, segments, cache.document_ids.astype(np.int64), surfaces, token_names(tokens, segments, surfaces)


def directions_and_lens(
    cache: ActivationCache, entry: SaeEntry, live: Int[np.ndarray, "live"], plan: RecordingPlan | None
) -> tuple[np.ndarray | None, tuple[np.ndarray, np.ndarray] | None, str]:
    """Decoder directions of the live latents, the logit lens of them, and why one is missing (empty if none is).

    Model and SAE are those of the plan the cache was recorded by, or are loaded again where there is none.
    """
    try:
        sae = plan.sae(entry.name) if plan else load_sae(entry.source)
    except UserError as error:
        return None, None, f"the SAE could not be read: {error}"
    directions = sae.W_dec[torch.as_tensor(live)].cpu().float()
    try:
        model = plan.model if plan else load_model(cache.manifest.model)
        unembedding = model.unembedding()[0].cpu().float()
    except UserError as error:
        return directions.numpy(), None, f"the model could not be read: {error}"
    if unembedding.shape[0] != directions.shape[1]:
        return directions.numpy(), None, "the SAE does not live in the residual stream, which the unembedding reads"
    spoken = directions - directions.mean(1, keepdim=True) if model.final_norm_centers else directions
    tokens, scores = logit_lens(spoken, model.final_norm_weight[:, None].cpu().float() * unembedding)
    return directions.numpy(), (tokens.numpy(), scores.numpy()), ""


def counted(passage: Passage, words: Passage | None, kinds: Iterable[str]) -> dict[str, FeatureCounts]:
    """Counts per kind; `word` from the passage whose positions are words, where there is one."""
    counts = {kind: count_features(passage, kind) for kind in kinds}
    return counts if words is None else counts | {"word": count_features(words, "word")}


@dataclass(frozen=True)
class Material:
    """All that the methods may draw on. Which of it a method looks at stands in its entry of METHODS."""

    config: LabelConfig
    live: Int[np.ndarray, "live"]
    surfaces: list[str]
    names: list[str]
    latents: sparse.csr_array
    "Activations of the live latents at every cached position, for the report's contexts."
    passages: dict[str, Passage]
    side: TextSide
    source: Language
    "The language of the latents, from the documents kept for them."
    items: Int[np.ndarray, "items"]
    "Items of the text language that unpaired labels are made of."
    alignment: Alignment
    told: Passage | None
    "The latents' documents as the unpaired method read them in the cache's tokens; None where it did not."
    own_explains: float | None
    "What the cache's own text explains of the latents, where another text was read straight and judged."
    fit: dict[str, FeatureCounts]
    "Counts on the latents' own documents."
    check: dict[str, FeatureCounts]
    "Counts on the text's documents: for choosing and calibrating."
    score: dict[str, FeatureCounts]
    "Counts on documents that no method sees."
    directions: Float[np.ndarray, "live d"] | None
    lens: tuple[Int[np.ndarray, "live k"], Float[np.ndarray, "live k"]] | None
    missing: str
    "Why there are no directions or no lens; empty where both are there."

    @property
    def vocabulary(self) -> int:
        return len(self.surfaces)


def unpaired(material: Material) -> list[Answer]:
    """Latents of one set of documents deciphered into the text of another; pairs are never looked at.

    Where the latents' documents were read in context, a latent's claim is found in what was read, as the paired method
    finds it in the text; otherwise in the dictionary alone.
    """
    side, source, alignment = material.side, material.source.corpus, material.alignment
    firing = np.bincount(source.matrix.indices, minlength=len(material.live)) / source.n_positions
    frequency = side.language.counts[material.items] / side.language.corpus.n_positions
    if material.told is not None:
        found, checked = dealt(material.told)
        answers = paired_answers(
            *({kind: count_features(part, kind) for kind in PAIRED_KINDS} for part in (found, checked)),
            material.names,
            material.surfaces,
        )
        return trusted(answers, alignment.confidence, material.config.min_confidence)
    return unpaired_answers(
        alignment.coupling,
        alignment.confidence,
        firing,
        frequency,
        side.keys[material.items],
        side.kind,
        side.names,
        material.vocabulary,
        alignment.verdict is None or alignment.verdict.believed,
        material.config.min_confidence,
    )


def paired(material: Material) -> list[Answer]:
    """Tokens and n-grams the latent fired on, on its own documents."""
    answers = paired_answers(material.fit, material.check, material.names, material.surfaces)
    return calibrated(answers, material.check)


def lens(material: Material) -> list[Answer] | None:
    """Tokens the decoder direction promotes; None where there is no unembedding to read them with."""
    if material.lens is None:
        return None
    return calibrated(logit_lens_answers(*material.lens, material.check, material.names), material.check)


def random(material: Material) -> list[Answer]:
    """A random token: the floor."""
    generator = np.random.default_rng(material.config.seed)
    answers = random_answers(material.check["token"], len(material.live), material.names, generator)
    return calibrated(answers, material.check)


def frequent(material: Material) -> list[Answer]:
    """The most frequent token: the other floor."""
    answers = frequent_answers(material.check["token"], len(material.live), material.names)
    return calibrated(answers, material.check)


METHODS: dict[str, Callable[[Material], list[Answer] | None]] = {
    "unpaired": unpaired,
    "paired": paired,
    "logit_lens": lens,
    "random": random,
    "frequent": frequent,
}
"Every label method; a new one is a function of the material and a line here."


def translated(
    source: Language,
    target: Language,
    own: Language | None,
    foreign: bool,
    config: LabelConfig,
    say: Callable[[str], None],
) -> tuple[Reading, float | None]:
    """The latents in the target's items, and what the cache's own text, if another was given, explains of them.

    Into another language the way leads through the cache's own text, as latents speak of its words and only words
    keep like company in two languages; or straight there, where one half of that way is not to be believed.
    """
    knobs = replace(config.decipherment, seed=config.seed)
    spoken = None if own is None else keep_items(own, most_frequent(own, config.vocabulary))
    if foreign and spoken is not None:
        say(f"deciphering {len(source.items):,} latents into the dataset's own words, and those into the text's")
        first = decipher_and_read(source, spoken, knobs).alignment
        second = align_contexts(spoken, target, ContextsConfig(seed=config.seed, device=knobs.device))
        whole = through(first, second)
        if whole.verdict is not None and whole.verdict.believed:
            return Reading(whole, None, np.empty(0, np.int64)), None
    say(f"deciphering {len(source.items):,} latents from lagged co-occurrence")
    reading = decipher_and_read(source, target, knobs)
    judged = spoken is not None and reading.alignment.verdict is not None
    return reading, explained_by(source, spoken, knobs) if judged else None


def told_passage(reading: Reading, keys: Int[np.ndarray, "items"], vocabulary: int) -> Passage | None:
    """What was read, as a passage of tokens: item i stands for token `keys[i]`."""
    if reading.corpus is None:
        return None
    corpus = reading.corpus
    tokens = np.where(reading.items >= 0, keys[reading.items], -1)
    return Passage(tokens, corpus.segments, corpus.documents, corpus.matrix, vocabulary)


def gather(
    cache: ActivationCache,
    entry: SaeEntry,
    text: str | Iterable[str] | None,
    config: LabelConfig,
    say: Callable[[str], None],
    plan: RecordingPlan | None = None,
) -> Material:
    """Split the documents, decipher, count, and read the decoder: everything the methods draw on."""
    say("reading the cache")
    tokenizer = cache.tokenizer()
    tokens, segments, documents, surfaces, names = cached_text(cache, tokenizer)
    latents = cache.latents(entry.name)
    split = split_documents(documents, np.diff(segments), config.seed)
    whole = {
        name: passage_of(tokens, segments, documents, latents, chosen, len(surfaces)) for name, chosen in split.items()
    }
    live = np.flatnonzero(whole["latents"].n_active)
    if len(live) == 0:
        raise UserError(f"no latent of {entry.name} fires in this cache: check SAE and hook, or cache more tokens")
    passages = {name: replace(p, latents=sparse.csr_array(p.latents[:, live])) for name, p in whole.items()}

    words: dict[str, int] = {}
    side = text_side(text, passages, tokenizer, surfaces, names, config, words)
    by_word = {}
    if side.kind == "word":
        by_word = {name: word_passage(passages[name], surfaces, words) for name in ("text", "score")}
    source = latents_side(passages["latents"], side.kind, surfaces)
    items = most_frequent(side.language, config.vocabulary)
    own = None if text is None else own_text(passages["text"], side.kind, surfaces, names)
    reading, own_explains = translated(source, keep_items(side.language, items), own, side.foreign, config, say)
    told = told_passage(reading, side.keys[items], len(surfaces)) if side.kind == "token" else None

    say("counting what each latent fires on")
    kinds = tuple(dict.fromkeys((*PAIRED_KINDS, *LENS_KINDS)))
    fit = counted(passages["latents"], None, PAIRED_KINDS)
    check = counted(passages["text"], by_word.get("text"), kinds)
    score = counted(passages["score"], by_word.get("score"), kinds)
    say("reading the model's unembedding and the SAE's decoder")
    directions, promoted, missing = directions_and_lens(cache, entry, live, plan)
    return Material(
        config, live, surfaces, names, sparse.csr_array(latents[:, live]), passages, side, source, items,
        reading.alignment, told, own_explains, fit, check, score, directions, promoted, missing,
    )  # fmt: skip


def label_latents(
    cache: ActivationCache | str | Path,
    text: str | Iterable[str] | None = None,
    sae: str | None = None,
    config: LabelConfig = LabelConfig(),
    progress: Callable[[str], None] | None = None,
    plan: RecordingPlan | None = None,
) -> Labels:
    """Label every live latent of a cache by every method.

    cache: a cache with latents, or its folder. text: what the unpaired side reads, a path, a hub name or documents;
    by default the cache's own other documents. sae: which of the cache's SAEs, where it has several. progress: called
    with a sentence at the beginning of each stage. plan: the one the cache was recorded by, whose model and SAE then
    need not be loaded a second time.

    Raises UserError where the cache holds no latents, too few documents, or too little text.
    """
    started = time.perf_counter()
    say = progress or (lambda stage: None)
    cache = cache if isinstance(cache, ActivationCache) else ActivationCache(cache)
    entry = cache.sae_entry(sae)
    material = gather(cache, entry, text, config, say, plan)
    answers = {name: given for name, method in METHODS.items() if (given := method(material)) is not None}

    say("scoring on documents that no method saw")
    foreign, live, score = material.side.foreign, material.live, material.score
    scores = {
        method: [
            NOT_SCORED
            if answer.predicate is None or (method == "unpaired" and foreign)
            else score_predicate(answer.predicate, answer.latent, score)
            for answer in given
        ]
        for method, given in answers.items()
    }
    chosen = choose_answers(answers, material.check, foreign)
    own = material.passages["latents"]
    table = rows_of(answers, scores, chosen, live, own.n_active / own.latents.shape[0], score)
    gold = {kind: gold_keys(score[kind], len(live)) for kind in ("token", "word") if kind in score}

    say("placing decoder directions on a map")
    directions = material.directions
    places = np.zeros((len(live), 2)) if directions is None else decoder_map(directions, config.seed)
    details = latents_table(
        cache, entry.name, material.latents, live, material.surfaces, places, gold["token"], material.names, config
    )
    summary = {
        **origin(cache, entry, material),
        "methods": method_summary(table, answers, gold, np.random.default_rng(config.seed)),
        "seconds": time.perf_counter() - started,
    }
    return Labels(table, details, summary)


def origin(cache: ActivationCache, entry: SaeEntry, material: Material) -> dict:
    """What the labels were made from and how: the summary without the scores."""
    manifest, alignment = cache.manifest, material.alignment
    return {
        "model": shown(manifest.model),
        "sae": shown(entry.source),
        "hook_name": entry.hook_name,
        "dataset": shown(manifest.dataset),
        "cache": cache.path.name,
        "text": material.side.description,
        "text_unit": material.side.kind,
        "foreign_text": material.side.foreign,
        "version": sae_translate.__version__,
        "seed": material.config.seed,
        "d_sae": int(entry.d_sae),
        "n_live": len(material.live),
        "tokens": {
            "latents": len(material.passages["latents"].tokens),
            "text": material.side.language.corpus.n_positions,
            "score": len(material.passages["score"].tokens),
        },
        "documents": {name: len(np.unique(passage.documents)) for name, passage in material.passages.items()},
        "left_out": {"logit_lens": material.missing} if material.lens is None else {},
        "decipherment": {
            "objective": alignment.objective,
            **({} if alignment.verdict is None else asdict(alignment.verdict)),
            "explained_information": alignment.objective,
            "own_text_objective": material.own_explains,
            "method": alignment.record["method"],
            "vocabulary": len(material.items),
            "seconds": alignment.record["seconds"],
            "objectives": alignment.record["objectives"],
        },
    }
