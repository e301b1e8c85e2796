"""Pseudo-parallel text: every segment of each language, translated position by position with the alignment."""

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sae_translate.align.alignment import conditional
from sae_translate.align.statistics import share_positions
from sae_translate.languages.language import Corpus
from sae_translate.languages.text import one_item_per_position
from sae_translate.translate.adapters import AdapterSpec
from sae_translate.translate.lm import NgramModel, decode_positions, fit_ngrams

CANDIDATES = 10
"Targets of a position that are looked at."
KEPT = 12
"Targets of an item that are looked at where it shares a position with others."
LEAST_SHARE = 0.02
"An item with less than this share of a position is left out of a translation into sets."
BLOCK = 20_000


def heaviest_items(corpus: Corpus) -> Int[np.ndarray, "n"]:
    """The item of the greatest weight at every position, -1 where it holds none."""
    matrix = corpus.matrix
    counts = np.diff(matrix.indptr)
    found = np.full(len(counts), -1)
    if counts.max(initial=0) <= 1:
        found[counts == 1] = matrix.indices
    else:
        filled = np.flatnonzero(counts)
        found[filled] = matrix[filled].argmax(axis=1)
    return found


def texts_of(corpus: Corpus, segments: Int[np.ndarray, "n"]) -> list[Int[np.ndarray, "_"]]:
    """The heaviest items of these segments, positions without an item left out."""
    items = heaviest_items(corpus)
    found = (items[corpus.segments[i] : corpus.segments[i + 1]] for i in segments)
    return [text[text >= 0] for text in found]


def ngrams_of(corpus: Corpus, order: int = 3) -> NgramModel:
    """The language model of a whole text."""
    return fit_ngrams(texts_of(corpus, np.arange(len(corpus.documents))), corpus.matrix.shape[1], order)


