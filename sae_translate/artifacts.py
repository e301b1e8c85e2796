"""Everything sae_translate writes or reads besides caches: folders of tables, written whole or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from activation_cache.errors import UserError

LABELS_FORMAT = "sae-translate labels 1"
SUMMARY = "summary.json"
TENSORS = "tensors.safetensors"
JSON_COLUMNS = {"labels": ("terms", "predicate"), "latents": ("histogram", "histogram_edges", "contexts")}
"Columns that hold lists or mappings; on disk they are JSON text."


def plain(value):
    """The value in JSON's own types: NumPy scalars and arrays unwrapped, NaN as null, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def compact_json(value) -> str:
    """One line of JSON."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


def is_labels_folder(path: Path) -> bool:
    """Whether the folder holds labels that we wrote."""
    return form_of(path) == LABELS_FORMAT


def check_output(path: Path, overwrite: bool, ours: Callable[[Path], bool] = is_labels_folder) -> None:
    """Refuse an output folder that holds something, unless it is ours and may be overwritten.

    Raises UserError before any work is done.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; the output must be a folder: give another --out")
    if not overwrite:
        raise UserError(f"{path} exists: give another --out, or --overwrite to replace it")
    if not ours(path):
        raise UserError(f"{path} holds something other than our own output and is not overwritten: give another --out")


def write_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside the target, then put it in the target's place: whole or not at all."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.mkdir()
    try:
        write(fresh)
        if path.exists():
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            os.rename(path, old)
            os.rename(fresh, path)
            shutil.rmtree(old)
        else:
            os.rename(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def encoded(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """The table with its list columns as JSON text."""
    return table.assign(**{name: [compact_json(value) for value in table[name]] for name in columns if name in table})


def decoded(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """The table with its JSON text columns as lists and mappings."""
    return table.assign(**{name: [json.loads(value) for value in table[name]] for name in columns if name in table})


def save_labels(
    path: str | Path, table: pd.DataFrame, latents: pd.DataFrame, summary: dict, overwrite: bool = False
) -> Path:
    """Write a labels folder: labels.csv and .parquet, latents.parquet, summary.json. Returns its path.

    Raises UserError where the folder exists and `overwrite` is not given, or holds something else.
    """
    path = Path(path)
    check_output(path, overwrite)

    def write(folder: Path) -> None:
        rows = encoded(table, JSON_COLUMNS["labels"])
        rows.to_csv(folder / "labels.csv", index=False)
        rows.to_parquet(folder / "labels.parquet", index=False)
        encoded(latents, JSON_COLUMNS["latents"]).to_parquet(folder / "latents.parquet", index=False)
        text = json.dumps(plain({"format": LABELS_FORMAT, **summary}), indent=1, ensure_ascii=False)
        (folder / SUMMARY).write_text(text, encoding="utf-8")

    write_folder(path, write)
    return path


def read_labels(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """The table, the latents and the summary of a labels folder.

    Raises UserError where the folder is missing or is not a labels folder, or one of its files is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"no labels folder at {path}: give the folder that `sae-translate label` wrote")
    if not is_labels_folder(path):
        raise UserError(f"{path} is not a labels folder ({SUMMARY} is missing or not ours): run `sae-translate label`")
    try:
        table = decoded(pd.read_parquet(path / "labels.parquet"), JSON_COLUMNS["labels"])
        latents = decoded(pd.read_parquet(path / "latents.parquet"), JSON_COLUMNS["latents"])
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): run `sae-translate label` again") from error
    summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    return table, latents, {key: value for key, value in summary.items() if key != "format"}


def write_tensors(path: Path, form: str, summary: dict, tensors: dict[str, np.ndarray], overwrite: bool) -> None:
    """Write a folder of one tensors.safetensors and its summary.json, which says of what form it is.

    Raises UserError where the folder exists and `overwrite` is not given, or holds something else.
    """
    from safetensors.numpy import save_file

    check_output(path, overwrite, lambda folder: form_of(folder) == form)

    def write(folder: Path) -> None:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / TENSORS)
        text = json.dumps(plain({"format": form, **summary}), indent=1, ensure_ascii=False)
        (folder / SUMMARY).write_text(text, encoding="utf-8")

    write_folder(path, write)


def form_of(path: Path) -> str | None:
    """What the folder's summary.json says it is."""
    try:
        return json.loads((path / SUMMARY).read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        return None


def read_tensors(path: Path, form: str, what: str, command: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The summary and the tensors of a folder of this form.

    Raises UserError where the folder is missing, of another form, or damaged; it names the command that writes one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_dir() or form_of(path) != form:
        raise UserError(f"{path} is not {what}: give one that `{command}` wrote")
    try:
        tensors = load_file(path / TENSORS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}): run `{command}` again") from None
    return json.loads((path / SUMMARY).read_text(encoding="utf-8")), tensors


def append_line(path: Path, line: str) -> None:
    """Add a line to a file; a line that an interrupted run left unfinished is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        file.seek(0)
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")
