"""A reader: which target item stands at every position, told from what the position and its neighbours hold.

The dictionary mixes what a position's items stand for. A reader weighs them against each other: it is a linear
discriminant that is taught by the dictionary's own translations, as a language model of the target mends them, and then
by its own. No pair is read. A classifier in the place of an emission, divided by the frequency of its classes, is the
hybrid of Bourlard & Morgan 1994 ("Connectionist Speech Recognition"); that its labels are its own translations is
Viterbi training. Its temperature (Guo et al. 2017, arXiv 1706.04599) is fitted to labels of segments it was not taught
by, so that it counts less against the language model the less its labels agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from activation_cache.errors import UserError
from sae_translate.languages.text import one_item_per_position
from sae_translate.translate.lm import NgramModel, decode_positions

BLOCK = 20_000
Features = Float[np.ndarray, "n d"] | sparse.csr_array
"What every position holds: activations, or the weights of SAE latents."


@dataclass(frozen=True)
class ReaderConfig:
    """Knobs of `teach_reader`."""

    rounds: int = 4
    "How often it is taught, each time by what it told before."
    reach: int = 0
    """Neighbours on either side that it looks at beside the position itself. What neighbours hold, the language model
    has looked at already, and got its labels wrong by: they help where positions say little of their own item."""
    candidates: int = 10
    "Targets of a position that the language model chooses from."
    lm_weight: float = 1.0
    "What a language model's log probability counts against the reader's."
    held_out: float = 0.25
    "Share of the segments that set ridge and temperature alone."
    judged: int = 4000
    "Most positions of those that are looked at."
    prior_count: float = 2.0
    "Positions at the overall mean that every target item is believed to have been seen at beforehand."
    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    """Added to the within-class covariance, as a share of every feature's mean square; the one is taken under which
    held-out labels are likeliest."""
    seed: int = 0
    "Which segments are held out."


@dataclass(frozen=True)
class Reader:
    """Scores of every target item, linear in the features of a position and its neighbours. Call it to read."""

    weight: Float[np.ndarray, "features items"]
    bias: Float[np.ndarray, "items"]
    temperature: float
    "What the scores are multiplied by to be log P(features | item), up to what is the same for all items."
    log_prior: Float[np.ndarray, "items"]
    "Log frequency of the target items."
    reach: int
    candidates: int
    lm_weight: float

    def __call__(
        self, features: Features, segments: Int[np.ndarray, "bounds"], model: NgramModel
    ) -> Int[np.ndarray, "n"]:
        """The target item at every position, a segment at a time chosen with the language model."""
        whole, cuts, best, likely = windows(features, segments, around(self.reach)), segments[1:-1], [], []
        for begin in range(0, whole.shape[0], BLOCK):
            scores = self.temperature * (whole[begin : begin + BLOCK] @ self.weight + self.bias) + self.log_prior
            top = np.argpartition(-scores, min(self.candidates, scores.shape[1]) - 1, axis=1)[:, : self.candidates]
            best.append(top)
            likely.append(np.take_along_axis(scores, top, axis=1) - self.lm_weight * self.log_prior[top])
        parts = np.split(np.concatenate(best), cuts), np.split(np.concatenate(likely), cuts)
        return np.concatenate(decode_positions(*parts, model, self.lm_weight))


def windows(
    features: Features, segments: Int[np.ndarray, "bounds"], offsets: Sequence[int]
) -> Float[np.ndarray, "n wide"] | sparse.csr_array:
    """The features so many positions after every position, side by side; 0 beyond the ends of its segment."""
    n = features.shape[0]
    segment = np.repeat(np.arange(len(segments) - 1), np.diff(segments))
    moved = []
    for offset in offsets:
        place = np.arange(n) + offset
        near = np.clip(place, 0, max(n - 1, 0))
        rows = np.flatnonzero((place == near) & (segment[near] == segment))
        move = sparse.csr_array((np.ones(len(rows), np.float32), (rows, near[rows])), shape=(n, n))
        moved.append(move @ features if offset else features)
    return sparse.csr_array(sparse.hstack(moved, format="csr")) if sparse.issparse(features) else np.hstack(moved)


def around(reach: int) -> range:
    """The offsets of a window."""
    return range(-reach, reach + 1)


def dense(products: Float[np.ndarray, "n d"] | sparse.sparray) -> Float[np.ndarray, "n d"]:
    """A product of features as an array of double precision."""
    return (products.toarray() if sparse.issparse(products) else products).astype(np.float64)


@dataclass(frozen=True)
class Moments:
    """What a discriminant is made of: how features lie around the mean of every item."""

    mean: Float[np.ndarray, "items d"]
    within: Float[np.ndarray, "d d"]
    "Covariance common to all items."
    square: Float[np.ndarray, "d"]
    "Mean square of every feature."


def moments_of(
    features: Float[np.ndarray, "n d"] | sparse.csr_array,
    labels: Int[np.ndarray, "n"],
    size: int,
    prior_count: float = 0.0,
) -> Moments:
    """Moments of positions by their label, each item's mean drawn towards that of all by `prior_count` positions;
    positions of a negative label are left out."""
    told = np.flatnonzero(labels >= 0)
    features, member = features[told], one_item_per_position(labels[told], size)
    count = np.asarray(member.sum(axis=0), np.float64)[:, None]
    total, square = dense(member.T @ features), dense(features.T @ features) / len(told)
    mean = (total + prior_count * total.sum(axis=0) / len(told)) / np.maximum(count + prior_count, 1e-12)
    within = square - (total / np.maximum(count, 1)).T @ total / len(told)
    return Moments(mean, within, square.diagonal())


def discriminant(moments: Moments, ridge: float) -> tuple[Float[np.ndarray, "d items"], Float[np.ndarray, "items"]]:
    """Weight and bias of log N(features; mean of the item, common covariance) (Fisher's linear discriminant), up to
    what is the same for all items."""
    within = moments.within + np.diag(ridge * moments.square + 1e-12)
    weight = np.linalg.solve(within, moments.mean.T)
    return weight.astype(np.float32), (-0.5 * (weight * moments.mean.T).sum(axis=0)).astype(np.float32)


def fitted_temperature(
    scores: Float[np.ndarray, "n items"], log_prior: Float[np.ndarray, "items"], labels: Int[np.ndarray, "n"]
) -> tuple[float, float]:
    """The multiple of the scores under which these labels are likeliest, from 0.0001 to 3, and their log likelihood."""

    def surprise(log_temperature: float) -> float:
        told = log_softmax(np.exp(log_temperature) * scores + log_prior, axis=1)
        return -float(told[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(surprise, bounds=(np.log(1e-4), np.log(3)), method="bounded", options={"xatol": 0.02})
    return float(np.exp(found.x)), -float(found.fun)


def best_discriminant(
    moments: Moments,
    features: Float[np.ndarray, "n d"] | sparse.csr_array,
    labels: Int[np.ndarray, "n"],
    log_prior: Float[np.ndarray, "items"],
    ridges: Sequence[float],
) -> tuple[Float[np.ndarray, "d items"], Float[np.ndarray, "items"], float]:
    """Weight, bias and temperature under the ridge that makes these labels likeliest."""
    tried = []
    for ridge in ridges:
        weight, bias = discriminant(moments, ridge)
        tried.append((weight, bias, *fitted_temperature(features @ weight + bias, log_prior, labels)))
    return max(tried, key=lambda one: one[-1])[:3]


def teach_reader(
    features: Features,
    segments: Int[np.ndarray, "bounds"],
    told: Int[np.ndarray, "n"],
    counts: Float[np.ndarray, "items"],
    model: NgramModel,
    config: ReaderConfig = ReaderConfig(),
) -> tuple[Reader, ...]:
    """The reader of every round, the first taught by `told`: the items that a dictionary gives, -1 where none.

    `counts` are the target's own, of the text that `model` was learnt from.

    Raises UserError where fewer than two segments hold a told item, as one is needed to teach and one to hold out.
    """
    segment = np.repeat(np.arange(len(segments) - 1), np.diff(segments))
    usable = np.unique(segment[told >= 0])
    if len(usable) < 2:
        raise UserError(
            f"a reader needs two segments in which the dictionary tells an item, one to hold out, and there are "
            f"{len(usable)}: give more text or a fuller dictionary"
        )
    rng = np.random.default_rng(config.seed)
    drawn = rng.permutation(usable)
    apart = np.isin(segment, drawn[: max(1, int(config.held_out * len(drawn)))])
    log_prior = np.log((counts + 0.5) / (counts + 0.5).sum()).astype(np.float32)
    whole, readers = windows(features, segments, around(config.reach)), []
    for number in range(config.rounds):
        judged = rng.permutation(np.flatnonzero(apart & (told >= 0)))[: config.judged]
        moments = moments_of(whole[~apart], told[~apart], model.size, config.prior_count)
        fitted = best_discriminant(moments, whole[judged], told[judged], log_prior, config.ridges)
        readers.append(Reader(*fitted, log_prior, config.reach, config.candidates, config.lm_weight))
        if number < config.rounds - 1:
            told = readers[-1](features, segments, model)
    return tuple(readers)
