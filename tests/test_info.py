"""`info` says of every kind of cache what was put into it."""

import json
from dataclasses import replace

import datasets
import numpy as np
import pytest
import safetensors.numpy
import tiny
import typer
from typer.testing import CliRunner

from activation_cache import layout
from activation_cache.errors import UserError
from activation_cache.models import load_model
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.record import record
from activation_cache.shards import ActivationCache
from sae_translate.cli import info

app = typer.Typer()
app.command("info")(info.run)


@app.callback()
def main() -> None:
    """A command with verbs, although it has but one."""
HOOK = "blocks.1.hook_resid_post"


def run(*line: str) -> str:
    result = CliRunner().invoke(app, list(map(str, line)), catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def told(folder) -> dict:
    return json.loads(run("info", folder, "--json"))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    model = load_model(tiny.model_folder(folder / "model", tiny.llama()))
    sae = tiny.sae_folder(folder / "sae", hook_name=HOOK, context_size=16, prepend_bos=True, model_name="model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
        return plan_recording(RecordingConfig(saes=(str(sae),), dataset="tiny"), tiny.documents(n=40), model)


def test_our_cache_is_told_with_its_counts_and_live_latents(planned, tmp_path):
    list(record(planned, tmp_path / "c"))
    cache, said = ActivationCache(tmp_path / "c"), told(tmp_path / "c")
    assert said["kind"] == "activation cache" and said["complete"]
    assert (said["tokens"], said["contexts"], said["documents"]) == (cache.n_tokens, cache.n_contexts, 40)
    latents = cache.latents()
    assert said["saes"] == [{"name": "sae", "architecture": "topk", "latents": 256, "hook": HOOK,
                             "live": len(np.unique(latents.indices)),
                             "active_at_once": round(latents.nnz / cache.n_tokens, 1)}]
    assert said["hooks"] == [{"name": HOOK, "width": 32, "activations_stored": False}]
    assert said["bytes"] == sum(path.stat().st_size for path in (tmp_path / "c").glob("s*/*.safetensors"))
    out = run("info", tmp_path / "c")
    assert f"tokens:       {cache.n_tokens:,}\n" in out and len(out.splitlines()) < 24


def test_co_occurrence_is_told_with_the_share_of_the_weight_that_it_tells_apart(planned, tmp_path):
    pairs = layout.CooccurrenceEntry((1, 2), 1)
    manifest = replace(planned.manifest, cooccurrence=pairs, format=layout.FORMAT_WITH_COOCCURRENCE)
    list(record(replace(planned, manifest=replace(manifest, key=layout.run_key(manifest))), tmp_path / "c"))
    said = told(tmp_path / "c")["saes"][0]
    assert said["cooccurrence"] == {"lags": "1 2", "told_apart": said["live"], "of_the_weight": 1.0}
    assert "lags 1 2" in run("info", tmp_path / "c")


def test_an_interrupted_cache_is_told_with_the_shards_it_has(planned, tmp_path):
    running = record(planned, tmp_path / "c")
    next(running)
    next(running)
    running.close()
    said = told(tmp_path / "c")
    assert not said["complete"] and said["shards"] == f"2 of {planned.manifest.n_shards}"


def delphi(folder, hook: str, widths: list[tuple[int, int]], config: dict) -> int:
    """A delphi cache of 6 contexts of 10 tokens; the number of active latents."""
    draw, active = np.random.default_rng(0), 0
    (folder / hook).mkdir(parents=True)
    (folder / hook / "config.json").write_text(json.dumps(config))
    for start, end in widths:
        n = int(draw.integers(20, 60))
        places = draw.integers(0, [6, 10, end - start + 1], size=(n, 3)).astype(np.uint16)
        arrays = {"locations": places, "activations": draw.random(n).astype(np.float16)}
        safetensors.numpy.save_file(
            arrays | {"tokens": np.zeros((6, 10), np.int64)}, folder / hook / f"{start}_{end}.safetensors"
        )
        active += n
    return active


def test_a_delphi_cache_is_told_by_hook_point_with_its_width_and_counts(tmp_path):
    config = {"dataset_repo": "EleutherAI/pile", "ctx_len": 10, "model_name": "pythia"}
    active = {hook: delphi(tmp_path, hook, [(0, 63), (64, 127)], config) for hook in ("layers.1", "layers.2.mlp")}
    said = told(tmp_path)
    assert said["kind"] == "delphi latent cache" and (said["model"], said["dataset"]) == ("pythia", "EleutherAI/pile")
    assert (said["tokens"], said["contexts"], said["context_size"]) == (60, 6, 10)
    assert said["hooks"] == [
        {"name": hook, "latents": 128, "files": 2, "active": n, "active_at_once": round(n / 60, 1)}
        for hook, n in active.items()
    ]
    assert told(tmp_path / "layers.1")["hooks"] == said["hooks"][:1]


def test_a_saelens_dataset_is_told_with_its_tokens_and_width(tmp_path):
    features = datasets.Features({
        HOOK: datasets.Array2D(shape=(5, 8), dtype="float32"),
        "token_ids": datasets.Sequence(datasets.Value("int32"), length=5),
    })
    rows = {HOOK: np.zeros((7, 5, 8), np.float32), "token_ids": np.zeros((7, 5), np.int32)}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "d")
    said = told(tmp_path / "d")
    assert said["kind"] == "SAELens activation dataset" and said["token_ids"] == "stored"
    assert (said["tokens"], said["contexts"], said["context_size"]) == (35, 7, 5)
    assert said["hooks"] == [{"name": HOOK, "width": 8, "dtype": "float32"}]
    assert said["bytes"] >= 7 * 5 * 8 * 4


def test_what_is_no_cache_is_refused_in_a_line_that_says_what_is_wanted(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run("info", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is no cache: it has neither our manifest\.json, nor delphi's"):
        run("info", tmp_path)
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "d")
    with pytest.raises(UserError, match="is a dataset of text, and no activations"):
        run("info", tmp_path / "d")
    delphi(tmp_path / "torn", "layers.1", [(0, 63)], {})
    path = tmp_path / "torn/layers.1/0_63.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="truncated or altered"):
        run("info", tmp_path / "torn")


def test_a_damaged_cache_of_ours_is_told_to_be_damaged(planned, tmp_path):
    list(record(planned, tmp_path / "c"))
    (tmp_path / "c" / layout.shard_file(1)).unlink()
    with pytest.raises(UserError, match="mend it with `sae-translate verify --repair`"):
        run("info", tmp_path / "c")
