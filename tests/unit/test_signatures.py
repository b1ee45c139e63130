"""The calls into vLLM, DeepSpeed and Ray against the installed versions' signatures, and those of benchmarks
into rlcore.

Every call in the source whose object is known (an import, or a name in `OBJECTS`) is bound to the parameters
of what it calls, and every override to what it overrides. A version that renames a parameter fails here in
seconds, and not on a cluster.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("vllm", "deepspeed", "ray")
OWN = ("rlcore", "emotion_task", "benchmarks")
_IMPORT = re.compile(rf"^\s*(import|from) ({'|'.join(LIBRARIES)})\b", re.MULTILINE)
FILES = sorted(
    path.relative_to(ROOT)
    for package in ("rlcore", "emotion_task")
    for path in (ROOT / package).rglob("*.py")
    if _IMPORT.search(path.read_text(encoding="utf-8"))
)
BENCHMARKS = sorted(path.relative_to(ROOT) for path in (ROOT / "benchmarks").rglob("*.py"))
_LLM = {"": "vllm:LLM", ".llm_engine": "vllm.v1.engine.llm_engine:LLMEngine"}
_ZERO = ("deepspeed.runtime.zero.stage_1_and_2", "deepspeed.runtime.zero.stage3")
OBJECTS: dict[str, dict[str, tuple[str, ...]]] = {
    "rlcore/": {f"{name}{tail}": (of,) for name in ("llm", "self._llm") for tail, of in _LLM.items()},
    "rlcore/actors/heartbeat.py": {"store": ("ray._raylet:InnerGcsClient",)},
    "rlcore/engines/deepspeed_engine.py": {"self._engine": ("deepspeed:DeepSpeedEngine",)},
    "rlcore/engines/zero.py": {
        "engine": ("deepspeed:DeepSpeedEngine",),
        "self._engine": ("deepspeed:DeepSpeedEngine",),
        "self._engine.optimizer": (
            f"{_ZERO[0]}:DeepSpeedZeroOptimizer",
            f"{_ZERO[1]}:DeepSpeedZeroOptimizer_Stage3",
        ),
    },
    "rlcore/weight_sync/vllm_native.py": {},
    "rlcore/weight_sync/vllm_trainer.py": {
        "self._engine": ("vllm.distributed.weight_transfer.base:TrainerWeightTransferEngine",)
    },
    "benchmarks/gpu_check/": {
        "engine.model": ("rlcore.engines.learner_model:LearnerModel",),
        "self._engine": ("rlcore.engines.vllm_engine:VLLMEngine",),
    },
}
"""Classes of variables, by the file or folder and the variable. Of several classes each that has the method
is compared."""


def load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def imported(tree: ast.AST, libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """Returns what a file's names mean that come from one of the libraries."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in libraries:
                    module = importlib.import_module(alias.name)
                    root = importlib.import_module(alias.name.split(".")[0])
                    found[alias.asname or root.__name__] = module if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in libraries:
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                found[alias.asname or alias.name] = getattr(module, alias.name)
    return found


def dotted(node: ast.expr) -> str | None:
    """Returns `a.b.c` of an expression of that form."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return None


def owners(name: str, known: Mapping[str, Any], objects: Mapping[str, tuple[str, ...]]) -> list[Any]:
    """Returns what a dotted name may be; none where that is not known."""
    if name in objects:
        return [load(each) for each in objects[name]]
    owner, _, attribute = name.rpartition(".")
    if not owner:
        return [known[name]] if name in known else []
    return [getattr(each, attribute) for each in owners(owner, known, objects) if hasattr(each, attribute)]


def called(function: Any, call: ast.Call, is_method: bool) -> str | None:
    """Returns why the call does not fit; None where it does, or nothing can be told."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    positional: list[object] = [None] * (len(call.args) + is_method)
    names = {keyword.arg: None for keyword in call.keywords if keyword.arg}
    is_open = any(isinstance(arg, ast.Starred) for arg in call.args) or len(names) < len(call.keywords)
    try:
        (signature.bind_partial if is_open else signature.bind)(*positional, **names)
    except TypeError as error:
        return str(error)
    if function is load("vllm:LLM"):  # hands on what it does not know
        fields = {field.name for field in dataclasses.fields(load("vllm.engine.arg_utils:EngineArgs"))}
        if foreign := set(names) - fields - set(signature.parameters):
            return f"no arguments of vLLM's engine: {sorted(foreign)}"
    return None


