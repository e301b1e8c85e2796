"""Language models by hub name or local folder, and their activations at named hook points.

A hook name is TransformerLens' (`blocks.3.hook_resid_post`) or the path of a Hugging Face module (`layers.3`,
`gpt_neox.layers.3.mlp`), whose output is meant. Residual-stream hooks and module paths are read by a plain Hugging Face
forward that stops as soon as it has them; every other TransformerLens name by TransformerBridge.
"""

import contextlib
import copy
import hashlib
import itertools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from activation_cache.errors import UserError, choose, nearest
from activation_cache.hub import hub_error, look_for_hub
from activation_cache.text import looks_like_path

SHORT_NAMES = {
    **{f"pythia-{size}{kind}": f"EleutherAI/pythia-{size}{kind}"
       for size in ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
       for kind in ("", "-deduped")},
    "gpt2": "openai-community/gpt2",
    "gpt2-small": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    **{f"gemma-2-{size}": f"google/gemma-2-{size}" for size in ("2b", "2b-it", "9b", "9b-it", "27b", "27b-it")},
    **{f"gemma-3-{size}": f"google/gemma-3-{size}" for size in ("270m", "1b-pt", "1b-it", "4b-pt", "4b-it")},
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    **{f"tinystories-{size}": f"roneneldan/TinyStories-{size.upper()}" for size in ("1m", "3m", "8m", "28m", "33m")},
    "tiny-stories-1L-21M": "roneneldan/TinyStories-1Layer-21M",
    "tiny-stories-2L-33M": "roneneldan/TinyStories-2Layers-33M",
    **{f"smollm2-{size}": f"HuggingFaceTB/SmolLM2-{size.upper()}" for size in ("135m", "360m", "1.7b")},
    **{f"qwen2.5-{size}": f"Qwen/Qwen2.5-{size.upper()}" for size in ("0.5b", "1.5b", "3b", "7b")},
    **{f"qwen3-{size}": f"Qwen/Qwen3-{size.upper()}" for size in ("0.6b", "1.7b", "4b", "8b")},
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
}
"Names a user may type for models of the hub; case does not matter."

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

NO_BOS = frozenset({"gpt_neox", "qwen2", "qwen3", "qwen2_moe", "phi", "phi3", "granite", "olmo", "olmo2", "mpt",
                    "starcoder2", "glm", "exaone", "stablelm", "falcon", "smollm3"})
"Model types trained without a token that begins the text."

PLAIN_BRANCHES = frozenset({"gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neo", "olmo", "phi"})
"Model types whose attention and MLP modules return exactly what is added to the residual stream."
ATTENTIONS, MLPS = ("self_attn", "attention", "attn"), ("mlp",)

RESIDUAL = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post|mlp_out|attn_out)")


def hub_name(model: str) -> str:
    """The hub's full name for a name as typed."""
    short = {key.lower(): value for key, value in SHORT_NAMES.items()}
    return short.get(model.lower(), model)


def load_model(name_or_folder: str | os.PathLike, device: str = "cpu", dtype: str = "float32") -> "Model":
    """A causal language model with its tokenizer, for reading activations.

    `dtype`: float32, bfloat16 or float16. Errors: a `UserError` where there is no such folder, the hub has no such name
    or cannot be reached, or the files are not those of a causal language model.
    """
    import transformers

    name = str(name_or_folder)
    folder = Path(name).expanduser()
    torch_dtype = choose(DTYPES, dtype, "dtype")
    _check_device(device)
    local = folder.is_dir()
    if local:
        if not (folder / "config.json").is_file():
            raise UserError(f"{name} is no Hugging Face model: the folder has no config.json")
        source = str(folder)
    elif looks_like_path(name):
        raise UserError(f"no such model folder: {name}")
    else:
        source = hub_name(name)
        look_for_hub()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=local)
        network = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch_dtype, local_files_only=local)
    except Exception as error:  # whatever it is, the model cannot be had from there
        if local:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{name} could not be loaded as a causal language model: {reason}") from None
        raise hub_error("model", source, error, SHORT_NAMES) from None
    return Model(name, network.to(device).eval(), tokenizer, device, dtype)


