"""The fast sparse path gives what the SAE's own encode gives, for every architecture and every kind of folder."""

import json

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from activation_cache import saes
from activation_cache.errors import UserError
from activation_cache.saes import largest_on_cpu, largest_on_device, load_sae, top_k


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(200, tiny.WIDTH, generator=torch.Generator().manual_seed(1))


ARCHITECTURES = ("topk", "topk-rescaled", "standard", "standard-layer_norm", "jumprelu", "gated", "matching_pursuit")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sparse_latents_equal_the_saes_own_encode_to_the_rounding_of_float16(tmp_path, x, architecture):
    sae = load_sae(tiny.sae_folder(tmp_path, architecture))
    dense = sae.encode(x).numpy()
    sparse = sae.encode_sparse(x).matrix
    active = (dense != 0).mean()
    assert 0.01 < active < 0.5, "the test needs latents that are active and latents that are not"
    assert sae.sparse_path == (architecture != "matching_pursuit")
    near_zero = np.abs(dense) < 1e-6  # rounding may put these on either side
    assert ((sparse.toarray() != 0) == (dense != 0))[~near_zero].all()
    np.testing.assert_allclose(sparse.toarray(), dense, rtol=1e-3, atol=1e-6)
    assert sparse.has_sorted_indices and (sparse.data != 0).all()


@pytest.mark.parametrize("n, d, k", [(50, 256, 8), (50, 256, 16), (7, 4096, 32), (5, 250, 8), (5, 32, 4), (3, 16, 16)])
def test_the_two_stage_top_k_is_the_top_k(n, d, k):
    hidden = torch.randn(n, d, generator=torch.Generator().manual_seed(d))
    values, columns = top_k(hidden, k)
    assert torch.equal(values.sort(descending=True).values, hidden.topk(k).values)
    assert torch.equal(hidden.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())


@pytest.mark.parametrize("select", [largest_on_cpu, largest_on_device])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n, d, k, shift", [(50, 256, 8, 0), (40, 1024, 32, -2), (5, 250, 8, 0), (3, 16, 16, 0),
                                            (4, 64, 3, -9)])
def test_the_largest_positive_values_are_selected(select, dtype, n, d, k, shift):
    """With a shift of -2 about a fortieth of a row is positive, fewer than k; with -9 nothing is."""
    hidden = (torch.randn(n, d, generator=torch.Generator().manual_seed(d)) + shift).to(dtype)
    rows, columns, values = (part[found[2] > 0] for found in [select(hidden, k)] for part in found)
    assert torch.equal(hidden[rows, columns], values)
    assert torch.equal(rows * d + columns, (rows * d + columns).unique()), "rows in order, columns in order, none twice"
    for row in range(n):
        best = hidden[row].topk(k).values
        assert torch.equal(values[rows == row].sort(descending=True).values, best[best > 0])


def test_of_equal_values_those_of_the_lowest_columns_are_selected():
    hidden = torch.tensor([[1.0, 3.0, 2.0, 2.0] + [2.0] * 60, [5.0] * 64, [0.0] * 64])
    rows, columns, _ = largest_on_cpu(hidden, 3)
    assert rows.tolist() == [0, 0, 0, 1, 1, 1] and columns.tolist() == [1, 2, 3, 0, 1, 2]


@pytest.mark.parametrize("architecture", ["topk", "standard", "jumprelu", "gated", "matching_pursuit"])
def test_encoding_block_by_block_gives_the_same(tmp_path, x, architecture, monkeypatch):
    sae = load_sae(tiny.sae_folder(tmp_path, architecture))
    whole = sae.encode_sparse(x).matrix
    monkeypatch.setattr(saes, "BLOCK_BYTES", 256 * 4 * 33)  # 33 positions, which do not divide 200
    parts = sae.encode_sparse(x).matrix
    assert np.array_equal(parts.indptr, whole.indptr) and np.array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.data, whole.data, rtol=1e-3)


@pytest.mark.parametrize("name, more", [("BatchTopK", {}),
                                        ("MatryoshkaBatchTopK", {"matryoshka_widths": [16, 64, 128]})])
def test_batchtopk_and_matryoshka_saes_take_the_fast_path_of_jumprelu(tmp_path, x, name, more):
    import sae_lens

    config = getattr(sae_lens, f"{name}TrainingSAEConfig")(d_in=tiny.WIDTH, d_sae=128, k=6, **more)
    trained = getattr(sae_lens, f"{name}TrainingSAE")(config)
    trained.topk_threshold.fill_(0.01)
    trained.save_inference_model(tmp_path)
    sae = load_sae(tmp_path)
    assert sae.architecture == "jumprelu" and sae.sparse_path
    found = sae.encode_sparse(x).matrix.toarray()
    assert 0.01 < (found != 0).mean() < 0.5
    np.testing.assert_allclose(found, sae.encode(x).numpy(), rtol=1e-3, atol=1e-6)


