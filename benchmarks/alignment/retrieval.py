"""Measure exact CSLS retrieval: CPU seconds beside those of the bare matrix products, and peak memory.

    OMP_NUM_THREADS=1 python benchmarks/alignment/retrieval.py --n 50000

CSLS needs every cosine twice (once by source, once by target), so two products of n x n x d are what it is held to.
The two are interleaved in one process; memory is the process's peak less what it held before.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch

from sae_translate.align.retrieval import products, retrieve

ROOT = Path(__file__).resolve().parents[2]


def twice(source: torch.Tensor, target: torch.Tensor) -> None:
    """The product, some rows at a time, twice, and nothing else."""
    for _ in range(2):
        for _ in products(source, target):
            pass


def timed(run) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--d", type=int, default=300)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "retrieval.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    source, target = (torch.randn(given.n, given.d, generator=draw) for _ in range(2))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = []
    for _ in range(given.repetitions):
        bare = timed(lambda: twice(source, target))
        whole = timed(lambda: retrieve(source, target, given.k, "csls"))
        rows.append({"bare_cpu_seconds": bare, "csls_cpu_seconds": whole, "share_of_speed": bare / whole})
        print(json.dumps(rows[-1]), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "command": " ".join(["OMP_NUM_THREADS=1 python benchmarks/alignment/retrieval.py", *sys.argv[1:]]),
        "torch": torch.__version__, "n": given.n, "d": given.d, "k": given.k, "runs": rows,
        "peak_gb": peak * 1024 / 1e9, "beyond_input_gb": (peak - held) * 1024 / 1e9,
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
