"""Training an SAE: laws of the batches, the trainer and the command."""

import json

import pytest
import torch
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from steps import finished
from tiny import LAYERS, WIDTH, documents, model_folder, neox
from typer.testing import CliRunner

from activation_cache.errors import UserError
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.record import record
from activation_cache.saes import load_sae
from activation_cache.shards import ActivationCache
from sae_translate.cli.main import app
from sae_translate.sae.start import restart_dead, start_at_data
from sae_translate.sae.topk import ActiveTopKSAE
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


@pytest.mark.parametrize("start", ["data", "random"])
def test_the_same_seed_trains_the_same_sae(start):
    config = SaeTrainingConfig(d_sae=16, k=2, batch_size=256, epochs=2, seed=3, start=start)
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


def random_sae(kind, d_in=24, d_sae=96, **settings):
    """An SAE with rows of unlike lengths and biases of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sae = kind(TopKTrainingSAEConfig(d_in=d_in, d_sae=d_sae, k=4, **settings))
        sae.W_dec.data = sae.W_dec.data * (1 + torch.rand(d_sae, 1))
        sae.b_enc.data, sae.b_dec.data = torch.randn(d_sae) * 0.1, torch.randn(d_in)
    return sae


@pytest.mark.parametrize("settings", [{}, {"rescale_acts_by_decoder_norm": False}, {"apply_b_dec_to_input": False}])
@pytest.mark.parametrize("n_dead", [0, 7, 40])
def test_computing_with_active_latents_alone_changes_neither_loss_nor_gradient(n_dead, settings):
    x = torch.randn(300, 24, generator=torch.Generator().manual_seed(1)) * 3
    given = TrainStepInput(
        sae_in=x, dead_neuron_mask=torch.arange(96) < n_dead, coefficients={}, n_training_steps=0, is_logging_step=False
    )
    whole, active = random_sae(TopKTrainingSAE, **settings), random_sae(ActiveTopKSAE, **settings)
    expected, found = whole.training_forward_pass(given), active.training_forward_pass(given)
    for name, loss in expected.losses.items():
        assert torch.isclose(found.losses[name], loss, rtol=1e-5), name
    assert torch.allclose(found.feature_acts.to_dense(), expected.feature_acts, atol=1e-5)
    expected.loss.backward()
    found.loss.backward()
    for name, parameter in whole.named_parameters():
        gradient = active.get_parameter(name).grad
        assert torch.allclose(gradient, parameter.grad, rtol=1e-4, atol=1e-5 * parameter.grad.abs().max()), name


def test_latents_that_start_at_activations_reconstruct_before_they_learn():
    x = next(planted(3000).blocks())
    sae = random_sae(ActiveTopKSAE, d_sae=512)
    sae.b_enc.data.zero_()
    sae.b_dec.data = x.mean(0)
    before = explained(x, sae(x).detach())
    start_at_data(sae, x - x.mean(0), torch.Generator().manual_seed(0))
    assert before < 0.2 and explained(x, sae(x).detach()) > 0.6
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(512))


def test_a_dead_latent_begins_again_where_the_loss_is_and_fires_there():
    x = next(planted(3000).blocks())[:200]
    sae = random_sae(ActiveTopKSAE)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-3)
    x[17] += 40 * torch.nn.functional.normalize(torch.arange(24.0) - 12, dim=0)
    dead = torch.arange(96) == 5
    sae.b_enc.data[5] = -1e6
    given = TrainStepInput(sae_in=x, dead_neuron_mask=dead, coefficients={}, n_training_steps=0, is_logging_step=False)
    output = sae.training_forward_pass(given)
    output.loss.backward()
    optimizer.step()
    others = sae.W_dec[~dead].clone()
    assert sae.encode(x)[:, 5].max() == 0
    begun = restart_dead(sae, optimizer, dead, output, torch.Generator().manual_seed(0))
    assert begun.tolist() == [5] and sae.encode(x)[:, 5].argmax() == 17
    assert torch.equal(sae.W_dec[~dead], others)
    assert not optimizer.state[sae.W_enc]["exp_avg"][:, 5].any() and not optimizer.state[sae.b_enc]["exp_avg"][5]


def test_a_wide_sae_that_starts_at_the_data_leaves_fewer_dead_and_explains_more():
    activations = planted(n_tokens=8000, n_atoms=200)
    figures = {}
    for start in ("data", "random"):
        config = SaeTrainingConfig(d_sae=400, k=2, batch_size=256, epochs=6, start=start)
        sae, _ = finished(train_sae(activations, config))
        figures[start] = measure_sae(sae, activations)
    assert figures["data"]["dead"] < figures["random"]["dead"] / 2
    assert figures["data"]["explained_variance"] > figures["random"]["explained_variance"]


def test_defaults_give_a_thousand_steps_and_a_rate_that_falls_with_the_width():
    small = settled(planted(2560), SaeTrainingConfig(d_sae=512, batch_size=256))
    assert small.epochs == 100 and small.lr == pytest.approx(0.005)
    assert settled(planted(2560), SaeTrainingConfig(d_sae=2048)).lr == pytest.approx(0.0025)
    assert (small.start, settled(planted(2560), SaeTrainingConfig(d_sae=16 * 24 - 1)).start) == ("data", "random")
    told = SaeTrainingConfig(d_sae=8, epochs=3, lr=0.1, start="random")
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
        (SaeTrainingConfig(d_sae=8, k=2, start="dta"), "did you mean data"),
        (SaeTrainingConfig(d_sae=8, k=2, start="data", architecture="jumprelu"), "only topk starts at the data"),
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
