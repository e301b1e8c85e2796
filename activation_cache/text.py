"""Datasets as streams of documents: by hub name, or from a file or a folder of files, on disk or under a URL.

    .txt       documents between `<|endoftext|>` marks where there are any; else paragraphs between blank lines where
               there are any; else a document a line; of lines that are all numbered (`7<tab>sentence` of Leipzig
               corpora, `[1:2] verse` of a Bible) what stands behind the number
    .tsv       a document a row, no header; the column is a number, counted from 1
    .json      a list of strings or of objects         .jsonl   a string or an object a line
    .csv       a header, then a document a row         .parquet a document a row
Each also as `.gz`; a folder is its files in the order of their names. Objects, rows and hub datasets need a text
column: the one named, else the first of `TEXT_COLUMNS` that is there, else the only column of strings.
"""

import contextlib
import csv
import gzip
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from activation_cache.errors import UserError, choose, nearest
from activation_cache.hub import hub_error, look_for_hub
from activation_cache.places import Place, any_failure_as_os_error, is_url, place

TEXT_COLUMNS = ("text", "content", "story", "sentence", "document", "body", "article", "passage")
END_OF_TEXT = "<|endoftext|>"
NUMBERED = re.compile(r"\d+\t|\[\d+:\d+\]\s")


def load_documents(
    dataset: str | os.PathLike,
    config: str | None = None,
    split: str | None = None,
    column: str | None = None,
    streaming: bool | None = None,
) -> Iterator[str]:
    """The documents of a dataset, in order, empty ones left out.

    `dataset` is a file or folder, on disk or under an fsspec URL, or a hub name, for which `config`, `split` (default
    `train`) and `streaming` (default true) are those of `datasets.load_dataset`. Errors: a `UserError` where there is
    no such dataset, no text column (it names those there are), or no text at all.
    """
    path = place(dataset)
    if _there(path):
        if config is not None or split is not None:
            raise UserError(f"{path} is no dataset of the hub, for which --config and --split are: leave them out")
        found = _of_folder(path, column) if path.is_dir() else _of_file(path, column)
    elif looks_like_path(str(dataset)):
        raise UserError(f"no such dataset file or folder: {dataset}")
    else:
        found = _of_hub(str(dataset), config, split, column, True if streaming is None else streaming)
    return _not_empty(found, str(dataset))


def _there(path: Place) -> bool:
    """Whether there is such a file or folder. Errors: a `UserError` where a URL cannot be asked."""
    try:
        with any_failure_as_os_error():
            return path.exists()
    except OSError as error:
        raise UserError(f"the dataset {path} cannot be reached: {error}") from None


def looks_like_path(name: str) -> bool:
    """Whether a name can only mean a place on disk: it is no `name` or `owner/name` of the hub."""
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or name.endswith("/")
        or "\\" in name
        or _format_of(name)[0] in FORMATS
    )


def _not_empty(documents: Iterable[str], name: str) -> Iterator[str]:
    empty = True
    for document in documents:
        if document.strip():
            empty = False
            yield document
    if empty:
        raise UserError(f"the dataset {name} is empty: it holds no document with text")


def _format_of(name: str) -> tuple[str, bool]:
    """The format by the name's suffix, and whether it is compressed."""
    gz = name.endswith(".gz")
    return Path(name.removesuffix(".gz")).suffix.lower(), gz


def _of_folder(folder: Place, column: str | None) -> Iterator[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and _format_of(path.name)[0] in FORMATS]
    if not files:
        raise UserError(f"{folder} holds no dataset file: needed one of {', '.join(FORMATS)}, each also as .gz")
    for file in sorted(files, key=lambda path: path.parts):
        yield from _of_file(file, column)


