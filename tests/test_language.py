"""Laws of a corpus: shuffling moves positions within their groups and changes nothing else."""

import numpy as np
from scipy import sparse

from sae_translate.languages.language import Corpus


def test_shuffled_positions_stay_in_their_group_and_none_is_lost():
    weights = sparse.csr_array(np.arange(1, 101, dtype=np.float32)[:, None])
    corpus = Corpus(weights, np.array([0, 40, 60, 100]), np.array([0, 0, 1]))
    group = corpus.documents[corpus.segment_of_position]
    mixed = corpus.shuffled(group, np.random.default_rng(0))
    before, after = (side.matrix.toarray()[:, 0] for side in (corpus, mixed))
    for number in (0, 1):
        assert np.array_equal(np.sort(after[group == number]), before[group == number])
        assert not np.array_equal(after[group == number], before[group == number])
    assert np.array_equal(mixed.segments, corpus.segments) and np.array_equal(mixed.documents, corpus.documents)
