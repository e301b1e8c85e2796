"""Training an SAE: laws of the batches, the trainer and the command."""

import json

import pytest
import torch
from steps import finished
from tiny import LAYERS, WIDTH, documents, model_folder, neox
from typer.testing import CliRunner

from activation_cache.errors import UserError
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.record import record
from activation_cache.saes import load_sae
from activation_cache.shards import ActivationCache
from sae_translate.cli.main import app
from sae_translate.sae.train import (
    ARCHITECTURES,
    Activations,
    SaeTrainingConfig,
    cached_activations,
    explained,
    measure_sae,
    settled,
    shuffled_batches,
    train_sae,
)

HOOK = "blocks.1.hook_resid_post"


def planted(n_tokens: int = 20_000, d_in: int = 24, n_atoms: int = 32, seed: int = 0) -> Activations:
    """Activations that are sums of two of so many directions, around a mean."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(n_atoms, d_in, generator=generator), dim=1)
    mean = torch.randn(d_in, generator=generator)
    chosen = torch.randint(n_atoms, (n_tokens, 2), generator=generator)
    x = mean + (atoms[chosen] * (3 + torch.rand(n_tokens, 2, 1, generator=generator))).sum(1)
    return Activations(lambda: iter(x.split(3000)), n_tokens, d_in, {"model_name": "planted", "hook_name": HOOK})


def test_every_position_is_seen_once_an_epoch_but_for_an_incomplete_last_batch():
    x = torch.arange(1050.0)[:, None]
    activations = Activations(lambda: iter(x.split(90)), 1050, 1, {})
    generator = torch.Generator().manual_seed(0)
    batches = list(shuffled_batches(activations, 100, 300, 2, generator))
    assert len(batches) == 20
    for epoch in (batches[:10], batches[10:]):
        seen = torch.cat(epoch).flatten().tolist()
        assert len(seen) == len(set(seen)) == 1000 and set(seen) <= set(range(1050))
    assert torch.cat(batches[:10]).flatten().tolist() != sorted(torch.cat(batches[:10]).flatten().tolist())


def test_planted_directions_are_found_and_the_scale_is_folded_in():
    activations = planted()
    sae, steps = finished(train_sae(activations, SaeTrainingConfig(d_sae=48, k=2, epochs=8, batch_size=256, lr=3e-3)))
    figures = measure_sae(sae, activations)
    assert figures["explained_variance"] > 0.9
    assert figures["l0"] == pytest.approx(2, abs=0.05)
    assert steps[-1].n_tokens == steps[-1].total and steps[-1].loss < steps[0].loss


def test_the_same_seed_trains_the_same_sae():
    config = SaeTrainingConfig(d_sae=16, k=2, batch_size=256, epochs=2, seed=3)
    first, _ = finished(train_sae(planted(4000), config))
    torch.rand(5)
    second, _ = finished(train_sae(planted(4000), config))
    assert torch.equal(first.W_dec, second.W_dec)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_of_the_table_trains_saves_and_loads(architecture, tmp_path):
    activations = planted(6000)
    config = SaeTrainingConfig(
        d_sae=32, k=4, architecture=architecture, batch_size=256, sparsity=0.1, lr=3e-3, epochs=12
    )
    sae, steps = finished(train_sae(activations, config))
    assert steps[-1].loss < steps[0].loss
    sae.save_inference_model(tmp_path / "sae")
    loaded = load_sae(tmp_path / "sae")
    assert loaded.metadata.model_name == "planted" and loaded.metadata.hook_name == HOOK
    x = next(activations.blocks())[:500]
    assert explained(x, loaded.sae.decode(loaded.encode(x))) > 0.3


def test_defaults_give_a_thousand_steps_and_a_rate_that_falls_with_the_width():
    small = settled(planted(2560), SaeTrainingConfig(d_sae=512, batch_size=256))
    assert small.epochs == 100 and small.lr == pytest.approx(0.005)
    assert settled(planted(2560), SaeTrainingConfig(d_sae=2048)).lr == pytest.approx(0.0025)
    told = SaeTrainingConfig(d_sae=8, epochs=3, lr=0.1)
    assert settled(planted(2560), told) == told


def test_explained_variance_is_one_for_the_truth_and_zero_for_the_mean():
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    assert explained(x, x) == 1
    assert explained(x, x.mean(0).expand_as(x)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SaeTrainingConfig(d_sae=8, k=9), "k 9 is more than the 8 latents"),
        (SaeTrainingConfig(d_sae=8, k=2, architecture="topkk"), "did you mean topk"),
        (SaeTrainingConfig(d_sae=8, k=2, batch_size=50_000), "fewer than one batch"),
        (SaeTrainingConfig(d_sae=0), "at least 1"),
    ],
)
def test_what_cannot_be_trained_is_said_before_it_starts(config, said):
    with pytest.raises(UserError, match=said):
        next(train_sae(planted(2000), config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, a text and a cache of it with dense activations."""
    root = tmp_path_factory.mktemp("train-sae")
    model_folder(root / "tiny", neox())
    (root / "text.json").write_text(json.dumps(documents(200)))
    chosen = RecordingConfig(
        model=str(root / "tiny"), dataset=str(root / "text.json"), hook_names=(HOOK,), n_tokens=3000, context_size=32
    )
    list(record(plan_recording(chosen), root / "cache"))
    return root


