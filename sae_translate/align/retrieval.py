"""Retrieval: the nearest targets of every source vector, exact, some rows at a time, never as a whole n x n array.

Hubs (targets near to everything) are held down by a penalty per target; a method is how that penalty is found:
CSLS (Conneau et al. 2018, "Word translation without parallel data", arXiv 1710.04087, section 2.3) or the inverted
softmax (Smith et al. 2017, "Offline bilingual word vectors", arXiv 1702.03859).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from activation_cache.errors import UserError, choose

BLOCK = 16_000_000
"Scores held at a time: some rows against all columns, 64 MB in float32."


@dataclass(frozen=True)
class Neighbours:
    """The k best targets of every source, best first."""

    scores: Float[Tensor, "n k"]
    "Method's score; comparable within a row, and between rows for CSLS."
    indices: Int[Tensor, "n k"]


def unit(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Every row at length 1; a row of zeros stays."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)


def products(
    queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], block: int = BLOCK
) -> Iterator[Float[Tensor, "some m"]]:
    """Some rows of queries . keys after the other, `block` scores at most or one row; each is gone when the next comes:
    one buffer holds them all."""
    rows = min(max(1, block // len(keys)), len(queries))
    buffer = queries.new_empty(rows, len(keys))
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        yield torch.mm(part, keys.T, out=buffer[: len(part)])


def largest(scores: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k largest of every row, best first, and where they stand: `topk`, several times faster for wide rows.

    The k largest lie in the k groups of the largest maxima, so only these are looked at one by one; groups are as many
    as what is then looked at.
    """
    n, m = scores.shape
    size = math.isqrt(m // k)
    if size < 4:
        found = scores.topk(min(k, m), dim=1)
        return found.values, found.indices
    groups = m // size
    whole = groups * size
    near = scores[:, :whole].unflatten(1, (size, groups)).amax(dim=1).topk(k, dim=1, sorted=False).indices
    members = torch.arange(size, device=scores.device)[:, None] * groups
    rest = torch.arange(whole, m, device=scores.device).expand(n, -1)
    index = torch.cat([(near[:, None] + members).flatten(1), rest], dim=1)
    found = scores.gather(1, index).topk(k, dim=1)
    return found.values, index.gather(1, found.indices)


def streamed(
    queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], k: int, penalty: Float[Tensor, "m"], block: int
) -> Neighbours:
    """The k largest of query . key - penalty(key), some queries at a time."""
    queries = torch.nn.functional.pad(queries, (0, 1), value=1.0)
    found = [largest(scores, k) for scores in products(queries, torch.cat([keys, -penalty[:, None]], dim=1), block)]
    return Neighbours(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def neighbourhoods(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], k: int = 10, block: int = BLOCK
) -> tuple[Float[Tensor, "n"], Float[Tensor, "m"]]:
    """Mean cosine of every row to its k nearest on the other side, r of CSLS, both from one product. Unit rows."""
    of_source = []
    of_target = source.new_full((len(target), min(k, len(source))), -torch.inf)
    seen = 0
    for scores in products(source, target, block):
        of_source.append(largest(scores, min(k, len(target)))[0].mean(dim=1))
        while len(scores):  # no more rows at a time than were seen, so that few are above what was found in those
            size = max(seen, 16 * k)
            of_target, scores = raised(of_target, scores[:size]), scores[size:]
            seen += size
    return torch.cat(of_source), of_target.mean(dim=1)


def raised(best: Float[Tensor, "m k"], scores: Float[Tensor, "n m"]) -> Float[Tensor, "m k"]:
    """The k largest of every column, largest first: of those so far, largest first, and of these rows.

    Only groups of rows whose maximum is above the least so far are looked at.
    """
    size = 8
    whole = len(scores) // size * size
    grouped = scores[:whole].unflatten(0, (size, -1))
    group, column = (grouped.amax(dim=0) > best[:, -1]).nonzero(as_tuple=True)
    order = column.argsort(stable=True)
    group, column = group[order], column[order]
    rank = torch.arange(len(column), device=column.device) - torch.searchsorted(column, column)
    more = best.new_full((len(best), int(rank.amax()) + 1 if len(rank) else 0, size), -torch.inf)
    more[column, rank] = grouped[:, group, column].T
    return torch.cat([best, more.flatten(1), scores[whole:].T], dim=1).topk(best.shape[1], dim=1).values


