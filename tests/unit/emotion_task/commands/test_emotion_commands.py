"""What `emotion` prints, and that each file of commands is one of its commands."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest
from rich.console import Console

from emotion_task import commands
from emotion_task.cli import COMMANDS, main
from emotion_task.commands.line import print_report, print_wide
from emotion_task.commands.shared import CONFIGS, config_file
from emotion_task.evaluation.table import Row, result_table
from emotion_task.pipeline.summary import FinalReport

ROWS = [
    Row("majority", {"accuracy": 0.125}, reference=True),
    Row("SFT", {"accuracy": 0.4567, "format_rate": 1.0, "tokens": 35.25}, note="labels of 30 %"),
]
CLAIMS = Path(__file__).parents[3] / "data" / "claims.jsonl"


def test_every_file_is_a_command() -> None:
    files = {module.name for module in pkgutil.iter_modules(commands.__path__)} - {"shared"}
    assert files == {module.__name__.rpartition(".")[2] for module in COMMANDS}


def test_a_dry_run_finds_mistakes_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    quickstart = ["quickstart", "--dry-run", "--config", "quickstart", f"run_dir={run_dir}"]
    assert main(quickstart) == 0
    first, *stages = capsys.readouterr().out.splitlines()
    assert first == f"{run_dir}: nothing speaks against it; nothing was started"
    assert [line.split() for line in stages[:2]] == [["corpus", "to", "do"], ["annotate", "to", "do"]]
    assert main(["sft", *quickstart[1:]]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["cold_start", "to", "do"]
    assert main([*quickstart, "sft.weights={dance: 1.0}"]) == 2
    assert "dance" in capsys.readouterr().err
    assert not run_dir.exists()


def test_a_configuration_of_the_package_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(config_file("ablations/v2")) == CONFIGS / "ablations" / "v2.yaml"
    assert config_file("mine") == "mine"
    (tmp_path / "quickstart").touch()
    assert config_file("quickstart") == "quickstart"  # a file of the user's comes first


def test_a_narrow_terminal_does_not_fold_the_table() -> None:
    console = Console(width=20, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_wide(result_table(ROWS, "held-out speakers"), console)
    lines = console.export_text().splitlines()
    assert any("SFT (labels of 30 %)" in line and "0.457" in line and "35.2" in line for line in lines)


def test_the_final_report_says_where_its_files_lie(capsys: pytest.CaptureFixture[str]) -> None:
    report = FinalReport(
        title="Held-out speakers",
        rows=ROWS,
        perception_gain={"value": 0.125, "low": -0.01, "high": 0.2, "num": 10},
        summary=Path("run/summary.json"),
        report=Path("run/report.md"),
        rl_dir=Path("run/rl"),
        model="run/rl/model",
    )
    print_report(report)
    assert capsys.readouterr().out.splitlines()[-7:] == [
        "prosody perception, SFT over base: +12.5 points [-1.0, +20.0]",
        "",
        "run/report.md",
        "run/summary.json",
        "curves: run/rl/plots",
        "its page, with samples to hear and read: rlcore report run/rl",
        "explain a recording: emotion explain AUDIO --model run/rl/model",
    ]


def test_the_claim_finder_is_scored_by_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", str(CLAIMS), "--split", "held_out_4"]) == 0
    first, head, *lines, last = capsys.readouterr().out.splitlines()
    assert first.endswith(" passages") and head.split() == ["type", "precision", "recall", "claims"]
    name, precision, recall, num_claims = last.split()
    assert name == "all" and float(precision) >= 0.95 and float(recall) >= 0.95
    assert sum(int(line.split()[-1]) for line in lines) == int(num_claims) > 100
