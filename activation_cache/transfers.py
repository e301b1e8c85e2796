"""Copies off a device that what comes next on it does not wait for. On a CPU the same calls copy at once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Arriving:
    """Tensors on their way to this machine's memory."""

    sources: tuple[Tensor, ...]
    "On the device; held until their copies are complete, so that nothing else takes their memory."
    copies: tuple[Tensor, ...]
    done: Any
    "The event after which the copies are complete."

    def wait(self) -> tuple[Tensor, ...]:
        """The copies, once they are complete."""
        self.done.synchronize()
        return self.copies


def own_stream(device: torch.device | str) -> Any:
    """A stream of this device beside the one it computes on."""
    return torch.get_device_module(device).Stream(device)


def begin_copy(sources: tuple[Tensor, ...], stream: Any) -> Arriving:
    """Copy tensors of one device to pinned memory, on this stream, after what they are computed by."""
    device = sources[0].device
    module = torch.get_device_module(device)
    stream.wait_stream(module.current_stream(device))
    with module.stream(stream):
        copies = tuple(
            torch.empty(source.shape, dtype=source.dtype, pin_memory=device.type != "cpu").copy_(
                source, non_blocking=True
            )
            for source in sources
        )
        done = module.Event()
        done.record(stream)
    return Arriving(sources, copies, done)
