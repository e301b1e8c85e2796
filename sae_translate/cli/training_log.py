"""Where the figures of a training go besides the screen: lines of JSON, TensorBoard."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from activation_cache.errors import UserError

if TYPE_CHECKING:
    from sae_translate.translate.training import Step

Sink = Callable[["Step"], None]
"Called at every look at the criterion."


def json_lines(path: Path) -> Sink:
    """A line of JSON a look, at the end of a file."""
    from sae_translate.artifacts import append_line, compact_json

    def write(step: "Step") -> None:
        line = {"step": step.number, "criterion": step.criterion.value, **asdict(step.criterion), "losses": step.losses}
        append_line(path, compact_json(line))

    return write


def tensorboard(folder: Path) -> Sink:
    """A point a look on TensorBoard's curves: the criterion and its parts, each loss.

    Raises UserError where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs TensorBoard: pip install 'sae-translate[tensorboard]'") from None
    writer = SummaryWriter(str(folder))

    def write(step: "Step") -> None:
        parts = {f"{name}/{side}": value for name, both in asdict(step.criterion).items()
                 for side, value in zip(("source", "target"), both, strict=True)}  # fmt: skip
        losses = {f"loss/{name}": value for name, value in step.losses.items()}
        for name, value in ({"criterion": step.criterion.value} | parts | losses).items():
            writer.add_scalar(name, value, step.number)
        writer.flush()

    return write
