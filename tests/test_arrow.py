"""What is exported for SAELens is what was recorded, and SAELens itself trains from it."""

import json

import datasets
import numpy as np
import pytest
import tiny
import torch
from typer.testing import CliRunner

from activation_cache.errors import UserError
from activation_cache.models import load_model
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.record import record
from activation_cache.shards import ActivationCache
from sae_translate.cli.main import app

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")


def run(*line) -> str:
    result = CliRunner().invoke(app, list(map(str, line)), catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def cache(folder) -> ActivationCache:
    model = load_model(tiny.model_folder(folder / "model", tiny.llama()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
        config = RecordingConfig(dataset="tiny", hook_names=HOOKS, context_size=16)
        list(record(plan_recording(config, tiny.documents(n=60), model), folder / "c"))
    return ActivationCache(folder / "c")


def exported(cache, out, *options) -> datasets.Dataset:
    run("export", cache.path, "--to", "saelens", "--out", out, *options)
    return datasets.load_from_disk(str(out))


def test_rows_are_the_positions_in_order_with_nothing_lost_but_the_last_broken_row(cache, tmp_path):
    assert cache.manifest.n_shards > 3
    rows = exported(cache, tmp_path / "d").with_format("numpy")
    length = cache.manifest.context_size - 1
    assert len(rows) == cache.n_tokens // length and set(rows.column_names) == {*HOOKS, "token_ids"}
    n = len(rows) * length
    np.testing.assert_array_equal(np.stack(rows["token_ids"]).ravel(), cache.tokens[:n])
    for hook in HOOKS:
        assert rows.features[hook].shape == (length, tiny.WIDTH)
        np.testing.assert_array_equal(np.stack(rows[hook]).reshape(n, -1), cache.activations(hook)[:n])


def test_what_is_exported_comes_back_through_import(cache, folder, tmp_path):
    exported(cache, tmp_path / "d", "--context-size", 7, "--hook-name", HOOKS[1])
    run("import", tmp_path / "d", "--model", folder / "model", "--out", tmp_path / "back")
    back = ActivationCache(tmp_path / "back")
    assert back.n_tokens == cache.n_tokens // 7 * 7 and back.manifest.hook_names == HOOKS[1:]
    np.testing.assert_array_equal(back.tokens, cache.tokens[: back.n_tokens])
    np.testing.assert_array_equal(back.activations(), cache.activations(HOOKS[1])[: back.n_tokens])


def test_saelens_own_store_and_runner_train_from_it(cache, folder, tmp_path):
    from sae_lens import (
        SAE,
        LanguageModelSAERunnerConfig,
        LanguageModelSAETrainingRunner,
        LoggingConfig,
        TopKTrainingSAEConfig,
    )
    from transformer_lens.model_bridge import TransformerBridge

    told = json.loads(run("export", cache.path, "--to", "saelens", "--out", tmp_path / "d", "--json"))
    bridge = TransformerBridge.boot_transformers(str(folder / "model"), device="cpu")
    config = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(d_in=tiny.WIDTH, d_sae=64, k=8), model_name=str(folder / "model"), hook_name=HOOKS[1],
        dataset_path="none", is_dataset_tokenized=False, streaming=False, context_size=told["context_size"],
        training_tokens=told["tokens"] // 128 * 128, train_batch_size_tokens=64, store_batch_size_prompts=2,
        n_batches_in_buffer=8, lr=1e-3, device="cpu", n_eval_batches=0, n_checkpoints=0, checkpoint_path=None,
        output_path=str(tmp_path / "sae"), prepend_bos=False, verbose=False, logger=LoggingConfig(log_to_wandb=False),
        use_cached_activations=True, cached_activations_path=told["out"],
    )  # fmt: skip
    unread = datasets.Dataset.from_dict({"text": ["w2 w3"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bridge), "run_with_cache", None)  # activations come from the folder, not from the model
        runner = LanguageModelSAETrainingRunner(config, override_dataset=unread, override_model=bridge)
        first, _ = runner.activations_store.get_raw_llm_batch()
        runner.activations_store.current_row_idx = 0
        runner.run()
    expected = cache.activations(HOOKS[1])[: len(first)]
    np.testing.assert_array_equal(first.numpy().reshape(expected.shape), expected)
    sae = SAE.load_from_disk(str(tmp_path / "sae"), device="cpu")
    x = torch.from_numpy(cache.activations(HOOKS[1]))
    untrained = tiny.sae("topk", d_sae=64)
    assert (sae(x) - x).pow(2).mean() < (untrained(x) - x).pow(2).mean()


def test_a_foreign_folder_is_not_replaced_and_a_dataset_only_when_asked(cache, tmp_path):
    exported(cache, tmp_path / "d")
    with pytest.raises(UserError, match="exists: give another --out, or --overwrite"):
        exported(cache, tmp_path / "d")
    assert len(exported(cache, tmp_path / "d", "--overwrite", "--context-size", 5)) == cache.n_tokens // 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds something other than our own output"):
        exported(cache, tmp_path / "mine", "--overwrite")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


REFUSED = {
    "format": (("--to", "delphi"), "unknown format 'delphi': choose one of saelens"),
    "hook": (("--to", "saelens", "--hook-name", "blocks.1.hook"), "did you mean blocks.1.hook_resid_post"),
    "length": (("--to", "saelens", "--context-size", "99999"), "rows of 99999 positions cannot be made"),
    "no length": (("--to", "saelens", "--context-size", "0"), "needed at least 1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mistake_is_told_and_nothing_is_written(cache, tmp_path, what):
    line, says = REFUSED[what]
    with pytest.raises(UserError, match=says):
        run("export", cache.path, "--out", tmp_path / "d", *line)
    assert list(tmp_path.iterdir()) == []
