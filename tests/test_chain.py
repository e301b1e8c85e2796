"""The main job from end to end on the embedded model: record, label, save, load, report; and what must fail does."""

import json
import re
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from scipy import sparse

import sae_translate
from activation_cache.errors import UserError
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.shards import ActivationCache
from sae_translate.align.decipher import DecipherConfig
from sae_translate.cli.demo import MODEL, SAE
from sae_translate.demo.stories import generate_documents
from sae_translate.label.config import LabelConfig
from sae_translate.label.evidence import Passage, count_features
from sae_translate.label.latents import directions_and_lens, gather, latents_side, unpaired
from sae_translate.label.predicates import Predicate
from sae_translate.label.scores import score_predicate
from sae_translate.label.splits import passage_of, split_documents
from sae_translate.languages.language import Language
from sae_translate.report.words import verdict_in_words

CONFIG = LabelConfig(vocabulary=300)
QUICK = LabelConfig(vocabulary=300, decipherment=DecipherConfig(iterations=15, null_surrogates=0))
"For laws that hold however good the decipherment."
TOKENS = 80_000


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> ActivationCache:
    folder = tmp_path_factory.mktemp("chain") / "cache"
    documents = generate_documents("en", None, 7)
    return sae_translate.record(folder, sae=str(SAE), model=str(MODEL), documents=documents, tokens=TOKENS)


@pytest.fixture(scope="module")
def labels(cache):
    return sae_translate.label_latents(cache, config=CONFIG)


def test_the_model_and_sae_of_a_plan_are_not_loaded_a_second_time(cache, monkeypatch):
    settings = RecordingConfig(model=str(MODEL), saes=(str(SAE),), dataset="stories", n_tokens=TOKENS)
    plan = plan_recording(settings, generate_documents("en", None, 7))
    live = np.array([3, 5, 8])
    directions, lens, _ = directions_and_lens(cache, cache.sae_entry(), live, None)
    for name in ("load_model", "load_sae"):
        monkeypatch.delattr(f"sae_translate.label.latents.{name}")
    same, same_lens, missing = directions_and_lens(cache, cache.sae_entry(), live, plan)
    assert missing == "" and (same == directions).all() and (same_lens[0] == lens[0]).all()


def by_method(labels):
    return {row["method"]: row for row in labels.summary["methods"]}


def test_unpaired_labels_are_believed_and_far_above_the_floors(labels):
    rows = by_method(labels)
    assert labels.summary["decipherment"]["believed"]
    assert rows["unpaired"]["answered"] > 150
    for floor in ("random", "frequent"):
        assert rows["unpaired"]["f1"] > 5 * rows[floor]["f1"]
        assert rows["unpaired"]["p_at_1"] > 2 * rows[floor]["p_at_1"]
    assert rows["paired"]["f1"] > rows["unpaired"]["f1"] > rows["logit_lens"]["f1"]


def test_every_live_latent_has_one_row_a_method_and_one_chosen_answer(cache, labels):
    counts = labels.table.groupby("latent")["method"].nunique()
    assert (counts == 5).all() and len(counts) == labels.summary["n_live"] == len(labels.latents)
    assert (labels.table.groupby("latent")["chosen"].sum() == 1).all()
    assert sorted(labels.chosen()["latent"]) == sorted(labels.latents["latent"])


def test_the_table_has_its_stable_columns(labels):
    stable = [
        "latent", "method", "label", "terms", "kind", "predicate", "precision", "recall", "f1", "balanced_accuracy",
        "confidence", "abstained", "chosen", "density",
    ]  # fmt: skip
    assert list(labels.table.columns)[: len(stable)] == stable


def test_scores_are_those_of_the_predicate_run_on_documents_that_no_method_saw(cache, labels):
    segments, documents = cache.context_offsets.astype(np.int64), cache.document_ids.astype(np.int64)
    split = split_documents(documents, np.diff(segments), CONFIG.seed)
    assert len(set(split["score"]) & (set(split["latents"]) | set(split["text"]))) == 0
    passage = passage_of(cache.tokens.astype(np.int64), segments, documents, cache.latents(), split["score"], 1)
    chosen = labels.chosen().dropna(subset=["f1"]).sample(40, random_state=0)
    for row in chosen.itertuples():
        fires = passage.latents[:, [row.latent]].toarray().ravel() > 0
        claimed = Predicate.from_dict(row.predicate)(passage.tokens, passage.segments)
        hits = (fires & claimed).sum()
        assert row.f1 == pytest.approx(2 * hits / (fires.sum() + claimed.sum()))


