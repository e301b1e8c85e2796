"""Backbones: who sees whom, and what cannot be built."""

import pytest
import torch
from tiny import model_folder, neox

from activation_cache.errors import UserError
from sae_translate.translate.backbones import BACKBONES, beside, build_backbone
from sae_translate.translate.config import BackboneConfig

WIDTH = 32


def tiny(name: str, **changes):
    torch.manual_seed(0)
    return build_backbone(BackboneConfig(name, d_model=WIDTH, depth=1, heads=2, **changes)).eval()


def run(backbone, source, before, mask=None):
    mask = torch.ones(source.shape[:2], dtype=torch.bool) if mask is None else mask
    memory = backbone.encode(source, mask)
    previous = torch.zeros_like(source) if backbone.aligned else before
    return backbone.decode(previous, memory, mask)


@pytest.fixture
def source():
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def before():
    return torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize("name", ["xtransformers", "encoder_decoder", "decoder_only"])
def test_a_backbone_that_writes_sees_the_whole_source_and_nothing_it_has_not_written(name, source, before):
    backbone = tiny(name)
    found = run(backbone, source, before)
    later = before.clone()
    later[:, 2:] = 0
    assert torch.allclose(run(backbone, source, later)[:, :2], found[:, :2], atol=1e-5)
    assert not torch.allclose(run(backbone, source, later)[:, 2:], found[:, 2:], atol=1e-3)
    other = source.clone()
    other[:, -1] = 0
    assert not torch.allclose(run(backbone, other, before)[:, 0], found[:, 0], atol=1e-4)


@torch.no_grad()
def test_a_single_head_need_not_be_as_wide_as_the_network(source):
    narrow = build_backbone(BackboneConfig("tagger", d_model=16, depth=1, heads=1)).eval()
    half = source[..., :16]
    other = half.clone()
    other[:, -1] = 0
    assert not torch.allclose(run(narrow, other, None)[:, 0], run(narrow, half, None)[:, 0], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_what_lies_behind_the_end_of_a_segment_changes_nothing(name, source, before):
    backbone = tiny(name)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[:, 5:] = False
    longer = torch.cat([source, 9 * torch.ones(2, 3, WIDTH)], dim=1)
    found = run(backbone, source, before)
    assert torch.allclose(run(backbone, longer, before, mask)[:, : found.shape[1]], found, atol=1e-4)


@torch.no_grad()
def test_a_feedforward_position_knows_nothing_of_the_others_and_a_tagger_s_does(source, before):
    other = source.clone()
    other[:, 3] = 0
    for name, knows in (("feedforward", False), ("tagger", True)):
        backbone = tiny(name)
        same = torch.allclose(run(backbone, source, before)[:, 0], run(backbone, other, before)[:, 0], atol=1e-5)
        assert same is not knows


def test_a_decoder_that_writes_finds_the_memory_of_its_own_place_and_nothing_behind_the_end(source):
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    longer, shorter = beside(source, mask, 7), beside(source, mask, 2)
    assert torch.equal(longer[0, :5], source[0]) and torch.equal(longer[1, :3], source[1, :3])
    assert not longer[0, 5:].any() and not longer[1, 3:].any()
    assert torch.equal(shorter, source[:, :2])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from transformers import T5Config, T5Model

    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    t5 = T5Model(T5Config(vocab_size=20, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    t5.save_pretrained(place / "t5")
    return {"encoder_decoder": place / "t5", "decoder_only": model_folder(place / "neox", neox())}


@pytest.mark.parametrize("name", ["encoder_decoder", "decoder_only"])
def test_a_pretrained_folder_gives_its_weights_and_its_width(name, folders):
    from transformers import AutoModel

    backbone = tiny(name, model=str(folders[name]))
    saved = AutoModel.from_pretrained(folders[name])
    assert backbone.d_model == saved.config.hidden_size
    for mine, theirs in zip(backbone.model.parameters(), saved.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_low_rank_adapters_leave_the_pretrained_weights_frozen(folders):
    backbone = tiny("decoder_only", model=str(folders["decoder_only"]), lora_rank=2)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained and all("lora" in name for name in trained)


def test_a_model_of_the_other_kind_is_refused_with_the_backbone_that_fits(folders):
    with pytest.raises(
        UserError, match="is a gpt_neox model, which the backbone encoder_decoder cannot use: choose decoder_only"
    ):
        tiny("encoder_decoder", model=str(folders["decoder_only"]))
    with pytest.raises(
        UserError, match="is a t5 model, which the backbone decoder_only cannot use: choose encoder_decoder"
    ):
        tiny("decoder_only", model=str(folders["encoder_decoder"]))


def test_settings_that_do_not_fit_a_backbone_are_errors():
    with pytest.raises(UserError, match=r"unknown backbone 'xtransformer': .* did you mean xtransformers"):
        tiny("xtransformer")
    with pytest.raises(UserError, match="tagger is made from scratch and takes no model 'pythia-70m'"):
        tiny("tagger", model="pythia-70m")
    with pytest.raises(UserError, match="lora_rank is for a pretrained model"):
        tiny("decoder_only", lora_rank=4)
    with pytest.raises(UserError, match="no such model folder"):
        tiny("decoder_only", model="./nowhere/at/all")
