"""Hidden Markov languages: one chain of states told in symbols of its own by each language, and what can be read of it.

Two languages that share their transitions say the same things in different words. Where every state has one symbol of
its own (a bijective language) the translation is exact; elsewhere no translator beats the Bayes ceiling given here.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sae_translate.languages.language import Corpus, Language
from sae_translate.languages.text import one_item_per_position

TINY = 1e-300


@dataclass(frozen=True)
class HiddenMarkov:
    """A chain of hidden states and the symbols that each of them emits."""

    start: Float[np.ndarray, "states"]
    "Probability of the first state of a segment."
    transitions: Float[np.ndarray, "states states"]
    "[z, z'] = P(next state z' | state z); rows sum to 1."
    emissions: Float[np.ndarray, "states symbols"]
    "[z, x] = P(symbol x | state z); rows sum to 1."


@dataclass(frozen=True)
class Beliefs:
    """What the symbols of a corpus say of its states."""

    posterior: Float[np.ndarray, "n states"]
    "P(state | all symbols of the segment)."
    moves: Float[np.ndarray, "states states"]
    "Expected number of steps from one state to another."
    starts: Float[np.ndarray, "states"]
    "Expected number of segments that begin in a state."
    log_likelihood: float
    "Natural log of the probability of all symbols."


@dataclass(frozen=True)
class Ceiling:
    """What can be reached in translating a text of one hidden Markov language into another with the same chain."""

    bayes: float
    "Expected share of positions right when every position gets the most probable symbol given the whole segment."
    frequency: float
    "The same when every position gets the target's most frequent symbol."


def stationary(transitions: Float[np.ndarray, "states states"]) -> Float[np.ndarray, "states"]:
    """The distribution over states that a step leaves as it is."""
    values, vectors = np.linalg.eig(transitions.T)
    share = np.abs(np.real(vectors[:, np.argmin(np.abs(values - 1))]))
    return share / share.sum()


def random_transitions(
    states: int, rng: np.random.Generator, concentration: float = 0.1
) -> Float[np.ndarray, "states states"]:
    """Rows from a Dirichlet; a tenth of each is one common row, so that every state is reached from every other."""
    rows = rng.dirichlet(np.full(states, concentration), size=states)
    mixed = 0.9 * rows + 0.1 * rng.dirichlet(np.full(states, 0.5))
    return mixed / mixed.sum(axis=1, keepdims=True)


def hidden_markov(
    transitions: Float[np.ndarray, "states states"],
    symbols: int,
    rng: np.random.Generator,
    concentration: float = 0.1,
) -> HiddenMarkov:
    """A language over this chain whose states emit overlapping sets of symbols, from a Dirichlet."""
    emissions = rng.dirichlet(np.full(symbols, concentration), size=len(transitions))
    return HiddenMarkov(stationary(transitions), transitions, emissions / emissions.sum(axis=1, keepdims=True))


def bijective(transitions: Float[np.ndarray, "states states"], rng: np.random.Generator) -> HiddenMarkov:
    """A language over this chain in which every state has one symbol, its own: a Markov chain under a cipher."""
    return HiddenMarkov(
        stationary(transitions), transitions, np.eye(len(transitions))[rng.permutation(len(transitions))]
    )


def draw_rows(
    cumulative: Float[np.ndarray, "rows options"], rows: Int[np.ndarray, "n"], rng: np.random.Generator
) -> Int[np.ndarray, "n"]:
    """One option for every given row of cumulative probabilities, by bisection."""
    told = rng.random(len(rows))
    low, high = np.zeros(len(rows), np.int64), np.full(len(rows), cumulative.shape[1] - 1)
    for _ in range(cumulative.shape[1].bit_length()):
        middle = (low + high) // 2
        beyond = cumulative[rows, middle] < told
        low, high = np.where(beyond, np.minimum(middle + 1, high), low), np.where(beyond, high, middle)
    return low


def sample(
    language: HiddenMarkov, segments: int, length: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "segments length"], Int[np.ndarray, "segments length"]]:
    """Hidden states and symbols of independent segments of one length."""
    states = np.empty((segments, length), np.int64)
    states[:, 0] = draw_rows(language.start.cumsum()[None], np.zeros(segments, np.int64), rng)
    steps, tells = language.transitions.cumsum(axis=1), language.emissions.cumsum(axis=1)
    for t in range(1, length):
        states[:, t] = draw_rows(steps, states[:, t - 1], rng)
    return states, draw_rows(tells, states.ravel(), rng).reshape(states.shape)


def symbol_language(symbols: Int[np.ndarray, "segments length"], size: int, name: str) -> Language:
    """The Language of sampled symbols: a document a segment, items called by their number."""
    n, length = symbols.shape
    matrix = one_item_per_position(symbols.ravel(), size)
    return Language(
        name, tuple(map(str, range(size))), Corpus(matrix, np.arange(0, n * length + 1, length), np.arange(n))
    )


def beliefs(language: HiddenMarkov, symbols: Int[np.ndarray, "segments length"]) -> Beliefs:
    """The forward-backward pass (Rabiner 1989, section III), scaled, over many segments at once."""
    n, length = symbols.shape
    told = language.emissions.T
    forward = np.empty((length, n, len(language.start)))
    scale = np.empty((length, n, 1))
    reach = np.broadcast_to(language.start, forward[0].shape)
    for t in range(length):
        joint = reach * told[symbols[:, t]]
        scale[t] = joint.sum(axis=1, keepdims=True) + TINY
        forward[t] = joint / scale[t]
        reach = forward[t] @ language.transitions
    posterior = np.empty_like(forward)
    posterior[-1] = forward[-1]
    backward = np.ones_like(forward[0])
    moves = np.zeros_like(language.transitions)
    for t in range(length - 2, -1, -1):
        weighted = told[symbols[:, t + 1]] * backward / scale[t + 1]
        moves += forward[t].T @ weighted
        backward = weighted @ language.transitions.T
        posterior[t] = forward[t] * backward
    return Beliefs(
        posterior=posterior.transpose(1, 0, 2).reshape(n * length, -1),
        moves=moves * language.transitions,
        starts=posterior[0].sum(axis=0),
        log_likelihood=float(np.log(scale).sum()),
    )


def sample_states(
    language: HiddenMarkov, symbols: Int[np.ndarray, "segments length"], rng: np.random.Generator
) -> Int[np.ndarray, "segments length"]:
    """States drawn from P(states | symbols): filtered forward, drawn backward (Scott 2002, "Bayesian methods for hidden
    Markov models")."""
    n, length = symbols.shape
    told = language.emissions.T
    forward = np.empty((length, n, len(language.start)))
    reach = np.broadcast_to(language.start, forward[0].shape)
    for t in range(length):
        joint = reach * told[symbols[:, t]]
        forward[t] = joint / (joint.sum(axis=1, keepdims=True) + TINY)
        reach = forward[t] @ language.transitions
    states = np.empty((n, length), np.int64)
    share = forward[-1]
    for t in range(length - 1, -1, -1):
        if t < length - 1:
            share = forward[t] * language.transitions.T[states[:, t + 1]]
        cumulative = share.cumsum(axis=1) / (share.sum(axis=1, keepdims=True) + TINY)
        states[:, t] = draw_rows(cumulative, np.arange(n), rng)
    return states


def translate_by_posterior(
    source: HiddenMarkov, target: HiddenMarkov, symbols: Int[np.ndarray, "segments length"]
) -> Int[np.ndarray, "segments length"]:
    """Every position's most probable target symbol, argmax_y sum_z P(z | segment) E_target(z, y)."""
    scores = beliefs(source, symbols).posterior @ target.emissions
    return scores.argmax(axis=1).reshape(symbols.shape)


def expected_accuracy(
    target: HiddenMarkov, posterior: Float[np.ndarray, "n states"], translated: Int[np.ndarray, "n"]
) -> float:
    """Mean probability that the target's own symbol is the translated one, the true posterior over states given."""
    return float((posterior * target.emissions[:, translated].T).sum(axis=1).mean())


def joint_symbols(source: HiddenMarkov, target: HiddenMarkov) -> Float[np.ndarray, "source target"]:
    """P(source symbol, target symbol) at one place of two languages that share their chain: all that a dictionary,
    which sees no context, can know."""
    return (source.emissions.T * stationary(source.transitions)) @ target.emissions


def ceiling(source: HiddenMarkov, target: HiddenMarkov, symbols: Int[np.ndarray, "segments length"]) -> Ceiling:
    """Bayes ceiling and frequency baseline of translating these symbols; the two languages must share their chain."""
    posterior = beliefs(source, symbols).posterior
    scores = posterior @ target.emissions
    return Ceiling(bayes=float(scores.max(axis=1).mean()), frequency=float(scores.mean(axis=0).max()))
