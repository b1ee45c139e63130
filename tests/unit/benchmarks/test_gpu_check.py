"""The check of a GPU machine: its parts run on this CPU with tiny shapes, and none costs the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from gpu_check_cases import ENGINES, run_tiny

from benchmarks.gpu_check.__main__ import main
from benchmarks.gpu_check.models import build, made_up, text_config
from benchmarks.gpu_check.parts import PARTS, Part, run_part
from benchmarks.gpu_check.record import Record, markdown, read_rows
from rlcore.config import LearnerConfig, ModelConfig
from rlcore.engines.scorer import load_policy

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_parts_without_an_engine_run_on_the_cpu(tmp_path: Path) -> None:
    names = [name for name in PARTS if name not in ENGINES]
    found = run_tiny(names, tmp_path, without=["ray", "vllm"])
    missed = {(name, row["what"]): row for name in names for row in found[name] if row["passed"] is False}
    if torch.version.cuda and not torch.cuda.is_available():
        assert missed.pop(("machine", "GPUs"))  # builds for GPUs on a machine without one
    assert not missed
    absent = {row["what"] for row in found["machine"] if row["value"] == "absent"}
    assert {"import ray", "import vllm"} <= absent
    told = {(name, row["what"]) for name in names for row in found[name]}
    for stage in ("ZeRO 0", "ZeRO 2", "ZeRO 3", "ZeRO 2, Adam in main memory", "ZeRO 3, all in main memory"):
        assert ("zero", f"{stage}: weights") in told
    for model in ("text", "speech"):
        assert ("logprobs", f"{model}, float32: gradients") in told
    assert {("step_small", "attention"), ("step_omni", "attention"), ("attention", "2 of 128 tokens")} <= told
    assert ("handles", "what is written later") in told and ("copies", "4 MB to the device, pageable") in told


@pytest.mark.slow
def test_a_part_that_crashes_or_hangs_keeps_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{PROJECT}:{PROJECT / 'tests/support'}")

    def run(function: str, limit_s: float = 60) -> dict[str, Any]:
        part = Part(target=f"gpu_check_cases:{function}", about="", limit_s=limit_s)
        return run_part(function, part, device="cpu", limit_s=limit_s)

    statuses = {name: run(name)["status"] for name in ("fine", "misses", "never_a_number")}
    assert statuses == {"fine": "ok", "misses": "failed", "never_a_number": "failed"}
    broken = run("breaks_in_part")
    assert broken["status"] == "failed" and "Traceback" in broken["error"]
    assert [row["value"] for row in broken["rows"]] == ["last line", 1]
    crashed = run("crashes")
    assert (crashed["status"], crashed["rows"][0]["value"]) == ("error", 1)
    assert "exit code -6" in crashed["error"]
    hung = run("hangs", limit_s=15)
    assert hung["status"] == "timeout" and "last words" in hung["error"]
    child = hung["rows"][0]["value"]
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_part_without_its_package_or_without_time_is_left_out_by_name() -> None:
    part = Part(target="nothing:at_all", about="", limit_s=1, needs=("no_such_package",))
    skipped = run_part("one", part, device="cpu", limit_s=10)
    assert (skipped["status"], skipped["error"]) == ("skipped", "no_such_package is not installed")
    late = run_part("one", Part(target="nothing:at_all", about="", limit_s=1), device="cpu", limit_s=-2.0)
    assert (late["status"], late["error"]) == ("skipped", "no time was left")


def test_a_learner_gets_a_model_that_was_never_written(tmp_path: Path) -> None:
    config = text_config(tiny=True)
    with made_up(config, tmp_path, "cpu") as path:
        model = load_policy(ModelConfig(path=path), LearnerConfig(precision="autocast"))
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    wanted = build(config, "cpu").state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_begun(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "sees no GPU here: `rlcore doctor` says why" in out and "|" not in out


def test_limits_of_all_parts_without_an_engine_fit_ten_minutes() -> None:
    assert sum(part.limit_s for name, part in PARTS.items() if name not in ENGINES) <= 590


def test_the_table_is_rendered_from_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(tmp_path / "rows.json")
    record.measured("copy | of it", 12.3456, "GB/s", at_least=20.0)
    record.measured("kernel", "void flash<float>")
    rows = read_rows(tmp_path / "rows.json")
    parts = [
        {"part": "copies", "about": "", "status": "failed", "seconds": 3.0, "rows": rows, "error": ""},
        {"part": "push", "about": "", "status": "skipped", "seconds": 0.0, "rows": [], "error": "no vllm"},
        {"part": "zero", "about": "", "status": "timeout", "seconds": 9.0, "rows": [], "error": "last words"},
    ]
    result = {
        "device": "cuda",
        "gpu": "NVIDIA H100",
        "versions": {"torch": "2.13.0"},
        "seconds": 12.0,
        "parts": parts,
    }
    (tmp_path / "check.json").write_text(json.dumps(result))
    capsys.readouterr()
    assert main(["--render", str(tmp_path / "check.json")]) == 0
    out = capsys.readouterr().out
    assert out == markdown(result)
    assert "| copies | copy \\| of it | 12.35 GB/s | at least 20 | **no** |\n" in out
    assert "| copies | kernel | void flash&lt;float&gt; | | |\n" in out
    assert "| push | skipped: no vllm | 0 | |\n" in out
    assert "`zero`: timeout\n\n```\nlast words\n```\n" in out
