"""A writer: the activations or latents that are to be expected where a text stands, the way back from a reader.

A causal model knows the tokens so far, so what is expected at a position is linear in which item stands there and which
ones before it. Taught by translations of features, no pair is read.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sae_translate.languages.text import one_item_per_position
from sae_translate.translate.reader import Features, dense, windows


@dataclass(frozen=True)
class Writer:
    """The mean features that every item brings to its own position and to those after it. Call it to write."""

    weight: Float[np.ndarray, "inputs features"]
    "Rows: the items `reach` positions back, ..., the items at the position itself."
    size: int
    "Items of the text's vocabulary."
    reach: int

    def __call__(
        self, items: Int[np.ndarray, "n"], segments: Int[np.ndarray, "bounds"]
    ) -> Float[np.ndarray, "n features"]:
        """The features expected at every position of a text; an item of -1 says nothing."""
        return windows(one_item_per_position(items, self.size), segments, range(-self.reach, 1)) @ self.weight


def teach_writer(
    items: Int[np.ndarray, "n"],
    features: Features,
    segments: Int[np.ndarray, "bounds"],
    size: int,
    reach: int = 3,
    ridge: float = 5.0,
) -> Writer:
    """Ridge regression of the features on the `size` items at each position and the `reach` before it; `ridge` is in
    positions: an item seen so often counts half."""
    inputs = windows(one_item_per_position(items, size), segments, range(-reach, 1))
    square = dense(inputs.T @ inputs)
    square[np.diag_indices_from(square)] += ridge
    weight = np.linalg.solve(square, dense(inputs.T @ features))
    return Writer(weight.astype(np.float32), size, reach)
