"""Files as they are written and read here: a file whole or not at all, JSON lines one after another.

A kill in the middle leaves the file that was there before, or a last line that is cut short and left out.
This module knows files and JSON; what the rows mean, their writers know.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from rlcore.errors import DataError, StorageError

JsonObject = dict[str, Any]
"""A JSON object as it was read: its names to whatever they hold."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (*_NO_ROOM, errno.EFBIG, errno.EROFS, errno.EIO)
"""What a disk says that cannot be written to, however right the path is."""


@contextmanager
def replaced(path: str | Path, *, durable: bool = False, is_shared: bool = False) -> Iterator[Path]:
    """Yields another name beside `path`, to write a file or a folder to; at the end it is renamed to `path`.

    A reader finds the old file or the new one, never a part; of a folder, for a moment none. An exception in
    the block leaves the old one. A link is followed. A path that is neither file nor folder, such as
    `/dev/stdout`, is written to itself.

    Args:
        durable: the file, and the names in its folder, would outlast a power cut once the block has ended.
            The files in a folder are left to the caller (`sync`).
        is_shared: others may write the same path at the same time; the last one wins.

    Raises:
        StorageError: the disk is full or cannot be written to.
    """
    path = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without others the name is always the same, so that what a kill leaves is found and goes.
    partial = path.with_name(f".{path.name}.{f'{uuid.uuid4().hex}.' if is_shared else ''}partial")
    _remove(partial)
    try:
        yield partial
        if durable and partial.is_file():
            sync(partial)
        if path.is_dir() and partial.is_dir():
            shutil.rmtree(path)
        partial.replace(path)  # a file never takes the place of a folder: IsADirectoryError
    except BaseException as error:
        num_bytes = num_bytes_of(partial)
        _remove(partial)
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            raise StorageError(f"{path}: cannot be written: {why(error, path, num_bytes)}") from error
        raise
    if durable:
        sync(path.parent)


def why(error: OSError, path: Path, num_bytes: int) -> str:
    """Returns why `num_bytes` or more could not be written to `path`: the system's words, and on a full disk
    the room that there is."""
    reason = error.strerror or str(error)
    return f"{reason}; {room(path, num_bytes)}" if error.errno in _NO_ROOM else reason


def room(path: Path, num_bytes: int, held: int = 0) -> str:
    """Returns what is free on the disk of `path`, and what is missing there for `num_bytes`.

    Args:
        held: bytes of an unfinished file, which come free with it.
    """
    free = held
    with suppress(OSError):
        free += shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free
    lacking = f", {_size(num_bytes - free)} are missing" if num_bytes > free else ""
    return f"it takes at least {_size(num_bytes)}, {_size(free)} are free there{lacking}"


def num_bytes_of(path: Path) -> int:
    """Returns the size of a file, or of all files below a folder; 0 where there is none."""
    found = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in found if each.is_file())


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes:,} bytes"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def make_closed(folder: str | Path) -> Path:
    """Makes the folder, where there is none, so that only this user can enter it, and returns its absolute
    path. One that is there keeps its rights: to share a run, its user opens its folder."""
    folder = Path(folder).resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk and would outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Replaces the file by `text` in UTF-8. Half a surrogate pair becomes JSON's escape for it."""
    with replaced(path, durable=durable) as partial:
        partial.write_bytes(_encoded(text))


def write_json(path: str | Path, value: object, *, durable: bool = False) -> None:
    """Replaces the file by `value` as JSON. NaN and infinity stay, as Python reads them back."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", durable=durable)


def read_json(path: str | Path) -> Any:
    """Returns what a JSON file holds, and an empty object where the file is missing.

    Raises:
        DataError: the file is not JSON.
    """
    if not Path(path).is_file():
        return {}
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not JSON ({error}); mend it, or delete it to have it written anew"
        ) from error


def write_rows(path: str | Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Replaces the file by JSON lines and returns how many there are. NaN and infinity become null."""
    count = 0
    with replaced(path) as partial, partial.open("wb") as file:
        for row in rows:
            file.write(_line(row))
            count += 1
    return count