def csls_scores(source: Float[Tensor, "n d"], target: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """CSLS of every pair of unit rows: 2 cos - r_source - r_target."""
    of_source, of_target = neighbourhoods(source, target)
    return 2 * source @ target.T - of_source[:, None] - of_target


Penalties = tuple[Tensor, Tensor | None]
"What is taken off the cosine for every target, and, where a method has it, off the score of every source."


def no_penalty(source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], block: int) -> Penalties:
    return source.new_zeros(len(target)), None


def csls_penalty(source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], block: int) -> Penalties:
    """Half of either's mean cosine to its 10 nearest: 2 cos - r_source - r_target, halved."""
    of_source, of_target = neighbourhoods(source, target, 10, block)
    return of_target / 2, of_source / 2


def inverted_softmax_penalty(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], block: int, sharpness: float = 30.0
) -> Penalties:
    """log of the softmax's normaliser over all sources, in units of a cosine."""
    norms = [(sharpness * scores).logsumexp(dim=1) for scores in products(target, source, block)]
    return torch.cat(norms) / sharpness, None


METHODS = {"cosine": no_penalty, "csls": csls_penalty, "inverted_softmax": inverted_softmax_penalty}
"How the penalty of a hub is found."


def faiss_neighbours(queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], k: int) -> Neighbours:
    """The k keys of largest product with every query, nearly: an inverted file of cells (Johnson, Douze & Jegou 2019,
    arXiv 1702.08734), of which a query looks into one in eight. Needs faiss, an optional dependency."""
    try:
        import faiss
    except ImportError:
        raise UserError("index faiss needs faiss: pip install 'sae-translate[align]', or take index exact") from None
    cells = max(1, min(int(4 * len(keys) ** 0.5), len(keys) // 40))
    index = faiss.index_factory(keys.shape[1], f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = max(1, cells // 8)
    content = keys.float().cpu().numpy()
    index.train(content)
    index.add(content)
    scores, indices = index.search(queries.float().cpu().numpy(), k)
    return Neighbours(torch.from_numpy(scores).to(queries), torch.from_numpy(indices).to(queries.device))


def exact_answers(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], k: int, method: str, block: int
) -> Neighbours:
    """Every target is looked at for every source. Unit rows."""
    penalty, reach = METHODS[method](source, target, block)
    found = streamed(source, target, k, penalty, block)
    return found if reach is None else Neighbours(2 * (found.scores - reach[:, None]), found.indices)


def faiss_answers(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], k: int, method: str, block: int
) -> Neighbours:
    """The same nearly, where n x m is too many: CSLS ranks the nearest four times k. Unit rows."""
    if method == "inverted_softmax":
        raise UserError("inverted_softmax sums over all pairs and index faiss skips most: take csls, or index exact")
    near = faiss_neighbours(source, target, min(max(4 * k, 40), len(target)))
    if method == "csls":
        of_target = faiss_neighbours(target, source, min(10, len(source))).scores.mean(dim=1)
        scores = 2 * near.scores - near.scores[:, :10].mean(dim=1, keepdim=True) - of_target[near.indices]
        near = Neighbours(scores, near.indices)
    best = near.scores.topk(k, dim=1)
    return Neighbours(best.values, near.indices.gather(1, best.indices))


INDICES = {"exact": exact_answers, "faiss": faiss_answers}
"How targets are searched."


def retrieve(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m e"],
    k: int = 1,
    method: str = "csls",
    block: int = BLOCK,
    index: str = "exact",
) -> Neighbours:
    """The k best targets of every source by `method`; rows are brought to unit length first.

    Memory beside the input is some `block` scores and n x k. The score of CSLS is 2 cos - r_source - r_target. Index
    `faiss` is not exact, for millions of rows. Raises `UserError` for vectors that cannot be compared, a k larger than
    the targets, an unknown method or index.
    """
    choose(METHODS, method, "retrieval method")
    answers = choose(INDICES, index, "index")
    check_vectors("source", source)
    check_vectors("target", target)
    if source.shape[1] != target.shape[1]:
        raise UserError(
            f"source vectors have {source.shape[1]} dimensions and target vectors {target.shape[1]}: "
            "retrieval needs both in one space; map one into the other first"
        )
    if not 1 <= k <= len(target):
        raise UserError(f"k is {k} and there are {len(target):,} targets: give a k from 1 to {len(target):,}")
    return answers(unit(source), unit(target), k, method, block)


def mutual_pairs(forward: Int[Tensor, "n"], backward: Int[Tensor, "m"]) -> Bool[Tensor, "n"]:
    """Which sources are the best of their best target."""
    return backward[forward] == torch.arange(len(forward), device=forward.device)


def assign_one_to_one(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m d"], method: str = "csls"
) -> Int[Tensor, "n"]:
    """The one-to-one dictionary of the highest total score; -1 for sources left over where targets are fewer.

    The linear assignment problem, cubic in the worst case: for thousands of items, not tens of thousands. Every
    score is held, n x m.
    """
    penalise = choose(METHODS, method, "retrieval method")
    check_vectors("source", source)
    check_vectors("target", target)
    source, target = unit(source), unit(target)
    penalty, reach = penalise(source, target, BLOCK)
    scores = source @ target.T - penalty - (0 if reach is None else reach[:, None])
    rows, columns = linear_sum_assignment(scores.cpu().numpy(), maximize=True)
    chosen = torch.full((len(source),), -1, dtype=torch.int64, device=source.device)
    chosen[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return chosen


@dataclass(frozen=True)
class Hubness:
    """How unevenly the targets are answered with."""

    skewness: float
    "Third standardised moment of how often a target is among the k nearest; 0 without hubs."
    share_never: float
    "Share of targets that are no source's neighbour."
    largest: int
    "How often the greatest hub is answered."
    hub: int
    "Which target that is."


def hubness(neighbours: Int[Tensor, "n k"], n_targets: int) -> Hubness:
    """Radovanovic et al. 2010, "Hubs in space": the distribution of k-occurrences."""
    count = torch.bincount(neighbours.flatten(), minlength=n_targets).double()
    spread = count.std(unbiased=False)
    skew = ((count - count.mean()) ** 3).mean() / spread**3 if spread > 0 else torch.zeros(())
    return Hubness(float(skew), float((count == 0).double().mean()), int(count.max()), int(count.argmax()))


@dataclass(frozen=True)
class Precision:
    """Share of sources with a right answer among the first k, with Wilson's 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    chance: float
    "Expected where the k answers are drawn at random without replacement."


def precision_at(
    answers: Int[Tensor, "n answers"], gold: dict[int, frozenset[int]], n_targets: int, k: int = 1
) -> Precision:
    """P@k over the sources that have gold."""
    if not gold:
        raise UserError("the dictionary holds no pair of these vocabularies: P@k needs one at least")
    if k > answers.shape[1]:
        raise UserError(f"P@{k} needs {k} answers a source and {answers.shape[1]} are there: retrieve more")
    right = sum(bool(gold[i].intersection(answers[i, :k].tolist())) for i in gold)
    chance = sum(1 - _miss(len(gold[i]), n_targets, k) for i in gold) / len(gold)
    n, z = len(gold), 1.96
    p = right / n
    middle, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return Precision(p, (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n), n, chance)


def _miss(n_right: int, n_targets: int, k: int) -> float:
    missed = 1.0
    for i in range(k):
        missed *= max(n_targets - n_right - i, 0) / (n_targets - i)
    return missed


def check_vectors(name: str, vectors: Float[Tensor, "n d"]) -> None:
    """Raises `UserError` where there is nothing to compare: no rows, NaN or infinite values, rows of zeros."""
    if vectors.shape[0] < 2 or vectors.shape[1] < 1:
        raise UserError(f"{name} has {vectors.shape[0]} vectors of {vectors.shape[1]} dimensions: give 2 or more")
    bad = (~torch.isfinite(vectors).all(dim=1)).nonzero().flatten()
    if len(bad):
        raise UserError(f"{name}: {len(bad):,} vectors hold NaN or infinity (first at row {int(bad[0])}): remove them")
    zero = (vectors == 0).all(dim=1).nonzero().flatten()
    if len(zero):
        raise UserError(f"{name}: {len(zero):,} vectors are zero (first at row {int(zero[0])}): remove them")
