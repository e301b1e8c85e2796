"""Two hidden Markov languages with one chain, estimated together: EM with tied transitions, and no pair.

Each language is first estimated by itself (Baum-Welch; Rabiner 1989, section III.C) from several starts, its states
are matched to the other's by their transitions (quadratic assignment), and then both are estimated at once with one
chain. From a random start the tied estimate often ends where the languages share a chain and nothing else; the match
is what avoids that. The state is the interlingua: a source symbol says which state, the state which target symbol.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import quadratic_assignment

from activation_cache.errors import UserError
from sae_translate.languages.hmm import Beliefs, HiddenMarkov, beliefs, stationary


@dataclass(frozen=True)
class HiddenConfig:
    """Knobs of `fit_tied`."""

    states: int = 16
    "How many hidden states the languages share."
    restarts: int = 12
    "Random starts of each language by itself, on a part of its text."
    kept: int = 3
    "The likeliest of them; every pair of the two languages' is matched and tied."
    matches: int = 20
    "Starts of the quadratic assignment that matches states."
    start_positions: int = 20_000
    "Positions of each language that the starts look at."
    start_iterations: int = 150
    "Most EM steps of a start."
    tied_iterations: int = 40
    "Most EM steps of a matched pair, still on a part of the text."
    iterations: int = 60
    "Most EM steps of the likeliest pair on all text."
    tolerance: float = 1e-6
    "EM ends when a step gains less log likelihood per position than this."
    smoothing: float = 0.1
    "Added to every expected count, so that nothing unseen becomes impossible."
    seed: int = 0
    "Seeds the starts."


@dataclass(frozen=True)
class TiedFit:
    """Hidden Markov languages that share their chain."""

    languages: tuple[HiddenMarkov, HiddenMarkov]
    log_likelihood: float
    "Per position, over both languages: the unsupervised objective."
    matched: tuple[float, ...]
    "The same of every matched pair, on the part of the text it looked at; the best first."


def random_start(
    text: Int[np.ndarray, "segments length"], size: int, states: int, rng: np.random.Generator
) -> HiddenMarkov:
    """A random chain, and emissions scattered around the text's own frequencies."""
    chain = rng.dirichlet(np.full(states, 1.0), size=states)
    rows = (np.bincount(text.ravel(), minlength=size) + 0.5) * rng.gamma(1.0, size=(states, size))
    return HiddenMarkov(np.full(states, 1 / states), chain, rows / rows.sum(axis=1, keepdims=True))


def expected_emissions(
    seen: Beliefs, symbols: Int[np.ndarray, "segments length"], size: int
) -> Float[np.ndarray, "states symbols"]:
    """How often every state is expected to have emitted every symbol."""
    return np.stack([np.bincount(symbols.ravel(), weights=column, minlength=size) for column in seen.posterior.T])


def step(
    languages: Sequence[HiddenMarkov], texts: Sequence[Int[np.ndarray, "segments length"]], smoothing: float
) -> tuple[tuple[HiddenMarkov, ...], float]:
    """One EM step, and the log likelihood per position of the languages it was given.

    Languages count the same in the chain however long their texts are.
    """
    chain, start, likelihood, emissions = 0.0, 0.0, 0.0, []
    mean_length = np.mean([text.size for text in texts])
    for language, text in zip(languages, texts, strict=True):
        seen = beliefs(language, text)
        chain = chain + seen.moves * (mean_length / text.size)
        start = start + seen.starts * (mean_length / text.size)
        likelihood += seen.log_likelihood
        counts = expected_emissions(seen, text, language.emissions.shape[1]) + smoothing
        emissions.append(counts / counts.sum(axis=1, keepdims=True))
    chain = chain + smoothing
    start = start + smoothing
    chain, start = chain / chain.sum(axis=1, keepdims=True), start / start.sum()
    return tuple(HiddenMarkov(start, chain, rows) for rows in emissions), likelihood / sum(t.size for t in texts)


def climb(
    languages: tuple[HiddenMarkov, ...],
    texts: Sequence[Int[np.ndarray, "segments length"]],
    iterations: int,
    config: HiddenConfig,
) -> tuple[tuple[HiddenMarkov, ...], float]:
    """EM until a step gains less than the tolerance; the languages and their log likelihood per position."""
    best = -np.inf
    for _ in range(iterations):
        following, likelihood = step(languages, texts, config.smoothing)
        if likelihood < best + config.tolerance:
            return languages, likelihood
        languages, best = following, likelihood
    return languages, best


def match_states(source: HiddenMarkov, target: HiddenMarkov, tries: int, rng: np.random.Generator) -> HiddenMarkov:
    """The target with its states renumbered so that its moves are most like the source's.

    Quadratic assignment of the square roots of the joint probabilities of two states in a row (FAQ: Vogelstein et al.
    2015), from the barycentre and from random starts; the best score wins.
    """
    first, second = (
        np.sqrt(one.transitions * stationary(one.transitions)[:, None]) for one in (source, target)
    )  # fmt: skip
    found = [
        quadratic_assignment(
            first, second, method="faq",
            options={"maximize": True, "rng": rng, "P0": "randomized" if number else "barycenter"},
        )
        for number in range(tries)
    ]  # fmt: skip
    order = max(found, key=lambda one: one.fun).col_ind
    return HiddenMarkov(target.start[order], target.transitions[np.ix_(order, order)], target.emissions[order])


def tie(source: HiddenMarkov, target: HiddenMarkov) -> tuple[HiddenMarkov, HiddenMarkov]:
    """Both languages with the mean of their chains."""
    start, chain = (source.start + target.start) / 2, (source.transitions + target.transitions) / 2
    return HiddenMarkov(start, chain, source.emissions), HiddenMarkov(start, chain, target.emissions)


def fit_tied(
    source: Int[np.ndarray, "segments length"],
    target: Int[np.ndarray, "segments2 length2"],
    n_source: int,
    n_target: int,
    config: HiddenConfig = HiddenConfig(),
    progress: Callable[[str, int, int], None] | None = None,
) -> TiedFit:
    """Two hidden Markov languages with one chain that make both texts likely; `n_...` are their numbers of symbols.

    Starts and matches are chosen by likelihood alone. Raises UserError where a text has no segment of two symbols.
    """
    texts, sizes = (source, target), (n_source, n_target)
    for name, text in zip(("source", "target"), texts, strict=True):
        if text.shape[0] == 0 or text.shape[1] < 2:
            raise UserError(f"the {name} has {text.shape[0]} segments of {text.shape[1]} symbols: a chain needs at "
                            "least one segment of two; give more text")  # fmt: skip
    parts = [text[: max(1, config.start_positions // text.shape[1])] for text in texts]
    rng = np.random.default_rng(config.seed)
    alone: list[list[HiddenMarkov]] = []
    for side, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        tried = []
        for restart in range(config.restarts):
            started = random_start(part, size, config.states, rng)
            tried.append(climb((started,), [part], config.start_iterations, config))
            if progress is not None:
                progress("start", side * config.restarts + restart + 1, 2 * config.restarts)
        alone.append([one[0][0] for one in sorted(tried, key=lambda one: -one[1])[: config.kept]])
    pairs = []
    for first in alone[0]:
        for second in alone[1]:
            tied = tie(first, match_states(first, second, config.matches, rng))
            pairs.append(climb(tied, parts, config.tied_iterations, config))
    pairs.sort(key=lambda one: -one[1])
    (first, second), likelihood = climb(pairs[0][0], texts, config.iterations, config)
    return TiedFit((first, second), likelihood, tuple(one[1] for one in pairs))
