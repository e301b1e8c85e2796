"""Tiny random models, tokenizers, texts and SAEs, for tests that need real files of every kind."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCABULARY = 60
WIDTH = 32
LAYERS = 3


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w2 ... w59, one a token; <bos> is 0, <eos> is 1."""
    words = {"<bos>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    inner = Tokenizer(WordLevel(words, unk_token="<eos>"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>")


def documents(n: int = 12, seed: int = 0) -> list[str]:
    """Documents of 3 to 39 words."""
    draw = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in draw.integers(2, VOCABULARY, size=draw.integers(3, 40))) for _ in range(n)]


def neox(seed: int = 0, **changes) -> GPTNeoXForCausalLM:
    torch.manual_seed(seed)
    shape = dict(vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
                 intermediate_size=64, max_position_embeddings=64, bos_token_id=0, eos_token_id=1)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**(shape | changes))).eval()


def llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
    )).eval()


NETWORKS = {"neox": neox, "llama": llama}


def model_folder(folder: Path, network: PreTrainedModel) -> Path:
    network.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def sae(architecture: str, d_in: int = WIDTH, d_sae: int = 256, seed: int = 0, **metadata):
    """A random SAELens SAE of which about a tenth of the latents are active at once."""
    import sae_lens

    torch.manual_seed(seed)
    kinds = {
        "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, dict(k=8)),
        "topk-rescaled": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, dict(k=8, rescale_acts_by_decoder_norm=True)),
        "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {}),
        "standard-layer_norm": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig,
                                dict(normalize_activations="layer_norm", apply_b_dec_to_input=False)),
        "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig, {}),
        "gated": (sae_lens.GatedSAE, sae_lens.GatedSAEConfig, {}),
        "matching_pursuit": (sae_lens.MatchingPursuitSAE, sae_lens.MatchingPursuitSAEConfig,
                             dict(max_iterations=5, residual_threshold=1e-3)),
    }
    build, config, more = kinds[architecture]
    made = build(config(d_in=d_in, d_sae=d_sae, **more))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name == "threshold":
                parameter.uniform_(0.2, 0.6)
            elif name.startswith(("b_", "r_")):
                parameter.normal_(-0.2 if name in ("b_enc", "b_gate") else 0.0, 0.1)
            elif name == "W_enc":
                parameter.normal_(0, d_in**-0.5)
        if architecture == "topk-rescaled":
            made.W_dec.mul_(torch.rand(d_sae, 1) + 0.5)
    for key, value in metadata.items():
        setattr(made.cfg.metadata, key, value)
    return made


def sae_folder(folder: Path, architecture: str = "topk", **options) -> Path:
    sae(architecture, **options).save_model(folder)
    return folder
