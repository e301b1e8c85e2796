"""Peers of the benchmark of speed, each through its public interface, in its own environment and process.

Started by `speed.py` with an environment's python. It loads the peers named, says which it has, then runs one pass for
every line that names one, and answers with the CPU seconds of that pass alone. The model stands in the hub's local
cache as EleutherAI/pythia-70m, so that every peer loads it as it always does.
"""

import argparse
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

MODEL, LAYER, CONTEXT, BATCH, D_IN, K = "EleutherAI/pythia-70m", 3, 128, 16, 512, 32


def sae_lens_runner(tokens: torch.Tensor, out: Path, dtype: str) -> Callable[[], None]:
    """`CacheActivationsRunner`: the residual stream to an Arrow folder, in one buffer."""
    from datasets import Dataset
    from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig

    n_bytes = D_IN * torch.finfo(getattr(torch, dtype)).bits // 8
    config = CacheActivationsRunnerConfig(
        dataset_path="random", model_name=MODEL, model_batch_size=BATCH, hook_name=f"blocks.{LAYER}.hook_resid_post",
        d_in=D_IN, training_tokens=tokens.numel(), context_size=CONTEXT, new_cached_activations_path=str(out),
        shuffle=False, dtype=dtype, device="cpu", prepend_bos=False,
        buffer_size_gb=(tokens.numel() * n_bytes + 1) / 1e9,
    )
    rows = Dataset.from_dict({"tokens": tokens.tolist()})
    runner = CacheActivationsRunner(config, override_dataset=rows)

    def run() -> None:
        found = runner.run()
        assert len(found) == len(tokens), f"{len(found)} contexts were written where {len(tokens)} were asked for"

    return run


def nnsight_trace(tokens: torch.Tensor, out: Path, dtype: str) -> Callable[[], None]:
    """A trace that saves the layer's output and stops there; float16 to one file, as its users write themselves."""
    from nnsight import LanguageModel

    model = LanguageModel(MODEL, dtype=getattr(torch, dtype), dispatch=True)
    layer = model.gpt_neox.layers[LAYER]

    def run() -> None:
        stored = np.empty((tokens.numel(), D_IN), np.float16)
        with torch.no_grad():
            for i, batch in enumerate(tokens.split(BATCH)):
                with model.trace(batch) as tracer:
                    saved = layer.output.save()
                    tracer.stop()
                value = saved[0] if isinstance(saved, tuple) else saved
                first = i * BATCH * CONTEXT
                stored[first : first + batch.numel()] = value.reshape(-1, D_IN).half().numpy()
        out.mkdir(parents=True)
        np.save(out / "activations.npy", stored)

    return run


def dictionary_learning_buffer(tokens: torch.Tensor, out: Path, dtype: str) -> Callable[[], None]:
    """`ActivationBuffer.refresh`: the residual stream to memory; it has nothing that writes to disk."""
    from dictionary_learning import ActivationBuffer
    from nnsight import LanguageModel

    model = LanguageModel(MODEL, torch_dtype=getattr(torch, dtype), dispatch=True)
    texts = [" ".join(f"w{i}" for i in row) for row in tokens.tolist()]

    def run() -> None:
        buffer = ActivationBuffer(iter(texts), model, model.gpt_neox.layers[LAYER], d_submodule=D_IN,
                                  n_ctxs=len(tokens), ctx_len=CONTEXT, refresh_batch_size=BATCH, device="cpu")
        buffer.refresh()
        assert len(buffer.activations) == tokens.numel()

    return run


def delphi_cache(d_sae: int) -> Callable[[torch.Tensor, Path, str], Callable[[], None]]:
    """`LatentCache.run` and `save_splits`, with a TopK SAE of sparsify encoded as delphi does."""

    def build(tokens: torch.Tensor, out: Path, dtype: str) -> Callable[[], None]:
        from functools import partial

        from delphi.latents import LatentCache
        from delphi.sparse_coders.load_sparsify import sae_dense_latents
        from sparsify import SparseCoder, SparseCoderConfig
        from transformers import AutoModel

        torch.manual_seed(1)
        model = AutoModel.from_pretrained(MODEL, dtype=getattr(torch, dtype))
        coder = SparseCoder(D_IN, SparseCoderConfig(num_latents=d_sae, k=K), dtype=getattr(torch, dtype))
        hook = f"layers.{LAYER}"

        def run() -> None:
            cache = LatentCache(model, {hook: partial(sae_dense_latents, sae=coder)}, batch_size=BATCH)
            with torch.no_grad():
                cache.run(tokens.numel(), tokens)
            out.mkdir(parents=True)
            cache.save_splits(n_splits=1, save_dir=out)

        return run

    return build


PEERS = {
    "sae_lens activations": ("sae-lens", sae_lens_runner),
    "nnsight activations": ("nnsight", nnsight_trace),
    "dictionary_learning activations": ("dictionary-learning", dictionary_learning_buffer),
    "delphi latents 16384": ("eai-delphi", delphi_cache(1 << 14)),
    "delphi latents 32768": ("eai-delphi", delphi_cache(1 << 15)),
}
"What can be run: the package it comes from, and what prepares a pass."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=PEERS)
    parser.add_argument("--tokens", type=Path, required=True, help="A file of numpy: contexts x positions.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokens = torch.from_numpy(np.load(arguments.tokens)).long()
    answers, sys.stdout = sys.stdout, sys.stderr  # peers print
    passes, said = {}, {}
    for name in arguments.names:
        package, build = PEERS[name]
        try:
            passes[name] = build(tokens, arguments.out, arguments.dtype)
            said[name] = f"{package} {version(package)}"
        except Exception as error:  # a peer that cannot be had is told of, and the others are measured
            said[name] = f"{package} could not be prepared: {type(error).__name__}: {error}"
    print(json.dumps({"peers": said, "ready": list(passes)}), file=answers, flush=True)
    for line in sys.stdin:
        shutil.rmtree(arguments.out, ignore_errors=True)
        began = time.process_time()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                passes[line.strip()]()
            answer = {"seconds": time.process_time() - began}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
