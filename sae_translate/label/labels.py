"""Labels: what was said of every latent, by which method, how sure, and what it scored."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sae_translate import artifacts


@dataclass(frozen=True)
class Labels:
    """The labels of one SAE. Saved as a folder, loaded with `load_labels`."""

    table: pd.DataFrame
    """One row a latent and method: latent, method, label, terms, kind, predicate, precision, recall, f1,
    balanced_accuracy, confidence, abstained, chosen, density, and the evidence n_active, n_predicted, token_id (the
    token it names the latent after), label_mass (share of the activation on that token)."""
    latents: pd.DataFrame
    """One row a live latent: latent, density, mean, max, histogram, histogram_edges, x, y (map of decoder directions),
    contexts (list of {kind, document, position, tokens, values, peak}), token, token_precision (its heaviest token on
    the scoring documents and the share of its activation there)."""
    summary: dict
    "Model, SAE, texts, tokens of each split, scores per method with intervals, the decipherment and its verdict."

    def chosen(self) -> pd.DataFrame:
        """One row a latent: the answer of the method that did best on documents kept for choosing."""
        return self.table[self.table["chosen"]].reset_index(drop=True)

    def methods(self) -> pd.DataFrame:
        """One row a method: coverage and mean scores over the latents, with 95 % intervals."""
        return pd.DataFrame(self.summary["methods"])

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the labels folder; UserError where it exists and `overwrite` is not given."""
        return artifacts.save_labels(path, self.table, self.latents, self.summary, overwrite)


def load_labels(path: str | Path) -> Labels:
    """The labels that `Labels.save` or `sae-translate label` wrote to this folder; UserError where there are none."""
    return Labels(*artifacts.read_labels(path))
