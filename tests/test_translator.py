"""Training a translator: from the alignment it translates, from nowhere it does not; it resumes to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from steps import finished

from activation_cache.errors import UserError
from sae_translate.align.alignment import Alignment
from sae_translate.align.decipher import DecipherConfig, decipher
from sae_translate.languages.hmm import bijective, random_transitions, sample, symbol_language
from sae_translate.languages.language import Corpus, Language
from sae_translate.translate.adapters import spec_of
from sae_translate.translate.config import (
    BackboneConfig,
    LossConfig,
    NoiseConfig,
    Schedule,
    TrainingConfig,
    TranslatorConfig,
    constant,
)
from sae_translate.translate.criterion import edit_distance, similarity
from sae_translate.translate.network import seeded_network
from sae_translate.translate.team import Team
from sae_translate.translate.training import Learner, prepare, train
from sae_translate.translate.translator import load_translator

SIZE = 16
SMALL = TrainingConfig(
    steps=60, batch_size=16, lr=1e-2, warmup=10, evaluate_every=20, held_out=20, max_length=20, patience=9
)
CONFIG = TranslatorConfig(
    backbone=BackboneConfig("feedforward", d_model=32, depth=1, dropout=0.0),
    losses=LossConfig(constant(1.0), constant(1.0), Schedule(0.0, 1.0, 20, 40)),
    noise=NoiseConfig(0.0, 0.1, 0.0),
    training=SMALL,
    lm_order=2,
)
EVERYTHING = LossConfig(*[constant(0.1)] * 7)


@pytest.fixture(scope="module")
def chains():
    rng = np.random.default_rng(0)
    chain = random_transitions(SIZE, rng)
    return bijective(chain, rng), bijective(chain, rng)


@pytest.fixture(scope="module")
def languages(chains) -> tuple[Language, Language]:
    rng = np.random.default_rng(1)
    texts = [sample(chain, 500, 20, rng)[1] for chain in chains]
    return symbol_language(texts[0], SIZE, "source"), symbol_language(texts[1], SIZE, "target")


@pytest.fixture(scope="module")
def alignment(languages) -> Alignment:
    return decipher(*languages, DecipherConfig(null_surrogates=0, lags=(1, 2, 3)))


@pytest.fixture(scope="module")
def test_text(chains) -> tuple[Language, np.ndarray]:
    """Source text, and what it says in the target."""
    symbols = sample(chains[0], 50, 20, np.random.default_rng(2))[1]
    key = chains[1].emissions.argmax(1)[chains[0].emissions.argmax(0)]
    return symbol_language(symbols, SIZE, "test"), key[symbols]


def accuracy(translator, test_text) -> float:
    told = translator.translate(test_text[0].corpus)
    right = [word == str(true) for text, truth in zip(told, test_text[1], strict=True)
             for word, true in zip(text, truth, strict=True)]  # fmt: skip
    return float(np.mean(right))


@pytest.fixture(scope="module")
def trained(languages, alignment):
    return finished(train(*languages, alignment, CONFIG))


def test_a_bijective_language_is_translated_by_a_network_that_starts_from_the_alignment(trained, test_text):
    assert accuracy(trained[0], test_text) > 0.99


def test_from_a_random_start_the_same_network_translates_nothing_and_the_criterion_says_so(
    languages, test_text, trained
):
    losses = replace(CONFIG.losses, pseudo_parallel=Schedule())
    translator, seen = finished(train(*languages, None, replace(CONFIG, start="random", losses=losses)))
    assert seen[-1].losses["denoise"] < 1.0, "it did learn to restore text"
    assert accuracy(translator, test_text) < 0.3
    assert translator.record["best"] < 0.6 * trained[0].record["best"]


def test_the_translator_is_that_of_the_best_criterion(trained):
    translator, seen = trained
    looked = {step.number: step.criterion.value for step in seen if step.criterion is not None}
    assert list(looked) == [20, 40, 60]
    assert translator.record["best"] == max(looked.values())
    assert looked[translator.record["best_step"]] == max(looked.values())


@pytest.mark.parametrize("losses", [CONFIG.losses, EVERYTHING])
def test_an_interrupted_training_resumes_to_the_same_bits(languages, alignment, losses):
    config = replace(CONFIG, losses=losses, training=replace(SMALL, steps=6, evaluate_every=2),
                     backbone=replace(CONFIG.backbone, dropout=0.3))  # fmt: skip
    whole, _ = finished(train(*languages, alignment, config))
    steps = train(*languages, alignment, config)
    for _ in range(3):
        stopped = next(steps)
    again, seen = finished(train(*languages, alignment, config, resume=stopped.state()))
    assert [step.number for step in seen] == [4, 5, 6] and again.record == whole.record
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_bfloat16_learns_what_float32_does_to_its_own_precision(languages, alignment, trained):
    config = replace(CONFIG, training=replace(SMALL, precision="bfloat16"))
    _, seen = finished(train(*languages, alignment, config))
    for name in ("denoise", "pseudo_parallel"):
        assert seen[-1].losses[name] != trained[1][-1].losses[name]
        assert seen[-1].losses[name] == pytest.approx(trained[1][-1].losses[name], rel=0.1, abs=0.05)
    assert seen[-1].criterion.value == pytest.approx(trained[1][-1].criterion.value, abs=0.03)


def test_true_translations_teach_a_network_whose_start_knows_nothing(languages, chains, test_text):
    key = chains[1].emissions.argmax(1)[chains[0].emissions.argmax(0)]
    texts = [language.corpus.matrix.indices.reshape(-1, 20) for language in languages]
    paired = tuple(symbol_language(rule[text], SIZE, "truth").corpus
                   for rule, text in zip((key, np.argsort(key)), texts, strict=True))  # fmt: skip
    translator, _ = finished(train(*languages, None, replace(CONFIG, start="random"), paired=paired))
    assert accuracy(translator, test_text) > 0.99


def test_every_loss_of_some_weight_is_told_and_none_of_weight_nothing(languages, alignment):
    few = replace(CONFIG, training=replace(SMALL, steps=1, held_out=4))
    _, (step,) = finished(train(*languages, alignment, replace(few, losses=EVERYTHING)))
    assert set(step.losses) == {"denoise", "bottleneck", "pseudo_parallel", "back_translation", "prior", "adversarial",
                                "critic", "moments"}  # fmt: skip
    alone = LossConfig(Schedule(), Schedule(), constant(1.0))
    _, (step,) = finished(train(*languages, alignment, replace(few, losses=alone)))
    assert set(step.losses) == {"back_translation"}


def test_training_ends_when_the_criterion_has_not_risen_for_so_many_looks(languages, alignment):
    still = replace(SMALL, lr=0.0, steps=50, evaluate_every=2, patience=3, held_out=5)
    _, seen = finished(train(*languages, alignment, replace(CONFIG, training=still)))
    assert seen[-1].number == 8


def test_training_ends_when_the_budget_is_used_up(languages, alignment):
    _, seen = finished(train(*languages, alignment, replace(CONFIG, training=replace(SMALL, budget=1e-9))))
    assert len(seen) == 1 and seen[0].criterion is not None


def test_gradients_add_up_over_accumulated_batches(languages, alignment):
    twice = replace(SMALL, steps=1, accumulate=2, held_out=5)
    _, (step,) = finished(train(*languages, alignment, replace(CONFIG, training=twice)))
    _, (once,) = finished(train(*languages, alignment, replace(CONFIG, training=replace(twice, accumulate=1))))
    assert step.losses["denoise"] != once.losses["denoise"]
    assert step.losses["denoise"] == pytest.approx(once.losses["denoise"], rel=0.2)


def test_fooling_the_critic_moves_the_encoder_and_leaves_the_critic_alone(languages, alignment):
    alone = LossConfig(Schedule(), Schedule(), Schedule(), adversarial=constant(1.0))
    config = replace(CONFIG, losses=alone, training=replace(SMALL, held_out=4))
    specs = spec_of(languages[0]), spec_of(languages[1])
    learner = Learner.fresh(seeded_network(languages, specs, None, config), config, Team())
    material = prepare(languages, specs, None, config)
    _, weighted, critic = learner.losses(material, 0, torch.Generator().manual_seed(0))
    weighted.backward()
    assert all(parameter.grad is None for parameter in learner.critic.parameters())
    moved = [parameter.grad.clone() for parameter in learner.network.backbone.encoder.parameters()]
    assert any(gradient.abs().max() > 0 for gradient in moved)
    critic.backward()
    assert all(parameter.grad is not None for parameter in learner.critic.parameters())
    assert all(torch.equal(parameter.grad, before) for parameter, before in
               zip(learner.network.backbone.encoder.parameters(), moved, strict=True))  # fmt: skip


@pytest.mark.parametrize("name", ["xtransformers", "encoder_decoder", "decoder_only", "tagger"])
def test_every_backbone_learns_to_restore_text(languages, alignment, name):
    backbone = BackboneConfig(name, d_model=32, depth=1, heads=2, dropout=0.0)
    losses = LossConfig(Schedule(), constant(1.0), Schedule())
    config = replace(CONFIG, backbone=backbone, losses=losses,
                     training=replace(SMALL, steps=12, evaluate_every=12, held_out=2))  # fmt: skip
    _, seen = finished(train(*languages, alignment, config))
    assert seen[-1].losses["denoise"] < 0.9 * seen[0].losses["denoise"]


def test_a_saved_translator_says_the_same(trained, test_text, tmp_path):
    translator, _ = trained
    translator.save(tmp_path / "translator")
    again = load_translator(tmp_path / "translator")
    assert again.translate(test_text[0].corpus) == translator.translate(test_text[0].corpus)
    assert again.config == translator.config and again.items == translator.items
    with pytest.raises(UserError, match="exists: give another --out, or --overwrite"):
        translator.save(tmp_path / "translator")
    (tmp_path / "translator" / "tensors.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="is damaged"):
        load_translator(tmp_path / "translator")
    with pytest.raises(UserError, match="is not a translator folder: give one that `sae-translate train` wrote"):
        load_translator(tmp_path)


def test_words_outside_the_vocabulary_are_copied(trained, test_text):
    texts = [[str(i) for i in row] for row in test_text[0].corpus.matrix.indices.reshape(50, 20)[:3]]
    told = trained[0].translate_words([text[:19] for text in texts])
    assert [len(text) for text in told] == [19] * 3
    heard = trained[0].translate_words([["Zaphod"]])[0]
    assert heard in ([["Zaphod"], []]) or len(heard) == 1


def test_what_does_not_fit_together_is_one_line(languages, alignment, trained):
    source, target = languages
    few = Language("few", source.items, source.corpus.select_documents(np.arange(10)))
    with pytest.raises(UserError, match="few has 10 segments of 1 to 20 positions, of which 20 are held out"):
        next(train(few, target, alignment, CONFIG))
    corpus = Corpus(source.corpus.matrix[:, :-1], source.corpus.segments, source.corpus.documents)
    smaller = Language("smaller", source.items[:-1], corpus)
    with pytest.raises(UserError, match=r"the alignment's source vocabulary .16 items. is not that of smaller .15"):
        next(train(smaller, target, alignment, CONFIG))
    with pytest.raises(UserError, match="the start is alignment and none was given"):
        next(train(source, target, None, CONFIG))
    with pytest.raises(UserError, match="unknown start 'align'"):
        next(train(source, target, alignment, replace(CONFIG, start="align")))
    with pytest.raises(UserError, match=r"smaller has 15 and not the same|the translator's source has 16 items"):
        trained[0].check_language(smaller, 0)
    with pytest.raises(UserError, match="has 16 items and the text is over 15"):
        trained[0].translate(smaller.corpus)
    state = next(train(source, target, alignment, replace(CONFIG, training=replace(SMALL, held_out=2)))).state()
    random = replace(CONFIG, start="random")
    with pytest.raises(UserError, match="the checkpoint does not fit languages of 15 and 16 items"):
        next(train(smaller, target, None, random, resume=state))


def test_where_memory_runs_out_the_knobs_are_named(languages, alignment):
    greedy = replace(CONFIG, training=replace(SMALL, batch_size=10**13))
    with pytest.raises(UserError, match=r"out of memory at batch_size 10000000000000, max_length 20 and held_out 20: "
                                        "lower batch_size and raise accumulate"):  # fmt: skip
        next(train(*languages, alignment, greedy))
    with pytest.raises(UserError, match="unknown precision 'float8': choose one of float32, bfloat16"):
        next(train(*languages, alignment, replace(CONFIG, training=replace(SMALL, precision="float8"))))


def test_a_backbone_that_writes_symbols_refuses_sets_of_items(languages, alignment):
    source, target = languages
    doubled = source.corpus.matrix + source.corpus.matrix[:, np.roll(np.arange(SIZE), 1)]
    sets = Language("sets", source.items, Corpus(doubled.tocsr(), source.corpus.segments, source.corpus.documents))
    config = replace(CONFIG, backbone=replace(CONFIG.backbone, name="xtransformers", heads=1))
    with pytest.raises(UserError, match="xtransformers writes symbol after symbol and cannot write weighted_sets"):
        next(train(sets, target, alignment, config))
    _, seen = finished(train(sets, target, alignment, replace(CONFIG, training=replace(SMALL, steps=30))))
    assert seen[-1].losses["denoise"] < 0.8 * seen[0].losses["denoise"]


def test_vectors_go_in_and_text_comes_out(languages, alignment):
    source, target = languages
    vectors = np.random.default_rng(0).standard_normal((SIZE, 12)).astype(np.float32)
    dense = Language("dense", source.items, source.corpus, vectors)
    _, seen = finished(train(dense, target, alignment, CONFIG, ("dense", None)))
    assert seen[-1].losses["pseudo_parallel"] < 0.5 * seen[0].losses["pseudo_parallel"]
    assert seen[-1].criterion.value > 0.5


def test_edit_distance_is_levenshtein_s():
    assert edit_distance(np.array([1, 2, 3]), np.array([1, 3])) == 1
    assert edit_distance(np.array([1, 2, 3, 4]), np.array([2, 3, 4, 5])) == 2
    assert edit_distance(np.array([], int), np.array([7, 7])) == 2
    assert similarity([np.array([1, 2]), np.array([3])], [np.array([1, 5]), np.array([3])]) == pytest.approx(2 / 3)
