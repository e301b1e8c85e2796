"""A cache of very many shards, without their arrays: what counting and opening it cost in files, time and memory.

A folder is filled with a manifest, with sidecars, and with shard files that have their sizes but are holes; then the
project's own functions are run on it: the count of what is there, as a rank does at its end, and the opening of an
`ActivationCache`. The files lie on this machine's disk: an object store's latency, some 20 ms a request, comes on top
and is reckoned in reports/caching_scale.md.

    python benchmarks/caching/scale.py --shards 1000 10000 100000 --out reports/caching_scale.json
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from activation_cache import layout
from activation_cache.layout import HookEntry, Manifest, SaeEntry, Sidecar

TOKENS, CONTEXT, D_SAE, N_SAES, ACTIVE = 10_000_000_000, 128, 65_536, 100, 32
N_HOOKS = 20


def manifest_of(n_shards: int, contexts_per_shard: int) -> Manifest:
    """That of `N_SAES` SAEs over so many shards."""
    sae = SaeEntry("sae", "release/sae", "blocks.0.hook_resid_post", 4096, D_SAE, "topk", "0" * 64)
    hooks = tuple(HookEntry(f"blocks.{i}.hook_resid_post", 4096, False) for i in range(N_HOOKS))
    saes = tuple(dataclasses.replace(sae, name=f"sae{i}", hook_name=hooks[i % N_HOOKS].name) for i in range(N_SAES))
    n_contexts = n_shards * contexts_per_shard
    made = Manifest(
        key="", model="owner/model", model_identity="0" * 64, dataset="owner/text", dataset_identity="0" * 64,
        hooks=hooks, saes=saes, context_size=CONTEXT, prepend_bos=False, bos_token_id=None, mix_documents=True,
        centered=False, dtype="bfloat16", batch_size=16, seed=0, n_tokens=n_contexts * CONTEXT, n_contexts=n_contexts,
        n_documents=1, contexts_per_shard=contexts_per_shard,
    )  # fmt: skip
    return dataclasses.replace(made, key=layout.run_key(made))


def fill(folder: Path, n_shards: int, contexts_per_shard: int) -> int:
    """Write the cache with holes for its arrays; the bytes of one shard."""
    manifest = manifest_of(n_shards, contexts_per_shard)
    n = contexts_per_shard * CONTEXT
    size = layout.shard_bytes(manifest, n, contexts_per_shard, [ACTIVE * n] * N_SAES)
    text = layout.sidecar_to_json(Sidecar(manifest.key, "0" * 64, size, n, contexts_per_shard))
    for room in (layout.SHARDS, layout.STATISTICS):
        (folder / room).mkdir()
    files = [*map(layout.shard_file, range(n_shards)), *map(layout.statistics_file, range(N_SAES))]
    for file in files:
        with open(folder / file, "wb") as stream:
            stream.truncate(size)  # a hole: it has its size and takes no room
        (folder / layout.sidecar_file(file)).write_text(text)
    (folder / layout.MANIFEST).write_text(layout.manifest_to_json(manifest))
    return size


def opened(folder: Path) -> dict:
    """Costs of the project's own functions on this folder, in this process."""
    from activation_cache import shards
    from activation_cache.engines import is_whole
    from activation_cache.shards import ActivationCache

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    costs, before = {}, peak()
    manifest = shards.read_manifest(folder)
    for name, work in {
        "read manifest": lambda: shards.read_manifest(folder),
        "count shards": lambda: is_whole(folder, manifest),
        "open": lambda: ActivationCache(folder),
    }.items():
        began, on_wall = time.process_time(), time.perf_counter()
        work()
        costs[name] = {"cpu seconds": round(time.process_time() - began, 3),
                       "seconds": round(time.perf_counter() - on_wall, 3)}  # fmt: skip
    return costs | {"memory of opening, MB": round((peak() - before) / 1024, 1)}


