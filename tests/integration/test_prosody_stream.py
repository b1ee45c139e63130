"""Annotation on Ray Data: over two nodes, through a deadly file and a killed driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import soundfile
from ray.cluster_utils import Cluster

from emotion_task.prosody.annotation import annotate
from emotion_task.prosody.files import MeasureConfig
from emotion_task.records import Utterance, read_manifest, write_manifest

pytestmark = pytest.mark.integration
RATE = 16000
MANY = 32
SUPPORT = Path(__file__).parents[1] / "support"


def tones(folder: Path, count: int) -> list[Utterance]:
    time_axis = np.arange(int(0.5 * RATE)) / RATE
    utterances = []
    for index in range(count):
        hertz = 100 + index
        wave = 0.1 * sum(np.sin(2 * np.pi * hertz * k * time_axis) / k for k in range(1, 9))
        soundfile.write(folder / f"{index}.wav", wave, RATE)
        utterances.append(Utterance(id=str(index), audio=str(folder / f"{index}.wav"), text="one two"))
    return utterances


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two nodes with a CPU each, whose processes find what tests share."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


def test_two_nodes_give_what_one_process_gives_and_a_deadly_file_is_put_aside(tmp_path, two_nodes):
    utterances = tones(tmp_path, 3 * MANY)
    alone = annotate(utterances, tmp_path / "alone", num_workers=0, progress=False)
    spread = annotate(utterances, tmp_path / "spread", progress=False)
    assert spread.manifest.read_text() == alone.manifest.read_text()

    poisoned = [*utterances, *tones_at(tmp_path, 300.0)]
    target = "deadly_classifier:Deadly"
    report = annotate(
        poisoned, tmp_path / "deadly", config=MeasureConfig(speaker_classifier=target), progress=False
    )
    assert report.num_annotated == len(utterances)
    (row,) = map(json.loads, report.quarantine.read_text().splitlines())
    assert row["id"] == "deadly" and row["reason"].startswith("killed")
    nodes = {utterance.age_years for utterance in read_manifest(report.manifest)}
    assert len(nodes) == 2


def tones_at(folder: Path, hertz: float) -> list[Utterance]:
    wave = 0.1 * sum(np.sin(2 * np.pi * hertz * k * np.arange(8000) / RATE) / k for k in range(1, 9))
    soundfile.write(folder / "deadly.wav", wave, RATE)
    return [Utterance(id="deadly", audio=str(folder / "deadly.wav"))]


def test_a_killed_command_goes_on_where_it_was(tmp_path):
    write_manifest(tmp_path / "in.jsonl", tones(tmp_path, 8 * MANY))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "emotion_task.cli", "annotate", str(tmp_path / "in.jsonl")]
    command += ["--out", str(out), "--workers", "1"]
    process = subprocess.Popen(command, start_new_session=True)
    measured = out / "measured.jsonl"
    deadline = time.monotonic() + 120
    while not (measured.is_file() and measured.read_bytes().count(b"\n") >= MANY):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    before = measured.read_bytes().splitlines(keepends=True)
    assert MANY <= len(before) < 8 * MANY
    subprocess.run([*command[:-1], "0"], check=True, timeout=120)
    rows = [json.loads(line) for line in measured.read_bytes().splitlines()]
    whole = [line for line in before if line.endswith(b"\n")]
    assert [json.loads(line) for line in whole] == rows[: len(whole)]
    assert len({row["key"] for row in rows}) == len(rows) == 8 * MANY
    assert [u.id for u in read_manifest(out / "manifest.jsonl")] == [str(i) for i in range(8 * MANY)]
