"""Laws of alignments in a row."""

import numpy as np
import pytest

from activation_cache.errors import UserError
from sae_translate.align.alignment import Alignment, NullVerdict, through


def alignment(coupling: list, confidence: list, believed: bool | None = None, names: str = "xy") -> Alignment:
    weights = np.array(coupling, np.float32)
    items = [tuple(f"{name}{i}" for i in range(n)) for name, n in zip(names, weights.shape, strict=True)]
    verdict = None if believed is None else NullVerdict(0.5, (0.0,), 0.1 if believed else 0.9, believed, "said")
    return Alignment(*items, weights / weights.sum(), 0.5, np.array(confidence, np.float32), verdict)


def test_chances_multiply_along_the_way_and_sum_over_what_lies_between():
    first = alignment([[3, 1], [0, 2]], [0.8, 1.0], names="ab")
    second = alignment([[1, 0, 0], [0, 1, 3]], [0.5, 0.9], names="bc")
    whole = through(first, second)
    assert np.allclose(whole.posterior(), [[0.75, 0.0625, 0.1875], [0, 0.25, 0.75]])
    assert np.allclose(whole.coupling.sum(1), first.coupling.sum(1))
    assert np.allclose(whole.confidence, [0.4, 0.9])
    assert whole.source_items == first.source_items and whole.target_items == second.target_items


def test_a_source_that_the_first_left_out_stays_out():
    whole = through(alignment([[0, 0], [1, 1]], [0, 1]), alignment([[1, 0], [0, 1]], [1, 1], names="yz"))
    assert whole.coupling[0].sum() == 0 and whole.coupling.sum() == pytest.approx(1)


@pytest.mark.parametrize(("one", "other", "both"), [(True, True, True), (True, False, False), (False, True, False)])
def test_believed_only_where_both_are(one, other, both):
    first, second = alignment([[1, 0], [0, 1]], [1, 1], one), alignment([[1, 0], [0, 1]], [1, 1], other, "yz")
    assert through(first, second).verdict.believed is both
    assert through(first, alignment([[1, 0], [0, 1]], [1, 1], names="yz")).verdict.believed is one


def test_languages_that_do_not_meet_are_an_error():
    with pytest.raises(UserError, match="ends in 2 items and the second starts from 2 others"):
        through(alignment([[1, 0], [0, 1]], [1, 1]), alignment([[1, 0], [0, 1]], [1, 1]))