def test_the_unpaired_method_never_sees_which_token_a_latent_fired_on(cache):
    """Tokens of the latents' documents dealt to other positions change none of its claims."""

    class Noise(ActivationCache):
        @property
        def tokens(self):
            tokens = super().tokens.copy()
            segments, documents = self.context_offsets.astype(np.int64), self.document_ids.astype(np.int64)
            split = split_documents(documents, np.diff(segments), QUICK.seed)
            rows = np.repeat(np.isin(documents, split["latents"]), np.diff(segments))
            tokens[rows] = np.random.default_rng(0).permutation(tokens[rows])
            return tokens

    seen, blind = (
        gather(one, one.sae_entry(), None, QUICK, lambda stage: None) for one in (cache, Noise(cache.path))
    )
    assert (seen.passages["latents"].tokens != blind.passages["latents"].tokens).mean() > 0.5
    claims = [[(a.kind, a.predicate and a.predicate.keys) for a in unpaired(one)] for one in (seen, blind)]
    assert claims[0] == claims[1]
    kinds = {kind for kind, _ in claims[0]}
    assert kinds > {"token"}, "no latent is said to fire after a token or at the end of two"
    sides = [latents_side(one.passages["latents"], "token", one.surfaces) for one in (seen, blind)]
    assert isinstance(sides[0], Language) and (sides[0].corpus.matrix != sides[1].corpus.matrix).nnz == 0


def test_latents_dealt_to_other_positions_make_the_method_abstain(cache, labels):
    """The control: the same latents and the same text, but the order in which latents fire is lost."""

    class Shuffled(ActivationCache):
        def latents(self, sae=None):
            matrix = super().latents(sae)
            return sparse.csr_array(matrix[np.random.default_rng(0).permutation(matrix.shape[0])])

    quick = replace(CONFIG, decipherment=DecipherConfig(null_core=200))
    broken = sae_translate.label_latents(Shuffled(cache.path), config=quick)
    rows = by_method(broken)
    assert not broken.summary["decipherment"]["believed"]
    assert rows["unpaired"]["answered"] == 0 and rows["unpaired"]["chosen"] == 0
    assert (broken.table[broken.table["method"] == "unpaired"]["abstained"]).all()
    assert rows["paired"]["f1"] < 0.3 * by_method(labels)["paired"]["f1"]


