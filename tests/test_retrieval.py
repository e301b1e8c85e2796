"""Laws of retrieval: exact however it is cut, hubs held down, mutual and one-to-one choices, P@k."""

import sys

import pytest
import torch

from activation_cache.errors import UserError
from sae_translate.align.retrieval import (
    METHODS,
    assign_one_to_one,
    hubness,
    largest,
    mutual_pairs,
    neighbourhoods,
    precision_at,
    raised,
    retrieve,
    unit,
)


def points(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def whole_csls(x, y, k=10):
    cosine = unit(x) @ unit(y).T
    return 2 * cosine - cosine.topk(k, 1).values.mean(1)[:, None] - cosine.topk(k, 0).values.mean(0)


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_any_size_find_the_same_neighbours(method):
    x, y = points(97, 16, 1), points(83, 16, 2)
    whole = retrieve(x, y, 7, method)
    for block in (1, 500, 3000):
        cut = retrieve(x, y, 7, method, block=block)
        assert torch.equal(cut.indices, whole.indices)
        assert torch.allclose(cut.scores, whole.scores, atol=1e-5)


def test_streamed_csls_is_the_formula_on_the_whole_matrix():
    x, y = points(60, 8, 3), points(70, 8, 4)
    expected = whole_csls(x, y).topk(5, 1)
    found = retrieve(x, y, 5, "csls", block=1000)
    assert torch.equal(found.indices, expected.indices)
    assert torch.allclose(found.scores, expected.values, atol=1e-5)


def test_every_method_finds_a_point_itself():
    x = points(50, 12)
    for method in METHODS:
        assert torch.equal(retrieve(x, x, 1, method).indices[:, 0], torch.arange(50))


def test_retrieval_ignores_the_length_of_vectors():
    x, y = points(40, 6, 5), points(40, 6, 6)
    stretched = retrieve(x * torch.rand(40, 1).add(0.1), y * 3, 4)
    assert torch.equal(stretched.indices, retrieve(x, y, 4).indices)


def test_csls_takes_answers_away_from_a_hub():
    noise = torch.randn(300, 40, generator=torch.Generator().manual_seed(7))
    y = points(300, 40, 8)
    y[0] = 0.15 * y[1:].sum(0)  # near to everything
    x = y + 1.6 * noise
    by_cosine = hubness(retrieve(x, y, 5, "cosine").indices, 300)
    by_csls = hubness(retrieve(x, y, 5, "csls").indices, 300)
    assert by_cosine.hub == 0
    assert by_csls.skewness < by_cosine.skewness / 2 and by_csls.largest < by_cosine.largest


def test_mutual_pairs_are_those_that_choose_each_other():
    assert mutual_pairs(torch.tensor([1, 1, 0]), torch.tensor([2, 0])).tolist() == [True, False, True]


def test_assignment_gives_no_target_twice_and_leaves_the_worst_sources_over():
    x = points(30, 10)
    assigned = assign_one_to_one(x, x[:20] + 0.01 * points(20, 10, 1))
    assert assigned[:20].tolist() == list(range(20))
    assert (assigned[20:] == -1).all()


def test_precision_counts_any_right_answer_and_tells_chance():
    answers = torch.tensor([[0, 1], [2, 0], [3, 2]])
    gold = {0: frozenset({0}), 1: frozenset({0}), 2: frozenset({0, 1})}
    first, second = precision_at(answers, gold, 4, 1), precision_at(answers, gold, 4, 2)
    assert first.value == pytest.approx(1 / 3) and second.value == pytest.approx(2 / 3)
    assert first.chance == pytest.approx((0.25 + 0.25 + 0.5) / 3)
    assert second.chance == pytest.approx((0.5 + 0.5 + (1 - 2 / 4 * 1 / 3)) / 3)
    assert first.low < first.value < first.high


@pytest.mark.parametrize(
    ("x", "y", "k", "says"),
    [
        (points(5, 3), points(5, 4), 1, "3 dimensions and target vectors 4"),
        (points(5, 3), points(5, 3), 6, "k is 6"),
        (points(5, 3), torch.zeros(5, 3), 1, "5 vectors are zero"),
        (points(5, 3) * torch.nan, points(5, 3), 1, "NaN"),
        (points(0, 3), points(5, 3), 1, "source has 0 vectors"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(x, y, k, says):
    with pytest.raises(UserError, match=says) as error:
        retrieve(x, y, k)
    assert "\n" not in str(error.value)


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(UserError, match="csls"):
        retrieve(points(3, 2), points(3, 2), 1, "csl")


def test_no_array_is_larger_than_a_block(monkeypatch):
    """The products inside hold at most `block` scores, whatever n is."""
    seen = []
    monkeypatch.setattr(torch, "mm", lambda *sides, out, mm=torch.mm: seen.append(out.numel()) or mm(*sides, out=out))
    retrieve(points(500, 8), points(400, 8), 3, "csls", block=4000)
    assert seen and max(seen) <= 4000


def test_the_largest_of_every_column_are_raised_by_rows_in_any_order():
    scores = points(100, 30).sort(dim=0).values  # ascending: every row raises every column
    best = torch.full((30, 5), -torch.inf)
    for part in scores.split([3, 40, 57]):
        best = raised(best, part)
    assert torch.equal(best, scores.topk(5, dim=0).values.T)
    assert torch.equal(raised(best, scores[:40]), best)


def test_both_neighbourhoods_come_from_one_pass_in_any_blocks():
    x, y = unit(points(53, 8)), unit(points(37, 8, 1))
    cosine = x @ y.T
    for block in (40, 500, 3000):
        of_source, of_target = neighbourhoods(x, y, 10, block)
        assert torch.allclose(of_source, cosine.topk(10, 1).values.mean(1), atol=1e-6)
        assert torch.allclose(of_target, cosine.topk(10, 0).values.mean(0), atol=1e-6)
    few = neighbourhoods(x[:3], y, 10, 74)
    assert torch.allclose(few[1], (y @ x[:3].T).mean(1), atol=1e-6)


def test_the_largest_of_wide_rows_are_those_that_topk_finds():
    scores = points(40, 1024)
    for k in (1, 10, 30):
        values, where = largest(scores, k)
        assert torch.equal(values, scores.topk(k, dim=1).values)
        assert torch.equal(scores.gather(1, where), values)
    assert torch.equal(largest(scores[:, :37], 50)[0], scores[:, :37].sort(dim=1, descending=True).values)


@pytest.mark.parametrize("method", ["cosine", "csls"])
def test_faiss_finds_nearly_the_same_neighbours(method):
    centres = points(20, 24)
    y = centres[torch.arange(2000) % 20] + 0.5 * points(2000, 24, 1)
    x = y[:500] + 0.3 * points(500, 24, 2)
    exact, near = (retrieve(x, y, 5, method, index=index) for index in ("exact", "faiss"))
    shared = (exact.indices[:, :, None] == near.indices[:, None]).any(2).float().mean()
    assert shared > 0.9
    both = exact.indices == near.indices
    assert (exact.scores[both] - near.scores[both]).abs().median() < 0.01


def test_what_faiss_cannot_do_is_one_clear_line(monkeypatch):
    x = points(100, 4)
    with pytest.raises(UserError, match="take csls"):
        retrieve(x, x, 1, "inverted_softmax", index="faiss")
    with pytest.raises(UserError, match="exact"):
        retrieve(x, x, 1, index="fais")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="pip install 'sae-translate\\[align\\]'"):
        retrieve(x, x, 1, index="faiss")