class RowAppender:
    """Appends JSON lines to a file that no one else writes. Each is with the system before `write` returns,
    whole or not at all.

    A last line that a kill has cut short is removed first, so that nothing is appended to it. NaN and
    infinity become null.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        # Without a buffer: what could not be written would be tried again at the end, over the error.
        self._file = self.path.open("ab+", buffering=0)
        _drop_cut_line(self._file)

    def write(self, *rows: Mapping[str, object]) -> None:
        """Appends rows, all of them or none.

        Raises:
            TypeError: JSON has no form for a value.
            StorageError: the rows cannot be written, or the file was deleted or moved meanwhile.
        """
        lines = b"".join(map(_line, rows))
        size = self._file.seek(0, os.SEEK_END)
        try:
            if not self._is_there():
                raise FileNotFoundError(errno.ENOENT, "the file was deleted or moved while it was written")
            left = memoryview(lines)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(size)
            reason = why(error, self.path, len(lines))
            raise StorageError(f"{self.path}: a row cannot be written: {reason}") from error

    def _is_there(self) -> bool:
        """Rows that went to a file without a name would be lost without a word."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> RowAppender:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def append_rows(path: str | Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Appends JSON lines to a file that no one else writes, all of them or none, as `RowAppender` does."""
    with RowAppender(path) as file:
        file.write(*rows)


def keep_rows(path: str | Path, is_kept: Callable[[JsonObject], bool]) -> None:
    """Drops the rows of a file that are not to be kept, and a last line cut short.

    A missing file stays missing.
    """
    if Path(path).is_file():
        write_rows(path, (row for row in read_rows(path) if is_kept(row)))


def read_rows(path: str | Path) -> Iterator[JsonObject]:
    """Yields the rows of a file that this module wrote, and none where the file is missing.

    Raises:
        DataError: a line is no JSON object; the message names file and line.
    """
    if Path(path).is_file():
        yield from (row for _, row in numbered_rows(path, "a JSON object", leave_out_cut=True))


def last_row(path: str | Path, most_bytes: int = 1 << 16) -> JsonObject | None:
    """Returns the last whole row of a file that this module wrote, without reading the rest; None where there
    is none. A row has fewer than `most_bytes` bytes."""
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
        lines = file.read().split(b"\n")
    row: JsonObject | None = json.loads(lines[-2]) if len(lines) > 1 else None
    return row


def numbered_rows(
    path: str | Path, what: str, *, leave_out_cut: bool = False
) -> Iterator[tuple[int, JsonObject]]:
    """Yields the rows of JSON lines with their numbers (from 1). Empty lines are passed over.

    Args:
        what: what a line should be, for the message: "an utterance".
        leave_out_cut: a last line without its end is what a kill left, and left out. People's own files may
            end that way.

    Raises:
        DataError: a line is no JSON object, or the file is not UTF-8; the message names file and line.
    """
    # In bytes: a kill may have cut a line within a character.
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or (leave_out_cut and not line.endswith(b"\n")):
                continue
            with _as_utf8(path):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: not {what}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: not {what}: {text.strip()[:80]!r}")
            yield number, row


@contextmanager
def open_text(path: str | Path, newline: str | None = None) -> Iterator[TextIO]:
    """Opens a text file that people wrote, with or without a byte order mark.

    Raises:
        DataError: the file is not UTF-8; the message names file and line.
    """
    with _as_utf8(path), Path(path).open(encoding="utf-8-sig", newline=newline) as lines:
        yield lines


@contextmanager
def _as_utf8(path: str | Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        reason = f"{error.reason}, byte {error.object[error.start]:#x}"
        raise DataError(f"{path}:{_line_not_utf8(path)}: not UTF-8 ({reason}); save it as UTF-8") from error


def _line_not_utf8(path: str | Path) -> int:
    """Returns the number of the first line that is not UTF-8, 0 where all are."""
    with Path(path).open("rb") as lines:
        return next((number for number, line in enumerate(lines, 1) if not _is_utf8(line)), 0)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_nan(value: object) -> bool:
    """Tells whether a value is NaN, which tables write where they have nothing."""
    return isinstance(value, float | np.floating) and math.isnan(value)


def finite(value: object) -> object:
    """Returns nested values with None in the place of NaN and infinity, which JSON does not have."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _line(row: Mapping[str, object]) -> bytes:
    return _encoded(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="backslashreplace")


def _drop_cut_line(file: FileIO) -> None:
    """Truncates a file behind its last whole line."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