def test_labels_survive_the_disk_and_make_a_report(labels, tmp_path):
    folder = labels.save(tmp_path / "labels")
    again = sae_translate.load_labels(folder)
    assert again.table["label"].tolist() == labels.table["label"].tolist()
    assert again.summary["methods"] == json.loads(json.dumps(labels.summary["methods"]))
    sae_translate.write_report(again, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']https?://""", page)


def test_the_same_seed_gives_the_same_labels(cache):
    one, two = (sae_translate.label_latents(cache, config=QUICK) for _ in range(2))
    assert one.table["label"].tolist() == two.table["label"].tolist()
    assert one.table["f1"].equals(two.table["f1"])
    assert one.table["confidence"].equals(two.table["confidence"])


def test_german_stories_of_other_plots_give_german_labels_far_above_chance(cache):
    from sae_translate.demo.stories import translations

    german = islice(generate_documents("de", None, 1_000_003), 1500)
    labels = sae_translate.label_latents(cache, text=german, config=CONFIG)
    assert labels.summary["text_unit"] == "word" and labels.summary["foreign_text"]
    verdict = labels.summary["decipherment"]
    assert verdict["believed"] and verdict["method"] == "through" and verdict["own_text_objective"] is None
    dictionary = translations("en", "de")
    unpaired = labels.table[labels.table["method"] == "unpaired"].set_index("latent")
    assert unpaired["f1"].isna().all()
    gold = labels.latents[labels.latents["token_precision"] > 0.5].set_index("latent")["token"]
    firsts = {latent: unpaired["terms"][latent][0][0].lower() for latent in gold.index if unpaired["terms"][latent]}
    right = [word in dictionary.get(gold[latent].lower(), ()) for latent, word in firsts.items()]
    generator = np.random.default_rng(0)
    dealt = generator.permutation(list(firsts.values()))
    chance = [word in dictionary.get(gold[i].lower(), ()) for i, word in zip(firsts, dealt, strict=True)]
    assert np.mean(right) > 0.15 and np.mean(right) > 3 * np.mean(chance)


def test_a_foreign_text_that_is_no_language_is_read_straight_and_withheld(cache):
    """Where the way through the dataset's own words is not to be believed, the latents are set against it directly."""
    generator = np.random.default_rng(0)
    words = [text.split() for text in islice(generate_documents("de", None, 1_000_003), 1500)]
    dealt = iter(generator.permutation([word for document in words for word in document]).tolist())
    shuffled = [" ".join(next(dealt) for _ in document) for document in words]
    quick = replace(CONFIG, decipherment=DecipherConfig(iterations=30, null_core=200))
    labels = sae_translate.label_latents(cache, text=shuffled, config=quick)
    verdict = labels.summary["decipherment"]
    assert not verdict["believed"] and verdict["method"] == "decipher"
    assert verdict["objective"] < verdict["own_text_objective"] and "of what they do" in verdict_in_words(verdict)
    assert labels.table.loc[labels.table["method"] == "unpaired", "abstained"].all()


def test_text_that_was_cached_is_not_read_again(cache):
    documents, lengths = cache.document_ids.astype(np.int64), np.diff(cache.context_offsets)
    first = split_documents(documents, lengths, QUICK.seed)["latents"][0]
    cached = next(islice(generate_documents("en", None, 7), int(first), None))
    with pytest.raises(UserError, match="stands in the cache"):
        sae_translate.label_latents(cache, text=[cached], config=QUICK)


def test_too_little_text_is_said_so(cache):
    with pytest.raises(UserError, match="too little text"):
        sae_translate.label_latents(cache, text=["The dog ran home ."], config=QUICK)


def test_the_score_documents_reach_no_method(cache):
    """Firing on the scoring documents rewritten changes scores but no answer."""

    def altered(folder):
        class Altered(ActivationCache):
            def latents(self, sae=None):
                matrix = super().latents(sae)
                segments, documents = self.context_offsets.astype(np.int64), self.document_ids.astype(np.int64)
                split = split_documents(documents, np.diff(segments), QUICK.seed)
                rows = np.repeat(np.isin(documents, split["score"]), np.diff(segments))
                matrix.data[np.repeat(rows, np.diff(matrix.indptr))] = 0
                matrix.eliminate_zeros()
                return matrix

        return Altered(folder)

    def say(stage):
        pass

    whole = gather(cache, cache.sae_entry(), None, QUICK, say)
    blind = gather(altered(cache.path), cache.sae_entry(), None, QUICK, say)
    assert np.array_equal(whole.alignment.coupling, blind.alignment.coupling)
    for kind in whole.check:
        assert (whole.check[kind].active != blind.check[kind].active).nnz == 0
    assert blind.score["token"].n_active.sum() == 0 < whole.score["token"].n_active.sum()


def test_counts_of_a_passage_equal_a_loop_over_its_positions(cache):
    tokens = cache.tokens[:500].astype(np.int64)
    latents = sparse.csr_array(cache.latents()[:500])
    passage = Passage(tokens, np.array([0, 500]), np.array([0]), latents, 1280)
    counts = count_features(passage, "token")
    latent = int(np.bincount(latents.indices).argmax())
    token = int(tokens[np.flatnonzero(latents[:, [latent]].toarray().ravel())[0]])
    fires = latents[:, [latent]].toarray().ravel() > 0
    score = score_predicate(Predicate("token", (token,), 1280), latent, {"token": counts})
    assert score.precision == pytest.approx((fires & (tokens == token)).sum() / (tokens == token).sum())
