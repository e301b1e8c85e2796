"""What renaming leaves alone: figures of every item that any permutation of the items carries with it, and how likely
two items of two languages are one by them.

The figures are an item's own (how often it occurs, how concentrated are its neighbours, how often it is its own) and
means over its neighbours of what those are, a degree profile (Ding, Ma, Wu & Xu 2021, "Efficient random graph matching
via degree profiles", arXiv 1811.07821), here of several degrees, whitened by their own sampling noise.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

RIDGE = 1e-4
"Noise, in standard deviations squared, that every figure is taken to have at least."


def ranked_normal(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The normal quantile of every value's rank."""
    ranks = values.argsort(stable=True).argsort(stable=True).to(values.dtype)
    return torch.special.ndtri((ranks + 0.5) / len(values))


def hermite(values: Float[Tensor, "n"], degree: int) -> Float[Tensor, "n degree"]:
    """Hermite polynomials of degrees 1 to `degree`, each of mean square 1: uncorrelated where values are normal."""
    rows = [torch.ones_like(values), values]
    for k in range(1, degree):
        rows.append(values * rows[-1] - k * rows[-2])
    return torch.stack([row / row.square().mean().sqrt().clamp_min(1e-12) for row in rows[1:]], dim=1)


def invariants(
    counts: Float[Tensor, "relations n n"], landmarks: Int[Tensor, "anchors"], degree: int
) -> Float[Tensor, "n figures"]:
    """The figures of every item. `landmarks` are items whose identity is known: each is a figure of its own."""
    out, into = counts.sum(2).clamp_min(1), counts.sum(1).clamp_min(1)
    total = (out + into).sum(0)
    own = [total.log()]
    for pairs, after, before in zip(counts, out, into, strict=True):
        twice = pairs * (pairs - 1).clamp_min(0)
        own += [((twice.sum(1) + 1) / after**2).log(), ((twice.sum(0) + 1) / before**2).log()]
    known = torch.zeros(counts.shape[1], len(landmarks), dtype=counts.dtype, device=counts.device)
    known[landmarks, torch.arange(len(landmarks), device=counts.device)] = 1
    degrees = torch.cat([*(hermite(ranked_normal(figure), degree) for figure in own[:3]), known], dim=1)
    figures = [torch.stack(own, dim=1)]
    for pairs, after, before in zip(counts, out, into, strict=True):
        returns = (((pairs * pairs.T).sum(1) + 1) / total**2).log()
        figures.append(torch.stack([returns, pairs.diagonal() / total], dim=1))
        figures += [pairs @ degrees / after[:, None], pairs.T @ degrees / before[:, None]]
    return torch.cat(figures, dim=1)


def thinned(
    counts: Float[Tensor, "relations n n"], generator: torch.Generator
) -> tuple[Float[Tensor, "relations n n"], Float[Tensor, "relations n n"]]:
    """The counts dealt out to two halves that are independent of each other (where counts are Poisson).

    Fractions are rounded up or down at random first.
    """
    whole = (counts + torch.rand(counts.shape, generator=generator).to(counts)).floor()
    half = torch.binomial(whole.cpu(), torch.full(counts.shape, 0.5, dtype=counts.dtype), generator=generator)
    return half.to(counts), whole - half.to(counts)


def log_odds(
    source: Float[Tensor, "relations n n"],
    target: Float[Tensor, "relations m m"],
    anchors: Int[Tensor, "anchors pair"],
    degree: int,
    generator: torch.Generator,
) -> Float[Tensor, "n m"]:
    """Log odds of every pair being one item against two strangers, from the invariants alone.

    The noise of the figures is measured by thinning the counts, and made white; along every axis of what is left the
    two sides are taken to be normal and to correlate by the share that is no noise.
    """
    figures, noise = [], 0.0
    for counts, landmarks in ((source, anchors[:, 0]), (target, anchors[:, 1])):
        figures.append(invariants(counts, landmarks, degree).double())
        apart = [invariants(half, landmarks, degree).double() for half in thinned(counts, generator)]
        noise = noise + torch.cov((apart[0] - apart[1]).T) / 8
    both = torch.cat(figures)
    varies = both.std(0) > 1e-5 * both.abs().amax(0)
    both, noise, figures = both[:, varies], noise[varies][:, varies], [side[:, varies] for side in figures]
    middle, scale = both.mean(0), both.std(0)
    noise = noise / scale[:, None] / scale + RIDGE * torch.eye(len(scale), dtype=both.dtype, device=both.device)
    values, axes = torch.linalg.eigh(noise)
    x, y = ((side - middle) / scale @ (axes / values.sqrt()) for side in figures)
    variance, axes = torch.linalg.eigh(torch.cov(torch.cat([x, y]).T))
    x, y = x @ axes, y @ axes
    rho = ((variance - 1) / variance).clamp(0, 0.999)
    cross, own = rho / (1 - rho**2) / variance, rho**2 / (1 - rho**2) / 2 / variance
    return ((x * cross) @ y.T - (x**2 @ own)[:, None] - (y**2 @ own)[None]).to(source.dtype)
