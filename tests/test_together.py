"""Laws of joining vectors with co-occurrence: two that err apart beat either, and one that fails is left out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from activation_cache.errors import UserError
from sae_translate.align.alignment import NullVerdict
from sae_translate.align.decipher import DecipherConfig
from sae_translate.align.ranks import RankEvidence
from sae_translate.align.retrieval import csls_scores
from sae_translate.align.together import (
    Experts,
    TogetherConfig,
    align_together,
    believed_plan,
    joined,
    mixed,
    trusted,
)
from sae_translate.align.vectors import VectorsConfig
from sae_translate.languages.hmm import bijective, random_transitions, sample, symbol_language

NO, YES = (NullVerdict(0.5, (0.4,), 0.6 - 0.2 * told, told, "so") for told in (False, True))


def experts(seed: int = 0) -> Experts:
    """Noisy vectors and a posterior that is right for two thirds of 100 items, each item its own answer."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.nn.functional.normalize(torch.randn(100, 20, generator=draw))
    seen = torch.nn.functional.normalize(points + 0.3 * torch.randn(100, 20, generator=draw))
    named = torch.where(torch.rand(100, generator=draw) < 0.67, torch.arange(100), torch.randperm(100, generator=draw))
    posterior = 0.6 * torch.nn.functional.one_hot(named, 100) + 0.4 / 100
    return trusted(csls_scores(seen, points), posterior, None, TogetherConfig())


def right(plan: torch.Tensor) -> float:
    return float((plan.argmax(1) == torch.arange(len(plan))).float().mean())


def test_the_product_is_better_than_either_expert():
    for seed in range(3):
        both = experts(seed)
        assert right(both.product()) > max(right(both.scores), right(both.posterior)) + 0.03


def test_an_expert_that_is_often_wrong_is_doubted_more():
    good = experts()
    worse = torch.where(torch.rand(100, 1, generator=torch.Generator().manual_seed(1)) < 0.3, good.posterior,
                        good.posterior[torch.randperm(100)])  # fmt: skip
    assert trusted(good.scores, worse, None, TogetherConfig()).doubt > good.doubt


def test_vectors_that_are_often_wrong_are_taken_less_sharply():
    good = experts()
    told = 0.6 * torch.eye(100) + 0.4 / 100
    noise = torch.randn(good.scores.shape, generator=torch.Generator().manual_seed(1))
    noisy = good.scores + good.scores.std() * noise
    order = torch.arange(100)
    ranks = RankEvidence((0.0, 0.05), (0.0, 1.7))(order[:, None], order)
    for known in (None, ranks):
        chosen = [trusted(scores, told, known, TogetherConfig()) for scores in (good.scores, noisy)]
        assert chosen[1].sharpness < chosen[0].sharpness <= TogetherConfig().sharpness[-1]
        assert known is None or chosen[1].alone < chosen[0].alone


def test_a_doubted_posterior_still_sums_to_one_and_no_answer_is_any_answer():
    posterior = torch.eye(4)[:, :3]
    assert torch.allclose(mixed(posterior, 0.2).sum(1), torch.ones(4))
    assert torch.allclose(mixed(posterior, 0.2)[3], torch.full((3,), 1 / 3))


def test_the_one_that_is_believed_answers_alone():
    both = experts()
    alone = believed_plan(both, YES, NO)
    assert torch.equal(alone, believed_plan(replace(both, posterior=both.posterior.flip(1)), YES, NO))
    assert right(believed_plan(both, NO, YES)) == right(both.posterior)
    assert torch.equal(believed_plan(both, YES, YES), both.product())


def test_the_verdict_is_yes_where_either_is():
    assert joined(YES, NO).believed and joined(NO, YES).believed and not joined(NO, NO).believed
    assert joined(None, None) is None and joined(None, YES).believed


def test_nothing_in_common_is_one_clear_line():
    both = experts()
    with pytest.raises(UserError, match="0 of the items that vectors pair mutually"):
        trusted(both.scores, torch.zeros(100, 100), None, TogetherConfig())


def test_two_languages_with_vectors_are_aligned_from_both():
    rng = np.random.default_rng(0)
    chain = random_transitions(60, rng)
    made = [bijective(chain, rng) for _ in range(2)]
    centres = rng.normal(size=(8, 20))[rng.integers(8, size=60)]
    points = (centres + rng.normal(size=(60, 20))) * np.linspace(1.2, 0.4, 20)
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    languages = []
    for number, (one, map_) in enumerate(zip(made, (np.eye(20), turn), strict=True)):
        state_of = one.emissions.argmax(0)
        vectors = (points[state_of] @ map_ + 0.3 * rng.normal(size=(60, 20))).astype(np.float32)
        text = symbol_language(sample(one, 100, 200, rng)[1], 60, f"side {number}")
        languages.append(replace(text, vectors=vectors))
    config = TogetherConfig(
        vectors=VectorsConfig(core=60, axes=20, null_surrogates=0),
        text=DecipherConfig(lags=(1, 2), null_surrogates=0, min_count=1.0),
    )
    alignment = align_together(*languages, config)
    answer = made[1].emissions.argmax(1)[made[0].emissions.argmax(0)]
    assert (alignment(np.arange(60)) == answer).mean() > 0.95
    assert alignment.coupling.sum() == pytest.approx(1, abs=1e-4)
    again = align_together(*languages, config)
    assert np.array_equal(alignment.coupling, again.coupling)
