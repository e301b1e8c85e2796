"""What is gathered of every SAE over the shards of a recording, in their order whoever wrote them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from activation_cache import examples, layout, shards
from activation_cache.cooccurrence import CooccurrenceCounter
from activation_cache.layout import Manifest
from activation_cache.places import Place


@dataclass(frozen=True)
class Gathering:
    """What has been gathered of one SAE so far. Its size depends on the number of latents, not on that of tokens."""

    statistics: examples.StatisticsState
    cooccurrence: CooccurrenceCounter | None
    "None where none was asked for."


def begin(manifest: Manifest) -> list[Gathering]:
    """Of every SAE, before any shard."""
    asked, n_saes = manifest.cooccurrence, len(manifest.saes)
    return [
        Gathering(
            examples.start(sae.d_sae),
            asked and CooccurrenceCounter(sae.d_sae, asked.lags, asked.n_apart(sae.d_sae, n_saes)),
        )
        for sae in manifest.saes
    ]


def gathered(gatherings: list[Gathering], arrays: dict[str, np.ndarray], manifest: Manifest) -> list[Gathering]:
    """Of every SAE, after one more shard. Those given are used up."""
    after = []
    for i, (gathering, entry) in enumerate(zip(gatherings, manifest.saes, strict=True)):
        latents, lengths = _csr(arrays, i, entry.d_sae), arrays["context_lengths"]
        statistics = examples.update(gathering.statistics, latents, arrays["tokens"], lengths, manifest.seed)
        if gathering.cooccurrence:
            gathering.cooccurrence.add(latents, lengths)
        after.append(Gathering(statistics, gathering.cooccurrence))
    return after


def _csr(arrays: dict[str, np.ndarray], sae_index: int, d_sae: int) -> sparse.csr_array:
    indptr, indices, values = (arrays[f"latents.{sae_index}.{part}"] for part in ("indptr", "indices", "values"))
    shape = (len(indptr) - 1, d_sae)
    return sparse.csr_array((values.astype(np.float32), indices.astype(np.int32), indptr), shape=shape)


def gathered_from(folder: Place, manifest: Manifest) -> list[Gathering]:
    """Of every SAE over all shards of a cache, in their order, each verified as it is read."""
    gatherings = begin(manifest)
    for index in range(manifest.n_shards):
        gatherings = gathered(gatherings, shards.read_arrays(folder, layout.shard_file(index), manifest.key), manifest)
    return gatherings


def summaries(gatherings: list[Gathering]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The files of what was gathered, those of `Manifest.summary_files`, and the arrays of each, one at a time."""
    for i, gathering in enumerate(gatherings):
        yield layout.statistics_file(i), vars(examples.finish(gathering.statistics))
        if gathering.cooccurrence:
            for lag, found in gathering.cooccurrence.finished():
                yield layout.cooccurrence_file(i, lag), vars(found)


def write_summaries(folder: Place, manifest: Manifest, gatherings: list[Gathering]) -> None:
    """Write what was gathered over all shards: with that a recording is complete."""
    for file, arrays in summaries(gatherings):
        shards.write_arrays(folder, file, arrays, manifest.key, manifest.n_tokens, manifest.n_contexts)
