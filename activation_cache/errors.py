"""The one exception that means the user can mend it: the command line prints it on one line and exits with 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input. The message says what was given, what was needed and what to do, on one line."""


def nearest(given: str, known: Iterable[str], n: int = 3) -> str:
    """The known names closest to the given one, as `did you mean a, b?`; empty where none is close."""
    close = difflib.get_close_matches(given, list(known), n=n, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else ""


def choose(table: dict, key: str, what: str):
    """The table's entry under `key`; a `UserError` that lists the keys where there is none."""
    if key not in table:
        raise UserError(f"unknown {what} {key!r}: choose one of {', '.join(table)}. {nearest(key, table)}".strip())
    return table[key]
