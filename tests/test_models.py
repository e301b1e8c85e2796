"""What a plain forward reads at a hook is what TransformerBridge, and the arithmetic, say is there."""

import dataclasses

import pytest
import tiny
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from activation_cache.errors import UserError
from activation_cache.models import Model, hub_name, load_model


@pytest.fixture(scope="module", params=tiny.NETWORKS)
def model(request, tmp_path_factory) -> Model:
    folder = tiny.model_folder(tmp_path_factory.mktemp(request.param), tiny.NETWORKS[request.param]())
    return dataclasses.replace(load_model(folder), name=request.param)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, tiny.VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(0))


def test_every_plain_hook_equals_the_bridges(model, tokens):
    ours = model.activations(tokens, tuple(model.hook_names()))
    _, theirs = model.bridge.run_with_cache(tokens, names_filter=model.hook_names())
    assert len(ours) == 4 * tiny.LAYERS
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-6, rtol=1e-5)


def test_hooks_of_all_kinds_come_from_one_call(model, tokens):
    names = ("blocks.1.attn.hook_z", "blocks.1.hook_resid_post", "blocks.0.mlp.hook_post", "layers.1")
    found = model.activations(tokens, names)
    assert tuple(found) == names
    torch.testing.assert_close(found["layers.1"], found["blocks.1.hook_resid_post"])
    _, theirs = model.bridge.run_with_cache(tokens, names_filter=[names[0], names[2]])
    torch.testing.assert_close(found[names[0]], theirs[names[0]].flatten(2))
    torch.testing.assert_close(found[names[2]], theirs[names[2]])


def test_module_paths_name_outputs_with_and_without_the_models_prefix(model, tokens):
    prefix = {"neox": "gpt_neox", "llama": "model"}[model.name]
    short, long = model.activations(tokens, ("layers.2.mlp", f"{prefix}.layers.2.mlp")).values()
    assert torch.equal(short, long)
    assert torch.equal(short, model.activations(tokens, ("blocks.2.hook_mlp_out",))["blocks.2.hook_mlp_out"])


def test_the_forward_stops_at_the_hook(model, tokens):
    model.network.eval()
    later = model.layers[2]
    ran = []
    handle = later.register_forward_pre_hook(lambda *_: ran.append(True))
    model.activations(tokens, ("blocks.1.hook_resid_post",))
    handle.remove()
    assert not ran


def test_no_hook_is_left_on_the_network(model, tokens):
    model.activations(tokens, ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_post"))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.network.modules())


def test_padding_on_the_right_changes_nothing_before_it(model, tokens):
    padded = torch.cat([tokens, torch.zeros(3, 5, dtype=torch.long)], dim=1)
    name = "blocks.2.hook_resid_post"
    alone, beside = model.activations(tokens, (name,))[name], model.activations(padded, (name,))[name]
    torch.testing.assert_close(beside[:, : tokens.shape[1]], alone, atol=1e-6, rtol=1e-5)


def test_the_unembedding_and_final_norm_give_the_models_logits(model, tokens):
    residual = model.activations(tokens, ("blocks.2.hook_resid_post",))["blocks.2.hook_resid_post"]
    if model.final_norm_centers:
        residual = residual - residual.mean(-1, keepdim=True)
    epsilon = {"neox": 1e-5, "llama": 1e-6}[model.name]
    normed = residual / (residual.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * model.final_norm_weight
    weight, bias = model.unembedding()
    with torch.no_grad():
        logits = model.network(tokens).logits
    assert bias is None
    torch.testing.assert_close(normed @ weight, logits, atol=1e-6, rtol=1e-4)


SHAPE = dict(vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
             max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=0)
OTHERS = {
    "gpt2": dict(vocab_size=60, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1),
    "opt": SHAPE | dict(ffn_dim=64, word_embed_proj_dim=32),
    "gemma2": SHAPE | dict(num_key_value_heads=2, head_dim=8, final_logit_softcapping=None),
    "qwen3": SHAPE | dict(num_key_value_heads=2, head_dim=8),
    "olmo": SHAPE,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_give_their_own_hidden_states_and_logits(kind, tokens):
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**OTHERS[kind])).eval()
    model = Model(kind, network, tiny.tokenizer())
    names = tuple(f"blocks.{i}.hook_resid_{end}" for i in range(3) for end in ("pre", "post"))
    found = model.activations(tokens, names)
    with torch.no_grad():
        told = network(tokens, output_hidden_states=True)
    for i in range(3):
        torch.testing.assert_close(found[f"blocks.{i}.hook_resid_pre"], told.hidden_states[i])
    last = found["blocks.2.hook_resid_post"]
    if model.final_norm_centers:
        last = last - last.mean(-1, keepdim=True)
    epsilon = 1e-5 if model.final_norm_centers else 1e-6
    scaled = last / (last.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * model.final_norm_weight
    torch.testing.assert_close(scaled @ model.unembedding()[0], told.logits, atol=1e-5, rtol=1e-3)


def test_the_norm_centres_on_neox_and_not_on_llama(model):
    assert model.final_norm_centers == (model.name == "neox")


@pytest.mark.parametrize("wrong, near", [
    ("blocks.1.hook_resid_pos", "blocks.1.hook_resid_post"), ("blocks.7.hook_resid_post", "has layers 0 to 2"),
    ("layer.1", "layers.1"), ("", "For example"),
])
def test_an_unknown_hook_is_answered_with_the_nearest(model, wrong, near):
    with pytest.raises(UserError) as caught:
        model.tap(wrong)
    assert near in str(caught.value)


def test_a_module_the_backbone_never_runs_is_refused(model, tokens):
    head = next(name for name, m in model.network.named_modules() if m is model.network.get_output_embeddings())
    with pytest.raises(UserError, match="never passes"):
        model.activations(tokens, (head,))


def test_bos_follows_the_habit_of_the_architecture(model):
    assert model.default_prepend_bos == (model.name == "llama")


def test_the_identity_is_that_of_the_weights():
    build = lambda seed: Model("m", tiny.neox(seed), tiny.tokenizer()).identity  # noqa: E731
    assert build(0) == build(0) != build(1)


def test_a_folder_loads_to_the_same_activations(tmp_path, tokens):
    network = tiny.llama()
    loaded = load_model(tiny.model_folder(tmp_path / "m", network))
    name = "blocks.1.hook_resid_post"
    assert loaded.n_layers == tiny.LAYERS and loaded.d_model == tiny.WIDTH
    assert loaded.identity == Model("m", network, None).identity
    assert torch.equal(loaded.activations(tokens, (name,))[name],
                       Model("m", network, None).activations(tokens, (name,))[name])


def test_short_names_resolve_in_any_case():
    assert hub_name("pythia-70m") == "EleutherAI/pythia-70m"
    assert hub_name("Pythia-70M-deduped") == "EleutherAI/pythia-70m-deduped"
    assert hub_name("gpt2-small") == hub_name("gpt2") == "openai-community/gpt2"
    assert hub_name("somebody/else") == "somebody/else"


def test_a_missing_folder_an_odd_folder_and_an_odd_device_are_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no such model folder"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="could not be loaded"):
        load_model(str(tmp_path))
    with pytest.raises(UserError, match="device 'warp'"):
        load_model("gpt2", device="warp")
    with pytest.raises(UserError, match="choose one of float32, bfloat16, float16"):
        load_model("gpt2", dtype="float23")


def test_a_hub_name_without_network_is_told_in_one_line():
    with pytest.raises(UserError, match=r"gpt2-xl.*could not be reached"):
        load_model("gpt2-xl")
