"""Laws of the decoder head: a frozen model's words are found again, in a cipher too, and its loss cannot be cheated."""

import numpy as np
import pytest
import torch

from activation_cache.errors import UserError
from sae_translate.align.decoder_head import (
    HeadConfig,
    intact_loss,
    relearn,
    relearning,
    shuffle_penalty,
    sinkhorn,
    symbol_loss,
    transitions_of,
)
from sae_translate.languages.hmm import bijective, random_transitions, sample

SIZE = 24
QUICK = HeadConfig(steps=150, batch=32)


class Bigrams(torch.nn.Module):
    """The exact language model of a Markov chain: the embedding of a word is all it needs."""

    def __init__(self, transitions: torch.Tensor):
        super().__init__()
        self.transitions = torch.nn.Parameter(transitions)

    def forward(self, embedded: torch.Tensor) -> torch.Tensor:
        return (embedded @ self.transitions).clamp_min(1e-9).log()


@pytest.fixture(scope="module")
def language():
    """A model, its embedding, text of its own, and other text in a cipher with its key: symbol of every word."""
    rng = np.random.default_rng(0)
    chain = random_transitions(SIZE, rng)
    text, other = (torch.from_numpy(sample(bijective(chain, rng), 200, 40, rng)[0]) for _ in range(2))
    key = torch.from_numpy(rng.permutation(SIZE))
    return Bigrams(torch.from_numpy(chain).float()), torch.eye(SIZE), text, key[other], key


def found(plan: torch.Tensor, key: torch.Tensor) -> float:
    return float((plan.argmax(1)[key] == torch.arange(SIZE)).float().mean())


def test_a_cipher_of_inputs_and_outputs_is_read_through_the_frozen_model(language):
    body, embedding, text, symbols, key = language
    before = body.transitions.clone()
    learnt = relearn(body, embedding, symbols, text, QUICK)
    assert found(learnt.plan, key) > 0.9 and learnt.believed
    assert torch.equal(learnt(key), learnt.plan.argmax(1)[key])
    assert torch.equal(body.transitions, before) and body.transitions.grad is None


def test_a_start_from_an_alignment_is_kept_where_it_is_right(language):
    body, embedding, text, symbols, key = language
    start = torch.nn.functional.one_hot(key.argsort(), SIZE).float()
    learnt = relearn(body, embedding, symbols, text, HeadConfig(steps=20), start)
    assert found(learnt.plan, key) == 1.0
    assert learnt.losses[-1] < learnt.intact + 0.3


def test_words_are_recovered_where_only_the_inputs_were_lost(language):
    body, embedding, text, _, _ = language
    learnt = relearn(body, embedding, text[100:], text[:100], QUICK, outputs=False)
    assert found(learnt.plan, torch.arange(SIZE)) > 0.9


def test_the_shuffle_plan_ends_near_a_permutation(language):
    body, embedding, text, symbols, key = language
    start = torch.nn.functional.one_hot(key.argsort(), SIZE).float() + 0.3
    learnt = relearn(body, embedding, symbols, text, HeadConfig(steps=80, plan="shuffle", penalty=1.0), start)
    assert found(learnt.plan, key) == 1.0
    assert shuffle_penalty(learnt.plan) < shuffle_penalty(sinkhorn(2 * start, 20))


def test_no_doubly_stochastic_plan_beats_the_intact_model(language):
    body, embedding, text, _, _ = language
    intact = intact_loss(body, embedding, text)
    truth = float(symbol_loss(body, embedding, torch.eye(SIZE), text, True))
    assert truth == pytest.approx(intact, abs=1e-4)
    for seed in range(5):
        noise = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
        assert float(symbol_loss(body, embedding, sinkhorn(3 * noise, 30), text, True)) > intact


@pytest.mark.parametrize("plan", ["sinkhorn", "shuffle"])
def test_a_fitted_plan_s_loss_over_the_whole_text_is_not_below_the_intact_model_s_there(language, plan):
    body, embedding, text, symbols, key = language
    start = torch.nn.functional.one_hot(key.argsort(), SIZE).float()
    learnt = relearn(body, embedding, symbols, text, HeadConfig(steps=80, plan=plan), start)
    plain = key.argsort()[symbols]
    assert learnt.loss > intact_loss(body, embedding, plain) - 0.01  # what a map may gain on the text it is fitted to
    assert learnt.loss == pytest.approx(float(symbol_loss(body, embedding, learnt.plan, symbols, True)), abs=1e-4)


def test_a_loss_below_the_intact_models_is_not_believed(language):
    """Text so regular that anything predicts it: easier than the model's own language, so no translation of it."""
    body, embedding, text, _, _ = language
    assert not relearn(body, embedding, torch.zeros(50, 40, dtype=torch.int64), text, QUICK).believed


def test_a_model_s_own_function_is_its_transitions(language):
    body, embedding, _, _, _ = language
    assert torch.allclose(transitions_of(body, embedding), body.transitions, atol=1e-5)


def test_chances_of_symbols_sum_to_one():
    plan = sinkhorn(torch.randn(9, 9, generator=torch.Generator().manual_seed(0)), 30)
    assert torch.allclose(plan.sum(0), torch.ones(9), atol=1e-5) and torch.allclose(
        plan.sum(1), torch.ones(9), atol=1e-3
    )


def test_the_penalty_is_zero_for_permutations_alone():
    permutation = torch.eye(6)[torch.tensor([2, 0, 1, 5, 4, 3])]
    assert float(shuffle_penalty(permutation)) == pytest.approx(0, abs=1e-6)
    assert float(shuffle_penalty(0.9 * permutation + 0.1 / 6)) > 0.1


def test_one_seed_gives_the_same_losses(language):
    body, embedding, _, symbols, _ = language
    runs = [[loss for loss, _ in relearning(body, embedding, symbols, HeadConfig(steps=5))] for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"symbols": torch.full((3, 5), SIZE)}, f"has {SIZE} words"),
        ({"text": torch.zeros(3, 1, dtype=torch.int64)}, "1 of 2 or more"),
        ({"config": HeadConfig(plan="sinkhorm")}, "sinkhorn"),
    ],
)
def test_what_a_model_cannot_read_is_one_clear_line(language, change, says):
    body, embedding, text, symbols, _ = language
    with pytest.raises(UserError, match=says) as error:
        relearn(**{"body": body, "embedding": embedding, "symbols": symbols, "text": text, **change})
    assert "\n" not in str(error.value)
