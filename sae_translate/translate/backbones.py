"""Backbones: the networks between the adapters, chosen by name.

feedforward       a perceptron at every position: the dictionary's equal
tagger            a bidirectional transformer; output stands at the positions of the input
xtransformers     a transformer encoder and decoder, from scratch
encoder_decoder   T5 and its like through transformers, from scratch or pretrained
decoder_only      GPT-NeoX or any causal model: the source is its prefix
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from activation_cache.errors import UserError, choose
from activation_cache.hub import hub_error, look_for_hub
from activation_cache.models import hub_name
from activation_cache.text import looks_like_path
from sae_translate.translate.config import BackboneConfig

HEAD = 32
"Width of an attention head in the transformers that are built here."


class Feedforward(nn.Module):
    """Two perceptrons with a residual around each; a position knows nothing of the others."""

    aligned = True

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.d_model = config.d_model
        self.encoder, self.decoder = (
            nn.ModuleList(_perceptron(config.d_model, config.dropout) for _ in range(config.depth)) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.d_model) for _ in range(2))

    def encode(self, embedded: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        for layer in self.encoder:
            embedded = embedded + layer(embedded)
        return self.norms[0](embedded)

    def decode(
        self, previous: Float[Tensor, "b u d"], memory: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b u d"]:
        hidden = memory + previous
        for layer in self.decoder:
            hidden = hidden + layer(hidden)
        return self.norms[1](hidden)


def _perceptron(d_model: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(d_model), nn.Linear(d_model, 2 * d_model), nn.GELU(), nn.Dropout(dropout),
        nn.Linear(2 * d_model, d_model),
    )  # fmt: skip


class Tagger(nn.Module):
    """Two bidirectional encoders (x-transformers, rotary positions), one after the other."""

    aligned = True

    def __init__(self, config: BackboneConfig):
        super().__init__()
        from x_transformers import Encoder

        self.d_model = config.d_model
        self.encoder, self.decoder = Encoder(**transformer_layers(config)), Encoder(**transformer_layers(config))

    def encode(self, embedded: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.encoder(embedded, mask=mask)

    def decode(
        self, previous: Float[Tensor, "b u d"], memory: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b u d"]:
        return self.decoder(memory + previous, mask=mask)


class XTransformers(nn.Module):
    """Encoder and decoder of x-transformers, with rotary positions.

    The decoder starts every place from what the encoder holds at the same place, so that it begins as the dictionary it
    was given does, word by word; attention over the whole source tells it where languages differ in order.
    """

    aligned = False

    def __init__(self, config: BackboneConfig):
        super().__init__()
        from x_transformers import Decoder, Encoder

        self.d_model = config.d_model
        self.encoder = Encoder(**transformer_layers(config))
        self.decoder = Decoder(**transformer_layers(config), cross_attend=True)

    def encode(self, embedded: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.encoder(embedded, mask=mask)

    def decode(
        self, previous: Float[Tensor, "b u d"], memory: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b u d"]:
        return self.decoder(previous + beside(memory, mask, previous.shape[1]), context=memory, context_mask=mask)

    def decode_next(
        self, last: Float[Tensor, "b 1 d"], memory: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"], past: Any
    ) -> tuple[Float[Tensor, "b 1 d"], Any]:
        """What `decode` holds at the last place, and the keys and values of all places so far for the next call.

        `past` is what the call before gave, None at the first.
        """
        length = 1 + (past.cache_length if past is not None else 0)
        last = last + beside(memory, mask, length)[:, -1:]
        return self.decoder(last, context=memory, context_mask=mask, cache=past, return_hiddens=True)


def beside(memory: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"], length: int) -> Float[Tensor, "b u d"]:
    """The memory at the first `length` places, zeros behind its end."""
    kept = (memory * mask[..., None])[:, :length]
    return nn.functional.pad(kept, (0, 0, 0, length - kept.shape[1]))


def transformer_layers(config: BackboneConfig) -> dict[str, Any]:
    """What x-transformers is told of a stack of layers with rotary positions."""
    return {
        "dim": config.d_model, "depth": config.depth, "heads": config.heads, "attn_dim_head": HEAD,
        "attn_project_out": True, "rotary_pos_emb": True, "rotary_emb_dim": HEAD, "ff_mult": 2,
        "attn_dropout": config.dropout, "ff_dropout": config.dropout,
    }  # fmt: skip


class EncoderDecoder(nn.Module):
    """An encoder-decoder model of transformers, fed with embeddings."""

    aligned = False

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.model = _loaded(config, encoder_decoder=True) if config.model else _t5(config)
        self.d_model = self.model.config.hidden_size

    def encode(self, embedded: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.model.get_encoder()(inputs_embeds=embedded, attention_mask=mask.long()).last_hidden_state

    def decode(
        self, previous: Float[Tensor, "b u d"], memory: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b u d"]:
        return self.model.get_decoder()(
            inputs_embeds=previous, encoder_hidden_states=memory, encoder_attention_mask=mask.long(), use_cache=False
        ).last_hidden_state


class DecoderOnly(nn.Module):
    """A causal model of transformers: it reads the source, then its own reading of it as a prefix."""

    aligned = False

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.model = _loaded(config, encoder_decoder=False) if config.model else _neox(config)
        self.d_model = self.model.config.hidden_size

    def encode(self, embedded: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self._run(embedded, mask)

    def decode(
        self, previous: Float[Tensor, "b u d"], memory: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b u d"]:
        whole = torch.cat([mask, mask.new_ones(previous.shape[:2])], dim=1)
        return self._run(torch.cat([memory, previous], dim=1), whole)[:, memory.shape[1] :]

    def _run(self, embedded: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        places = (mask.cumsum(1) - 1).clamp_min(0)
        return self.model(
            inputs_embeds=embedded, attention_mask=mask.long(), position_ids=places, use_cache=False
        ).last_hidden_state


def _t5(config: BackboneConfig) -> Any:
    from transformers import T5Config, T5Model

    return T5Model(T5Config(
        vocab_size=1, d_model=config.d_model, d_kv=HEAD, d_ff=2 * config.d_model, num_layers=config.depth,
        num_heads=config.heads, dropout_rate=config.dropout,
    ))  # fmt: skip


def _neox(config: BackboneConfig) -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXModel

    if config.d_model % config.heads:
        raise UserError(f"backbone: d_model {config.d_model} must be a multiple of heads {config.heads}")
    return GPTNeoXModel(GPTNeoXConfig(
        vocab_size=1, hidden_size=config.d_model, num_hidden_layers=2 * config.depth, num_attention_heads=config.heads,
        intermediate_size=2 * config.d_model, hidden_dropout=config.dropout, attention_dropout=config.dropout,
        max_position_embeddings=512,
    ))  # fmt: skip


def _loaded(config: BackboneConfig, encoder_decoder: bool) -> Any:
    """A pretrained model without its head, by hub name or folder; with low-rank adapters where they are asked for."""
    from transformers import AutoConfig, AutoModel

    name = str(config.model)
    local = Path(name).expanduser().is_dir()
    if not local and looks_like_path(name):
        raise UserError(f"no such model folder: {name}")
    source = str(Path(name).expanduser()) if local else hub_name(name)
    if not local:
        look_for_hub()
    try:
        kind = AutoConfig.from_pretrained(source, local_files_only=local)
        if bool(kind.is_encoder_decoder) != encoder_decoder:
            asked, other = (
                ("encoder_decoder", "decoder_only") if encoder_decoder else ("decoder_only", "encoder_decoder")
            )
            raise UserError(
                f"{name} is a {kind.model_type} model, which the backbone {asked} cannot use: choose {other}"
            )
        model = AutoModel.from_pretrained(source, local_files_only=local, dtype=torch.float32)
    except UserError:
        raise
    except Exception as error:  # the libraries below raise a dozen kinds; all mean that the model cannot be had
        raise hub_error("model", source, error) from None
    if config.lora_rank:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(r=config.lora_rank, target_modules="all-linear"))
    return model


BACKBONES: dict[str, Callable[[BackboneConfig], nn.Module]] = {
    "feedforward": Feedforward,
    "tagger": Tagger,
    "xtransformers": XTransformers,
    "encoder_decoder": EncoderDecoder,
    "decoder_only": DecoderOnly,
}
PRETRAINED = ("encoder_decoder", "decoder_only")


def build_backbone(config: BackboneConfig) -> nn.Module:
    """The backbone of this name. Raises UserError where there is none, or the settings do not fit it."""
    build = choose(BACKBONES, config.name, "backbone")
    if config.model is not None and config.name not in PRETRAINED:
        raise UserError(f"the backbone {config.name} is made from scratch and takes no model {config.model!r}: choose "
                        f"one of {', '.join(PRETRAINED)}, or leave the model out")  # fmt: skip
    if config.lora_rank and config.model is None:
        raise UserError("lora_rank is for a pretrained model: give one as model, or set lora_rank 0")
    return build(config)
