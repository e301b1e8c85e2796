"""What a recording keeps and costs beside the arithmetic: statistics, memory, bytes, look-ups, a second reading, and
co-occurrence.

Statistics: 1M synthetic tokens (Zipf, exponent 1.2) of 32 random latents each, whatever the token, so that pairs of a
latent and a token are as many as can be; in shards of 16,384; CPU microseconds a token, by shard, and what the end
takes once. The forward they are held against is that of `speed.py`, measured in the same run.
Memory: peak resident size of a process that records, by the length of its text. So that long texts are affordable the
network is tiny (2 layers, 32 wide); the SAE has 32,768 latents and k = 32, and what grows with it is whole.
Bytes, look-ups and the second reading are of the longest of those caches.

    python benchmarks/caching/state.py --out reports/caching_state.json
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import sae_lens
import speed
import torch
from scipy import sparse
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from activation_cache import examples, shards
from activation_cache.cooccurrence import CooccurrenceCounter, by_mkl, by_scipy
from activation_cache.layout import CooccurrenceEntry
from activation_cache.models import Model
from activation_cache.plan import TOKENS_PER_SHARD, RecordingConfig, plan_recording
from activation_cache.record import record
from activation_cache.shards import ActivationCache
from sae_translate.align.core import DecipherConfig, core_of
from sae_translate.languages.language import Corpus, Language, RecordedPairs

D_SAE, K, CONTEXT = 1 << 15, 32, 128
HOOK = "blocks.1.hook_resid_post"


def micros(run: Callable[[], Any], repetitions: int = 1) -> float:
    """CPU microseconds of one call, the median over repetitions."""
    each = []
    for _ in range(repetitions):
        began = time.process_time()
        run()
        each.append((time.process_time() - began) * 1e6)
    return float(np.median(each))


def forward_micros(n_tokens: int = 8192) -> float:
    """CPU microseconds a token of the bare forward that the statistics may cost 3 % of."""
    network = speed.model().network
    tokens = torch.randint(1, speed.VOCABULARY, (n_tokens // CONTEXT, CONTEXT))
    return micros(lambda: speed.bare_forward(network, tokens, lambda x: None), 3) / n_tokens


def shard_of_latents(draw: np.random.Generator, d_sae: int) -> sparse.csr_array:
    """Positions with K distinct random latents each and exponential values that float16 can hold."""
    columns = (draw.integers(0, d_sae, (TOKENS_PER_SHARD, 1)) + np.arange(K) * (d_sae // K)) % d_sae
    values = (draw.exponential(1, columns.size) + 0.1).astype(np.float16).astype(np.float32)
    indptr = np.arange(0, columns.size + 1, K)
    return sparse.csr_array((values, np.sort(columns).ravel().astype(np.int32), indptr),
                            shape=(TOKENS_PER_SHARD, d_sae))


def statistics_micros(d_sae: int, n_shards: int) -> dict[str, Any]:
    """CPU microseconds a token of the streaming statistics: of every shard, over all, and of the end."""
    draw, state, each = np.random.default_rng(0), examples.start(d_sae), []
    lengths = np.full(TOKENS_PER_SHARD // CONTEXT, CONTEXT)
    for _ in range(n_shards):
        latents = shard_of_latents(draw, d_sae)
        tokens = (draw.zipf(1.2, TOKENS_PER_SHARD) % speed.VOCABULARY).astype(np.int32)
        began = time.process_time()
        state = examples.update(state, latents, tokens, lengths, 0)
        each.append((time.process_time() - began) / TOKENS_PER_SHARD * 1e6)
    end = micros(lambda: examples.finish(state))
    n_tokens = n_shards * TOKENS_PER_SHARD
    return {"tokens": n_tokens, "us a token, first 4 shards": round(float(np.mean(each[:4])), 2),
            "us a token, all shards": round(float(np.mean(each)), 2),
            "us a token, median shard": round(float(np.median(each)), 2),
            "end, ms": round(end / 1e3, 1), "us a token, all with the end": round(np.mean(each) + end / n_tokens, 2)}


def recorded(n_tokens: int, folder: Path, megabytes: int) -> dict[str, float]:
    """Record so many tokens here, with co-occurrence in so much memory if in any; run in a process of its own, whose
    peak memory is told."""
    torch.manual_seed(0)
    shape = dict(vocab_size=speed.VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                 intermediate_size=64, max_position_embeddings=CONTEXT)
    made = Model("tiny", GPTNeoXForCausalLM(GPTNeoXConfig(**shape)).eval(), speed.tokenizer())
    sae = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=32, d_sae=D_SAE, k=K))
    for key, value in dict(hook_name=HOOK, context_size=CONTEXT, prepend_bos=False, model_name="tiny").items():
        setattr(sae.cfg.metadata, key, value)
    sae.save_model(folder / "sae")
    asked = CooccurrenceEntry(megabytes=megabytes) if megabytes else None
    config = RecordingConfig(dataset="random", saes=(str(folder / "sae"),), cooccurrence=asked)
    plan = plan_recording(config, speed.documents(n_tokens), made)
    began = time.process_time()
    for _ in record(plan, folder / "cache"):
        pass
    return {"tokens": n_tokens, "MiB of co-occurrence": megabytes,
            "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "us a token": round((time.process_time() - began) / n_tokens * 1e6, 1)}


def in_a_process(n_tokens: int, folder: Path, megabytes: int = 0) -> dict[str, float]:
    command = [sys.executable, __file__, "--record", str(n_tokens), "--folder", folder, "--megabytes", str(megabytes)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def look_ups(cache: ActivationCache) -> dict[str, float]:
    """CPU time of opening all statistics (read, hashed), and of one latent's contexts once they are open."""
    statistics = cache.statistics()
    latents = np.random.default_rng(0).integers(0, D_SAE, 1000)

    def one_by_one() -> None:
        for latent in latents:
            statistics.top_positions[latent], statistics.top_values[latent]

    return {"top-20 contexts of all latents, from disk, ms": round(micros(cache.statistics, 9) / 1e3, 1),
            "one latent's top-20 contexts, open cache, ms": round(micros(one_by_one, 9) / 1e3 / len(latents), 5)}


