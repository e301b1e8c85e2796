"""Files of named vectors: .npz, fastText's .vec, .safetensors."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from activation_cache.errors import UserError, choose

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".npz", ".vec", ".safetensors")


def read_vectors(path: Path, n: int) -> "tuple[list[str], np.ndarray]":
    """The first n words and their vectors, float32. Raises `UserError` where the file is not what its name says."""
    if not path.is_file():
        raise UserError(f"no file {path}: give vectors as {', '.join(SUFFIXES)}")
    words, vectors = choose(READERS, path.suffix, "format of vectors")(path, n)
    if len(words) != len(set(words)):
        seen: set[str] = set()
        twice = next(word for word in words if word in seen or seen.add(word))
        raise UserError(f"{path} has {len(words) - len(set(words)):,} words twice (first: {twice!r}): keep one of each")
    return words, vectors


def read_npz(path: Path, n: int) -> "tuple[list[str], np.ndarray]":
    """Arrays `words` and `vectors`."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in ("words", "vectors") if key not in file]
            if missing:
                raise UserError(f"{path} lacks {' and '.join(missing)} (it holds {', '.join(file)}): save both")
            words, vectors = file["words"], file["vectors"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a sound .npz file ({error})") from error
    if vectors.ndim != 2 or words.ndim != 1 or len(words) != len(vectors) or vectors.dtype.kind != "f":
        raise UserError(f"{path}: words {words.shape} and vectors {vectors.shape} of {vectors.dtype} do not fit: one "
                        "vector of floats a word is needed")  # fmt: skip
    return [str(word) for word in words[:n]], np.ascontiguousarray(vectors[:n], dtype=np.float32)


def read_vec(path: Path, n: int) -> "tuple[list[str], np.ndarray]":
    """A first line `count dimensions`, then a word and its numbers a line, by spaces."""
    import numpy as np

    words: list[str] = []
    rows = []
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        try:
            d = int(file.readline().split()[1])
        except (ValueError, IndexError):
            raise UserError(f"{path}: the first line must be `count dimensions`, as fastText writes it") from None
        for number, line in enumerate(file, 2):
            if len(words) == n:
                break
            parts = line.rstrip().rsplit(" ", d)
            try:
                rows.append(np.array([float(part) for part in parts[1:]], np.float32))
            except ValueError:
                raise UserError(f"{path}, line {number}: a word and {d} numbers are needed") from None
            if len(rows[-1]) != d:
                raise UserError(f"{path}, line {number}: {len(rows[-1])} numbers, {d} were announced")
            words.append(parts[0])
    if not rows:
        raise UserError(f"{path} holds no vectors")
    return words, np.stack(rows)


def read_safetensors(path: Path, n: int) -> "tuple[list[str], np.ndarray]":
    """The tensor `vectors`, an SAE's `W_dec`, or the only matrix; names from the metadata's `words`, a JSON list, or
    else the rows' numbers."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            matrices = [key for key in file.keys() if len(file.get_slice(key).get_shape()) == 2]  # noqa: SIM118
            named = [key for key in ("vectors", "W_dec") if key in matrices] or matrices
            if len(named) != 1 and named[:1] not in (["vectors"], ["W_dec"]):
                raise UserError(f"{path} holds {len(matrices)} matrices ({', '.join(matrices)}): name one `vectors`")
            vectors = file.get_tensor(named[0]).float().numpy()
            told = (file.metadata() or {}).get("words")
    except SafetensorError as error:
        raise UserError(f"{path} is not a sound .safetensors file ({error})") from error
    try:
        words = [str(word) for word in json.loads(told)] if told else [str(i) for i in range(len(vectors))]
    except (ValueError, TypeError):
        raise UserError(f"{path}: the metadata's `words` must be a JSON list") from None
    if len(words) != len(vectors):
        raise UserError(f"{path}: {len(words):,} words and {len(vectors):,} vectors do not fit: one each is needed")
    return words[:n], np.ascontiguousarray(vectors[:n], dtype=np.float32)


READERS = {".npz": read_npz, ".vec": read_vec, ".safetensors": read_safetensors}
"By the end of the file's name."


def read_pairs(path: Path, source: list[str], target: list[str]) -> list[tuple[int, int]]:
    """Known pairs, `source target` a line; pairs of words that are not there are left out."""
    if not path.is_file():
        raise UserError(f"no file {path}: give known pairs as `source target`, one pair a line")
    place, other = ({word: i for i, word in enumerate(side)} for side in (source, target))
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 2:
            raise UserError(f"{path}, line {number}: {len(parts)} words; a pair is `source target`")
        if parts[0] in place and parts[1] in other:
            pairs.append((place[parts[0]], other[parts[1]]))
    if not pairs:
        raise UserError(f"{path} names no pair of words that both sides hold: check the order, source first")
    return pairs
