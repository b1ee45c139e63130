"""Stages are run once for the same settings, and return what they returned before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emotion_task.evaluation.reference import ReferenceResult
from emotion_task.pipeline.results import (
    Aligned,
    Annotated,
    Listed,
    Metrics,
    Model,
    Perceived,
    References,
    Reinforced,
    Result,
)
from emotion_task.pipeline.stages import Stage, Stages


def stage(name: str, n: int, work: Callable[[bool], Model] | None = None, **more: bool) -> Stage[Model]:
    return Stage(name, Model, {"n": n}, work or (lambda _: Model(model=f"{name}-{n}")), **more)


def line(n: int) -> list[Stage[Model]]:
    return [stage("a", 1), stage("reference", n, is_beside=True), stage("b", 1)]


def test_only_stages_with_the_same_settings_count_as_finished(tmp_path: Path) -> None:
    first = Stages(tmp_path)
    for name in ("a", "b", "c"):
        first.run(stage(name, 1))
    assert list(Stages(tmp_path).finished([stage(name, 1) for name in "abc"])) == ["a", "b", "c"]
    # What comes after a change will be run again.
    assert list(Stages(tmp_path).finished([stage("a", 1), stage("b", 2), stage("c", 1)])) == ["a"]


def test_a_stage_beside_the_line_costs_no_other_stage(tmp_path: Path) -> None:
    first = Stages(tmp_path)
    for each in line(1):
        first.run(each)
    assert list(Stages(tmp_path).finished(line(1))) == ["a", "reference", "b"]
    assert list(Stages(tmp_path).finished(line(2))) == ["a", "b"]
    said: list[str] = []
    second = Stages(tmp_path, said.append)
    second.expected = {"reference": 120.0}
    assert [second.run(each).model for each in line(2)] == ["a-1", "reference-2", "b-1"]
    assert said == ["\n== reference, about 2 min"]


def test_a_finished_stage_is_found_and_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    asked: list[bool] = []

    def interrupted(may_resume: bool) -> Model:
        asked.append(may_resume)
        if len(asked) < 3:
            raise KeyboardInterrupt
        return Model(model="m")

    for n in (1, 1, 1, 1):
        try:
            stages = Stages(tmp_path)
            stages.run(stage("a", n, interrupted))
        except KeyboardInterrupt:
            continue
    assert asked == [False, True, True]
    assert stages.result("a", Model) == Model(model="m")
    with pytest.raises(AssertionError):
        stages.result("a", Metrics)


def test_what_a_stage_read_and_has_changed_since_is_told_and_read_again(tmp_path: Path) -> None:
    read = {"corpus.root": (str(tmp_path), "1"), "other": (str(tmp_path), "1")}
    said: list[str] = []

    def run() -> list[str]:
        said.clear()
        stages = Stages(tmp_path, said.append)
        line = [stage("a", 1), replace(stage("b", 1), reads=lambda: read), stage("c", 1)]
        missing = {each.name for each in line} - set(stages.finished(line))
        for each in line:
            stages.run(each)
        assert missing == {name for name in "abc" if f"\n== {name}" in said}
        return said

    assert run() == ["\n== a", "\n== b", "\n== c"]
    assert run() == []
    read["corpus.root"] = (str(tmp_path), "2")
    told = f"{tmp_path} (corpus.root) changed since b read it: running b again"
    assert run() == [told, "\n== b", "\n== c"]
    # A folder that was moved is the same; one that is gone takes nothing with it.
    read = {key: (str(tmp_path / "moved"), stamp) for key, (_, stamp) in read.items()}
    assert run() == []
    read = {}
    assert run() == ["\n== b", "\n== c"]


def test_a_finished_stage_is_extended_where_its_lasting_settings_are_the_same(tmp_path: Path) -> None:
    asked: list[bool] = []

    def rl(num_steps: int, lr: int, base: int = 1) -> list[Stage[Model]]:
        settings = {"num_steps": num_steps, "lr": lr}

        def work(may_resume: bool) -> Model:
            asked.append(may_resume)
            return Model(model=f"rl-{num_steps}")

        return [stage("a", base), Stage("rl", Model, settings, work, lasting={"lr": lr}), stage("b", 1)]

    def run(line: list[Stage[Model]]) -> str:
        stages = Stages(tmp_path)
        return [stages.run(each).model for each in line][1]

    assert [run(rl(4, 1)), run(rl(4, 1)), run(rl(8, 1))] == ["rl-4", "rl-4", "rl-8"]
    assert asked == [False, True]
    # What comes after it was made of the shorter one.
    assert list(Stages(tmp_path).finished(rl(9, 1))) == ["a"]
    run(rl(9, 2))  # another rate: anew
    run(rl(9, 2, base=2))  # another model to start from: anew
    run(rl(12, 2, base=2))
    assert asked == [False, True, False, False, True]


SCORES = ReferenceResult(
    accuracy=0.5, unweighted_accuracy=0.4, majority=0.1, num_train=3, num_eval=2, recall={"sad": 0.5}
)


@pytest.mark.parametrize(
    ("result", "keys"),
    [
        (Listed(manifest="m.jsonl"), ["manifest"]),
        (
            Annotated(num_annotated=2, num_quarantined=1, quarantine_reasons={"silent": 1}),
            ["num_annotated", "num_quarantined", "quarantine_reasons"],
        ),
        (References(classifier=SCORES), ["classifier"]),
        (References(classifier=SCORES, egemaps=SCORES), ["classifier", "egemaps"]),
        (Model(model="m"), ["model"]),
        (Aligned(model="m"), ["model"]),
        (Aligned(model="m", fit={"strength": 1.0, "recall": {"emotion": 0.5}}), ["model", "fit"]),
        (Metrics(metrics={}), []),
        (Metrics(metrics={"accuracy": 0.5}), ["accuracy"]),
        (Perceived(report={}), []),
        (Reinforced(summary={"stopped_by": None, "model": "m"}), ["stopped_by", "model"]),
    ],
)
def test_a_result_is_read_back_from_its_file(tmp_path: Path, result: Result, keys: list[str]) -> None:
    """Runs from before keep their files: the keys may not change."""
    made: Stage[Result] = Stage("a", type(result), 1, lambda _: result)
    assert Stages(tmp_path).run(made) == result
    assert list(json.loads((tmp_path / "stages" / "a.json").read_text())["result"]) == keys
    found: Stage[Result] = Stage("a", type(result), 1, lambda _: pytest.fail("run again"))
    assert Stages(tmp_path).run(found) == result
