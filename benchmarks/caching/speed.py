"""Recording against its floors: a bare Hugging Face forward stopped at the hook, and that with the encoder's GEMM.

The shape of pythia-70m with random weights, the residual stream after layer 3, a TopK SAE (k = 32) with random weights,
fp32, contexts of 128 tokens, 16 in a batch. The passes are interleaved within every repetition and timed in CPU seconds
of the process, one thread; a ratio is the median over repetitions of (floor's time / recording's time). Recording
counts everything from the plan's tokens to files on disk: encoding, statistics, hashing and fsync.

    python benchmarks/caching/speed.py --out reports/caching_speed.json
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import sae_lens
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from activation_cache.models import Model
from activation_cache.plan import RecordingConfig, RecordingPlan, plan_recording
from activation_cache.record import record

LAYER, K, CONTEXT, BATCH = 3, 32, 128, 16
HOOK = f"blocks.{LAYER}.hook_resid_post"
VOCABULARY = 50_304


def model(layers: int = 6) -> Model:
    """pythia-70m's shape: 512 wide, 8 heads, rotary embeddings on a quarter of each head."""
    torch.manual_seed(0)
    shape = dict(vocab_size=VOCABULARY, hidden_size=512, num_hidden_layers=layers, num_attention_heads=8,
                 intermediate_size=2048, max_position_embeddings=2048, rotary_pct=0.25)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    inner = Tokenizer(WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="w0", eos_token="w0")
    return Model("pythia-70m-shape", GPTNeoXForCausalLM(GPTNeoXConfig(**shape)).eval(), tokenizer)


def sae(folder: Path, d_sae: int) -> Path:
    """A random TopK SAE in a SAELens folder."""
    torch.manual_seed(1)
    made = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=512, d_sae=d_sae, k=K))
    for key, value in dict(hook_name=HOOK, context_size=CONTEXT, prepend_bos=False,
                           model_name="pythia-70m-shape").items():
        setattr(made.cfg.metadata, key, value)
    made.save_model(folder)
    return folder


def documents(n_tokens: int) -> list[str]:
    """Random words, a document a context."""
    draw = np.random.default_rng(0).integers(1, VOCABULARY, size=(n_tokens // CONTEXT, CONTEXT))
    return [" ".join(f"w{i}" for i in row) for row in draw]


class Stop(Exception):
    """Ends the bare forward at the hook."""


def bare_forward(network: GPTNeoXForCausalLM, tokens: Tensor, use: Callable[[Tensor], None]) -> None:
    """Nothing but the network up to the hooked layer, batch by batch."""
    def stop(module: torch.nn.Module, args: tuple, output: Tensor | tuple) -> None:
        use(output[0] if isinstance(output, tuple) else output)
        raise Stop

    handle = network.gpt_neox.layers[LAYER].register_forward_hook(stop)
    with torch.inference_mode():
        for batch in tokens.split(BATCH):
            with contextlib.suppress(Stop):
                network.gpt_neox(input_ids=batch, use_cache=False)
    handle.remove()


def passes(plans: dict[str, RecordingPlan], folder: Path) -> dict[str, Callable[[], None]]:
    """Everything that is timed, by name."""
    network = plans["activations"].model.network
    tokens = torch.from_numpy(plans["activations"].contexts.tokens).long().view(-1, CONTEXT)

    def recording(plan: RecordingPlan) -> None:
        for _ in record(plan, folder / "out"):
            pass
        shutil.rmtree(folder / "out")

    def gemm(plan: RecordingPlan) -> None:
        inner = plan.saes[0].sae
        weight, bias = inner.W_enc.detach(), inner.b_enc.detach()
        bare_forward(network, tokens, lambda x: torch.addmm(bias, x.reshape(-1, 512), weight))

    timed = {"forward": lambda: bare_forward(network, tokens, lambda x: None)}
    timed |= {f"record {name}": lambda plan=plan: recording(plan) for name, plan in plans.items()}
    timed |= {f"forward + GEMM {name}": lambda plan=plan: gemm(plan) for name, plan in plans.items() if plan.saes}
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("reports/caching_speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder, loaded, text = Path(temporary), model(), documents(arguments.tokens)
        asked = {"activations": dict(hook_names=(HOOK,), context_size=CONTEXT, prepend_bos=False)} | {
            f"latents {d_sae}": dict(saes=(str(sae(folder / str(d_sae), d_sae)),)) for d_sae in (1 << 14, 1 << 15)
        }
        plans = {name: plan_recording(RecordingConfig(dataset="random", batch_size=BATCH, **options), text, loaded)
                 for name, options in asked.items()}
        timed = passes(plans, folder)
        seconds: dict[str, list[float]] = {name: [] for name in timed}
        for repetition in range(arguments.repetitions + 1):
            for name, run in timed.items():
                began = time.process_time()
                run()
                if repetition:  # the first warms up
                    seconds[name].append(time.process_time() - began)
            print(f"repetition {repetition} of {arguments.repetitions}", flush=True)

    def ratio(floor: str, ours: str) -> dict:
        each = [a / b for a, b in zip(seconds[floor], seconds[ours], strict=True)]
        return {"median": round(float(np.median(each)), 3), "each": [round(r, 3) for r in each]}

    result = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/caching/speed.py --tokens {arguments.tokens} "
                   f"--repetitions {arguments.repetitions}",
        "versions": {"torch": torch.__version__, "python": platform.python_version()}, "dtype": "float32", "k": K,
        "activations / forward": ratio("forward", "record activations"),
        **{f"latents {d} / (forward + GEMM)": ratio(f"forward + GEMM latents {d}", f"record latents {d}")
           for d in (1 << 14, 1 << 15)},
        **{f"latents {d} / forward": ratio("forward", f"record latents {d}") for d in (1 << 14, 1 << 15)},
        "median cpu seconds (this machine only)": {k: round(float(np.median(v)), 2) for k, v in seconds.items()},
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
