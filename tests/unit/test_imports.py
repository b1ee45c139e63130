"""What may import what. Read from the sources, so that a lazy import inside a function counts too."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HEAVY = {"ray", "vllm", "deepspeed"}
HOMES = (
    "rlcore/engines/",
    "rlcore/weight_sync/",
    "rlcore/actors/",
    "rlcore/run.py",
    "rlcore/submit/",
    "rlcore/commands/",
    "emotion_task/sft/",
    "emotion_task/prosody/stream.py",
)
"""The only places where Ray, vLLM and DeepSpeed are imported."""


def sources(package: str) -> list[Path]:
    return sorted((PROJECT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a source file imports, relative ones resolved."""
    package = path.relative_to(PROJECT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def violations(paths: list[Path], forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(PROJECT)}:{line} imports {name}"
        for path in paths
        for line, name in imported(path)
        if name.split(".")[0] in forbidden
    ]


def test_rlcore_knows_no_task() -> None:
    assert violations(sources("rlcore"), {"emotion_task", "benchmarks", "tests"}) == []


def test_heavy_libraries_stay_in_their_homes() -> None:
    elsewhere = [
        path
        for package in ("rlcore", "emotion_task")
        for path in sources(package)
        if not path.relative_to(PROJECT).as_posix().startswith(HOMES)
    ]
    assert len(elsewhere) > 20
    assert violations(elsewhere, HEAVY) == []


def test_algorithms_know_neither_configuration_nor_actors() -> None:
    allowed = ("rlcore.algorithms", "rlcore.types", "rlcore.errors")
    wrong = [
        f"{path.relative_to(PROJECT)}:{line} imports {name}"
        for path in sources("rlcore/algorithms")
        for line, name in imported(path)
        if name.split(".")[0] == "rlcore" and name != "rlcore" and not name.startswith(allowed)
    ]
    assert wrong == []


def test_models_know_neither_engines_nor_the_ways_of_weights() -> None:
    """Engines and weight synchronisation stand on models, not the other way round."""
    above = ("rlcore.engines", "rlcore.weight_sync", "rlcore.actors", "rlcore.loop")
    wrong = [
        f"{path.relative_to(PROJECT)}:{line} imports {name}"
        for path in sources("rlcore/models")
        for line, name in imported(path)
        if name.startswith(above)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("rlcore", HEAVY | {"torch", "transformers"}),
        ("rlcore.config", HEAVY | {"torch", "transformers"}),
        ("rlcore.cli", HEAVY | {"torch", "transformers"}),
        ("rlcore.algorithms", HEAVY | {"transformers"}),
    ],
)
def test_importing_stays_light(module: str, absent: set[str]) -> None:
    program = f"import json, sys, pkgutil, importlib, {module}\n"
    if module == "rlcore.algorithms":
        program += "for m in pkgutil.iter_modules(rlcore.algorithms.__path__):\n"
        program += "    importlib.import_module('rlcore.algorithms.' + m.name)\n"
    program += "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert absent & set(json.loads(answer.stdout)) == set()


def test_no_pickle_and_no_remote_code() -> None:
    """Files of strangers are never unpickled, and models never bring code."""
    paths = sources("rlcore") + sources("emotion_task")
    assert violations(paths, {"pickle", "dill", "joblib"}) == []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert not (isinstance(node.value, ast.Constant) and node.value.value), (
                    f"{path}:{node.lineno}"
                )