def test_values_beyond_float16_are_cut_to_its_largest_and_counted(tmp_path, x):
    sae = load_sae(tiny.sae_folder(tmp_path, "topk"))
    found = sae.encode_sparse(x * 1e5)
    assert found.saturated > 0 and np.isfinite(found.matrix.data).all()
    assert found.saturated == (sae.encode(x * 1e5) > 65504).sum()
    assert found.matrix.data.max() == 65504


def test_an_active_latent_is_never_rounded_away(tmp_path, x):
    sae = load_sae(tiny.sae_folder(tmp_path, "topk"))
    for parameter in (sae.sae.b_enc, sae.sae.b_dec):
        parameter.data.zero_()
    found = sae.encode_sparse(x * 1e-9)
    assert found.matrix.nnz == (sae.encode(x * 1e-9) > 0).sum() and (found.matrix.data > 0).all()


def test_metadata_comes_from_the_folder(tmp_path):
    folder = tiny.sae_folder(
        tmp_path, "standard", model_name="pythia-70m", hook_name="blocks.3.hook_resid_post", context_size=64,
        prepend_bos=False, dataset_path="some/data", model_from_pretrained_kwargs={"center_writing_weights": True},
    )
    told = load_sae(folder).metadata
    assert (told.model_name, told.hook_name, told.context_size) == ("pythia-70m", "blocks.3.hook_resid_post", 64)
    assert told.prepend_bos is False and told.dataset == "some/data" and told.centered


def test_the_identity_is_that_of_the_weights(tmp_path):
    first, again = (load_sae(tiny.sae_folder(tmp_path / name, "topk")).identity for name in "ab")
    other = load_sae(tiny.sae_folder(tmp_path / "c", "topk", seed=1)).identity
    assert first == again != other


def sparsify_folder(folder, transposed: bool = False, transcode: bool = False):
    """A folder as sparsify writes it, and its weights."""
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    weights = {
        "encoder.weight": torch.randn(128, tiny.WIDTH, generator=draw),
        "encoder.bias": torch.randn(128, generator=draw),
        "W_dec": torch.randn(128, tiny.WIDTH, generator=draw), "b_dec": torch.randn(tiny.WIDTH, generator=draw),
    }
    stored = weights | ({"W_dec": weights["W_dec"].T.contiguous()} if transposed else {})
    save_file(stored, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": tiny.WIDTH, "num_latents": 128, "k": 5,
                                                 "activation": "topk", "transcode": transcode}))
    return weights


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("transcode", [False, True])
def test_a_sparsify_folder_encodes_by_sparsifys_formula(tmp_path, x, transposed, transcode):
    weights = sparsify_folder(tmp_path / "layers.1.mlp", transposed, transcode)
    sae = load_sae(tmp_path / "layers.1.mlp")
    centred = x if transcode else x - weights["b_dec"]
    pre = (centred @ weights["encoder.weight"].T + weights["encoder.bias"]).relu()
    best = pre.topk(5)
    expected = torch.zeros_like(pre).scatter(1, best.indices, best.values)
    np.testing.assert_allclose(sae.encode_sparse(x).matrix.toarray(), expected.numpy(), rtol=1e-3, atol=1e-5)
    assert torch.equal(sae.W_dec, weights["W_dec"])
    assert sae.metadata.hook_name == "layers.1.mlp" and sae.architecture == "topk"


def test_a_sparsify_folder_of_another_name_has_no_hook_but_its_runs_model(tmp_path):
    sparsify_folder(tmp_path / "best")
    (tmp_path / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m", "ctx_len": 512}))
    told = load_sae(tmp_path / "best").metadata
    assert told.hook_name is None and told.model_name == "EleutherAI/pythia-70m" and told.context_size == 512


def test_an_sae_that_is_none_says_what_was_needed(tmp_path):
    with pytest.raises(UserError, match="no such SAE folder"):
        load_sae(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"needed cfg\.json"):
        load_sae(tmp_path)
    tiny.sae_folder(tmp_path / "runs/final")
    with pytest.raises(UserError, match="give one of final"):
        load_sae(tmp_path / "runs")
    (tmp_path / "runs/final/sae_weights.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="could not be loaded as an SAE"):
        load_sae(tmp_path / "runs/final")


@pytest.mark.parametrize("name, says", [
    ("pythia-70m-deduped-res-sn/blocks.3.hook_resid_post", "did you mean pythia-70m-deduped-res-sm"),
    ("pythia-70m-deduped-res-sm/blocks.3.hook_resid_pots", "did you mean blocks.3.hook_resid_post"),
    ("pythia-70m-deduped-res-sm", "it has blocks.0.hook_resid_pre"),
    ("pythia-70m-deduped-res-sm/blocks.3.hook_resid_post", "could not be reached"),
    ("somebody/repository/path", "could not be reached"),
])
def test_a_release_that_cannot_be_had_says_why_in_one_line(name, says):
    with pytest.raises(UserError) as caught:
        load_sae(name)
    assert says in str(caught.value)


def test_every_sparse_path_is_an_architecture_of_saelens():
    from sae_lens.registry import get_sae_class

    for architecture in saes.SPARSE_PATHS:
        assert get_sae_class(architecture)[1].architecture() == architecture
