"""What delphi and SAELens wrote themselves comes in as it was, and every command takes it.

`tests/delphi` was written by eai-delphi 0.1.3 (benchmarks/caching/delphi_fixture.py), from the tiny model and SAEs that
are made again here.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from activation_cache.errors import UserError
from activation_cache.foreign import read_foreign
from activation_cache.importing import import_cache, plan_import
from activation_cache.layout import LatentStatistics
from activation_cache.shards import ActivationCache
from sae_translate.cli.main import app

DELPHI = Path(__file__).parent / "delphi"
HOOKS = {"layers.1": "topk", "layers.2": "standard"}


def run(*line) -> str:
    result = CliRunner().invoke(app, list(map(str, line)), catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("inputs") / "tiny-llama", tiny.llama())


@pytest.fixture
def imported(model, tmp_path, monkeypatch) -> ActivationCache:
    monkeypatch.setattr("activation_cache.importing.TOKENS_PER_SHARD", 40)
    run("import", DELPHI, "--model", model, "--out", tmp_path / "c")
    return ActivationCache(tmp_path / "c")


def residual(tokens: np.ndarray, hook: str) -> torch.Tensor:
    """The residual stream after a layer, as plain Hugging Face has it."""
    found = {}
    backbone = tiny.llama().model
    layer = backbone.get_submodule(hook)
    layer.register_forward_hook(lambda module, args, output: found.update(x=output))
    with torch.no_grad():
        backbone(torch.from_numpy(tokens))
    return found["x"] if torch.is_tensor(found["x"]) else found["x"][0]


def test_delphis_latents_come_in_as_the_sae_says_them_but_for_the_bos(imported):
    tokens = load_file(DELPHI / "layers.1/0_127.safetensors")["tokens"]
    assert imported.manifest.n_shards > 1 and imported.manifest.prepend_bos and (tokens[:, 0] == 0).all()
    np.testing.assert_array_equal(imported.tokens, tokens[:, 1:].ravel())
    for hook, architecture in HOOKS.items():
        with torch.no_grad():
            expected = tiny.sae(architecture).encode(residual(tokens, hook))[:, 1:].reshape(-1, 256).numpy()
        assert (expected > 1e-5).sum() == imported.latents(hook).nnz > 500
        np.testing.assert_allclose(imported.latents(hook).toarray(), expected, rtol=1e-3, atol=1e-5)


def test_the_statistics_of_what_was_imported_are_those_of_its_latents(imported):
    latents, statistics = imported.latents("layers.1").toarray(), imported.statistics("layers.1")
    assert isinstance(statistics, LatentStatistics)
    np.testing.assert_allclose(statistics.density, (latents > 0).mean(0), rtol=1e-6)
    np.testing.assert_array_equal(statistics.max, latents.max(0))


def test_each_context_of_delphi_is_a_document_and_that_is_said(model, tmp_path):
    out = run("import", DELPHI / "layers.2", "--model", model, "--out", tmp_path / "c")
    assert "delphi does not keep documents: each of the 9 contexts counts as one" in out
    opened = ActivationCache(tmp_path / "c")
    np.testing.assert_array_equal(opened.document_ids, np.arange(9))
    assert opened.manifest.dataset == "made/up" and opened.manifest.hook_names == ("layers.2",)


def test_an_import_is_verified_and_told_but_never_computed_again(imported):
    assert "all as recorded" in run("verify", imported.path)
    assert json.loads(run("info", imported.path, "--json"))["complete"]
    path = imported.path / "shards/00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="imported from delphi, and what it holds cannot be computed here"):
        run("verify", imported.path, "--repair")


def test_an_import_is_replaced_only_when_asked(imported, model):
    line = ("import", DELPHI, "--model", model, "--out", imported.path)
    with pytest.raises(UserError, match="replace it with --overwrite"):
        run(*line)
    assert json.loads(run(*line, "--overwrite", "--json"))["tokens"] == 9 * 11


def altered(folder: Path, name: str, change) -> Path:
    shutil.copytree(DELPHI, folder)
    arrays = load_file(folder / "layers.1" / name)
    save_file(change(dict(arrays)), folder / "layers.1" / name)
    return folder


def without_tokens(arrays):
    return {name: array for name, array in arrays.items() if name != "tokens"}


def out_of_bounds(arrays):
    return arrays | {"locations": arrays["locations"] + np.array([9, 0, 0], arrays["locations"].dtype)}


def other_tokens(arrays):
    return arrays | {"tokens": arrays["tokens"] + 1}


BROKEN = {
    without_tokens: "let delphi save it with save_tokens",
    out_of_bounds: "names positions or latents that it does not have",
    other_tokens: "has other tokens than the files before it",
}


@pytest.mark.parametrize("change", BROKEN)
def test_a_delphi_cache_that_cannot_be_read_is_told_and_nothing_is_written(model, tmp_path, change):
    folder = altered(tmp_path / "d", "128_255.safetensors", change)
    with pytest.raises(UserError, match=BROKEN[change]):
        run("import", folder, "--model", model, "--out", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_what_cannot_be_imported_says_what_is_needed(model, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run("import", tmp_path / "nowhere", "--out", tmp_path / "c")
    with pytest.raises(UserError, match="is no cache to import"):
        run("import", tmp_path, "--out", tmp_path / "c")
    with pytest.raises(UserError, match=r"3 SAEs were given for the latents of 2 hooks \(layers.1, layers.2\)"):
        run("import", DELPHI, "--model", model, "--out", tmp_path / "c", *("--sae", "x") * 3)
    with pytest.raises(UserError, match="no such model folder"):
        run("import", DELPHI, "--model", "./nowhere", "--out", tmp_path / "c")


def test_what_saelens_cached_comes_in_as_it_was(model, tmp_path):
    from datasets import Dataset
    from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig
    from transformer_lens.model_bridge import TransformerBridge

    tokens = np.random.default_rng(0).integers(2, tiny.VOCABULARY, size=(16, 10))
    config = CacheActivationsRunnerConfig(
        dataset_path="made/up", model_name=str(model), model_class_name="TransformerBridge", model_batch_size=4,
        hook_name="blocks.1.hook_resid_post", d_in=tiny.WIDTH, training_tokens=tokens.size, context_size=10,
        new_cached_activations_path=str(tmp_path / "saelens"), shuffle=False, device="cpu", dtype="float32",
        buffer_size_gb=4 * 10 * tiny.WIDTH * 4 / 1e9, prepend_bos=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        bridge = TransformerBridge.boot_transformers(str(model), device="cpu")
        patch.setattr("sae_lens.cache_activations_runner.load_model", lambda **_: bridge)
        CacheActivationsRunner(config, override_dataset=Dataset.from_dict({"tokens": tokens.tolist()})).run()
    run("import", tmp_path / "saelens", "--model", model, "--out", tmp_path / "c")
    opened = ActivationCache(tmp_path / "c")
    np.testing.assert_array_equal(opened.tokens, tokens.ravel())
    expected = residual(tokens, "layers.1").reshape(-1, tiny.WIDTH).numpy()
    np.testing.assert_allclose(opened.activations("blocks.1.hook_resid_post"), expected, atol=2e-3, rtol=1e-3)


def test_a_saelens_dataset_without_tokens_is_refused(tmp_path):
    import datasets

    features = datasets.Features({"h": datasets.Array2D(shape=(5, 8), dtype="float32")})
    datasets.Dataset.from_dict({"h": np.zeros((7, 5, 8), np.float32)}, features=features).save_to_disk(tmp_path / "d")
    with pytest.raises(UserError, match="holds 7 rows of h: needed a column of activations for each hook, and token"):
        read_foreign(tmp_path / "d")
    with pytest.raises(UserError, match="does not say which model it is of: give --model"):
        shutil.copytree(DELPHI / "layers.1", tmp_path / "e")
        (tmp_path / "e/config.json").unlink()
        plan_import(tmp_path / "e")


def test_an_import_to_a_url_is_that_to_a_folder(imported, model):
    plan, foreign = plan_import(DELPHI, str(model))
    list(import_cache(plan, foreign, "memory://imported/c"))
    there = ActivationCache("memory://imported/c")
    assert there.manifest == imported.manifest and (there.latents("layers.1") != imported.latents("layers.1")).nnz == 0
