"""A latent cache written by delphi itself, for the tests that read it: a tiny model of known weights, 9 contexts.

delphi (eai-delphi 0.1.3) is used through its public interface; it is not needed to run the tests.

    python -m venv .bench/delphi && .bench/delphi/bin/pip install -c constraints.txt -e . eai-delphi
    .bench/delphi/bin/python benchmarks/caching/delphi_fixture.py --out tests/delphi
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import numpy as np
import tiny
import torch
from delphi.config import CacheConfig
from delphi.latents import LatentCache

HOOKS = ("layers.1", "layers.2")
"Modules of the backbone, by which delphi names hook points."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tests/delphi"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(2, tiny.VOCABULARY, size=(9, 12)))
    tokens[:, 0] = 0
    network = tiny.llama()
    encode = {hook: tiny.sae(kind).encode for hook, kind in zip(HOOKS, ("topk", "standard"), strict=True)}
    cache = LatentCache(network.model, encode, batch_size=3)
    cache.run(tokens.numel(), tokens)
    cache.save_splits(n_splits=2, save_dir=arguments.out)
    told = CacheConfig(dataset_repo="made/up", dataset_split="train", dataset_name="", dataset_column="text",
                       batch_size=3, cache_ctx_len=12, n_tokens=tokens.numel(), n_splits=2)  # fmt: skip
    cache.save_config(arguments.out, told, "tiny-llama")


if __name__ == "__main__":
    main()
