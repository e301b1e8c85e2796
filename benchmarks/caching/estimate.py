"""What `--dry-run` says of time and bytes, against what the run then takes: CPU time of one thread, in one process.

pythia-70m's shape with random weights and TopK SAEs of random weights, on random documents; a tiny model beside it,
whose statistics weigh more. Each estimate is made as a dry run makes it, just before its recording.

    python benchmarks/caching/estimate.py --tokens 65536 --out reports/caching_estimate.json
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import numpy as np
import tiny
import torch

from activation_cache.estimate import estimate
from activation_cache.layout import CooccurrenceEntry
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.record import record
from activation_cache.shards import ActivationCache

SHAPES = {
    "pythia-70m shape": dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8,
                             max_position_embeddings=2048),
    "tiny": {},
}  # fmt: skip
CASES = {
    "activations, pythia-70m shape": ("pythia-70m shape", None),
    "16k latents, k = 32, pythia-70m shape": ("pythia-70m shape", 16_384),
    "256 latents, k = 8, tiny": ("tiny", 256),
    "16k latents, k = 32, pythia-70m shape, with co-occurrence": ("pythia-70m shape", 16_384),
}


def documents(n_tokens: int) -> list[str]:
    draw, made, left = np.random.default_rng(0), [], n_tokens + 1000
    while left > 0:
        length = int(draw.integers(20, 400))
        made.append(" ".join(f"w{i}" for i in draw.integers(2, tiny.VOCABULARY, size=length)))
        left -= length
    return made


def measured(case: str, n_tokens: int, folder: Path) -> dict:
    shape, d_sae = CASES[case]
    network = tiny.neox(**SHAPES[shape])
    width = network.config.hidden_size
    model = tiny.model_folder(folder / "model", network)
    hook = f"blocks.{network.config.num_hidden_layers // 2}.hook_resid_post"
    saes = ()
    if d_sae:
        import sae_lens

        torch.manual_seed(0)
        k = 32 if d_sae > 1000 else 8
        sae = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=width, d_sae=d_sae, k=k))
        sae.W_enc.data.normal_(0, width**-0.5)
        sae.cfg.metadata.hook_name = hook
        sae.save_model(folder / "sae")
        saes = (str(folder / "sae"),)
    size = min(128, network.config.max_position_embeddings)
    config = RecordingConfig(model=str(model), saes=saes, dataset="random", hook_names=(hook,), n_tokens=n_tokens,
                             context_size=size, cooccurrence=CooccurrenceEntry() if "with" in case else None)
    plan = plan_recording(config, documents(n_tokens))
    told = estimate(plan, clock=time.process_time)
    began = time.process_time()
    list(record(plan, folder / "c"))
    took = time.process_time() - began
    n_bytes = ActivationCache(folder / "c").n_bytes
    gathered = sum((folder / "c" / file).stat().st_size for file in plan.manifest.summary_files)
    return {
        "tokens": n_tokens, "shards": plan.manifest.n_shards, "seconds estimated": round(told.seconds("local"), 2),
        "seconds taken": round(took, 2), "estimated / taken": round(told.seconds("local") / took, 3),
        "bytes estimated": told.n_bytes, "bytes written": n_bytes, "bytes a token": round(n_bytes / n_tokens, 1),
        "bytes gathered, estimated": told.n_bytes_gathered, "bytes gathered": gathered,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="The others keep their figures.")
    parser.add_argument("--out", type=Path, default=Path("reports/caching_estimate.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    told = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"results": {}}
    results: dict[str, list[dict]] = {c: made for c, made in told["results"].items() if c not in arguments.cases}
    for _ in range(arguments.repeats):
        for case in arguments.cases:
            with tempfile.TemporaryDirectory() as folder:
                results.setdefault(case, []).append(measured(case, arguments.tokens, Path(folder)))
                print(case, results[case][-1], flush=True)
    command = f"python benchmarks/caching/estimate.py --tokens {arguments.tokens} --repeats {arguments.repeats}"
    arguments.out.write_text(json.dumps({"command": command, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