def ranked_latents(d_sae: int, n_tokens: int) -> sparse.csr_array:
    """Positions with about K distinct latents, whose frequency falls as 1 / rank, and exponential values."""
    draw, chances = np.random.default_rng(0), 1 / np.arange(1, d_sae + 1)
    ranks = draw.choice(d_sae, (n_tokens, K + K // 4), p=chances / chances.sum()).astype(np.int32)
    values, indptr = draw.exponential(1, ranks.size).astype(np.float32), np.arange(0, ranks.size + 1, ranks.shape[1])
    latents = sparse.csr_array((values, ranks.ravel(), indptr), shape=(n_tokens, d_sae))
    latents.sum_duplicates()
    return latents


def cooccurrence(d_sae: int, megabytes: int, forward: float) -> dict[str, Any]:
    """What gathering co-occurrence in the pass takes at the lags that decipherment reads: CPU time of the second shard,
    memory, disk, and the share of the weight whose latents are told apart."""
    asked, latents = CooccurrenceEntry(megabytes=megabytes), ranked_latents(d_sae, TOKENS_PER_SHARD)
    counter = CooccurrenceCounter(d_sae, asked.lags, asked.n_apart(d_sae, 1))
    lengths = np.full(TOKENS_PER_SHARD // CONTEXT, CONTEXT)
    counter.add(latents, lengths)
    a_token = micros(lambda: counter.add(latents, lengths)) / TOKENS_PER_SHARD
    sizes: list[int] = []

    def end() -> None:
        for _, found in counter.finished():
            sizes.append(len(content := shards.encode_arrays(vars(found))))
            hashlib.sha256(content).hexdigest()

    finish = micros(end)
    return {"latents": d_sae, "active a token": round(latents.nnz / TOKENS_PER_SHARD, 1),
            "told apart": len(counter.latents), "of the weight": round(next(counter.finished())[1].covered, 3),
            "us a token and lag": round(a_token / len(asked.lags), 2), "us a token": round(a_token, 1),
            "share of the forward": round(a_token / forward, 3),
            "tables, MB": round(counter.tables.nbytes / 1e6),
            "on disk, MB": round(sum(sizes) / 1e6), "end, s": round(finish / 1e6, 2)}


def joints_again(d_sae: int, n_tokens: int = 4 * TOKENS_PER_SHARD) -> dict[str, Any]:
    """What decipherment takes for the joints of its core of 1,024 latents, counted from the latents or recorded."""
    latents, bounds = ranked_latents(d_sae, n_tokens), np.arange(0, n_tokens + 1, CONTEXT)
    asked = CooccurrenceEntry()
    counter = CooccurrenceCounter(d_sae, asked.lags, asked.n_apart(d_sae, 1))
    counter.add(latents, np.diff(bounds))
    found = dict(counter.finished())
    recorded = RecordedPairs(found[1].latents, asked.lags, lambda lag: found[lag].pairs)
    names, documents = tuple(map(str, range(d_sae))), np.arange(len(bounds) - 1)
    seconds = {}
    for way, pairs in (("counted", None), ("recorded", recorded)):
        language = Language(way, names, Corpus(latents, bounds, documents, pairs))
        seconds[way] = round(micros(partial(core_of, language, 1024, DecipherConfig()), 3) / 1e6, 2)
    return {"latents": d_sae, "tokens": n_tokens, **{f"{way}, s": spent for way, spent in seconds.items()}}


def by_pairs(table: np.ndarray, before: sparse.csr_array, after: sparse.csr_array) -> None:
    """Every pair of entries added where it belongs (np.add.at), 256 positions at once."""
    before, flat, n = before.T.tocsr(), table.reshape(-1), table.shape[1]
    for begin in range(0, len(before.indptr) - 1, 256):
        left, right = before[begin : begin + 256], after[begin : begin + 256]
        partners = np.repeat(np.diff(right.indptr), np.diff(left.indptr))
        starts = np.repeat(right.indptr[:-1], np.diff(left.indptr)) - (np.cumsum(partners) - partners)
        places = np.repeat(starts, partners) + np.arange(partners.sum())
        keys = np.repeat(left.indices.astype(np.int64) * n, partners) + right.indices[places]
        np.add.at(flat, keys, np.repeat(left.data, partners) * right.data[places])


def densely(table: np.ndarray, before: sparse.csr_array, after: sparse.csr_array) -> None:
    """The product of dense matrices."""
    torch.from_numpy(table).addmm_(*(torch.from_numpy(part.toarray()) for part in (before, after)))


def ways(n: int, d_sae: int = 16384) -> dict[str, Any]:
    """One lag of the `n` most frequent latents, counted in several ways, CPU microseconds a token."""
    latents = sparse.csr_array(ranked_latents(d_sae, TOKENS_PER_SHARD // 2)[:, :n])
    before, after = latents[:-1].T.tocsr(), latents[1:]
    told: dict[str, Any] = {"latents": n, "active a token": round(latents.nnz / latents.shape[0], 1)}
    expected = (before @ after).toarray()
    for way in (by_mkl, by_scipy, by_pairs, *([densely] if n <= 1024 else [])):
        table = np.zeros((n, n), np.float32)
        way(table, before, after)
        np.testing.assert_allclose(table, expected, rtol=1e-3, atol=1e-3)
        told[way.__name__] = round(micros(partial(way, table, before, after), 3) / latents.shape[0], 2)
    return told


def cooccurrence_part(arguments: argparse.Namespace) -> dict[str, Any]:
    forward = forward_micros()
    with tempfile.TemporaryDirectory() as temporary:
        memory = [in_a_process(min(arguments.lengths), Path(temporary) / str(m), m) for m in (0, 128, 1024)]
    return {"memory with co-occurrence": memory, "co-occurrence in the pass": [
                cooccurrence(d, megabytes, forward)
                for d, megabytes in ((1024, 1024), (4096, 1024), *((d, m) for d in speed.WIDTHS for m in (1024, 128)))],
            "joints of a core": [joints_again(d) for d in (4096, 16384)],
            "one lag, counted in several ways, us a token": [ways(n) for n in (1024, 4096)]}


def statistics_part(arguments: argparse.Namespace) -> dict[str, Any]:
    forward = forward_micros()
    found = {str(d): statistics_micros(d, 64) for d in speed.WIDTHS}
    for measured in found.values():
        for over in ("first 4 shards", "all with the end"):
            measured[f"share of the forward, {over}"] = round(measured[f"us a token, {over}"] / forward, 4)
    return {"forward, us a token": round(forward, 1), "statistics": found}


def memory_part(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folders = {n: Path(temporary) / str(n) for n in arguments.lengths}
        memory = [in_a_process(n, folder) for n, folder in folders.items()]
        cache = ActivationCache(folders[max(folders)] / "cache")
        return {
            "memory": memory,
            "bytes an activation, tokens and contexts included": round(cache.n_bytes / cache.latents().nnz, 2),
            "bytes a token": round(cache.n_bytes / cache.n_tokens, 1),
            "look-ups": look_ups(cache),
            "second reading of all latents (read, hashed, joined), us a token": round(
                micros(cache.latents, 3) / cache.n_tokens, 2),
        }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "statistics": statistics_part,
    "memory": memory_part,
    "co-occurrence": cooccurrence_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1 << 16, 1 << 20])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="The others keep their figures.")
    parser.add_argument("--record", type=int, help="Only record so many tokens, in this process.")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=0, help="With --record: memory for co-occurrence.")
    parser.add_argument("--out", type=Path, default=Path("reports/caching_state.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.record:
        print(json.dumps(recorded(arguments.record, arguments.folder, arguments.megabytes)))
        return
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    lengths = " ".join(map(str, arguments.lengths))
    for part in arguments.parts:
        command = f"OMP_NUM_THREADS=1 python benchmarks/caching/state.py --parts {part} --lengths {lengths}"
        result |= PARTS[part](arguments) | {"commands": result.get("commands", {}) | {part: command}}
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