def _of_file(file: Place, column: str | None) -> Iterator[str]:
    suffix, gz = _format_of(file.name)
    read = choose(FORMATS, suffix, f"kind of dataset file, {file.name},")
    try:
        of_url = any_failure_as_os_error() if is_url(file) else contextlib.nullcontext()
        with of_url, file.open("rb") as raw, gzip.open(raw) if gz else raw as stream:
            yield from read(stream, str(file), column)
    except (OSError, EOFError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise UserError(f"{file} could not be read as {suffix}{'.gz' if gz else ''}: {error}") from None


def _txt(stream: Any, name: str, column: str | None) -> Iterator[str]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig").read()
    if END_OF_TEXT in text:
        return (part.strip() for part in text.split(END_OF_TEXT))
    lines = text.splitlines()
    told = [line for line in lines if line.strip() and not line.startswith("### ")]
    if told and all(NUMBERED.match(line) for line in told):
        return (NUMBERED.sub("", line, count=1).strip() for line in told)
    paragraphs = _paragraphs(lines)
    return iter(paragraphs if len(paragraphs) > 1 else lines)


def _tsv(stream: Any, name: str, column: str | None) -> Iterator[str]:
    if column is None or not column.isdecimal() or int(column) < 1:
        raise UserError(f"{name} has columns without names: choose one by its number, counted from 1, not {column!r}")
    for row, line in enumerate(io.TextIOWrapper(stream, encoding="utf-8-sig"), start=1):
        cells = line.rstrip("\n").split("\t")
        if len(cells) < int(column):
            raise UserError(f"{name}: row {row} has {len(cells)} columns and column {column} was asked for")
        yield cells[int(column) - 1]


def _paragraphs(lines: list[str]) -> list[str]:
    """Runs of lines between blank ones."""
    runs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            runs[-1].append(line)
        elif runs[-1]:
            runs.append([])
    return ["\n".join(run) for run in runs if run]


def _json(stream: Any, name: str, column: str | None) -> Iterator[str]:
    content = json.load(io.TextIOWrapper(stream, encoding="utf-8-sig"))
    if not isinstance(content, list):
        raise UserError(f"{name} holds a JSON {type(content).__name__}: needed a list of strings or of objects")
    return _of_items(content, name, column)


def _jsonl(stream: Any, name: str, column: str | None) -> Iterator[str]:
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig")
    return _of_items((json.loads(line) for line in lines if line.strip()), name, column)


def _of_items(items: Iterable[Any], name: str, column: str | None) -> Iterator[str]:
    """Documents of strings or of objects; the text column is settled on the first object."""
    chosen = column
    first = True
    for item in items:
        if isinstance(item, str):
            yield item
            continue
        if not isinstance(item, dict):
            raise UserError(f"{name} holds a {type(item).__name__} where a string or an object with text was needed")
        if first:
            chosen = text_column(item, name, column)
            first = False
        value = item.get(chosen)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{name}: the column {chosen!r} holds a {type(value).__name__} where text was needed")
        yield value or ""


def _csv(stream: Any, name: str, column: str | None) -> Iterator[str]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    rows = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
    return _of_items(({k: v for k, v in row.items() if k is not None} for row in rows), name, column)


def _parquet(stream: Any, name: str, column: str | None) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import parquet

    source = io.BytesIO(stream.read()) if isinstance(stream, gzip.GzipFile) else stream
    file = parquet.ParquetFile(source)
    strings = [
        field.name
        for field in file.schema_arrow
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    all_columns = file.schema_arrow.names
    chosen = text_column({c: "" if c in strings else None for c in all_columns}, name, column)
    if chosen not in strings:
        raise UserError(f"{name}: the column {chosen!r} holds no text; its columns of text are {', '.join(strings)}")
    for batch in file.iter_batches(batch_size=1024, columns=[chosen]):
        yield from (value or "" for value in batch.column(0).to_pylist())


def text_column(row: dict[str, Any], name: str, column: str | None) -> str:
    """The column that holds the text; a `UserError` naming those there are where none can be told."""
    if column is not None:
        if column not in row:
            raise UserError(f"{name} has no column {column!r}, it has {', '.join(row)}. {nearest(column, row)}".strip())
        return column
    for candidate in TEXT_COLUMNS:
        if candidate in row:
            return candidate
    strings = [key for key, value in row.items() if isinstance(value, str)]
    if len(strings) == 1:
        return strings[0]
    raise UserError(f"{name} has no text column that can be told: it has {', '.join(row)}; choose one with --column")


FORMATS: dict[str, Callable[[Any, str, str | None], Iterator[str]]] = {
    ".txt": _txt,
    ".tsv": _tsv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _of_hub(name: str, config: str | None, split: str | None, column: str | None, streaming: bool) -> Iterator[str]:
    look_for_hub()
    import datasets  # takes a second, and reads at import whether the hub can be reached

    split = split or "train"
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=streaming)
        yield from _of_items(rows, name, column)
    except UserError:
        raise
    except Exception as error:  # the libraries below raise a dozen kinds; all mean that the dataset cannot be had
        raise hub_error("dataset", name, error) from None
