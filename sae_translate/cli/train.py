"""`sae-translate train`: a translator between two languages, from text or latents, without a pair."""

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activation_cache.errors import UserError
from sae_translate.cli.sources import GENERATED, TEXT_SEED, read_language, usual_ways

if TYPE_CHECKING:
    from collections.abc import Generator

    from sae_translate.align.alignment import Alignment
    from sae_translate.cli.training_log import Sink
    from sae_translate.languages.language import Language
    from sae_translate.translate.config import TranslatorConfig
    from sae_translate.translate.team import Team
    from sae_translate.translate.training import State, Step
    from sae_translate.translate.translator import Translator

STATE_FORMAT = "sae-translate training 1"


def run(
    source: Annotated[
        str, typer.Argument(help="Text (file, FILE.tsv:COLUMN, folder, hub name, stories:en), or a cache with latents.")
    ],
    target: Annotated[str, typer.Argument(help="The other language, from the same kinds of place.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the translator. While training goes on, what is needed to go on "
            "from lies beside it, in OUT.state."
        ),
    ] = Path("translator"),
    config: Annotated[Path | None, typer.Option(help="Configuration, such as configs/translator.json.")] = None,
    vocabulary: Annotated[
        int, typer.Option(help="The most frequent words of a text that are translated; others are copied.")
    ] = 5000,
    documents: Annotated[
        int | None, typer.Option(help=f"Documents read of each text. Default: all; {GENERATED:,} generated stories.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column that holds the text. Default: found by its name.")] = None,
    lower: Annotated[bool, typer.Option(help="Do not tell case apart in texts.")] = True,
    log: Annotated[Path | None, typer.Option(help="File that gets one line of JSON a look at the criterion.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder of TensorBoard that gets the same.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything. Default: the configuration's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: the configuration's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a translator that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, one object.")] = False,
) -> None:
    """Align two languages, then train one network to translate both ways; no sentence needs a translation."""
    from sae_translate.artifacts import check_output, form_of
    from sae_translate.config import read_config
    from sae_translate.translate.config import TranslatorConfig
    from sae_translate.translate.translator import FORMAT

    chosen = read_config(TranslatorConfig, config) if config else TranslatorConfig()
    training = replace(
        chosen.training,
        seed=chosen.training.seed if seed is None else seed,
        device=chosen.training.device if device is None else device,
    )
    chosen = replace(chosen, training=training)
    if vocabulary < 2 or (documents is not None and documents < 1) or training.seed < 0:
        raise UserError("--vocabulary must be at least 2, --documents at least 1, --seed at least 0")
    check_output(out, overwrite, lambda folder: form_of(folder) == FORMAT)
    state_folder = out.with_name(out.name + ".state")
    state = read_state(state_folder, chosen) if resume else None
    with joined(training.device) as team:
        quiet = as_json or team.rank > 0
        sinks = sinks_of(log, tensorboard) if team.rank == 0 else []
        aligned, cut = zip(*(
            read_language(name, vocabulary, lower, column, training.seed + number * TEXT_SEED, documents)
            for number, name in enumerate((source, target))
        ), strict=True)  # fmt: skip
        alignment = None
        if chosen.start == "alignment":
            alignment = align(*aligned, usual_ways(source, target), training.seed, team.device, quiet)

        from sae_translate.translate.training import train

        placed = replace(chosen, training=replace(training, device=team.device))
        steps = train(cut[0], cut[1], alignment, placed, resume=state, team=team)
        if team.rank > 0:
            deque(steps, maxlen=0)
            return
        translator = watched(steps, state_folder, chosen, sinks, quiet)
    record = {**translator.record, "lower": lower, "believed": verdict_of(alignment)}
    replace(translator, record=record).save(out, overwrite)
    remove_state(state_folder)
    result = {"out": str(out), "names": translator.names, "n_items": [len(items) for items in translator.items],
              "alignment_objective": None if alignment is None else alignment.objective, **record}  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    print(f"{out}: {result['n_items'][0]:,} and {result['n_items'][1]:,} items, criterion {record['best']:.3f} at step "
          f"{record['best_step']:,} of {record['step']:,}")  # fmt: skip
    if alignment is not None and alignment.verdict is not None and not alignment.verdict.believed:
        print(f"NOT believed: {alignment.verdict.reason}")