def load_tokenizer(name_or_folder: str | os.PathLike) -> Any:
    """The tokenizer of a model, without the model. Errors: a `UserError` where there is none."""
    import transformers

    name = str(name_or_folder)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if looks_like_path(name):
            raise UserError(f"no such model folder: {name}")
        look_for_hub()
    try:
        source = str(folder) if folder.is_dir() else hub_name(name)
        return transformers.AutoTokenizer.from_pretrained(source, local_files_only=folder.is_dir())
    except Exception as error:  # whatever it is, the tokenizer cannot be had from there
        if folder.is_dir():
            raise UserError(f"{name} holds no tokenizer: {next(iter(str(error).splitlines()), error)}") from None
        raise hub_error("model", source, error, SHORT_NAMES) from None


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError):
        known = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
        raise UserError(f"the device {device!r} is not there: this machine has {', '.join(known)}") from None


@dataclass(frozen=True)
class Tap:
    """Where a hook name reads: a module, and the tensor of it that is meant."""

    hook_name: str
    module: nn.Module
    before: bool
    "Whether its input is meant instead of its output."
    residual: bool
    "Whether it is the residual stream or written into it, so that its mean over the width may be taken off."


class _Stop(Exception):
    """Ends a forward that has given all it was run for."""


@dataclass(frozen=True)
class Model:
    """A loaded causal language model that is only read."""

    name: str
    "As it was asked for: a hub name or a folder."
    network: Any
    "The Hugging Face model."
    tokenizer: Any
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def config(self) -> Any:
        return self.network.config.get_text_config()

    @cached_property
    def layers(self) -> nn.ModuleList:
        """The decoder layers: the list of modules as long as the configuration says there are layers."""
        n = getattr(self.config, "num_hidden_layers", None)
        found = [m for m in self.network.modules() if isinstance(m, nn.ModuleList) and len(m) == n]
        if not found:
            raise UserError(f"the layers of {self.name} ({self.config.model_type}) could not be found: "
                            "give a Hugging Face module path as the hook name")
        return max(found, key=lambda layers: sum(p.numel() for p in layers.parameters()))

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def d_model(self) -> int:
        return self.config.hidden_size

    @property
    def max_context(self) -> int | None:
        """Most positions the model takes; None where it does not say."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def default_prepend_bos(self) -> bool:
        """Whether a BOS begins the text by the habit of the architecture."""
        return self.config.model_type not in NO_BOS and self.tokenizer.bos_token_id is not None

    @cached_property
    def identity(self) -> str:
        """sha256 of the weights as they are used."""
        digest = hashlib.sha256(self.config.model_type.encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def hook_names(self) -> list[str]:
        """Hook names that a plain forward reads; TransformerBridge knows more (`bridge_hook_names`)."""
        parts = ["resid_pre", "resid_post"]
        if self.config.model_type in PLAIN_BRANCHES:
            parts += ["attn_out", "mlp_out"]
        return [f"blocks.{i}.hook_{part}" for i in range(self.n_layers) for part in parts]

    @cached_property
    def bridge(self) -> Any:
        """The same weights under TransformerBridge, for hook points inside a block.

        It replaces modules of the network it is given, so it is given one of its own that shares the weights.
        """
        from transformer_lens.model_bridge import TransformerBridge

        weights = {id(t): t for t in itertools.chain(self.network.parameters(), self.network.buffers())}
        return TransformerBridge.boot_transformers(
            self.name, hf_model=copy.deepcopy(self.network, weights), tokenizer=self.tokenizer, device=self.device
        )

    def bridge_hook_names(self) -> list[str]:
        """Hook names TransformerBridge knows for this architecture; none where it does not know the architecture."""
        with contextlib.redirect_stdout(None), contextlib.suppress(Exception):
            return sorted(self.bridge.hook_dict)
        return []

    def tap(self, hook_name: str) -> Tap | None:
        """Where a plain forward reads this hook; None where only TransformerBridge can.

        Errors: a `UserError` with the nearest names where the model has no such hook.
        """
        named = RESIDUAL.fullmatch(hook_name)
        if named and int(named[1]) < self.n_layers:
            layer = self.layers[int(named[1])]
            if named[2] in ("resid_pre", "resid_post"):
                return Tap(hook_name, layer, named[2] == "resid_pre", True)
            children = dict(layer.named_children())
            names = MLPS if named[2] == "mlp_out" else ATTENTIONS
            if self.config.model_type in PLAIN_BRANCHES and (found := [n for n in names if n in children]):
                return Tap(hook_name, children[found[0]], False, True)
        for root in (self.network, self.network.base_model):
            modules = dict(root.named_modules())
            if hook_name and hook_name in modules:
                return Tap(hook_name, modules[hook_name], False, modules[hook_name] in set(self.layers))
        if hook_name in (known := self.bridge_hook_names()):
            return None
        paths = [name for name, _ in self.network.base_model.named_modules() if name]
        hint = nearest(hook_name, dict.fromkeys([*self.hook_names(), *known, *paths]))
        raise UserError(
            f"{self.name} has no hook {hook_name!r} (it has layers 0 to {self.n_layers - 1}). "
            f"{hint or f'For example {self.hook_names()[1]}'}"
        )

    def unembedding(self) -> tuple[Float[Tensor, "d_model vocab"], Float[Tensor, "vocab"] | None]:
        """W_U and its bias, None where it has none: logits = normed @ W_U + b."""
        head = self.network.get_output_embeddings()
        if head is None:
            raise UserError(f"{self.name} has no unembedding, so there is no logit lens for it")
        bias = getattr(head, "bias", None)
        return head.weight.detach().T, None if bias is None else bias.detach()

    @cached_property
    def final_norm(self) -> nn.Module | None:
        """The norm after the last layer: the last of the backbone's norms that lies outside its layers."""
        inner = {id(m) for layer in self.layers for m in layer.modules()}
        outer = [m for name, m in self.network.base_model.named_modules()
                 if ("norm" in name.lower() or "ln_f" in name.lower()) and id(m) not in inner]
        return outer[-1] if outer else None

    @property
    def final_norm_weight(self) -> Float[Tensor, "d_model"]:
        """Scale of the norm before the unembedding; ones where there is none. Gemma stores it less one: it is added."""
        weight = getattr(self.final_norm, "weight", None)
        if weight is None:
            return torch.ones(self.d_model, device=self.device)
        weight = weight.detach()
        return weight + 1 if self.config.model_type.startswith("gemma") else weight

    @property
    def final_norm_centers(self) -> bool:
        """Whether the norm before the unembedding takes off the mean (LayerNorm) or not (RMSNorm)."""
        kind = type(self.final_norm).__name__
        return kind.endswith("LayerNorm") and "RMS" not in kind

    def activations(
        self, tokens: Int[Tensor, "batch positions"], hook_names: tuple[str, ...]
    ) -> dict[str, Float[Tensor, "batch positions _"]]:
        """Activations at these hooks, on the model's device, heads flattened into the width.

        The network is causal and no mask is passed: pad on the right and leave the padded positions out.
        """
        taps = {name: self.tap_of(name) for name in hook_names}
        found = self._plain([tap for tap in taps.values() if tap is not None], tokens)
        bridged = [name for name, tap in taps.items() if tap is None]
        if bridged:
            found |= self._bridged(bridged, tokens)
        return {name: found[name] for name in hook_names}

    @cached_property
    def _taps(self) -> dict[str, Tap | None]:
        return {}

    def tap_of(self, hook_name: str) -> Tap | None:
        """`tap`, remembered."""
        if hook_name not in self._taps:
            self._taps[hook_name] = self.tap(hook_name)
        return self._taps[hook_name]

    def _plain(self, taps: list[Tap], tokens: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(tap: Tap, value: Any) -> None:
            found[tap.hook_name] = value[0] if isinstance(value, tuple) else value
            if len(found) == len(taps):
                raise _Stop

        handles = [_attach(tap, keep) for tap in taps]
        try:
            with contextlib.suppress(_Stop), torch.no_grad():
                if taps:
                    self.network.base_model(input_ids=tokens, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        missing = [tap.hook_name for tap in taps if tap.hook_name not in found]
        if missing:
            raise UserError(f"the forward of {self.name} never passes {', '.join(missing)}: choose another hook name")
        return found

    def _bridged(self, hook_names: list[str], tokens: Tensor) -> dict[str, Tensor]:
        blocks = [int(m[1]) for name in hook_names if (m := re.match(r"blocks\.(\d+)\.", name))]
        whole = len(blocks) < len(hook_names) and not all("embed" in n for n in hook_names if "blocks." not in n)
        stop = None if whole else min(max(blocks, default=-1) + 1, self.n_layers)
        with torch.no_grad():
            _, cache = self.bridge.run_with_cache(tokens, names_filter=hook_names, stop_at_layer=stop or None)
        return {name: cache[name].flatten(2) for name in hook_names}


def _attach(tap: Tap, keep: Callable[[Tap, Any], None]) -> Any:
    if tap.before:
        def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
            keep(tap, args[0] if args else kwargs["hidden_states"])

        return tap.module.register_forward_pre_hook(before, with_kwargs=True)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        keep(tap, output)

    return tap.module.register_forward_hook(after)
