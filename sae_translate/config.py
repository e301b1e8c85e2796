"""Configurations: frozen dataclasses from JSON tables, with strict keys."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from activation_cache.errors import UserError, nearest

Config = TypeVar("Config")


def read_config(kind: type[Config], path: str | Path) -> Config:
    """The configuration of this kind in a JSON file. Raises UserError where a key is unknown, missing or ill-typed."""
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no such configuration: {path} ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    return from_table(kind, table, str(path))


def from_table(kind: type[Config], table: Any, where: str) -> Config:
    """A frozen dataclass from a mapping; fields that are dataclasses themselves are read the same way."""
    if not isinstance(table, Mapping):
        raise UserError(f"{where} must be a table of settings, not {type(table).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            known = ", ".join(fields)
            raise UserError(f"{where}: unknown setting {key!r}; known are {known}. {nearest(key, fields)}".strip())
    hints = typing.get_type_hints(kind)
    settings = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    needed = [
        name
        for name, field in fields.items()
        if name not in settings and field.default is field.default_factory is dataclasses.MISSING
    ]
    if needed:
        raise UserError(f"{where}: {', '.join(needed)} must be set")
    return kind(**settings)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_table(hint, value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    allowed = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed:
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
        raise UserError(f"{where} must be {names}, not {json.dumps(value)}")
    return value
