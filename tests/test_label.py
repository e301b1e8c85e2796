"""Label methods on latents whose meaning is known, and the laws that scores and predicates obey."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from activation_cache.errors import UserError
from sae_translate.label.evidence import Passage, best_feature_set, count_features, top_features
from sae_translate.label.methods import (
    calibrated,
    first_term_right,
    frequent_answers,
    logit_lens_answers,
    paired_answers,
    random_answers,
    unpaired_answers,
)
from sae_translate.label.predicates import KINDS, Predicate, shifted
from sae_translate.label.scores import bootstrap_interval, score_of_counts, score_predicate
from sae_translate.label.splits import SHARES, dealt, split_documents

V = 12
NAMES = [f"w{i}" for i in range(V)]


def random_passage(seed, rules, n_segments=60, length=25):
    """A random text, and latents that fire where each rule says."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, V, n_segments * length)
    segments = np.arange(0, len(tokens) + 1, length)
    active = np.stack([rule(tokens, segments, generator) for rule in rules], axis=1)
    latents = sparse.csr_array((active * generator.uniform(0.5, 1.5, active.shape)).astype(np.float32))
    return Passage(tokens, segments, np.arange(n_segments), latents, V)


def on_token(*wanted):
    return lambda tokens, segments, generator: np.isin(tokens, wanted)


def after_token(wanted):
    return lambda tokens, segments, generator: shifted(tokens, segments, -1) == wanted


def on_bigram(first, second):
    return lambda tokens, segments, generator: (shifted(tokens, segments, -1) == first) & (tokens == second)


def half_of_token(wanted):
    return lambda tokens, segments, generator: (tokens == wanted) & (generator.random(len(tokens)) < 0.5)


RULES = (on_token(3), on_token(1, 5), after_token(7), on_bigram(2, 9), half_of_token(4))


def counted(passage, kinds=("token", "previous_token", "next_token", "ngram")):
    return {kind: count_features(passage, kind) for kind in kinds}


@pytest.fixture(scope="module")
def passages():
    return [random_passage(seed, RULES) for seed in range(3)]


def test_the_paired_method_finds_the_rule_behind_each_latent(passages):
    fit, check = counted(passages[0]), counted(passages[1])
    answers = paired_answers(fit, check, NAMES, NAMES)
    assert [a.kind for a in answers] == ["token", "token", "previous_token", "ngram", "token"]
    assert answers[0].predicate.keys == (3,)
    assert sorted(answers[1].predicate.keys) == [1, 5]
    assert answers[2].predicate.keys == (7,) and answers[2].label == "after w7"
    assert answers[3].predicate.keys == (2 * V + 9,)
    unseen = counted(passages[2])
    scores = [score_predicate(a.predicate, a.latent, unseen) for a in answers]
    assert [s.f1 for s in scores[:4]] == [1.0] * 4
    assert scores[4].recall == 1.0 and 0.35 < scores[4].precision < 0.65


@pytest.mark.parametrize("kind", ["token", "previous_token", "next_token", "ngram"])
def test_scores_from_counts_equal_those_of_the_predicate_run_on_the_text(passages, kind):
    passage = passages[0]
    counts = counted(passage)
    keys = tuple(int(key) for key in counts[kind].keys[[1, 4, 7]])
    predicate = Predicate(kind, keys, V)
    predicted = predicate(passage.tokens, passage.segments)
    for latent in range(len(RULES)):
        active = passage.latents[:, [latent]].toarray().ravel() > 0
        score = score_predicate(predicate, latent, counts)
        hits = (predicted & active).sum()
        assert score.n_predicted == predicted.sum() and score.n_active == active.sum()
        assert score.precision == pytest.approx(hits / predicted.sum())
        assert score.recall == pytest.approx(hits / active.sum())
        specificity = (~predicted & ~active).sum() / (~active).sum()
        assert score.balanced_accuracy == pytest.approx((score.recall + specificity) / 2)


def test_no_feature_set_of_any_size_beats_the_best_one(passages):
    counts = count_features(passages[0], "token")
    for latent in range(len(RULES)):
        _, f1 = best_feature_set(counts, latent, least=1)
        for bits in range(1, 1 << V):
            other = tuple(k for k in range(V) if bits >> k & 1)
            assert score_predicate(Predicate("token", other, V), latent, {"token": counts}).f1 <= f1 + 1e-9


def test_nothing_crosses_the_end_of_a_segment():
    tokens, segments = np.array([1, 2, 3, 4]), np.array([0, 2, 4])
    assert shifted(tokens, segments, -1).tolist() == [-1, 1, -1, 3]
    assert shifted(tokens, segments, +1).tolist() == [2, -1, 4, -1]
    assert KINDS["ngram"](tokens, segments, 10).tolist() == [-1, 12, -1, 34]
    unread = np.array([1, 2, 3, -1])
    assert KINDS["ngram"](unread, segments, 10).tolist() == [-1, 12, -1, -1]
    assert KINDS["previous_token"](np.array([-1, 2, 3, 4]), segments, 10).tolist() == [-1, -1, -1, 3]


def test_a_predicate_survives_its_json():
    words = Predicate("word", (0,), V, ("Haus",))
    for predicate in (Predicate("token", (3, 4), V, ("w3", "w4")), Predicate("ngram", (2 * V + 9,), V), words):
        assert Predicate.from_dict(predicate.to_dict()) == predicate
    with pytest.raises(UserError, match="unknown predicate kind"):
        Predicate.from_dict({"kind": "tokn", "any": [[1]], "vocabulary": V})


