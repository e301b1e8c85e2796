"""Places that hold files: a folder on disk, or a URL that fsspec reads (s3://, gs://, hf://, memory://, ...).

Both answer to `pathlib`'s names. What differs is here: on disk a file is replaced atomically and synced, and a folder
can be locked; an object store puts whole objects and knows neither folders nor locks.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from upath import UPath

from activation_cache.errors import UserError

Place = Path | UPath


def is_url(name: str | os.PathLike | UPath) -> bool:
    """Whether a name is a URL and no path on this machine's disks."""
    return "://" in str(name) and not str(name).startswith(("file://", "local://"))


def place(name: str | os.PathLike | UPath) -> Place:
    """The place of this name. Errors: a `UserError` where fsspec does not know the URL's kind or lacks its package."""
    if not is_url(name):
        return Path(str(name).removeprefix("file://").removeprefix("local://")).expanduser()
    try:
        found = UPath(name)
        _ = found.fs  # the package that reads this kind of URL is looked for here
        return found
    except ImportError as error:
        raise UserError(f"{name} cannot be reached: {error}; install that package beside sae-translate") from None
    except ValueError as error:
        raise UserError(
            f"{name} cannot be reached: {error}; give a folder, or a URL of a kind that fsspec knows, such "
            "as s3://, gs:// or hf://"
        ) from None


def make_folder(folder: Place) -> None:
    """The folder with its parents, if it is not there; most object stores have none and need none."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder.fs.makedirs(folder.path, exist_ok=True)


def remove_folder(folder: Place) -> None:
    """Remove a folder and everything in it, if it is there."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.is_dir():
        folder.fs.rm(folder.path, recursive=True)


def put(path: Place, content: bytes) -> None:
    """Put these bytes there whole or not at all.

    On disk: a temporary file of a name of its own, fsync, rename, fsync of the folder. Elsewhere: one object.
    """
    if not isinstance(path, Path):
        with any_failure_as_os_error():
            path.fs.pipe_file(path.path, content)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read(path: Place) -> bytes:
    """All bytes of a file. Errors: an `OSError`, of kind `FileNotFoundError` where there is none."""
    if isinstance(path, Path):
        return path.read_bytes()
    with any_failure_as_os_error():
        return path.fs.cat_file(path.path)


def size(path: Place) -> int:
    """Bytes of a file. Errors: as `read`."""
    if isinstance(path, Path):
        return path.stat().st_size
    with any_failure_as_os_error():
        return path.fs.size(path.path)


@contextlib.contextmanager
def any_failure_as_os_error() -> Iterator[None]:
    """The libraries behind URLs raise kinds of their own (no credentials, no such bucket, no connection)."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Place, shared: bool = False) -> Iterator[None]:
    """Hold the folder for this process alone, or with others that share it; a `UserError` where another holds it.

    A URL cannot be locked: two processes that record the same there only do each other's work again.
    """
    if not isinstance(folder, Path):
        yield
        return
    with _descriptor(folder) as descriptor:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing {folder}: wait for it, or choose another --out") from None
        yield


@contextlib.contextmanager
def in_turn(folder: Place) -> Iterator[None]:
    """Wait until no other process is in its turn for this folder, and take one; a URL has no turns."""
    if not isinstance(folder, Path):
        yield
        return
    with _descriptor(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _descriptor(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_free(folder: Place) -> bool:
    """Whether no process holds the folder; always true of a URL."""
    try:
        with locked(folder):
            return True
    except UserError:
        return False