def candidates_of(
    corpus: Corpus, coupling: Float[np.ndarray, "source target"], k: int = CANDIDATES, weight: float = 1.0
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Every position's k likeliest targets, and log P(target | position) - weight log P(target); -1 and -inf where
    there are fewer.

    Beside a language model of the same weight, which tells frequent targets from rare ones itself, this goes from the
    dictionary's own best answer at weight 0 to the noisy channel, log P(position | target) + log P(target | before), at
    weight 1. A position that holds several items is the mixture of what they
    stand for.
    """
    k = min(k, coupling.shape[1])
    posterior = heaviest_of_rows(conditional(coupling), max(k, KEPT))
    with np.errstate(divide="ignore"):
        log_target = np.log(coupling.sum(axis=0, dtype=np.float64))
    shared = share_positions(corpus.matrix)
    kinds, kind_of = np.arange(shared.shape[0]), np.arange(shared.shape[0])
    if np.diff(shared.indptr).max(initial=0) <= 1:  # text: an item's candidates are the same wherever it stands
        items = heaviest_items(corpus)
        _, kinds, kind_of = np.unique(items, return_index=True, return_inverse=True)
    best, score = [], []
    for begin in range(0, len(kinds), BLOCK):
        target, chance = padded(sparse.csr_array(shared[kinds[begin : begin + BLOCK]] @ posterior), least=k)
        top = np.argpartition(-chance, k - 1, axis=1)[:, :k]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(chance, top, axis=1), axis=1, kind="stable"), 1)
        value, top = np.take_along_axis(chance, top, axis=1), np.take_along_axis(target, top, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            score.append(np.where(value > 0, np.log(value) - weight * log_target[top], -np.inf))
        best.append(np.where(value > 0, top, -1))
    return np.concatenate(best)[kind_of], np.concatenate(score)[kind_of]


def padded(matrix: sparse.csr_array, least: int = 1) -> tuple[Int[np.ndarray, "n width"], Float[np.ndarray, "n width"]]:
    """Columns and values of every row side by side, filled up with column 0 of value 0 to the longest row's length, or
    to `least` where that is more."""
    held = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), held)
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], held)
    shape = matrix.shape[0], max(int(held.max(initial=0)), least)
    columns, values = np.zeros(shape, np.int64), np.zeros(shape, matrix.dtype)
    columns[row, place], values[row, place] = matrix.indices, matrix.data
    return columns, values


def heaviest_of_rows(matrix: Float[np.ndarray, "n m"], k: int) -> sparse.csr_array:
    """The k greatest values of every row that are not 0."""
    k = min(k, matrix.shape[1])
    top = np.sort(np.argpartition(-matrix, k - 1, axis=1)[:, :k], axis=1)
    value = np.take_along_axis(matrix, top, axis=1)
    kept = sparse.csr_array((value.ravel(), top.ravel(), np.arange(0, value.size + 1, k)), shape=matrix.shape)
    kept.eliminate_zeros()
    return kept


def word_by_word(
    corpus: Corpus,
    coupling: Float[np.ndarray, "source target"],
    model: NgramModel,
    weight: float,
    rng: np.random.Generator | None = None,
    k: int = CANDIDATES,
) -> Corpus:
    """The corpus in the target language, one item a position, chosen with a language model of the target from its k
    likeliest.

    The likeliest translation; with `rng` one drawn, by perturbing every candidate and maximising (Papandreou & Yuille
    2011, "Perturb-and-MAP random fields"): each target comes about as often as it is meant.
    """
    best, score = candidates_of(corpus, coupling, k, weight)
    if rng is not None:
        score = score + rng.gumbel(size=score.shape)
    cuts = corpus.segments[1:-1]
    texts = decode_positions(np.split(best, cuts), np.split(score, cuts), model, weight)
    items = np.concatenate(texts) if texts else np.empty(0, np.int64)
    return Corpus(one_item_per_position(items, coupling.shape[1]), corpus.segments, corpus.documents)


def as_sets(corpus: Corpus, coupling: Float[np.ndarray, "source target"], spec: AdapterSpec) -> Corpus:
    """The corpus in a target language of weighted sets: at every position the items that it stands for."""
    posterior = conditional(coupling)
    kept = np.where(posterior >= LEAST_SHARE, posterior, 0)
    least = -np.sort(-kept, axis=1)[:, min(spec.most_items, kept.shape[1]) - 1 :][:, :1]
    kept = sparse.csr_array(np.where(kept >= least, kept, 0).astype(np.float32))
    matrix = sparse.csr_array(share_positions(corpus.matrix) @ kept)
    matrix.data *= spec.mean_weight * spec.most_items
    return Corpus(matrix, corpus.segments, corpus.documents)


def refine(
    coupling: Float[np.ndarray, "source target"],
    corpora: tuple[Corpus, Corpus],
    specs: tuple[AdapterSpec, AdapterSpec],
    models: tuple[NgramModel, NgramModel],
    weight: float,
    rounds: int,
    seed: int = 0,
    positions: int = 50_000,
) -> Float[np.ndarray, "source target"]:
    """A coupling that language models agree with better: each round translates part of both texts word by word, counts
    which item was told as which, and takes the mean of that and the coupling before.

    Viterbi training of a channel that a language model reads (Knight et al. 2006, "Unsupervised analysis for
    decipherment problems", who run full expectation-maximisation), in both directions at once. Sets are not written
    word by word, so only the way out of them counts.
    """
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        counts = np.zeros(coupling.shape, np.float64)
        for side in (0, 1):
            if specs[1 - side].modality == "weighted_sets":
                continue
            joint = coupling if side == 0 else np.ascontiguousarray(coupling.T)
            part = part_of(corpora[side], positions, rng)
            told = word_by_word(part, joint, models[1 - side], weight)
            seen = (share_positions(part.matrix).T @ told.matrix).toarray()
            counts += seen if side == 0 else seen.T
        coupling = ((coupling / coupling.sum() + counts / max(counts.sum(), 1e-30)) / 2).astype(np.float32)
    return coupling


def part_of(corpus: Corpus, positions: int, rng: np.random.Generator) -> Corpus:
    """Segments drawn without replacement until there are about so many positions, in their order."""
    lengths = np.diff(corpus.segments)
    order = rng.permutation(len(lengths))
    taken = np.sort(order[: int(np.searchsorted(lengths[order].cumsum(), positions)) + 1])
    rows = np.concatenate([np.arange(corpus.segments[i], corpus.segments[i + 1]) for i in taken])
    bounds = np.concatenate([[0], np.cumsum(lengths[taken])])
    return Corpus(sparse.csr_array(corpus.matrix[rows]), bounds, corpus.documents[taken])


def pseudo_parallel(
    corpora: tuple[Corpus, Corpus],
    specs: tuple[AdapterSpec, AdapterSpec],
    coupling: Float[np.ndarray, "source target"],
    models: tuple[NgramModel, NgramModel],
    weight: float,
    rng: np.random.Generator | None = None,
) -> tuple[Corpus, Corpus]:
    """Each corpus in the other's language, segment by segment: (source told in the target, target in the source).

    Drawn with `rng`, the likeliest without (see `word_by_word`).
    """
    told = []
    for side, joint in ((0, coupling), (1, np.ascontiguousarray(coupling.T))):
        other = specs[1 - side]
        if other.modality == "weighted_sets":
            told.append(as_sets(corpora[side], joint, other))
        else:
            told.append(word_by_word(corpora[side], joint, models[1 - side], weight, rng))
    return told[0], told[1]