def test_the_unpaired_method_reads_a_perfect_coupling(passages):
    passage = passages[0]
    counts = count_features(passage, "token")
    coupling = counts.mass.toarray().T.astype(np.float32)
    n = len(passage.tokens)
    arguments = dict(
        coupling=coupling,
        confidence=np.full(len(RULES), 0.9),
        density=passage.n_active / n,
        frequency=counts.occurrences / n,
        keys=counts.keys,
        kind="token",
        names=NAMES,
        vocabulary=V,
        min_confidence=0.3,
    )
    answers = unpaired_answers(**arguments, believed=True)
    assert answers[0].predicate.keys == (3,) and sorted(answers[1].predicate.keys) == [1, 5]
    assert not any(a.abstained for a in answers)
    assert all(a.abstained for a in unpaired_answers(**arguments, believed=False))
    assert all(a.abstained for a in unpaired_answers(**{**arguments, "min_confidence": 0.95}, believed=True))


def test_an_item_that_was_not_aligned_gets_no_label():
    coupling = np.zeros((1, 2), dtype=np.float32)
    (answer,) = unpaired_answers(
        coupling, np.ones(1), np.ones(1), np.ones(2), np.arange(2), "token", NAMES, V, True, 0.0
    )
    assert answer.abstained and answer.predicate is None


def test_the_logit_lens_chooses_between_this_token_and_the_next(passages):
    rules = (on_token(3), lambda tokens, segments, generator: shifted(tokens, segments, 1) == 6)
    check = counted(random_passage(5, rules))
    top = np.array([[3, 0, 1], [6, 0, 1]])
    answers = logit_lens_answers(top, np.array([[5.0, 1.0, 0.5]] * 2), check, NAMES)
    assert [(a.kind, a.predicate.keys) for a in answers] == [("token", (3,)), ("next_token", (6,))]
    assert answers[1].label == "before w6"


def test_the_floors_are_at_chance(passages):
    check = counted(passages[1])
    right = []
    for seed in range(40):
        answers = random_answers(check["token"], len(RULES), NAMES, np.random.default_rng(seed))
        right.append(first_term_right(answers, check).mean())
    assert np.mean(right) == pytest.approx(1 / V, abs=0.06)
    assert len({a.label for a in frequent_answers(check["token"], len(RULES), NAMES)}) == 1


def test_calibrated_confidence_orders_strong_before_weak_and_means_its_rate():
    generator = np.random.default_rng(0)
    n = 200
    check = counted(random_passage(3, tuple(half_of_token(i % V) for i in range(n))), kinds=("token",))
    strong = np.arange(n) % 2 == 1
    right = generator.random(n) < np.where(strong, 0.9, 0.2)
    keys = np.where(right, np.arange(n), np.arange(n) + 1) % V
    answers = [
        replace(answer, top_key=int(key), strength=float(sure))
        for answer, key, sure in zip(frequent_answers(check["token"], n, NAMES), keys, strong, strict=True)
    ]
    confidence = np.array([a.confidence for a in calibrated(answers, check)])
    assert confidence[1::2].min() > confidence[::2].max()
    assert confidence[1::2].mean() == pytest.approx(0.9, abs=0.1)
    assert confidence[::2].mean() == pytest.approx(0.2, abs=0.1)


def test_scores_of_a_latent_that_never_fires_are_undefined():
    score = score_of_counts(0.0, 5.0, 0.0, 100)
    assert np.isnan(score.f1) and score.n_predicted == 5


def test_the_interval_holds_the_mean_and_shrinks_with_n():
    generator = np.random.default_rng(0)
    few, many = generator.normal(0.5, 0.1, 20), generator.normal(0.5, 0.1, 2000)
    widths = []
    for values in (few, many):
        low, high = bootstrap_interval(values, generator)
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5
    assert widths[1] == pytest.approx(2 * 1.96 * 0.1 / 2000**0.5, rel=0.15)


def test_no_document_is_in_two_splits_and_every_split_has_its_share():
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 50, 400)
    documents = np.sort(generator.integers(0, 150, 400))
    split = split_documents(documents, lengths, seed=1)
    joined = np.concatenate(list(split.values()))
    assert len(joined) == len(set(joined.tolist())) == len(np.unique(documents))
    for name, share in SHARES.items():
        assert lengths[np.isin(documents, split[name])].sum() / lengths.sum() == pytest.approx(share, abs=0.05)
    again = split_documents(documents, lengths, seed=1)
    assert all((again[name] == split[name]).all() for name in SHARES)


def test_every_fourth_document_is_dealt_apart(passages):
    whole = passages[0]
    kept, apart = dealt(whole)
    both = np.concatenate([np.unique(kept.documents), np.unique(apart.documents)])
    assert sorted(both.tolist()) == np.unique(whole.documents).tolist()
    assert len(np.unique(apart.documents)) == len(np.unique(whole.documents)) // 4
    assert len(kept.tokens) + len(apart.tokens) == len(whole.tokens)
    assert kept.latents.nnz + apart.latents.nnz == whole.latents.nnz


def test_too_few_documents_is_a_user_error():
    with pytest.raises(UserError, match="at least 10"):
        split_documents(np.arange(9), np.full(9, 100), seed=0)


def test_top_features_share_the_activation(passages):
    counts = count_features(passages[0], "token")
    top = top_features(counts, 1)
    assert {key for key, _ in top} == {1, 5} and sum(share for _, share in top) == pytest.approx(1.0)
