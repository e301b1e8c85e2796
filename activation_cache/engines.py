"""Who computes which shard of a recording: this process, the ranks of a job, or the workers of a Ray cluster.

A shard is written by the same functions of `record`, so it has the same bytes whoever wrote it (given the same device,
library versions and number of threads), and any engine goes on with what another one left.
"""

import contextlib
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from activation_cache import layout, shards
from activation_cache.errors import UserError, choose
from activation_cache.gather import gathered_from, write_summaries
from activation_cache.layout import Manifest
from activation_cache.places import Place, in_turn, is_free, locked, place
from activation_cache.plan import RecordingPlan
from activation_cache.record import (
    Progress,
    begun,
    check_out,
    make_rooms,
    open_cache,
    record,
    same_recording,
    sweep,
    write_shard,
    write_shards,
)

RANKS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
"Variables that number the processes of a job: torchrun's, then Slurm's."
BLOCKS_A_WORKER = 16
"Parts in which a Ray worker is given its share: progress is told after each."


@dataclass(frozen=True)
class EngineConfig:
    """Who records."""

    name: str = "local"
    "local, torchrun (also for Slurm) or ray."
    workers: int | None = None
    "Ray workers; by default one a GPU, or one for every so many CPUs as torch uses threads here."
    ray_address: str | None = None
    "Address of a Ray cluster to join; by default one is started on this machine."


@dataclass(frozen=True)
class Rank:
    """One process of a job of several."""

    number: int
    of: int
    local: int
    "Its number on its own machine, which is that of its GPU."

    def shards(self, n_shards: int) -> range:
        """The shards that are its own: every `of`-th."""
        return range(self.number, n_shards, self.of)


def rank_of(environment: Mapping[str, str]) -> Rank:
    """The rank that torchrun or Slurm gave this process. Errors: a `UserError` where neither did."""
    for names in RANKS:
        if names[0] in environment and names[1] in environment:
            told = [environment.get(name, "0") for name in names]
            if not all(number.isdecimal() for number in told) or int(told[0]) >= int(told[1]):
                raise UserError(
                    f"{names[0]}={told[0]} and {names[1]}={told[1]} are no rank and number of processes: "
                    "start it with torchrun or srun"
                )
            return Rank(*map(int, told))
    raise UserError(
        "--engine torchrun needs the rank of this process, and neither RANK and WORLD_SIZE nor SLURM_PROCID "
        "and SLURM_NTASKS are set: start it with `torchrun --no-python --nproc-per-node N sae-translate "
        "cache ...` or `srun sae-translate cache ...`"
    )


