"""Laws of alignment from vectors: known answers are found, unrelated spaces abstain, a seed fixes every bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from activation_cache.errors import UserError
from sae_translate.align.retrieval import precision_at, retrieve
from sae_translate.align.selflearning import annealing, scrambled, transport
from sae_translate.align.starts import signature_start
from sae_translate.align.vectors import VectorsConfig, align_vectors, fit_vectors, ranked_targets
from sae_translate.languages.language import Corpus, Language

QUICK = VectorsConfig(core=300, axes=40, steps=30)


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Points in clusters and with a falling spectrum, as words have: more than a Gaussian, so that they can be told."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(15, d, generator=draw)
    which = torch.randint(15, (n,), generator=draw)
    spread = torch.linspace(1.2, 0.4, d)
    return (centres[which] + torch.randn(n, d, generator=draw)) * spread + 0.3


def rotation(d: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed + 100))).Q


def language(name: str, vectors: torch.Tensor, counts: np.ndarray | None = None, items=None) -> Language:
    n = len(vectors)
    rows = np.zeros((0, n)) if counts is None else counts[None, :]
    corpus = Corpus(
        sparse.csr_array(rows.astype(np.float32)),
        np.array([0, 1] if len(rows) else [0]),
        np.zeros(len(rows), np.int64),
    )
    return Language(name, items or tuple(f"{name}{i}" for i in range(n)), corpus, vectors.numpy())


@pytest.fixture(scope="module")
def known():
    """Vectors, the same turned, shuffled and with noise, and where each went."""
    x = cloud(400, 40)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    y = (x @ rotation(40) + 0.1 * torch.randn(400, 40, generator=torch.Generator().manual_seed(2)))[order]
    return x, y, order.argsort()


def test_a_rotated_space_is_found_without_a_pair(known):
    x, y, answer = known
    fit = fit_vectors(x, y, QUICK)
    assert fit.verdict.believed
    assert torch.equal(retrieve(fit.source(x), fit.target(y)).indices[:, 0], answer)


def test_points_in_no_order_are_found_by_the_wide_search(known):
    """The first hundred of either side have 25 in common: the core says nothing, all four hundred everything."""
    x, y, answer = known
    narrow, both = (fit_vectors(x, y, replace(QUICK, core=100, searches=searches)) for searches in (1, 4))
    assert not narrow.verdict.believed
    assert both.verdict.believed and both.verdict.evidence["searches"] == 2
    assert torch.equal(retrieve(both.source(x), both.target(y)).indices[:, 0], answer)


def test_dimensions_may_differ():
    x = cloud(300, 30)
    y = x @ rotation(44)[:30]
    fit = fit_vectors(x, y, QUICK)
    assert torch.equal(retrieve(fit.source(x), fit.target(y)).indices[:, 0], torch.arange(300))


def test_vocabularies_of_unequal_size_are_aligned_where_they_overlap(known):
    x, y, answer = known
    fit = fit_vectors(x[:330], y, QUICK)
    right = retrieve(fit.source(x[:330]), fit.target(y)).indices[:, 0] == answer[:330]
    assert fit.verdict.believed and right.float().mean() > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_independent_spaces_abstain(seed):
    x, y = cloud(300, 40, 10 + seed), cloud(300, 40, 20 + seed)
    alignment = align_vectors(language("a", x), language("b", y), replace(QUICK, seed=seed))
    assert not alignment.verdict.believed
    assert "no answer" in alignment.verdict.reason
    assert (alignment.confidence == 0).all()


def test_the_scrambled_target_abstains(known):
    x, y, _ = known
    fit = fit_vectors(x, scrambled(y, torch.Generator().manual_seed(9)), QUICK)
    assert not fit.verdict.believed


def test_a_start_of_noise_on_a_hard_problem_is_flagged_or_right():
    """Whatever a run ends in, being wrong and believed is not allowed."""
    x = cloud(300, 40, 5)
    for seed in range(3):
        y = x @ rotation(40) + 0.5 * torch.randn(300, 40, generator=torch.Generator().manual_seed(seed))
        fit = fit_vectors(x, y, replace(QUICK, start="random", steps=10, searches=1, seed=seed))
        right = retrieve(fit.source(x), fit.target(y)).indices[:, 0] == torch.arange(300)
        assert not fit.verdict.believed or right.float().mean() > 0.8


def test_one_seed_gives_the_same_bits(known):
    x, y, _ = known
    first, again = fit_vectors(x, y, QUICK), fit_vectors(x, y, QUICK)
    assert first.objectives == again.objectives and first.verdict == again.verdict
    assert torch.equal(first.map.source_map, again.map.source_map)


def test_the_callers_vectors_are_not_changed(known):
    x, y, _ = known
    before = x.clone(), y.clone()
    fit_vectors(x, y, replace(QUICK, null_surrogates=0))
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_vectors_seen_later_are_mapped_as_those_seen_before(known):
    x, y, _ = known
    fit = fit_vectors(x, y, replace(QUICK, null_surrogates=0))
    assert torch.allclose(fit.source(x[:5]), fit.source(x)[:5], atol=1e-5)


def test_a_scrambled_cloud_keeps_its_spectrum_along_its_axes():
    x = cloud(500, 12)
    surrogate = scrambled(x, torch.Generator().manual_seed(0))
    assert surrogate.norm() == pytest.approx(float(x.norm()), rel=1e-4)
    assert torch.allclose(surrogate.mean(0), x.mean(0), atol=1e-3)
    assert (surrogate - x).norm() > 0.5 * x.norm()


def test_signatures_do_not_see_a_rotation():
    x = cloud(120, 10)
    plain = signature_start(x, x, torch.Generator())
    turned = signature_start(x, x @ rotation(10), torch.Generator())
    assert torch.allclose(plain, turned, atol=1e-2)
    assert torch.equal(turned.argmax(1), torch.arange(120))


def test_transport_sums_to_one_and_shares_targets_alike():
    scores = torch.randn(30, 20, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    coupling = transport(scores, 20.0)
    assert coupling.sum() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(coupling.sum(0), torch.full((20,), 1 / 20), atol=1e-5)


def test_annealing_grows_by_one_factor_from_the_first_to_the_last():
    assert annealing(1.0, 16.0, 5) == pytest.approx([1, 2, 4, 8, 16])


def test_the_alignment_answers_in_the_languages_own_order(known):
    """Items are aligned by frequency, but the result is in the order in which the languages name them."""
    x, y, answer = known
    shuffle = torch.randperm(400, generator=torch.Generator().manual_seed(3))
    counts = (1000 - np.arange(400))[shuffle.numpy()]
    alignment = align_vectors(language("s", x[shuffle], counts), language("t", y), QUICK)
    assert np.array_equal(alignment(np.arange(400)), answer[shuffle].numpy())
    assert alignment.coupling.sum() == pytest.approx(1, abs=1e-4)
    assert np.allclose(alignment.posterior().sum(1), 1, atol=1e-4)
    assert ((alignment.confidence >= 0) & (alignment.confidence <= 1)).all()


def test_confidence_is_higher_where_the_answer_is_right(known):
    x, _, _ = known
    y = x @ rotation(40) + 0.9 * torch.randn(400, 40, generator=torch.Generator().manual_seed(4))
    fit = fit_vectors(x, y, QUICK)
    ranked = ranked_targets(fit, x, y, QUICK)
    right = ranked.best.indices[:, 0] == torch.arange(400)
    assert 0.3 < right.float().mean() < 1
    assert ranked.confidence[right].mean() > ranked.confidence[~right].mean() + 0.2


def test_ranks_of_frequency_help_where_they_agree_and_do_no_harm_where_they_do_not(known):
    x, _, _ = known
    draw = torch.Generator().manual_seed(4)
    noise = torch.randn(400, 40, generator=draw)
    fit = fit_vectors(x, x @ rotation(40) + 0.3 * noise, QUICK)
    y = x @ rotation(40) + 1.6 * noise
    orders = {"same": torch.arange(400), "another": torch.randperm(400, generator=draw)}
    right = {}
    for name, order in orders.items():
        for told in (False, True):
            best = ranked_targets(fit, x, y[order], replace(QUICK, ranks=told)).best.indices[:, 0]
            right[name, told] = float((order[best] == torch.arange(400)).float().mean())
    assert right["same", True] > right["same", False] + 0.05
    assert abs(right["another", True] - right["another", False]) < 0.01


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: replace(a, vectors=None), "has no vectors"),
        (lambda a: replace(a, items=("same",) * 50), "names 49 of its items twice"),
        (lambda a: replace(a, vectors=a.vectors * np.float32("nan")), "NaN"),
        (lambda a: replace(a, vectors=a.vectors * np.float32(0)), "zero"),
        (lambda a: replace(a, vectors=a.vectors[:20]), "50 items and 20 vectors"),
    ],
)
def test_a_language_that_cannot_be_aligned_is_one_clear_line(change, says):
    good = language("good", cloud(50, 8))
    with pytest.raises(UserError, match=says) as error:
        align_vectors(change(good), good, QUICK)
    assert "\n" not in str(error.value)


def test_an_unknown_start_names_the_known_ones(known):
    x, y, _ = known
    with pytest.raises(UserError, match="signature"):
        fit_vectors(x, y, replace(QUICK, start="signatur"))


def test_italian_and_french_documentation_are_aligned(shared):
    """1,500 words a side, no pair: nine words of ten in the silver dictionary (chance 1 in 1,500)."""
    sides = [np.load(shared / "alignment" / f"docs.{side}.npz") for side in ("it", "fr")]
    words = [[str(word) for word in side["words"][:1500]] for side in sides]
    place = [{word: i for i, word in enumerate(side)} for side in words]
    gold: dict[int, frozenset[int]] = {}
    for line in (shared / "alignment" / "docs.it-fr.dict.txt").read_text(encoding="utf-8").splitlines():
        a, b = line.split()
        if a in place[0] and b in place[1]:
            gold[place[0][a]] = gold.get(place[0][a], frozenset()) | {place[1][b]}
    x, y = (torch.from_numpy(side["vectors"][:1500].astype(np.float32)) for side in sides)
    config = VectorsConfig()
    fit = fit_vectors(x, y, config)
    assert fit.verdict.believed
    assert precision_at(ranked_targets(fit, x, y, config).best.indices, gold, 1500).value > 0.93


def test_a_few_known_pairs_find_what_noise_hides(known):
    """At this noise nothing is found blindly; twelve pairs show the way."""
    x = cloud(400, 40, 7)
    y = x @ rotation(40) + 1.1 * torch.randn(400, 40, generator=torch.Generator().manual_seed(8))
    pairs = torch.arange(0, 300, 25)[:, None].expand(-1, 2)
    config = replace(QUICK, start="random", searches=1)
    right = [
        float((retrieve(fit.source(x), fit.target(y)).indices[:, 0] == torch.arange(400)).float().mean())
        for fit in (fit_vectors(x, y, config), fit_vectors(x, y, config, pairs=pairs))
    ]
    assert right[1] > right[0] + 0.1


@pytest.mark.parametrize("pairs", [torch.zeros(0, 2, dtype=torch.int64), torch.tensor([[0, 400]])])
def test_pairs_of_nothing_are_one_clear_line(known, pairs):
    x, y, _ = known
    with pytest.raises(UserError, match="give at least one, of rows below 400 and 400"):
        fit_vectors(x, y, QUICK, pairs=pairs)
