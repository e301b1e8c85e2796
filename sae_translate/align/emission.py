"""Expectation-maximisation of an emission matrix that explains one language's lagged co-occurrence by another's.

Model: L_l = R' T_l R, where T_l is the joint of two plain items l positions apart, R[t, i] = P(cipher item i | plain
item t), and L_l the joint of two cipher items. This is the decipherment of a substitution cipher by its bigrams
(Ravi & Knight 2011, "Deciphering foreign language") at several distances, as one product of matrices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

TINY = 1e-30
FLOOR = 1e-12
"Least probability of a pair in a model: smooths what no text could have shown."
NOTHING = 1e-15
"An emission below this becomes 0: it never comes back, and denormal numbers make products ten times slower."
FITTING = 8
"Matrices are filled up with zeros to a multiple of this: their products take up to a third less time."


@dataclass(frozen=True)
class Fit:
    """An emission matrix, and how it came about."""

    emission: Float[Tensor, "m n"]
    trace: tuple[float, ...]
    "Explained information, lags weighted as in the fit, after every accepted step."
    steps: int


def mutual_information(joint: Float[Tensor, "lags n n"]) -> float:
    """Sum over lags of the mutual information (nats) of joints that sum to 1 each."""
    expected = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True)
    return float((joint * (joint.clamp_min(TINY) / expected.clamp_min(TINY)).log()).sum(dtype=torch.float64))


def explained_information(
    cipher: Float[Tensor, "lags n n"], plain: Float[Tensor, "lags m m"], emission: Float[Tensor, "m n"]
) -> float:
    """1 - KL(L || R'TR) / I(L): the share of the cipher's lagged mutual information that the plain language accounts
    for. 1 where the model is exact, 0 where it does no better than the cipher's own frequencies, below that worse."""
    model = emission.T @ (plain @ emission)
    divergence = (cipher * (cipher.clamp_min(TINY) / model.clamp_min(FLOOR)).log()).sum(dtype=torch.float64)
    return 1.0 - float(divergence) / max(mutual_information(cipher), TINY)


def expected_use(
    cipher: Float[Tensor, "lags n n"],
    plain: Float[Tensor, "lags m m"],
    emission: Float[Tensor, "m n"],
    weights: Sequence[float],
) -> tuple[Float[Tensor, "m n"], float]:
    """The factor by which one EM step multiplies the emission before its rows are normalised, and the log likelihood
    sum w L log(R'TR) of the emission it was given."""
    factor = torch.zeros_like(emission)
    likelihood = 0.0
    for joint, pairs, weight in zip(cipher, plain, weights, strict=True):
        after = pairs @ emission
        model = (emission.T @ after).clamp_min_(FLOOR)
        likelihood += weight * float((joint * model.log()).sum(dtype=torch.float64))
        ratio = weight * joint / model
        factor += after @ ratio.T
        factor += (pairs.T @ emission) @ ratio
    return factor, likelihood


def maximise(
    cipher: Float[Tensor, "lags n n"],
    plain: Float[Tensor, "lags m m"],
    start: Float[Tensor, "m n"],
    steps: int,
    tolerance: float,
    acceleration: float = 1.1,
    weights: Sequence[float] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Fit:
    """EM with adaptive over-relaxation (Salakhutdinov & Roweis 2003): the factor is raised to a power that grows while
    the likelihood rises; a step that loses likelihood is taken back and done again as plain EM, so it never falls.

    Every lag counts in the likelihood by its weight, 1 by default. Stops after `steps` evaluations, or when ten
    accepted steps together gain less explained information than `tolerance`.
    """
    weights = [1.0] * len(cipher) if weights is None else weights
    m, n = start.shape
    cipher, plain, start = filled(cipher), filled(plain), filled(start)
    information = max(sum(w * mutual_information(c[None]) for w, c in zip(weights, cipher, strict=True)), TINY)
    logs = (cipher * cipher.clamp_min(TINY).log()).sum((1, 2), dtype=torch.float64)
    entropy = float(sum(w * lag for w, lag in zip(weights, logs.tolist(), strict=True)))
    emission, power = start, 1.0
    best, best_factor, best_likelihood = start, None, -float("inf")
    trace: list[float] = []
    for step in range(steps):
        factor, likelihood = expected_use(cipher, plain, emission, weights)
        if not likelihood >= best_likelihood:  # also where a step too far overflowed
            power, emission, factor = 1.0, best, best_factor
        else:
            best, best_factor, best_likelihood = emission, factor, likelihood
            trace.append(1.0 - (entropy - likelihood) / information)
            power = power * acceleration if step else 1.0
            if progress is not None:
                progress(step, trace[-1])
            if len(trace) > 20 and trace[-1] - trace[-11] < tolerance:
                break
        weight = factor if power == 1.0 else factor.clamp_min(TINY).pow(power)
        emission = emission * weight
        emission = emission / emission.sum(1, keepdim=True).clamp_min(TINY)
        emission = torch.nn.functional.threshold(emission, NOTHING, 0.0)
    return Fit(best[:m, :n].contiguous(), tuple(trace), step + 1)


def filled(matrix: Float[Tensor, "*lags m n"]) -> Float[Tensor, "*lags m2 n2"]:
    """With rows and columns of zeros up to a multiple of `FITTING`."""
    m, n = matrix.shape[-2:]
    return torch.nn.functional.pad(matrix, (0, -n % FITTING, 0, -m % FITTING))
