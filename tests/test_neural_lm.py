"""A neural language model learns what the text says of what follows what, and no more."""

import numpy as np
import pytest
import torch
from steps import finished

from activation_cache.errors import UserError
from sae_translate.languages.hmm import beliefs, bijective, random_transitions, sample, stationary, symbol_language
from sae_translate.translate.batches import batch_of
from sae_translate.translate.config import BackboneConfig, TrainingConfig
from sae_translate.translate.neural_lm import fit_neural

SIZE, LENGTH = 8, 20
TINY = BackboneConfig(d_model=32, depth=1, heads=1, dropout=0.0)
BRIEF = TrainingConfig(steps=150, batch_size=32, lr=1e-2, warmup=10)


@pytest.fixture(scope="module")
def chain():
    rng = np.random.default_rng(0)
    return bijective(random_transitions(SIZE, rng), rng)


def test_a_markov_chain_is_learnt_until_it_is_told_as_well_as_by_the_chain_itself(chain):
    rng = np.random.default_rng(1)
    text, test = (sample(chain, n, LENGTH, rng)[1] for n in (1000, 300))
    model, _ = finished(fit_neural(symbol_language(text, SIZE, "text").corpus, TINY, BRIEF))
    found = float(model.score(batch_of(symbol_language(test, SIZE, "test").corpus, np.arange(300))).sum())
    truth, share = beliefs(chain, test).log_likelihood, stationary(chain.transitions)
    assert 1.1 * truth < found < truth  # it has to learn where a text ends, too
    alone = np.log(share)[chain.emissions.argmax(0)[test]].sum()
    assert truth > 0.75 * alone, "what came before says nothing: the test would be empty"


def test_the_same_seed_learns_the_same_and_leaves_the_generator_alone(chain):
    text = symbol_language(sample(chain, 50, LENGTH, np.random.default_rng(1))[1], SIZE, "text").corpus
    before = torch.random.get_rng_state()
    brief = TrainingConfig(steps=3, batch_size=4)
    (first, losses), (second, again) = (finished(fit_neural(text, BackboneConfig(d_model=16, depth=1), brief))
                                        for _ in range(2))  # fmt: skip
    assert losses == again and torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_no_text_of_a_fitting_length_is_one_line(chain):
    text = symbol_language(sample(chain, 5, LENGTH, np.random.default_rng(1))[1], SIZE, "text").corpus
    with pytest.raises(UserError, match="no text to learn a language model from: no segment has 1 to 10 positions"):
        next(fit_neural(text, TINY, TrainingConfig(max_length=10)))
