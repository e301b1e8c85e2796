"""N-gram language models over item ids, and translation word by word that a language model smooths.

Interpolated Kneser-Ney (Chen & Goodman 1998, equation 4.30 on), one discount an order. Contexts are looked up by hash,
many at once, so that decoding is a few array operations a position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from activation_cache.errors import UserError

Texts = Sequence[Int[np.ndarray, "_"]]
"Item ids of every segment."


ROOMS = 4
"So many times as many buckets as keys, or up to twice that: most keys that are not there meet an empty one."
SPREADING = np.uint64(0x9E3779B97F4A7C15)
"2^64 over the golden ratio: multiplied by it, keys that lie close fall far apart (Knuth, volume 3, section 6.4)."


class Index:
    """Where each of many different whole numbers stands in the array it was made from."""

    def __init__(self, keys: Int[np.ndarray, "n"]):
        bits = (ROOMS * len(keys)).bit_length()
        self.shift = np.uint64(64 - bits)
        bucket = self._bucket(keys)
        self.order = np.argsort(bucket, kind="stable")
        self.keys = keys[self.order]
        self.begins = np.searchsorted(bucket[self.order], np.arange(2**bits + 1)).astype(np.int32)

    def _bucket(self, keys: Int[np.ndarray, "*m"]) -> Int[np.ndarray, "*m"]:
        return ((keys.astype(np.uint64) * SPREADING) >> self.shift).astype(np.int64)

    def find(self, keys: Int[np.ndarray, "*m"]) -> Int[np.ndarray, "*m"]:
        """Where each key stands, -1 where it does not."""
        asked = keys.ravel()
        bucket = self._bucket(asked)
        place, end = self.begins[bucket], self.begins[bucket + 1]
        found = np.full(len(asked), -1)
        left = np.flatnonzero(place < end)
        place, end, asked = place[left], end[left], asked[left]
        while len(left):
            met = self.keys[place] == asked
            found[left[met]] = self.order[place[met]]
            more = np.flatnonzero(~met & (place + 1 < end))
            left, place, end, asked = left[more], place[more] + 1, end[more], asked[more]
        return found.reshape(keys.shape)


@dataclass(frozen=True)
class Order:
    """What is known of the n-grams of one length."""

    grams: Index
    "n-grams as numbers."
    discounted: Float[np.ndarray, "grams"]
    "(count - discount) / count of the context."
    contexts: Index
    "The n-grams' first n - 1 items as numbers."
    left: Float[np.ndarray, "contexts"]
    "Probability that each context leaves to shorter n-grams."


@dataclass(frozen=True)
class NgramModel:
    """P(item | preceding items) of a text; `begin` stands before every segment and `end` after it."""

    size: int
    "Items of the vocabulary; `begin` is item `size`, `end` item `size + 1`."
    orders: tuple[Order, ...]
    "Of n-grams of length 2, 3, ..."
    unigrams: Float[np.ndarray, "items"]

    @property
    def begin(self) -> int:
        return self.size

    @property
    def end(self) -> int:
        return self.size + 1

    @property
    def order(self) -> int:
        return len(self.orders) + 1

    def log_probability(
        self, context: Int[np.ndarray, "n length"], item: Int[np.ndarray, "n *each"]
    ) -> Float[np.ndarray, "n *each"]:
        """log P(item | context), of which the last `order - 1` items are looked at; negative ids are padding.

        One item for each context, or as many as the second axis of `item` holds.
        """
        items = item.reshape(len(item), -1)
        probability = self.unigrams[items]
        base = self.size + 2
        key = np.zeros(len(items), np.int64)
        known = np.ones(len(items), bool)
        for back, order in enumerate(self.orders[: context.shape[1]], start=1):
            before = context[:, -back]
            known = known & (before >= 0)
            key = key + np.maximum(before, 0) * base ** (back - 1)
            row = order.contexts.find(key)
            seen = np.flatnonzero(known & (row >= 0))
            gram = order.grams.find(key[seen, None] * base + items[seen])
            share = np.where(gram >= 0, order.discounted[gram], 0.0)
            probability[seen] = share + order.left[row[seen], None] * probability[seen]
        return np.log(probability).reshape(item.shape)

    def score(self, texts: Texts) -> Float[np.ndarray, "texts"]:
        """Log probability of every segment, its end included."""
        padded, items, owner = _contexts(texts, self.order, self.begin, self.end)
        return np.bincount(owner, weights=self.log_probability(padded, items), minlength=len(texts))


def _contexts(
    texts: Texts, order: int, begin: int, end: int
) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Every position's `order - 1` items before it (padded with `begin`), its item, and its segment."""
    pad = order - 1
    joined = np.concatenate([part for text in texts for part in (np.full(pad, begin), text, [end])]).astype(np.int64)
    lengths = np.array([len(text) + 1 + pad for text in texts])
    owner = np.repeat(np.arange(len(texts)), lengths)
    place = np.arange(len(joined)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = np.flatnonzero(place >= pad)
    windows = (
        np.stack([joined[at - back] for back in range(pad, 0, -1)], axis=1) if pad else np.empty((len(at), 0), int)
    )
    return windows, joined[at], owner[at]


def fit_ngrams(texts: Texts, size: int, order: int = 3) -> NgramModel:
    """The language model of these segments over `size` items.

    Raises UserError where there is no text, or `order` is not from 1 to 5.
    """
    if not 1 <= order <= 5:
        raise UserError(f"a language model of order {order} was asked for: choose 1 to 5")
    if not sum(len(text) for text in texts):
        raise UserError("no text to learn a language model from: every segment is empty")
    context, items, _ = _contexts(texts, order, size, size + 1)
    base = size + 2
    key, keys = items.copy(), [items]
    for back in range(1, order):
        key = key + context[:, -back] * base**back
        keys.append(key)
    orders: list[Order] = []
    counts: tuple[np.ndarray, np.ndarray] = np.unique(keys[-1], return_counts=True)
    for n in range(order, 1, -1):
        orders.append(_order(*counts, base))
        # of shorter n-grams it counts in how many contexts they occur
        counts = np.unique(counts[0] % base ** (n - 1), return_counts=True)
    share = np.full(size + 2, 0.5)
    share[size] = 0.0
    np.add.at(share, counts[0], counts[1])
    return NgramModel(size, tuple(reversed(orders)), share / share.sum())


def _order(grams: Int[np.ndarray, "grams"], counts: Int[np.ndarray, "grams"], base: int) -> Order:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once and twice else 0.5
    contexts, row, kinds = np.unique(grams // base, return_inverse=True, return_counts=True)
    total = np.bincount(row, weights=counts)
    return Order(Index(grams), (counts - discount) / total[row], Index(contexts), discount * kinds / total)


def decode_positions(
    candidates: Sequence[Int[np.ndarray, "_ k"]],
    log_likelihood: Sequence[Float[np.ndarray, "_ k"]],
    model: NgramModel,
    weight: float = 1.0,
) -> list[Int[np.ndarray, "_"]]:
    """The best sequence of one candidate a position, the sum of its log likelihoods and `weight` times the model's.

    A state is the last item and the best history that led to it: exact for a bigram model, and an approximation for
    longer ones. A position whose first candidate is -1 gives -1.
    """
    translated: list[np.ndarray] = [np.empty(0, np.int64)] * len(candidates)
    order = sorted(range(len(candidates)), key=lambda i: len(candidates[i]))
    for chunk in range(0, len(order), 512):
        rows = order[chunk : chunk + 512]
        part = [candidates[i] for i in rows], [log_likelihood[i] for i in rows]
        for row, found in zip(rows, _viterbi(*part, model, weight), strict=True):
            translated[row] = found
    return translated


def _viterbi(
    candidates: Sequence[Int[np.ndarray, "_ k"]],
    log_likelihood: Sequence[Float[np.ndarray, "_ k"]],
    model: NgramModel,
    weight: float,
) -> list[Int[np.ndarray, "_"]]:
    lengths = np.array([len(rows) for rows in candidates])
    n, k, longest = len(candidates), candidates[0].shape[1], int(lengths.max(initial=0))
    options_at, likelihood_at = np.full((n, longest, k), -1), np.full((n, longest, k), -np.inf)
    for row, length in enumerate(lengths):
        options_at[row, :length], likelihood_at[row, :length] = candidates[row], log_likelihood[row]
    depth = model.order - 1
    score = np.full((n, k), -np.inf)
    score[:, 0] = 0.0
    history = np.full((n, k, max(depth, 1)), model.begin)
    back, chosen = np.zeros((longest, n, k), np.int64), np.full((longest, n, k), -1)
    for t in range(longest):
        live = np.flatnonzero(t < lengths)
        options, likelihood = options_at[live, t], likelihood_at[live, t]
        silent = options[:, 0] < 0
        likelihood[silent, 0] = 0.0
        contexts, items = history[live].reshape(len(live) * k, -1), np.repeat(np.maximum(options, 0), k, axis=0)
        fluent = model.log_probability(contexts, items).reshape(len(live), k, k)
        fluent[silent] = 0.0
        total = score[live][:, :, None] + weight * fluent + likelihood[:, None, :]
        source = total.argmax(axis=1)
        back[t, live], chosen[t, live] = source, options
        score[live] = np.take_along_axis(total, source[:, None, :], axis=1)[:, 0]
        kept = history[live[:, None], source]
        moved = np.concatenate([kept[:, :, 1:], options[:, :, None]], axis=2)
        history[live] = np.where(options[:, :, None] >= 0, moved, kept)
    end = np.full(n * k, model.end)
    closing = model.log_probability(history.reshape(n * k, -1), end).reshape(n, k)
    state = (score + weight * closing).argmax(axis=1)
    found = np.full((n, longest), -1)
    for t in range(longest - 1, -1, -1):
        live = np.flatnonzero(t < lengths)
        found[live, t] = chosen[t, live, state[live]]
        state[live] = back[t, live, state[live]]
    return [found[row, :length] for row, length in enumerate(lengths)]
