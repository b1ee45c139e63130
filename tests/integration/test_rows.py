"""docs/tutorials/your_jsonl.md as it stands: from a JSONL to a trained model in three commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rlcore.models.hf_model import load_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
PROJECT = Path(__file__).resolve().parents[2]
TUTORIAL = (PROJECT / "docs" / "tutorials" / "your_jsonl.md").read_text(encoding="utf-8")
PROGRAMS = {"emotion": "emotion_task.cli", "rlcore": "rlcore.cli"}


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def run(command: str, folder: Path) -> str:
    """What a command of the tutorial says, both streams; it must succeed."""
    program, *arguments = shlex.split(command)
    ended = subprocess.run(
        [sys.executable, "-m", PROGRAMS[program], *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]
    return ended.stdout


def test_three_commands_lead_from_a_jsonl_to_a_trained_model(tmp_path: Path) -> None:
    for text in (*blocks("python"), *blocks("yaml")):
        name = text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "make_tones.py"], cwd=tmp_path, check=True, timeout=100)
    commands = [block.strip().splitlines() for block in blocks("bash")]
    assert [len(lines) for lines in commands] == [3, 1]
    make, check, learn = commands[0]

    run(make, tmp_path)
    said = run(check, tmp_path)
    (shown,) = blocks("")
    for line in shown.replace(".../data", f"{tmp_path}/data").splitlines():
        assert line == "  ..." or line in said.splitlines(), line
    (bad,) = (tmp_path / "runs" / "tones" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(bad)["row"]["wav"] == "clips/lost.wav"

    finished = run(learn, tmp_path)
    told = re.search(r"runs/tones: finished, score (\S+) before and (\S+) after", finished)
    assert told is not None, finished[-3000:]
    before, after = map(float, told.groups())
    assert before < 0.2 and after > 0.3
    assert re.search(r"^step 20/20  right .*  eval/score 0", finished, re.MULTILINE), finished
    trained, base = (load_model(str(tmp_path / "runs" / name)) for name in ("tones/model", "tiny"))
    assert not trained.lm_head.weight.equal(base.lm_head.weight)

    measured = run(commands[1][0], tmp_path)
    assert re.search(rf"^  score +{after:g}$", measured, re.MULTILINE), measured
