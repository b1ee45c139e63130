from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlcore.commands.train import summary_lines
from rlcore.records.progress import Progress, duration, tell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_a_clean_line_for_each_step_and_no_redraws() -> None:
    log = io.StringIO()
    with Progress(total=3, desc="step", unit="step", file=log, line_every_s=0) as bar:
        for step in range(3):
            bar.set_postfix({"outcome": f"0.{step}", "kl": "0.01"}, refresh=False)
            bar.update(1)
            Progress.write("beside", file=log)  # as tell does
    text = log.getvalue()
    assert not re.search(r"[\r\x1b\x08]", text)
    lines = [line for line in text.splitlines() if line != "beside"]
    assert [line.split("  ")[:3] for line in lines] == [
        [f"step {n}/3", f"outcome 0.{n - 1}", "kl 0.01"] for n in (1, 2, 3)
    ]


def test_quick_work_says_its_end_alone_in_a_log() -> None:
    log = io.StringIO()
    assert list(Progress(range(500), desc="files", unit="file", file=log)) == list(range(500))
    (line,) = log.getvalue().splitlines()
    assert line.startswith("files 500/500  ")
    with Progress(total=0, file=log):
        pass
    assert log.getvalue().count("\n") == 1


def test_a_resumed_run_tells_of_what_it_does_itself() -> None:
    log = io.StringIO()
    with Progress(total=8, initial=6, desc="step", unit="step", file=log, line_every_s=0) as bar:
        bar.update(1)
    assert [line.split("  ")[0] for line in log.getvalue().splitlines()] == ["step 7/8"]


def test_a_terminal_has_a_bar() -> None:
    terminal = Terminal()
    with Progress(total=2, desc="step", file=terminal, mininterval=0) as bar:
        bar.update(2)
    assert "\r" in terminal.getvalue() and "2/2" in terminal.getvalue()


def test_what_begins_is_told_with_the_time_since_the_command_began(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell("starting Ray")
    assert re.fullmatch(r"\[ *[\d.:]+( s)?\] starting Ray\n", capsys.readouterr().err)


@pytest.mark.parametrize(("seconds", "told"), [(3.4, "3 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_the_summary_fits_100_columns_and_leaves_parts_to_the_file() -> None:
    metrics = {"accuracy": 0.53512, "reward/outcome": 0.5, "reward/outcome/part": 4.0, "x" * 200: 1e-7}
    summary = {"before": metrics, "after": {**metrics, "accuracy": 0.62172, "new": 3.0}, "steps": 120}
    lines = summary_lines("runs/mine", {**summary, "seconds": 380.7, "model": "runs/mine/model"})
    assert max(map(len, lines)) <= 100
    assert lines[0] == "runs/mine: finished, accuracy 0.535 before and 0.622 after"
    assert lines[1] == "  120 steps, 6 min"
    assert [line.split() for line in lines[2:] if "accuracy" in line] == [["accuracy", "0.5351", "0.6217"]]
    assert not any("part" in line for line in lines) and lines[-1].endswith("rlcore report runs/mine")
    assert len(summary_lines("runs/mine", {"steps": 0})) == 5


@pytest.mark.slow
def test_a_command_says_what_it_does_before_it_loads_anything_heavy(tmp_path: Path) -> None:
    program = "import sys\nfrom rlcore import cli\ncli.main(sys.argv[1:])\nprint(*sys.modules)"
    command = [sys.executable, "-c", program, "train", "--config", str(tmp_path / "gone.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    first = ended.stderr.splitlines()[0]
    assert re.fullmatch(rf"\[ *[\d.]+ s\] reading {re.escape(str(tmp_path / 'gone.yaml'))}", first)
    assert not {"torch", "ray", "transformers"} & set(ended.stdout.split())
