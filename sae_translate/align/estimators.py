"""scikit-learn estimators over the aligners: `fit`, `transform`, `predict`, `score`; clone-able, fixed by their seed.

`y` of `fit` is the other side, not labels: nothing here is ever told a pair unless pairs are given.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from activation_cache.errors import UserError
from sae_translate.align.contexts import ContextsConfig, align_contexts
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.align.profiles import ProfilesConfig, match_profiles
from sae_translate.align.retrieval import retrieve
from sae_translate.align.together import TogetherConfig, align_together
from sae_translate.align.vectors import VectorsConfig, fit_vectors
from sae_translate.languages.language import Language

Pairs = Sequence[tuple[int, int]] | Int[np.ndarray, "pairs 2"]
ALIGNERS = {
    ContextsConfig: align_contexts,
    DecipherConfig: decipher,
    ProfilesConfig: match_profiles,
    TogetherConfig: align_together,
}
"What a LanguageAligner does, by the kind of its config."


def tensor(vectors: Float[np.ndarray, "n d"]) -> Float[torch.Tensor, "n d"]:
    """The vectors as float32, copied."""
    return torch.from_numpy(np.array(vectors, dtype=np.float32))


def share_right(answers: Int[np.ndarray, "n"], pairs: Pairs) -> float:
    """P@1 over the sources of these pairs; a source with several targets is right with any."""
    if not len(pairs):
        raise UserError("score needs one known pair at least")
    gold: dict[int, set[int]] = {}
    for source, target in pairs:
        gold.setdefault(int(source), set()).add(int(target))
    return float(np.mean([int(answers[source]) in targets for source, targets in gold.items()]))


class VectorAligner(TransformerMixin, BaseEstimator):
    """Maps two sets of vectors, most frequent first, into one space by their shape (`fit_vectors`)."""

    def __init__(
        self,
        config: VectorsConfig = VectorsConfig(),  # noqa: B008  (frozen)
        pairs: Pairs | None = None,
    ):
        self.config = config
        self.pairs = pairs

    def fit(self, X: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m e"]) -> "VectorAligner":
        """`X` are the source's vectors, `y` the target's."""
        known = None if self.pairs is None else torch.from_numpy(np.array(self.pairs, dtype=np.int64))
        self.fit_ = fit_vectors(tensor(X), tensor(y), self.config, pairs=known)
        self.verdict_ = self.fit_.verdict
        self.target_ = self.fit_.target(tensor(y))
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n common"]:
        """Source vectors in the common space."""
        check_is_fitted(self)
        return self.fit_.source(tensor(X)).numpy()

    def transform_target(self, y: Float[np.ndarray, "m e"]) -> Float[np.ndarray, "m common"]:
        """Target vectors in the common space."""
        check_is_fitted(self)
        return self.fit_.target(tensor(y)).numpy()

    def predict(self, X: Float[np.ndarray, "n d"]) -> Int[np.ndarray, "n"]:
        """The row of the best target of every source, all sources ranked together."""
        check_is_fitted(self)
        found = retrieve(self.fit_.source(tensor(X)), self.target_, 1, self.config.retrieval, index=self.config.index)
        return found.indices[:, 0].numpy()

    def score(self, X: Float[np.ndarray, "n d"], y: Pairs | None = None) -> float:
        """P@1 on known pairs; without any, the unsupervised objective of the fit."""
        check_is_fitted(self)
        return self.fit_.objective if y is None else share_right(self.predict(X), y)


class LanguageAligner(TransformerMixin, BaseEstimator):
    """Aligns two languages by co-occurrence, with or without vectors: as its config says."""

    def __init__(self, config: DecipherConfig | ProfilesConfig | TogetherConfig = DecipherConfig()):
        self.config = config

    def fit(self, X: Language, y: Language) -> "LanguageAligner":
        """`X` is the source, `y` the target."""
        self.alignment_ = ALIGNERS[type(self.config)](X, y, self.config)
        self.verdict_ = self.alignment_.verdict
        return self

    def transform(self, X: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n target"]:
        """P(target | source) of these source items."""
        check_is_fitted(self)
        return self.alignment_.posterior()[X]

    def predict(self, X: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The best target of each."""
        check_is_fitted(self)
        return self.alignment_(X)

    def score(self, X: object = None, y: Pairs | None = None) -> float:
        """P@1 on known pairs; without any, the unsupervised objective of the fit. `X` is not looked at."""
        check_is_fitted(self)
        alignment = self.alignment_
        return alignment.objective if y is None else share_right(alignment.best(1)[:, 0], y)
