"""The example's reward from a wheel that lies outside the project, found by its entry point alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT / "examples" / "brevity_reward"


def run(*command: str, cwd: Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel, built from a copy of the sources, was installed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    wheels, target = folder / "wheels", folder / "installed"
    source = folder / "source"
    for name in ("setup.cfg", "pyproject.toml", "brevity_reward/__init__.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((EXAMPLE / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    built = run(
        *(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)),
        cwd=folder,
        path=[],
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("brevity_reward-1.0.0-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "brevity_reward/__init__.py" in archive.namelist()
    put = run(*pip, "install", "--no-deps", "--target", str(target), str(wheel), cwd=folder, path=[])
    assert put.returncode == 0, put.stderr
    return target


def test_the_reward_is_short() -> None:
    lines = (EXAMPLE / "brevity_reward" / "__init__.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 15


def test_check_finds_it_by_its_entry_point(installed: Path) -> None:
    command = (sys.executable, "-m", "rlcore.cli", "reward", "check", "brevity")
    checked = run(*command, "args.limit=4", cwd=installed.parent, path=[installed, PROJECT])
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "brevity_reward:Brevity (brevity-reward 1.0.0, sha256 " in checked.stdout
    assert "FAIL" not in checked.stdout
    unknown = run(*command, "args.limits=4", cwd=installed.parent, path=[installed, PROJECT])
    assert unknown.returncode == 2
    assert "args: brevity_reward:Brevity was given ['limits']" in unknown.stderr


def test_score_reads_a_finished_run(installed: Path) -> None:
    texts = ["one two", "one two three", "one two three four"]
    rows = [
        {"step": 1, "split": "train", "prompt": "p", "sample": k, "policy_version": 1, "media": {}}
        | {"reference": {}, "text": text, "tokens": 9, "finish_reason": "stop", "scores": {}}
        for k, text in enumerate(texts)
    ]
    samples, out = installed.parent / "samples.jsonl", installed.parent / "scores.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = (sys.executable, "-m", "rlcore.cli", "reward", "score", "brevity", "args.limit=2")
    arguments = ("--samples", str(samples), "--out", str(out))
    scored = run(*command, *arguments, cwd=installed.parent, path=[installed, PROJECT])
    assert scored.returncode == 0, scored.stderr
    assert "3 completions, 0 failed\nvalue: mean 0.5," in scored.stdout
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["prompt"], row["sample"], row["value"]) for row in written] == [
        ("p", 0, 1.0),
        ("p", 1, 0.5),
        ("p", 2, 0.0),
    ]
    assert written[1]["parts"] == {"words": 3}


def test_its_own_test_passes(installed: Path) -> None:
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests"))
    tested = run(*command, cwd=installed.parent, path=[installed, PROJECT])
    assert tested.returncode == 0, tested.stdout
