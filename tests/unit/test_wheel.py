"""What is shipped works away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("rlcore", "emotion_task")

pytestmark = pytest.mark.slow


def test_the_wheel_runs_outside_of_the_repository(tmp_path: Path) -> None:
    # From a copy of what git knows of: setuptools leaves files beside its sources.
    listed = ["git", "ls-files", "-z", *PACKAGES, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    names = subprocess.run(listed, cwd=PROJECT, capture_output=True, check=True, text=True).stdout
    source = tmp_path / "source"
    for name in filter(None, names.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((PROJECT / name).read_bytes())
    build = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=300)
    (wheel,), (sdist,) = source.glob("dist/*.whl"), source.glob("dist/*.tar.gz")
    assert sdist.stat().st_size > 100_000
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    tops = {path.name for path in (tmp_path / "site").iterdir() if not path.name.endswith(".dist-info")}
    assert tops == set(PACKAGES)
    shipped = {
        path.relative_to(PROJECT) for p in PACKAGES for path in (PROJECT / p).rglob("*") if path.is_file()
    }
    tracked = {Path(name) for name in names.split("\0") if name.startswith(PACKAGES)}
    missing = [path for path in shipped & tracked if not (tmp_path / "site" / path).is_file()]
    assert missing == []  # data files too

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "emotion_task.cli", "quickstart", "--config", "quickstart", "--dry-run"]
    ran = subprocess.run(
        command,
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0 and "nothing speaks against it" in ran.stdout, ran.stderr
