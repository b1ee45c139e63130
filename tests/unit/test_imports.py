"""What may import what. Read from the sources, so that a lazy import inside a function counts too."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HEAVY = {"ray", "vllm", "deepspeed"}
HOMES = (
    "rlcore/engines/",
    "rlcore/weight_sync/",
    "rlcore/actors/",
    "rlcore/submit/",
    "emotion_task/sft/ingest.py",
    "rlcore/offline/",
    "emotion_task/prosody/stream.py",
    "emotion_task/serve/app.py",
)
"""The only places where Ray, vLLM and DeepSpeed are imported."""

FLOORS = {
    "rlcore": (
        "__init__ errors types task algorithms config records inputs endpoints models environments "
        "weight_sync engines rewards tasks plan actors loop offline submit bench report run commands cli"
    ),
    "emotion_task": (
        "__init__ labels records models config parsing facts corpora prosody audio_window tools claims "
        "evaluation report cot prompt reward_model rewards explain task sft perception rationale benchmarks "
        "pipeline serve commands cli"
    ),
}
"""The rooms of each package (its folders and loose files), from the ground up. A room imports lower ones
only, so that no circle between rooms is possible."""
LOOSE = {"__init__", "cli", "errors", "types", "task", "run"}
"""The files at the top of rlcore."""
COMMAND_LINES = ("rlcore/cli.py", "rlcore/commands/", "emotion_task/cli.py", "emotion_task/commands/")
"""The only places where arguments are parsed."""
MAX_LINES = 400


def sources(package: str) -> list[Path]:
    return sorted((PROJECT / package).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path, *, typing_too: bool = True) -> tuple[tuple[int, str], ...]:
    """Line and full name of every module that a source file imports, relative ones resolved; without
    `typing_too` those under `if TYPE_CHECKING` are left out, which nothing follows at run time."""
    package, found = path.relative_to(PROJECT).with_suffix("").parts, []
    for node in nodes(parsed(path), typing_too=typing_too):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            found += [(node.lineno, module), *((node.lineno, f"{module}.{a.name}") for a in node.names)]
    return tuple(found)


def nodes(tree: ast.AST, *, typing_too: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if typing_too or not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from nodes(node, typing_too=typing_too)


def module_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def arrows(package: str) -> Iterator[tuple[str, str, str]]:
    """What each module of a package imports of it: `file:line`, the importing module, the imported one."""
    modules = {module_of(path): path for path in sources(package)}
    for module, path in modules.items():
        seen = set()
        for line, name in imported(path, typing_too=False):
            if name in modules and name != module and (line, name) not in seen:
                seen.add((line, name))
                yield f"{path.relative_to(PROJECT)}:{line}", module, name


def room(module: str) -> str:
    """`rlcore.loop.batch` is in `loop`, `rlcore.run` is `run`, `rlcore` itself is `__init__`."""
    return [*module.split("."), "__init__"][1]


def violations(paths: list[Path], forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(PROJECT)}:{line} imports {name}"
        for path in paths
        for line, name in imported(path)
        if name.split(".")[0] in forbidden
    ]


@pytest.mark.parametrize("package", FLOORS)
def test_a_room_imports_lower_rooms_only(package: str) -> None:
    floors = FLOORS[package].split()
    assert {room(module_of(path)) for path in sources(package)} == set(floors)
    height = {name: floor for floor, name in enumerate(floors)}
    upward = [
        f"{where}: {room(module)} imports {name}, of the higher room {room(name)}"
        for where, module, name in arrows(package)
        if height[room(name)] > height[room(module)]
    ]
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize("package", FLOORS)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    # A module naming its own package, whose __init__ is read before it anyway, makes no circle.
    left = [arrow for arrow in arrows(package) if not arrow[1].startswith(f"{arrow[2]}.")]
    while True:  # what imports nothing that is left, or is imported by nothing that is left, is in no circle
        importing, imports = {module for _, module, _ in left}, {name for _, _, name in left}
        kept = [arrow for arrow in left if arrow[1] in imports and arrow[2] in importing]
        if len(kept) == len(left):
            break
        left = kept
    assert not left, "\n".join(f"{where}: {module} imports {name}" for where, module, name in left)


def test_only_command_lines_parse_arguments() -> None:
    elsewhere = [
        path
        for package in FLOORS
        for path in sources(package)
        if not path.relative_to(PROJECT).as_posix().startswith(COMMAND_LINES)
    ]
    assert violations(elsewhere, {"argparse", "optparse", "click", "typer"}) == []


def test_loose_files_of_rlcore_are_few() -> None:
    assert {path.stem for path in (PROJECT / "rlcore").glob("*.py")} == LOOSE


def test_files_are_short() -> None:
    lengths = {
        path.relative_to(PROJECT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for package in (*FLOORS, "benchmarks")
        for path in sources(package)
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_rlcore_knows_no_task() -> None:
    assert violations(sources("rlcore"), {"emotion_task", "benchmarks", "tests"}) == []


def test_heavy_libraries_stay_in_their_homes() -> None:
    elsewhere = [
        path
        for package in FLOORS
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


@pytest.mark.slow
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
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert not (isinstance(node.value, ast.Constant) and node.value.value), (
                    f"{path}:{node.lineno}"
                )