def faults(
    source: str, objects: Mapping[str, tuple[str, ...]], libraries: Sequence[str] = LIBRARIES
) -> Iterator[str | None]:
    """Yields, for each call and each override that is known, what is wrong with it."""
    tree = ast.parse(source)
    known = imported(tree, libraries)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in (
                each for name in map(dotted, node.bases) if name for each in owners(name, known, objects)
            ):
                yield from overrides(node, base)
        if not isinstance(node, ast.Call) or not (name := dotted(node.func)) or name in objects:
            continue
        owner, _, method = name.rpartition(".")
        holders = owners(owner, known, objects) if owner else []
        if holders and not any(hasattr(each, method) for each in holders):
            yield f"line {node.lineno}: {name}: there is no such name"
        is_method = owner in objects
        for function in owners(name, known, objects):
            reason = called(function, node, is_method)
            yield reason and f"line {node.lineno}: {name}: {reason}"


def overrides(node: ast.ClassDef, base: type) -> Iterator[str | None]:
    """Yields what is wrong with a class's methods beside those of `base`, whose callers they get."""
    for method in (each for each in node.body if isinstance(each, ast.FunctionDef)):
        if method.name == "__init__" or not callable(own := getattr(base, method.name, None)):
            continue
        theirs = [
            name
            for name, parameter in inspect.signature(own).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.default is parameter.empty
        ]
        arguments = method.args
        ours = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        missing = [name for name in theirs if name not in ours and name not in ("self", "cls")]
        is_open = arguments.vararg is not None or arguments.kwarg is not None
        place = f"line {method.lineno}: {node.name}.{method.name}"
        yield f"{place}: lacks {missing}" if missing and not is_open else None


@pytest.mark.parametrize("path", FILES, ids=str)
def test_calls_fit_the_installed_libraries(path: Path) -> None:
    objects: dict[str, tuple[str, ...]] = {}
    for place, of in OBJECTS.items():
        objects |= of if str(path).startswith(place) else {}
    found = list(faults((ROOT / path).read_text(encoding="utf-8"), objects))
    assert [each for each in found if each] == []


@pytest.mark.parametrize("path", BENCHMARKS, ids=str)
def test_calls_of_benchmarks_fit_rlcore(path: Path) -> None:
    """Also those that only a GPU reaches."""
    objects = OBJECTS["benchmarks/gpu_check/"] if "gpu_check" in path.parts else {}
    found = list(faults((ROOT / path).read_text(encoding="utf-8"), objects, OWN))
    assert [each for each in found if each] == []


def test_most_calls_are_known() -> None:
    """Else an import of another form, or a variable of another name, would hide them."""
    counts = {
        place: len(list(faults((ROOT / place).read_text(encoding="utf-8"), {**OBJECTS["rlcore/"], **of})))
        for place, of in OBJECTS.items()
        if place.endswith(".py")
    }
    counts["vllm"] = len(
        list(faults((ROOT / "rlcore/engines/vllm_engine.py").read_text(encoding="utf-8"), OBJECTS["rlcore/"]))
    )
    assert counts["rlcore/engines/deepspeed_engine.py"] >= 10 and counts["rlcore/engines/zero.py"] >= 10
    native = [counts[f"rlcore/weight_sync/vllm_{name}.py"] for name in ("native", "trainer")]
    assert counts["vllm"] >= 10 and native[0] >= 6 and native[1] >= 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from vllm import SamplingParams\nSamplingParams(maximum_tokens=3)", "maximum_tokens"),
        ("from vllm import LLM\nLLM('m', tensor_parallels=2)", "tensor_parallels"),
        ("self._llm.wake_up(['weights'], tag=1)", "tag"),
        ("self._llm.llm_engine.abort('a')", "no such name"),
        ("import deepspeed\ndeepspeed.initialize(modul=1)", "modul"),
        ("import deepspeed\ndeepspeed.zero.Gathered([])", "no such name"),
        ("from ray.util import placement_group as group\ngroup([], strategies='PACK')", "strategies"),
        (
            "from vllm.distributed.weight_transfer.base import WeightTransferEngine as Base\n"
            "class Own(Base):\n    def receive_weights(self, infos, load): ...",
            "lacks",
        ),
    ],
)
def test_what_does_not_fit_is_found(source: str, message: str) -> None:
    found = [each for each in faults(source, OBJECTS["rlcore/"]) if each]
    assert len(found) == 1 and message in found[0]