def measured(folder: Path, n_shards: int, contexts_per_shard: int) -> dict:
    """One size, opened in a process of its own so that its peak of memory is its own."""
    began = time.process_time()
    size = fill(folder, n_shards, contexts_per_shard)
    filling = time.process_time() - began
    done = subprocess.run([sys.executable, __file__, "--folder", str(folder)], capture_output=True, text=True,
                          check=True)  # fmt: skip
    sidecars = (path.stat().st_size for path in (folder / layout.SHARDS).glob("*.json"))
    return {
        "shards": n_shards, "files": 2 * n_shards, "bytes a shard": size, "bytes of all": size * n_shards,
        "bytes of sidecars": sum(sidecars), "cpu seconds to write sidecars, without fsync": round(filling, 2),
        **json.loads(done.stdout),
    }  # fmt: skip


def gathering(n_shards: int = 12, n_tokens: int = 16_384) -> dict:
    """Statistics of one SAE of this width on random latents: CPU time a token, once they are settled, and memory."""
    import numpy as np
    from scipy import sparse

    from activation_cache import examples

    draw = np.random.default_rng(0)
    often = draw.zipf(1.2, 4 * D_SAE) % D_SAE  # latents fire with very different frequency
    lengths = np.full(n_tokens // CONTEXT, CONTEXT, np.int32)
    state, spent = examples.start(D_SAE), []
    for _ in range(n_shards):
        columns = often[draw.integers(0, len(often), (n_tokens, ACTIVE))]
        rows = np.repeat(np.arange(n_tokens), ACTIVE)
        values = draw.exponential(2, rows.size).astype(np.float16).astype(np.float32)
        latents = sparse.csr_array((values, (rows, columns.ravel())), shape=(n_tokens, D_SAE))
        tokens = (draw.zipf(1.2, n_tokens) % 256_000).astype(np.int32)
        began = time.process_time()
        state = examples.update(state, latents, tokens, lengths, 0)
        spent.append((time.process_time() - began) / n_tokens * 1e6)
    return {"shards": n_shards, "latents": D_SAE, "first, us a token": round(spent[0], 2),
            "median of the last half, us a token": round(float(np.median(spent[n_shards // 2 :])), 2),
            "MB of state": round(held(state) / 1e6, 1)}  # fmt: skip


def held(part: Any) -> int:
    """Bytes of the arrays in a state of statistics."""
    if isinstance(part, tuple):
        return sum(map(held, part))
    return getattr(part, "nbytes", 0) + sum(map(held, getattr(part, "__dict__", {}).values()))


def arithmetic(contexts_per_shard: int) -> dict:
    """The whole recording reckoned from the format."""
    n = contexts_per_shard * CONTEXT
    n_shards = -(-TOKENS // n)
    size = layout.shard_bytes(manifest_of(1, contexts_per_shard), n, contexts_per_shard, [ACTIVE * n] * N_SAES)
    return {"tokens a shard": n, "shards": n_shards, "MB a shard": round(size / 1e6, 1),
            "bytes a token": round(size / n, 1), "TB": round(size * n_shards / 1e12, 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="*", default=[1000, 10_000, 100_000],
                        help="Numbers of shards to simulate; with none, those simulated before keep their figures.")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("reports/caching_scale.json"))
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(opened(arguments.folder)))
        return
    before = json.loads(arguments.out.read_text()) if not arguments.shards else {"simulation": []}
    shards = [row["shards"] for row in before["simulation"]] + arguments.shards
    command = f"python benchmarks/caching/scale.py --shards {' '.join(map(str, shards))}"
    told = {"command": command, "arithmetic": [arithmetic(contexts) for contexts in (128, 512, 4096)],
            "statistics": gathering(), "simulation": before["simulation"]}  # fmt: skip
    arguments.out.write_text(json.dumps(told, indent=1) + "\n")
    for n_shards in arguments.shards:
        with tempfile.TemporaryDirectory() as folder:
            told["simulation"].append(measured(Path(folder), n_shards, 128))
            arguments.out.write_text(json.dumps(told, indent=1) + "\n")  # removing the files may take longer than all


if __name__ == "__main__":
    main()
