"""What the matrix of faults asks for, and what it would find."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.chaos.__main__ import main
from benchmarks.chaos.cells import STATES, VICTIMS, all_cells, in_order
from benchmarks.chaos.chain import wrong_words
from benchmarks.chaos.checks import first_difference, problems
from benchmarks.chaos.page import BEGIN, END, write_matrix
from benchmarks.chaos.processes import DisturbedRun
from benchmarks.chaos.workload import make_config

NUM_STEPS = 3


def test_every_victim_is_killed_in_every_state_and_each_cell_has_its_turn() -> None:
    cells = all_cells(0)
    assert {(c.victim, c.state) for c in cells if c.signal == "kill"} == {
        (victim, state) for victim in VICTIMS for state in STATES
    }
    order = in_order(cells)
    assert sorted(map(str, order)) == sorted(map(str, cells))
    survived = [cell for cell in order if cell.state not in ("starting", "exporting") and not cell.ends_run]
    assert order[1 : 1 + len(survived)] == survived
    assert order[-1].state == "exporting"
    starts = [i for i, cell in enumerate(order) if cell.state == "starting"]
    assert starts[0] == 0 and all(order[i - 1].ends_run for i in starts[1:])


def test_a_choice_of_no_cell_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", "--quick", "--signal", "stop"])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    with pytest.raises(SystemExit):
        main()
    assert "no cell of the matrix is all of that" in capsys.readouterr().err


def write_run(folder: Path, **changed: Any) -> Path:
    """A run of three steps; `changed` replaces values of step 2."""
    folder.mkdir()
    rows, samples = [], []
    for step in range(1, NUM_STEPS + 1):
        row = {"step": step, "policy_version": step + 1, "loss": step / 7, "staleness/max": 0.0}
        rows.append(row | (changed if step == 2 else {}))
        for position in range(4):
            prompt = f"train{(4 * step + position) % 12}"
            samples += [
                {"step": step, "split": "train", "sample": k, "prompt": prompt, "text": "a", "reward": 1.0}
                for k in range(4)
            ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (folder / "model").mkdir()
    save_file({"w": torch.arange(4.0)}, folder / "model" / "model.safetensors")
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_run(tmp_path / "whole")


def found(run: Path, whole: Path, staleness: int = 0) -> list[str]:
    return problems(run, whole, staleness=staleness, num_steps=NUM_STEPS)


def test_an_equal_run_has_no_problems(whole: Path, tmp_path: Path) -> None:
    assert found(write_run(tmp_path / "run"), whole) == []
    assert first_difference(tmp_path / "run", whole) is None


def test_a_bit_that_differs_is_found(whole: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", loss=math.nextafter(2 / 7, 1))
    assert found(other, whole) == ["metrics differ from step 2 on"] and first_difference(other, whole) == 2
    run = write_run(tmp_path / "run")
    weights = torch.arange(4.0)
    weights[1] = torch.nextafter(weights[1], weights[2])
    save_file({"w": weights}, run / "model" / "model.safetensors")
    assert found(run, whole) == ["1 of 1 weights differ, ['w']"]
    assert found(run, whole, staleness=1) == []  # it may differ there


def test_samples_that_are_lost_or_there_twice_are_found(whole: Path, tmp_path: Path) -> None:
    lines = (write_run(tmp_path / "run") / "samples.jsonl").read_text().splitlines(keepends=True)
    for changed in (lines[:-1], [*lines, lines[0]], [lines[4], *lines[1:]]):
        (tmp_path / "run" / "samples.jsonl").write_text("".join(changed))
        assert found(tmp_path / "run", whole)
    (tmp_path / "run" / "samples.jsonl").write_text("".join(lines))
    assert found(tmp_path / "run", whole) == []
    late = write_run(tmp_path / "late", **{"staleness/max": 2.0})
    assert found(late, whole, staleness=1) == ["steps [2] are staler than 1"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DisturbedRun]:
    monkeypatch.setattr("benchmarks.chaos.workload.write_text_model", lambda folder: folder)
    yield DisturbedRun(make_config(tmp_path / "run", staleness=0, num_steps=3))


@pytest.mark.parametrize(
    ("victim", "words"),
    [
        ("GCS", "Ray's GCS of /tmp/ray/session (process 7 on host) died"),
        (
            "GCS",
            "the driver (process 8 on host) was killed, or ended by Ray, and Ray's GCS of /tmp/ray/session "
            "(process 7 on host) died: the kernel's log says it",
        ),
        (
            "GCS",
            "Ray's DashboardAgent of /tmp/ray/session (process 6 on host) died, and Ray's GCS of "
            "/tmp/ray/session (process 7 on host) died",
        ),
        ("driver", "the driver (process 7 on host) was killed, or ended by Ray: the kernel's log says it"),
    ],
)
def test_an_error_has_to_name_the_dead_what_is_saved_and_the_command(
    run: DisturbedRun, victim: str, words: str
) -> None:
    going_on = f"No step was saved; `rlcore train --config {run.folder}/config.yaml --overwrite` begins anew"

    def wrong(said: str) -> str:
        run.log.write_text(f"grpo: 3/9\n\nrlcore: {said}\n")
        return wrong_words(run, victim, "updating", "kill")

    assert wrong(f"error: {words}. {going_on}") == ""
    assert wrong(f"error: {words}")
    assert wrong(f"error: Ray's raylet of /tmp/ray/session (process 7 on host) died. {going_on}")
    assert wrong(f"error: Ray did not start on this machine within 30 s. {going_on}")
    saved = run.folder / "checkpoints" / "step_000002"
    assert wrong(f"error: {words}. {saved} is saved, and `rlcore train --resume` goes on from there")


def test_the_matrix_takes_its_place_on_a_page(tmp_path: Path) -> None:
    row = {"victim": "engine", "state": "updating", "signal": "kill", "seconds": 12.4, "ended": "recovered"}
    rows = [
        {**row, "staleness": 0},
        {**row, "staleness": 1, "ended": "failed"},
        {**row, "staleness": 0, "signal": "stop", "seconds": 30.0},
    ]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_matrix(rows, page)
        lines = page.read_text().splitlines()
        assert (lines[0], lines[-1], len(lines)) == ("before", "after", 8)
        assert [cell.strip() for cell in lines[4].split("|")][1:3] == ["engine", "- / -"]
        assert "| 12 / **failed** |" in lines[4] and "engine stopped" in lines[5] and "30 / -" in lines[5]
    page.write_text("no place\n")
    with pytest.raises(ValueError, match="has no place between"):
        write_matrix(rows, page)
