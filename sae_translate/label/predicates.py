"""Predicates: what a label claims a latent fires on, as something that can be run on tokens."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from activation_cache.errors import choose


def shifted(tokens: Int[np.ndarray, "n"], segments: Int[np.ndarray, "bounds"], by: int) -> Int[np.ndarray, "n"]:
    """The token `by` positions later in the same segment (earlier where negative), -1 beyond its ends."""
    n = len(tokens)
    where = np.arange(n) + by
    segment = np.repeat(np.arange(len(segments) - 1), np.diff(segments))
    inside = (where >= 0) & (where < n)
    where = np.clip(where, 0, max(n - 1, 0))
    inside &= segment[where] == segment
    return np.where(inside, tokens[where], -1)


def current_token(tokens, segments, vocabulary):
    return tokens.astype(np.int64)


def previous_token(tokens, segments, vocabulary):
    return shifted(tokens, segments, -1).astype(np.int64)


def next_token(tokens, segments, vocabulary):
    return shifted(tokens, segments, +1).astype(np.int64)


def ending_bigram(tokens, segments, vocabulary):
    before = shifted(tokens, segments, -1).astype(np.int64)
    return np.where((before >= 0) & (tokens >= 0), before * vocabulary + tokens, -1)


KINDS = {
    "token": current_token,
    "previous_token": previous_token,
    "next_token": next_token,
    "ngram": ending_bigram,
    "word": current_token,
}
"""What a predicate may look at. Each function gives one feature key per position (-1: none there).

`word` is `token` over a passage whose positions are words.
"""

IN_WORDS = {
    "token": "fires on",
    "previous_token": "fires after",
    "next_token": "fires before",
    "ngram": "fires at the end of",
    "word": "fires on",
}


@dataclass(frozen=True)
class Predicate:
    """Claims that a latent fires exactly where the feature of this kind is one of `keys`."""

    kind: str
    "A key of KINDS."
    keys: tuple[int, ...]
    "Feature keys: token ids; for an n-gram `first * vocabulary + second`."
    vocabulary: int
    "Size of the token vocabulary, which the keys of an n-gram are written in."
    names: tuple[str, ...] = ()
    "What the keys are called, one each; for the kind `word` the words themselves, which alone mean something."

    def __call__(self, tokens: Int[np.ndarray, "n"], segments: Int[np.ndarray, "bounds"]) -> Bool[np.ndarray, "n"]:
        """Where the latent should fire in this text."""
        return np.isin(KINDS[self.kind](tokens, segments, self.vocabulary), np.array(self.keys, dtype=np.int64))

    def to_dict(self) -> dict:
        """A JSON value: the kind, the token ids (a list per n-gram) any of which makes it true, and their names."""
        ids = [[k // self.vocabulary, k % self.vocabulary] if self.kind == "ngram" else [k] for k in self.keys]
        return {"kind": self.kind, "any": ids, "names": list(self.names), "vocabulary": self.vocabulary}

    @classmethod
    def from_dict(cls, value: dict) -> "Predicate":
        """The predicate that `to_dict` wrote."""
        choose(KINDS, value["kind"], "predicate kind")
        vocabulary = int(value["vocabulary"])
        keys = tuple(ids[0] if len(ids) == 1 else ids[0] * vocabulary + ids[1] for ids in value["any"])
        return cls(value["kind"], keys, vocabulary, tuple(value.get("names", ())))
