"""Label methods: each turns its own evidence into one answer per live latent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression

from sae_translate.label.evidence import (
    FeatureCounts,
    best_feature_set,
    best_prefix,
    top_features,
)
from sae_translate.label.predicates import Predicate
from sae_translate.label.scores import score_predicate

N_TERMS = 10
PAIRED_KINDS = ("token", "previous_token", "ngram")
LENS_KINDS = ("token", "next_token")
SIMPLER = 0.1
"How much F1 a kind other than the current token must gain to be preferred: single tokens read more easily."


@dataclass(frozen=True)
class Answer:
    """What one method says of one latent."""

    latent: int
    "Row of the latent among the live ones."
    kind: str
    terms: tuple[tuple[str, float], ...]
    "Names with weights, best first; shares of activation mass, or standardised logits for the logit lens."
    predicate: Predicate | None
    label: str
    strength: float
    "The method's own evidence for its first term; only its order means anything."
    confidence: float
    "Estimated chance that the first term is the latent's first term."
    abstained: bool
    top_key: int = -1
    "Feature key of the first term."
    token_key: int = -1
    "The current token (or word) it would name the latent after, whatever its kind; what P@1 judges."


NO_ANSWER = "—"
"Label of a latent on which a method has nothing to say."


def silent(latent: int, kind: str = "token") -> Answer:
    """The answer of a method that found nothing."""
    return Answer(latent, kind, (), None, NO_ANSWER, 0.0, 0.0, True)


def label_text(kind: str, names: Sequence[str], weights: Sequence[float]) -> str:
    """Up to three names whose weight is at least a third of the first, in the words of the kind."""
    names = [name for name, weight in zip(names, weights, strict=True) if weight >= weights[0] / 3][:3]
    prefix = {"previous_token": "after ", "next_token": "before "}.get(kind, "")
    return prefix + ", ".join(dict.fromkeys(names))


def key_name(kind: str, key: int, names: Sequence[str], surfaces: Sequence[str], vocabulary: int) -> str:
    """How a reader calls a feature: a token's name, or an n-gram's text."""
    if kind == "ngram":
        return (surfaces[key // vocabulary] + surfaces[key % vocabulary]).strip()
    return names[key]


def answer_of_set(
    latent: int,
    kind: str,
    keys: Sequence[int],
    terms: Sequence[tuple[int, float]],
    strength: float,
    name: Callable[[int], str],
    vocabulary: int,
    token_key: int | None = None,
) -> Answer:
    """The answer that claims the set `keys` and is named after its heaviest members; `token_key`: its first term."""
    inside = [(key, weight) for key, weight in terms if key in set(keys)] or [(key, 1.0) for key in keys[:1]]
    return Answer(
        latent=latent,
        kind=kind,
        terms=tuple((name(key), weight) for key, weight in terms[:N_TERMS]),
        predicate=Predicate(kind, tuple(map(int, keys)), vocabulary, tuple(name(key) for key in keys)),
        label=label_text(kind, [name(key) for key, _ in inside], [weight for _, weight in inside]),
        strength=strength,
        confidence=float("nan"),
        abstained=False,
        top_key=int(terms[0][0]),
        token_key=int(terms[0][0]) if token_key is None else token_key,
    )


def unpaired_answers(
    coupling: Float[np.ndarray, "live items"],
    confidence: Float[np.ndarray, "live"],
    density: Float[np.ndarray, "live"],
    frequency: Float[np.ndarray, "items"],
    keys: Int[np.ndarray, "items"],
    kind: str,
    names: Sequence[str],
    vocabulary: int,
    believed: bool,
    min_confidence: float,
) -> list[Answer]:
    """Read each latent off a coupling that was found without pairs.

    density: share of positions at which the latent fires, on the latents' documents; frequency: share of positions
    that hold the item, in the text. The expected firing rate on item t is `density * P(t | latent) / frequency[t]`, at
    most 1, from which the item set of highest expected F1 follows. Every answer abstains where the alignment as a
    whole is not believed, or its confidence is below `min_confidence`.
    """
    answers = []
    for latent in range(len(coupling)):
        total = coupling[latent].sum()
        if total <= 0:
            answers.append(silent(latent, kind))
            continue
        posterior = coupling[latent] / total
        order = np.argsort(-posterior, kind="stable")[:64]
        order = order[posterior[order] > 0]
        hits = np.minimum(density[latent] * posterior[order], frequency[order])
        by_precision = np.argsort(-hits / np.maximum(frequency[order], 1e-12), kind="stable")
        size, _ = best_prefix(hits[by_precision], frequency[order][by_precision], float(density[latent]))
        chosen = [int(keys[i]) for i in order[by_precision[: max(size, 1)]]]
        terms = [(int(keys[i]), float(posterior[i])) for i in order[:N_TERMS]]
        answer = answer_of_set(
            latent, kind, chosen, terms, float(posterior[order[0]]), lambda key: names[key], vocabulary
        )
        sure = float(confidence[latent])
        answers.append(replace(answer, confidence=sure, abstained=not believed or sure < min_confidence))
    return answers


def paired_answers(
    fit: dict[str, FeatureCounts],
    check: dict[str, FeatureCounts],
    names: Sequence[str],
    surfaces: Sequence[str],
    kinds: Sequence[str] = PAIRED_KINDS,
) -> list[Answer]:
    """Read each latent off the tokens it fired on: the ceiling for every unpaired method.

    For every kind the feature set of highest F1 on the documents of `fit`; the kind by F1 on those of `check`.
    """
    vocabulary = fit[kinds[0]].vocabulary
    answers = []
    for latent in range(len(fit[kinds[0]].n_active)):
        best: tuple[float, Answer] | None = None
        token_key = next((key for key, _ in top_features(fit["token"], latent, k=1)), -1)
        for kind in kinds:
            least, most = (3, 16) if kind == "ngram" else (1, 64)
            keys, fitted = best_feature_set(fit[kind], latent, least, most)
            if len(keys) == 0:
                continue
            terms = top_features(fit[kind], latent)
            answer = answer_of_set(
                latent, kind, keys.tolist(), terms, terms[0][1],
                lambda key, kind=kind: key_name(kind, key, names, surfaces, vocabulary), vocabulary,
                token_key=token_key,
            )  # fmt: skip
            f1 = score_predicate(answer.predicate, latent, check).f1
            f1 = fitted if np.isnan(f1) else f1
            if best is None or f1 > best[0] + SIMPLER:
                best = (f1, answer)
        answers.append(best[1] if best else silent(latent))
    return answers


def trusted(
    answers: Sequence[Answer], confidence: Float[np.ndarray, "live"], min_confidence: float
) -> list[Answer]:
    """The answers with a confidence that was found otherwise; those of too little abstain."""
    return [
        replace(answer, confidence=float(sure), abstained=bool(answer.predicate is None or sure < min_confidence))
        for answer, sure in zip(answers, confidence, strict=True)
    ]


def logit_lens_answers(
    top_tokens: Int[np.ndarray, "live k"],
    top_scores: Float[np.ndarray, "live k"],
    check: dict[str, FeatureCounts],
    names: Sequence[str],
    sizes: Sequence[int] = (1, 3, 10),
) -> list[Answer]:
    """Read each latent off the tokens that its decoder direction promotes (the logit lens).

    top_scores: logits of the decoder direction through the unembedding, standardised over the vocabulary. Whether the
    promoted tokens are a claim about the current token or the next, and how many of them, is chosen by F1 on `check`.
    """
    vocabulary = check["token"].vocabulary
    answers = []
    for latent in range(len(top_tokens)):
        terms = [(int(t), float(s)) for t, s in zip(top_tokens[latent], top_scores[latent], strict=True)]
        best: tuple[float, Answer] | None = None
        for kind in LENS_KINDS:
            for size in sizes:
                keys = [key for key, _ in terms[:size]]
                answer = answer_of_set(latent, kind, keys, terms, terms[0][1], lambda key: names[key], vocabulary)
                f1 = score_predicate(answer.predicate, latent, check).f1
                if best is None or f1 > best[0]:
                    best = (f1, answer)
        answers.append(best[1])
    return answers


def random_answers(
    counts: FeatureCounts, n_live: int, names: Sequence[str], generator: np.random.Generator
) -> list[Answer]:
    """A token drawn by its frequency for every latent: the floor."""
    share = counts.occurrences / counts.occurrences.sum()
    keys = generator.choice(counts.keys, size=n_live, p=share).tolist()
    return [
        answer_of_set(i, "token", [key], [(key, 1.0)], 0.0, lambda k: names[k], counts.vocabulary)
        for i, key in enumerate(keys)
    ]


def frequent_answers(counts: FeatureCounts, n_live: int, names: Sequence[str]) -> list[Answer]:
    """The most frequent token for every latent: the other floor."""
    key = int(counts.keys[np.argmax(counts.occurrences)])
    return [
        answer_of_set(i, "token", [key], [(key, 1.0)], 0.0, lambda k: names[k], counts.vocabulary)
        for i in range(n_live)
    ]


def first_term_right(answers: Sequence[Answer], counts: dict[str, FeatureCounts]) -> Bool[np.ndarray, "answers"]:
    """Whether each answer's first term is the feature that holds most of the latent's activation here."""
    right = []
    for answer in answers:
        top = top_features(counts[answer.kind], answer.latent, k=1) if answer.predicate is not None else []
        right.append(bool(top) and top[0][0] == answer.top_key)
    return np.array(right, dtype=bool)


def calibrated(answers: Sequence[Answer], check: dict[str, FeatureCounts]) -> list[Answer]:
    """The answers with their confidence: a logistic fit of being right on `check`, given the method's strength."""
    spoke = np.array([answer.predicate is not None for answer in answers])
    if not spoke.any():
        return list(answers)
    right = first_term_right(answers, check)[spoke]
    strength = np.array([answer.strength for answer in answers])[spoke, None]
    if right.all() or not right.any() or np.ptp(strength) == 0:
        chance = np.full(len(right), (right.sum() + 0.5) / (len(right) + 1.0))
    else:
        scaled = (strength - strength.mean()) / strength.std()
        chance = LogisticRegression().fit(scaled, right).predict_proba(scaled)[:, 1]
    confidence = np.zeros(len(answers))
    confidence[spoke] = chance
    return [replace(answer, confidence=float(c)) for answer, c in zip(answers, confidence, strict=True)]
