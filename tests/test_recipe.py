"""The recipe: laws of the trainer of small language models, and of the weights that come with the package."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from steps import finished
from typer.testing import CliRunner

from activation_cache.errors import UserError
from activation_cache.models import load_model
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.saes import load_sae
from sae_translate.cli.demo import MODEL, SAE
from sae_translate.cli.recipe import app
from sae_translate.config import from_table, read_config
from sae_translate.demo.recipe import (
    IGNORED,
    DemoRecipe,
    LanguageModelConfig,
    _batches,
    _contexts,
    _targets,
    evaluate_language_model,
    train_language_model,
    train_tokenizer,
)
from sae_translate.demo.stories import generate_documents
from sae_translate.sae.train import measure_sae, plan_activations

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TINY = LanguageModelConfig(vocabulary=400, d_model=32, n_layers=1, n_heads=2, tokens=40_000, batch_tokens=1024, lr=0.01)


@pytest.fixture(scope="module")
def documents():
    return list(generate_documents("en", 150, seed=5))


def test_the_tokenizer_gives_every_text_back(documents):
    tokenizer = train_tokenizer(documents, 400)
    for text in (documents[0], "Größe 猫 “so”  twice\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == 400


def test_training_lowers_the_loss_below_chance_also_on_stories_it_did_not_read(documents):
    trained, steps = finished(train_language_model(documents, TINY))
    assert steps[-1].n_tokens == steps[-1].total == TINY.tokens
    assert steps[-1].loss < steps[0].loss
    held_out = evaluate_language_model(trained, list(generate_documents("en", 20, seed=6)), TINY.context_size)
    assert held_out < 0.8 * math.log(400)


def test_the_same_seed_trains_the_same_model_and_leaves_the_global_generator_alone(documents):
    short = dataclasses.replace(TINY, tokens=3000)
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first, _ = finished(train_language_model(documents, short))
    assert torch.equal(torch.rand(1), expected)
    second, _ = finished(train_language_model(documents, short))
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))


def test_every_context_is_read_once_before_any_is_read_again():
    contexts = _contexts([[9] * 300, [7], [5] * 40], 128, 0)
    assert [len(context) for context in contexts] == [128, 128, 47, 2, 41]
    assert all(context[0] == 0 for context in contexts)
    batches = _batches(contexts, dataclasses.replace(TINY, batch_tokens=200), 0)
    seen = 0
    while seen < 5:
        seen += len(next(batches))
    assert seen == 5


def test_no_batch_is_larger_than_was_asked_for_unless_one_context_is():
    rng = np.random.default_rng(0)
    contexts = [np.ones(n, np.int64) for n in rng.integers(2, 128, 500)]
    batches = _batches(contexts, dataclasses.replace(TINY, batch_tokens=600), 0)
    assert all(next(batches).numel() <= 600 for _ in range(200))


def test_padding_is_not_learnt_but_the_end_of_the_text_is():
    inputs = torch.tensor([[0, 5, 6, 0, 0, 0], [0, 5, 6, 7, 8, 9]])
    assert _targets(inputs, 0).tolist() == [[5, 6, 0, IGNORED, IGNORED], [5, 6, 7, 8, 9]]


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown setting 'd_modle'.*d_model"):
        from_table(LanguageModelConfig, {"d_modle": 3}, "here")
    with pytest.raises(UserError, match="n_heads must be int, not"):
        from_table(LanguageModelConfig, {"n_heads": "four"}, "here")
    with pytest.raises(UserError, match="vocabulary, d_model"):
        from_table(LanguageModelConfig, {"n_heads": 4, "n_layers": 1, "tokens": 5}, "here")


def test_one_command_makes_a_model_and_an_sae_that_load_and_fit_each_other(tmp_path):
    small = dataclasses.asdict(dataclasses.replace(TINY, tokens=4000))
    recipe = {"language": "de", "stories": 60, "seed": 3, "model": small, "hook_name": "blocks.0.hook_resid_post",
              "sae_tokens": 2000, "sae": {"d_sae": 40, "k": 4, "epochs": 2, "batch_size": 200}}  # fmt: skip
    (tmp_path / "tiny.json").write_text(json.dumps(recipe))
    made = CliRunner().invoke(app, [str(tmp_path / "tiny.json"), "--out", str(tmp_path / "out")])
    assert made.exit_code == 0, made.output
    sae, model = load_sae(tmp_path / "out" / "sae"), load_model(tmp_path / "out" / "model")
    assert (sae.d_in, sae.d_sae, sae.metadata.model_name) == (model.d_model, 40, "model")
    before = (tmp_path / "out" / "model" / "model.safetensors").read_bytes()
    again = CliRunner().invoke(app, [str(tmp_path / "tiny.json"), "--out", str(tmp_path / "out")])
    assert isinstance(again.exception, UserError) and "--overwrite" in str(again.exception)
    assert CliRunner().invoke(
        app, [str(tmp_path / "tiny.json"), "--out", str(tmp_path / "out"), "--sae-only", "--overwrite"]
    ).exit_code == 0  # fmt: skip
    assert (tmp_path / "out" / "model" / "model.safetensors").read_bytes() == before


def test_the_committed_recipe_is_valid_and_made_the_committed_weights():
    recipe = read_config(DemoRecipe, CONFIGS / "demo.json")
    made = json.loads((MODEL.parent / "recipe.json").read_text())
    assert from_table(DemoRecipe, made["recipe"], "recipe.json") == recipe


def test_the_committed_weights_are_small_enough_to_travel():
    assert sum(file.stat().st_size for file in MODEL.parent.rglob("*") if file.is_file()) < 8_000_000


def test_the_committed_sae_says_portably_where_it_belongs():
    told = load_sae(SAE).metadata
    recipe = read_config(DemoRecipe, CONFIGS / "demo.json")
    assert (told.model_name, told.hook_name) == ("sae_translate/demo/data/model", recipe.hook_name)
    assert (told.context_size, told.prepend_bos) == (recipe.model.context_size, True)
    text = "".join(file.read_text() for file in MODEL.parent.rglob("*.json"))
    assert str(Path.home()) not in text and str(Path(__file__).resolve().parents[1]) not in text


def test_the_committed_model_tells_stories_and_its_sae_explains_what_the_recipe_says():
    recipe = read_config(DemoRecipe, CONFIGS / "demo.json")
    figures = json.loads((MODEL.parent / "recipe.json").read_text())["measured on stories of other plots"]
    settings = RecordingConfig(
        model=str(MODEL), dataset="stories:en", hook_names=(recipe.hook_name,), n_tokens=6000, prepend_bos=True
    )
    plan = plan_recording(settings, generate_documents("en", None, recipe.seed + 2))
    measured = measure_sae(load_sae(SAE).sae, plan_activations(plan))
    assert measured["explained_variance"] == pytest.approx(figures["explained_variance"], abs=0.02)
    assert measured["l0"] == pytest.approx(recipe.sae.k, abs=0.2)
    model = load_model(MODEL)
    prompt = model.tokenizer("<|endoftext|>Once there was a little", return_tensors="pt")["input_ids"]
    told = model.network.generate(prompt, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert model.tokenizer.decode(told[0, prompt.shape[1] :]).split()[0] in ("girl", "boy", "cat", "dog", "bird", "fox")
