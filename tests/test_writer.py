"""Writers: what a text brings to features, at its own positions and after, is found and told again."""

import numpy as np
from scipy import sparse

from sae_translate.languages.text import one_item_per_position
from sae_translate.translate.reader import windows
from sae_translate.translate.writer import teach_writer


def test_features_that_add_up_from_items_so_far_are_written_again_on_other_text():
    rng = np.random.default_rng(0)
    own = rng.standard_normal((2 * 7, 5)).astype(np.float32)
    segments = np.arange(0, 3001, 30)
    items, others = rng.integers(0, 7, (2, 3000))
    features, expected = (
        windows(one_item_per_position(text, 7), segments, (-1, 0)) @ own for text in (items, others)
    )
    writer = teach_writer(items, features, segments, 7, reach=1, ridge=1e-3)
    assert np.allclose(writer(others, segments), expected, atol=1e-2)
    thin = teach_writer(items, sparse.csr_array(features), segments, 7, reach=1, ridge=1e-3)
    assert np.allclose(thin.weight, writer.weight, atol=1e-5)


def test_an_item_that_was_seldom_seen_brings_little():
    items = np.array([0] * 99 + [1])
    features = np.where(items == 1, 10.0, 1.0).astype(np.float32)[:, None]
    writer = teach_writer(items, features, np.array([0, 100]), 2, reach=0, ridge=1.0)
    assert np.allclose(writer(np.array([0, 1, -1]), np.array([0, 3]))[:, 0], [0.99, 5.0, 0.0], atol=1e-5)