@contextmanager
def joined(device: str) -> "Iterator[Team]":
    """The processes that `accelerate launch` or torchrun started for one training; this one alone where neither did.

    Raises UserError where accelerate is not installed, or cannot join them on this device.
    """
    from sae_translate.translate.team import Team

    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield Team(device=device)
        return
    try:
        from accelerate import PartialState
    except ImportError:
        raise UserError("several processes need accelerate: pip install 'sae-translate[translate]'") from None
    state = PartialState(cpu=device == "cpu")
    if state.num_processes == 1:
        raise UserError(f"{size} processes were started for --device {device}, which this machine has not: "
                        "give --device cpu, or start one process")  # fmt: skip
    try:
        yield Team(state.process_index, state.num_processes, str(state.device))
    finally:
        state.destroy_process_group()


def sinks_of(log: Path | None, tensorboard: Path | None) -> "list[Sink]":
    """Where figures go."""
    from sae_translate.cli import training_log

    sinks = [] if log is None else [training_log.json_lines(log)]
    return sinks if tensorboard is None else [*sinks, training_log.tensorboard(tensorboard)]


def align(
    source: "Language", target: "Language", ways: tuple[str, ...], seed: int, device: str, quiet: bool
) -> "Alignment":
    """The dictionary that training starts from, with its verdict."""
    from sae_translate.cli import progress
    from sae_translate.translate.portfolio import align_languages

    with progress.bar("aligning", 100, "%", quiet) as advance:
        return align_languages(source, target, ways, seed, device, progress.share(advance))


def verdict_of(alignment: "Alignment | None") -> bool | None:
    """Whether the alignment is believed; None without one."""
    return None if alignment is None or alignment.verdict is None else alignment.verdict.believed


def watched(
    steps: "Generator[Step, None, Translator]",
    state_folder: Path,
    config: "TranslatorConfig",
    sinks: "Sequence[Sink]",
    quiet: bool,
) -> "Translator":
    """Run training to its end with a bar, saving what is needed to go on at every look at the criterion."""
    from sae_translate.cli import progress

    first = next(steps)
    with progress.bar("training", first.total, "steps", quiet) as advance:

        def seen(step: "Step") -> None:
            note = ", ".join(f"{name} {value:.2f}" for name, value in step.losses.items() if value)
            advance(step.number, note)
            if step.criterion is not None:
                write_state(state_folder, step.state(), config)
                for sink in sinks:
                    sink(step)

        seen(first)
        return progress.returned(steps, seen)


def write_state(folder: Path, state: "State", config: "TranslatorConfig") -> None:
    """Put the state of training where `--resume` finds it."""
    from sae_translate.artifacts import write_tensors

    tensors = {name: value.detach().cpu().numpy() for name, value in state.tensors.items()}
    summary = {"record": state.record, "config": asdict(config)}
    write_tensors(folder, STATE_FORMAT, summary, tensors, overwrite=True)


def read_state(folder: Path, config: "TranslatorConfig") -> "State":
    """What an interrupted training left. Raises UserError where there is nothing, or the configuration is another."""
    import torch

    from sae_translate.artifacts import plain, read_tensors
    from sae_translate.translate.training import State

    summary, tensors = read_tensors(folder, STATE_FORMAT, "an interrupted training", "sae-translate train")
    if summary["config"] != plain(asdict(config)):
        raise UserError(f"{folder} was trained with another configuration or seed: resume with that, or leave --resume")
    return State({name: torch.from_numpy(value) for name, value in tensors.items()}, summary["record"])


def remove_state(folder: Path) -> None:
    """The state of a training that ended is of no more use."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
