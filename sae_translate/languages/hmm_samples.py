"""Hidden Markov languages of one chain drawn from what is known of them, instead of the likeliest ones.

Where text is short, many languages explain it nearly as well, and the likeliest fits its accidents. A translation that
averages over languages drawn from the posterior does not depend on any one of them (Gibbs sampling; Goldwater &
Griffiths 2007, "A fully Bayesian approach to unsupervised part-of-speech tagging"). Nothing is set by hand: the
concentrations of the Dirichlet priors are drawn too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln

from sae_translate.languages.hmm import TINY, HiddenMarkov, beliefs, sample_states


@dataclass(frozen=True)
class SamplingConfig:
    """Knobs of `sample_languages`."""

    sweeps: int = 600
    "Times that all states and all parameters are drawn anew."
    burn: int = 100
    "The first of them, which still depend on the start, are thrown away."
    every: int = 5
    "Of the others each so-manieth is given out."
    concentrations: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    "Those of the Dirichlet priors of moves and of emissions, before anything is seen equally likely."
    seed: int = 0


def log_evidence(counts: Float[np.ndarray, "rows options"], concentration: float) -> float:
    """Log probability of counts whose rows come from distributions with a symmetric Dirichlet prior."""
    k = counts.shape[1]
    rows = gammaln(counts + concentration).sum(axis=1) - gammaln(counts.sum(axis=1) + k * concentration)
    return float((rows + gammaln(k * concentration) - k * gammaln(concentration)).sum())


def draw_concentration(
    counts: Float[np.ndarray, "rows options"], choices: Sequence[float], rng: np.random.Generator
) -> float:
    """One of the choices, by how likely each makes the counts."""
    found = np.array([log_evidence(counts, one) for one in choices])
    share = np.exp(found - found.max())
    return float(rng.choice(choices, p=share / share.sum()))


def draw_distributions(
    counts: Float[np.ndarray, "*rows options"], concentration: float, rng: np.random.Generator
) -> Float[np.ndarray, "*rows options"]:
    """Every row from the Dirichlet that its counts and the prior make."""
    drawn = rng.gamma(counts + concentration) + TINY
    return drawn / drawn.sum(axis=-1, keepdims=True)


def sample_languages(
    languages: Sequence[HiddenMarkov],
    texts: Sequence[Int[np.ndarray, "_ _"]],
    config: SamplingConfig = SamplingConfig(),
) -> Iterator[tuple[HiddenMarkov, ...]]:
    """Languages that share their chain, drawn from the posterior given an unpaired text of each; `languages` is where
    it starts, such as the likeliest ones."""
    rng = np.random.default_rng(config.seed)
    states = len(languages[0].start)
    for sweep in range(config.sweeps):
        moves, starts, tells = np.zeros((states, states)), np.zeros(states), []
        for language, text in zip(languages, texts, strict=True):
            path = sample_states(language, text, rng)
            np.add.at(moves, (path[:, :-1], path[:, 1:]), 1)
            np.add.at(starts, path[:, 0], 1)
            tells.append(np.zeros(language.emissions.shape))
            np.add.at(tells[-1], (path, text), 1)
        chain = draw_distributions(moves, draw_concentration(moves, config.concentrations, rng), rng)
        start = draw_distributions(starts, 1.0, rng)
        sharpness = [draw_concentration(one, config.concentrations, rng) for one in tells]
        languages = tuple(
            HiddenMarkov(start, chain, draw_distributions(counts, one, rng))
            for counts, one in zip(tells, sharpness, strict=True)
        )
        if sweep >= config.burn and (sweep - config.burn) % config.every == 0:
            yield languages


def translate_by_samples(
    samples: Iterable[Sequence[HiddenMarkov]], symbols: Int[np.ndarray, "segments length"]
) -> Int[np.ndarray, "segments length"]:
    """Every position's most probable target symbol, the languages (source, then target) averaged over the samples."""
    scores = sum(beliefs(source, symbols).posterior @ target.emissions for source, target in samples)
    return scores.argmax(axis=1).reshape(symbols.shape)
