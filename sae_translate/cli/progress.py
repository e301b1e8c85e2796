"""Progress of long work on the screen: a bar on a terminal, a plain line every tenth elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

Advance = Callable[[int, str], None]
"Called with how much is done and a few words about it."
Step, Result = TypeVar("Step"), TypeVar("Result")


@contextlib.contextmanager
def bar(what: str, total: int, unit: str, quiet: bool = False) -> Iterator[Advance]:
    """Show work of `total` units with its rate and its end, on stderr; nothing where quiet."""
    if quiet:
        yield lambda done, note: None
    elif sys.stderr.isatty():
        with _rich_bar(what, total, unit) as advance:
            yield advance
    else:
        yield _lines(what, total, unit)


def returned(steps: Generator[Step, None, Result], each: Callable[[Step], None] = lambda step: None) -> Result:
    """What a generator returns at its end, each of its steps shown on the way."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        each(step)


def share(advance: Advance) -> Callable[[str, int, int], None]:
    """What a stage reports as its name, the steps done and their number, on a bar of 100 that ends with the work."""
    return lambda stage, step, total: advance(min(99, 100 * step // max(total, 1)), stage)


@contextlib.contextmanager
def _rich_bar(what: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, note="")

        def advance(done: int, note: str) -> None:
            rate = done / max(time.monotonic() - began, 1e-9)
            progress.update(task, completed=done, note=f"{done:,}/{total:,} {unit}, {rate:,.0f}/s, {note}")

        yield advance


def _lines(what: str, total: int, unit: str) -> Advance:
    began, shown = time.monotonic(), [0]

    def advance(done: int, note: str) -> None:
        if done * 10 // total > shown[0] or done == total:
            shown[0] = done * 10 // total
            elapsed = max(time.monotonic() - began, 1e-9)
            left = elapsed * (total - done) / max(done, 1)
            print(f"{what}: {done:,} of {total:,} {unit}, {done / elapsed:,.0f}/s, {note}, {left:,.0f} s left",
                  file=sys.stderr, flush=True)

    return advance
