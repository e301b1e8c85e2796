"""What a recording will take, from a little of it done beforehand: bytes, and time with every engine."""

import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from activation_cache import layout, shards
from activation_cache.gather import begin, gathered, summaries
from activation_cache.places import Place, place
from activation_cache.plan import RecordingPlan, bytes_of
from activation_cache.record import compute_shard, same_recording

ENOUGH = 2.0
"Seconds of computing from which the rest is extrapolated."
RAY_SECONDS = 10.0
"About what a Ray cluster of one machine needs to start, its workers to load their libraries, and both to stop."


@dataclass(frozen=True)
class Estimate:
    """What a recording will take. Seconds are of processes like this one, each on a machine or GPU of its own."""

    n_bytes: int
    "Of all shards; exact where only dense activations are stored."
    n_bytes_gathered: int
    "Of the statistics and the co-occurrence that are gathered over them, about."
    per_token: float
    "Seconds to compute, hash and encode a token."
    gather_per_token: float
    "Seconds to gather a token into the statistics."
    finish: float
    "Seconds to finish the statistics."
    n_tokens: int
    n_shards: int
    n_there: int = 0
    "Tokens on disk already, which are gathered again and not computed."

    def seconds(self, engine: str, workers: int = 1) -> float:
        """How long it takes with this engine; more workers than shards do not help."""
        compute = (self.n_tokens - self.n_there) * self.per_token
        gather = self.n_tokens * self.gather_per_token + self.finish
        if engine == "local":
            return compute + gather
        share = math.ceil(self.n_shards / workers) / self.n_shards
        return compute * share + gather + (RAY_SECONDS if engine == "ray" else 0.0)


def tokens_there(plan: RecordingPlan, out: str | os.PathLike | Place) -> int:
    """Tokens of this recording that `out` holds already. Errors: a `UserError` where it holds another."""
    folder = place(out)
    if not (folder / layout.MANIFEST).is_file():
        return 0
    key = same_recording(plan, folder).key
    found = (shards.read_sidecar(folder, layout.shard_file(i), key) for i in range(plan.manifest.n_shards))
    return sum(sidecar.n_tokens for sidecar in found if sidecar is not None)


def estimate(
    plan: RecordingPlan, n_there: int = 0, clock: Callable[[], float] = time.perf_counter
) -> Estimate:
    """Compute growing pieces from the middle of the recording until one took long enough, and extrapolate from it.

    `n_there`: tokens on disk already. Nothing is written. Writing is not in it: it hides behind nothing, but is small
    next to any model's forward.
    """
    manifest = plan.manifest
    n_contexts = min(manifest.batch_size, manifest.contexts_per_shard, manifest.n_contexts)
    while True:
        piece = replace(plan, manifest=replace(manifest, contexts_per_shard=n_contexts))
        index = (manifest.n_contexts // n_contexts) // 2
        began = clock()
        arrays, _ = compute_shard(piece, index)
        content = shards.encode_arrays(arrays)
        hashlib.sha256(content).hexdigest()
        spent = clock() - began
        largest = min(manifest.contexts_per_shard, manifest.n_contexts)
        if spent >= ENOUGH or n_contexts == largest:
            break
        n_contexts = min(4 * n_contexts, largest)
    states = gathered(begin(manifest), arrays, manifest)
    began = clock()
    states = gathered(states, arrays, manifest)  # later ones are cheaper than the first, which fills everything
    gathering, began = clock() - began, clock()
    n, n_gathered = len(arrays["tokens"]), 0
    for _, found in summaries(states):
        shards.encode_arrays(found)
        n_gathered += bytes_after(found, manifest.n_tokens / (2 * n))
    active = [len(arrays[f"latents.{i}.values"]) / n for i in range(len(manifest.saes))]
    return Estimate(
        bytes_of(manifest, plan.contexts.offsets, active),
        n_gathered,
        spent / n,
        gathering / n,
        clock() - began,
        manifest.n_tokens,
        manifest.n_shards,
        n_there,
    )


def bytes_after(gathered: dict[str, np.ndarray], times: float) -> int:
    """Bytes that what was gathered will take after so many times the tokens: counts and positions need wider types."""

    def width(name: str, values: np.ndarray) -> int:
        grows = values.dtype.kind == "i" and name != "token_ids"
        highest = int(int(values.max(initial=0)) * times) if grows else 0
        return max(values.itemsize, np.min_scalar_type(-1 - highest).itemsize)

    return sum(values.size * width(name, values) for name, values in gathered.items())