def invoke(*args: str):
    return CliRunner().invoke(app, ["train-sae", *args])


def test_an_sae_trained_on_a_model_encodes_it_and_knows_where_it_belongs(folder, tmp_path):
    out = tmp_path / "sae"
    done = invoke(
        "--model", str(folder / "tiny"), "--dataset", str(folder / "text.json"), "--hook-name", HOOK,
        "--tokens", "3000", "--context-size", "32", "--d-sae", "48", "--k", "4",
        "--batch-size", "128", "--epochs", "2", "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {file.name for file in out.iterdir()} == {"cfg.json", "sae_weights.safetensors"}
    sae = load_sae(out)
    assert (sae.d_in, sae.d_sae, sae.architecture) == (WIDTH, 48, "topk")
    told = sae.metadata
    assert (told.model_name, told.hook_name, told.context_size) == (str(folder / "tiny"), HOOK, 32)
    raw = json.loads((out / "cfg.json").read_text())["metadata"]
    assert raw["model_class_name"] == "AutoModelForCausalLM" and raw["hf_hook_name"] == "gpt_neox.layers.1"
    chosen = RecordingConfig(saes=(str(out),), dataset=str(folder / "text.json"), n_tokens=500)
    list(record(plan_recording(chosen), tmp_path / "cache"))
    assert ActivationCache(tmp_path / "cache").latents().shape == (500, 48)


def test_a_cache_trains_the_same_sae_as_the_model_it_was_recorded_from(folder, tmp_path):
    shape = ["--d-sae", "48", "--k", "4", "--batch-size", "128", "--epochs", "3"]
    of_model = ["--model", str(folder / "tiny"), "--dataset", str(folder / "text.json"), "--tokens", "3000",
                "--hook-name", HOOK, "--context-size", "32"]  # fmt: skip
    assert invoke(*of_model, *shape, "--out", str(tmp_path / "a")).exit_code == 0
    assert invoke("--cache", str(folder / "cache"), *shape, "--out", str(tmp_path / "b")).exit_code == 0
    assert torch.equal(load_sae(tmp_path / "a").W_dec, load_sae(tmp_path / "b").W_dec)


def test_nothing_is_replaced_without_being_asked_and_only_an_sae_is(folder, tmp_path):
    out = tmp_path / "sae"
    args = ("--cache", str(folder / "cache"), "--d-sae", "16", "--k", "2", "--batch-size", "128", "--epochs", "1",
            "--out", str(out))  # fmt: skip
    assert invoke(*args).exit_code == 0
    before = (out / "sae_weights.safetensors").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        raise invoke(*args).exception
    assert invoke(*args, "--seed", "1", "--overwrite").exit_code == 0
    assert (out / "sae_weights.safetensors").read_bytes() != before
    (out / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="something other"):
        raise invoke(*args, "--overwrite").exception
    assert (out / "precious.txt").read_text() == "mine"


def test_a_dry_run_writes_nothing(folder, tmp_path):
    done = invoke("--cache", str(folder / "cache"), "--dry-run", "--out", str(tmp_path / "sae"))
    assert done.exit_code == 0 and "3,000 tokens" in done.output
    assert not (tmp_path / "sae").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "--model"),
        (("--model", "{root}/tiny", "--cache", "{root}/cache"), "either --model"),
        (("--cache", "{root}/cache", "--tokens", "5"), "--tokens cannot be changed"),
        (("--cache", "{root}/nowhere"), "no such folder"),
        (("--cache", "{root}/cache", "--hook-name", "blocks.7.hook_resid_post"), "unknown hook"),
        (("--model", "{root}/tiny", "--dataset", "{root}/text.json", "--hook-name", "blocks.9.hook_resid_post"),
         f"layers 0 to {LAYERS - 1}"),
        (("--model", "{root}/tiny", "--dataset", "{root}/text.json", "--tokens", "999999"), "were asked for"),
        (("--cache", "{root}/cache", "--architecture", "gatd"), "unknown architecture"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(folder, tmp_path, args, said):
    given = [arg.format(root=folder) for arg in args]
    failed = invoke(*given, "--out", str(tmp_path / "sae"))
    assert isinstance(failed.exception, UserError) and said in str(failed.exception)
    assert not list(tmp_path.iterdir())


def test_a_cache_of_latents_alone_says_that_it_has_no_activations(folder, tmp_path):
    assert invoke("--cache", str(folder / "cache"), "--d-sae", "16", "--k", "2", "--batch-size", "128",
                  "--epochs", "1", "--out", str(tmp_path / "sae")).exit_code == 0  # fmt: skip
    chosen = RecordingConfig(
        model=str(folder / "tiny"), saes=(str(tmp_path / "sae"),), dataset=str(folder / "text.json"), n_tokens=300
    )
    list(record(plan_recording(chosen), tmp_path / "cache"))
    with pytest.raises(UserError, match="--activations"):
        cached_activations(ActivationCache(tmp_path / "cache"))