def record_with(
    engine: EngineConfig,
    plan: RecordingPlan,
    out: str | os.PathLike | Place,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[Progress]:
    """Write the cache, as `record.record` does, with this engine; a value after every shard, or after several."""
    resume = check_engine(engine, overwrite, resume)
    return ENGINES[engine.name](engine, plan, out, overwrite, resume)


def check_engine(engine: EngineConfig, overwrite: bool, resume: bool) -> bool:
    """Whether what is there is gone on with. Errors: a `UserError` where the engine cannot do what is asked of it.

    Which ranks of a job came before is not known, so they always go on with what is there of the same recording.
    """
    choose(ENGINES, engine.name, "engine")
    if engine.name != "ray" and (engine.workers is not None or engine.ray_address is not None):
        raise UserError(f"--workers and --ray-address go with --engine ray, not with {engine.name}: leave them out")
    if engine.workers is not None and engine.workers < 1:
        raise UserError(f"{engine.workers} workers were asked for: needed at least 1")
    if engine.name != "torchrun":
        return resume
    rank_of(os.environ)
    if overwrite:
        raise UserError(
            "--overwrite is not for --engine torchrun, whose processes cannot agree on who removes what is "
            "there: remove it first, or choose another --out"
        )
    return True


def own_tokens(engine: EngineConfig, plan: RecordingPlan) -> int:
    """How many tokens the progress of this process ends with: all, but for a rank its own."""
    if engine.name != "torchrun":
        return plan.manifest.n_tokens
    return sum(_tokens_of(plan, index) for index in rank_of(os.environ).shards(plan.manifest.n_shards))


def device_of(engine: EngineConfig, device: str) -> str:
    """The device of this process: a rank that is told `cuda` takes the GPU of its number on its machine."""
    if engine.name == "torchrun" and device == "cuda" and (n_gpus := torch.cuda.device_count()):
        return f"cuda:{rank_of(os.environ).local % n_gpus}"
    return device


def _tokens_of(plan: RecordingPlan, index: int) -> int:
    of_shard = plan.manifest.contexts_of(index)
    return int(plan.contexts.offsets[of_shard.stop] - plan.contexts.offsets[of_shard.start])


def _local(engine: EngineConfig, plan: RecordingPlan, out: Any, overwrite: bool, resume: bool) -> Iterator[Progress]:
    return record(plan, out, overwrite, resume)


def _striped(engine: EngineConfig, plan: RecordingPlan, out: Any, overwrite: bool, resume: bool) -> Iterator[Progress]:
    """This rank's shards; and the statistics of all, if it is the last to have its own."""
    rank, folder = rank_of(os.environ), place(out)
    check_out(folder, overwrite, resume)
    make_rooms(folder)
    progress = Progress.start(own_tokens(engine, plan))
    with joined(plan, folder) as manifest:
        with contextlib.closing(write_shards(plan, folder, rank.shards(manifest.n_shards))) as steps:
            for sidecar, arrays in steps:
                yield (progress := progress.after(sidecar, kept=arrays is None))
        with in_turn(folder / layout.STATISTICS):
            if is_whole(folder, manifest) and not has_summaries(folder, manifest):
                write_summaries(folder, manifest, gathered_from(folder, manifest))


@contextlib.contextmanager
def joined(plan: RecordingPlan, folder: Place) -> Iterator[Manifest]:
    """Hold a folder together with the other ranks; the first there writes the manifest, or finds it to be the plan's.

    Errors: a `UserError` where a process that shares with nobody holds it, or it is of another recording.
    """
    with contextlib.ExitStack() as stack:
        with in_turn(folder / layout.STATISTICS):
            if is_free(folder):
                with locked(folder):
                    open_cache(plan, folder)
            stack.enter_context(locked(folder, shared=True))
            manifest = same_recording(plan, folder)
        yield manifest


def is_whole(folder: Place, manifest: Manifest) -> bool:
    """Whether every shard is there."""
    there = {path.name for path in (folder / layout.SHARDS).iterdir()}
    files = (layout.sidecar_file(layout.shard_file(i)) for i in range(manifest.n_shards))
    return all(file.rsplit("/", 1)[-1] in there for file in files)


def has_summaries(folder: Place, manifest: Manifest) -> bool:
    """Whether what is gathered over all shards is there."""
    return all(shards.read_sidecar(folder, file, manifest.key) is not None for file in manifest.summary_files)


class ShardWriter:
    """A Ray worker: it holds the plan, and writes the shards it is told to."""

    def __init__(self, plan: Any, folder: str, n_threads: int):
        import ray

        torch.set_num_threads(n_threads)
        self.plan, self.folder = ray.get(plan), place(folder)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        write_shard(self.plan, self.folder, int(row["shard"]))
        return row


def _on_ray(engine: EngineConfig, plan: RecordingPlan, out: Any, overwrite: bool, resume: bool) -> Iterator[Progress]:
    """Ray Data maps the missing shards over workers; this process gathers the statistics when all are there.

    A worker that dies is replaced by Ray, and its shard computed again.
    """
    ray = _ray()
    _knock(engine.ray_address)
    with begun(plan, out, overwrite, resume) as (folder, manifest):
        told = {
            index: shards.read_sidecar(folder, layout.shard_file(index), manifest.key)
            for index in range(manifest.n_shards)
        }
        missing = [index for index, sidecar in told.items() if sidecar is None]
        progress = Progress.start(manifest.n_tokens)
        for sidecar in told.values():
            progress = progress if sidecar is None else progress.after(sidecar, kept=True)
        if progress.kept:
            yield progress
        if missing:
            with _cluster(ray, engine, plan) as (workers, resources):
                rows = ray.data.from_items(
                    [{"shard": index} for index in missing],
                    override_num_blocks=min(len(missing), BLOCKS_A_WORKER * workers),
                ).map(
                    ShardWriter,
                    fn_constructor_args=(ray.put(plan), str(folder), torch.get_num_threads()),
                    compute=ray.data.ActorPoolStrategy(size=min(workers, len(missing))),
                    **resources,
                )
                for row in rows.iter_rows():
                    sidecar = shards.read_sidecar(folder, layout.shard_file(int(row["shard"])), manifest.key)
                    yield (progress := progress.after(sidecar, kept=False))
            sweep(folder)
        write_summaries(folder, manifest, gathered_from(folder, manifest))


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would otherwise call home
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails is raised; it also warns of what it allows
    try:
        import ray.data
    except ImportError:
        raise UserError("--engine ray needs Ray, which is not installed: pip install 'sae-translate[ray]'") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


@contextlib.contextmanager
def _cluster(ray: Any, engine: EngineConfig, plan: RecordingPlan) -> Iterator[tuple[int, dict[str, int]]]:
    """A Ray cluster, joined or started here; how many workers it has room for, and what each of them needs."""
    threads = torch.get_num_threads()
    on_gpu = plan.model.device.startswith("cuda")
    need = {"num_cpus": 1, "num_gpus": 1} if on_gpu else {"num_cpus": threads}
    here = {} if engine.ray_address else {"include_dashboard": False, "num_cpus": _cpus(engine, threads)}
    try:
        ray.init(address=engine.ray_address, log_to_driver=False, logging_level="ERROR", **here)
    except ConnectionError as error:
        raise UserError(f"no Ray cluster answers at {engine.ray_address}: {error}; if it is there and asks for a "
                        "token, set RAY_AUTH_MODE=token") from None  # fmt: skip
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        has = ray.cluster_resources()
        room = int(has.get("GPU", 0) if on_gpu else has.get("CPU", 0) // threads)
        if room < 1:
            raise UserError(
                f"the Ray cluster has {has.get('CPU', 0):.0f} CPUs and {has.get('GPU', 0):.0f} GPUs: a "
                f"worker needs {', '.join(f'{n} {kind}' for kind, n in need.items())}"
            )
        yield min(engine.workers or room, room), need
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """A `UserError` where nothing listens at `host:port`, for which Ray itself would wait for minutes."""
    if address and (told := re.fullmatch(r"(?:ray://)?(\S+):(\d+)", address)):
        try:
            socket.create_connection((told[1], int(told[2])), timeout=10).close()
        except OSError as error:
            raise UserError(f"no Ray cluster answers at {address} ({error.strerror or error}): give the address that "
                            "`ray start --head` told") from None  # fmt: skip


def _cpus(engine: EngineConfig, threads: int) -> int:
    """CPUs that a cluster started here is told to have: those there are, or what the workers asked for need."""
    return max(os.cpu_count() or 1, (engine.workers or 1) * threads)


ENGINES: dict[str, Callable[[EngineConfig, RecordingPlan, Any, bool, bool], Iterator[Progress]]] = {
    "local": _local,
    "torchrun": _striped,
    "ray": _on_ray,
}
"Every engine; what it is given is what `record_with` is."
