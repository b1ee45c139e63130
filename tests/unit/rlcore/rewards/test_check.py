"""The check against rewards with one fault each: it is found, under its name, and nothing else is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from local_service import service

from rlcore.actors.reward_worker import RewardWorker, checked_scores
from rlcore.config import RewardConfig
from rlcore.errors import DataError
from rlcore.records.tracking import Tracker
from rlcore.rewards.check import check_reward
from rlcore.rewards.samples import (
    asked_groups,
    completion_of,
    generated_groups,
    read_groups,
    recorded_groups,
)
from rlcore.types import Group, Prompt, RewardContext, Score

pytestmark = pytest.mark.slow


class Scorer:
    """Scores with a function of a group, in this process."""

    def __init__(self, function: Callable[[Group], Sequence[Score]]):
        self._function = function

    def score(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        return [checked_scores(group, self._function(group)) for group in groups]


def bad(function: Callable[[Group], Sequence[Score]], timeout_s: float = 10.0) -> list[str]:
    groups = generated_groups({"label": "sad"})
    return [f.name for f in check_reward(Scorer(function), groups, timeout_s=timeout_s) if not f.ok]


def lengths(group: Group) -> list[Score]:
    return [Score(float(len(c.text))) for c in group.completions]


def test_a_sound_reward_has_no_fault() -> None:
    assert bad(lengths) == []


def test_each_fault_is_found_by_name() -> None:
    count = itertools.count()
    assert "deterministic" in bad(lambda g: [Score(float(next(count))) for _ in g.completions])
    assert bad(lambda g: [Score(float(k)) for k, _ in enumerate(g.completions)]) == ["order of completions"]
    assert bad(lambda g: [*lengths(g), Score(1.0)]) == ["scores"]
    assert bad(lambda g: [Score(float("nan")) for _ in g.completions]) == ["scores"]
    assert bad(
        lambda g: [Score(1 / max(len(c.text), 0) if c.text else float("inf")) for c in g.completions]
    ) == ["odd answers"]
    assert "time" in bad(lengths, timeout_s=1e-9)


def test_what_is_due_at_single_tokens_counts() -> None:
    def steps(group: Group) -> list[Score]:
        return [Score(0.0, token_values={0: s.value} if s.value else {}) for s in lengths(group)]

    (span,) = [
        f.detail for f in check_reward(Scorer(steps), generated_groups({}), timeout_s=10) if f.name == "range"
    ]
    assert "all are equal" not in span
    count = itertools.count()
    leaky = bad(
        lambda g: [Score(0.0, token_values={0: float(next(count))} if c.text else {}) for c in g.completions]
    )
    assert "deterministic" in leaky


def test_state_that_leaks_between_groups_is_found() -> None:
    seen: list[str] = []

    def novelty(group: Group) -> list[Score]:
        scores = [Score(float(group.prompt.id not in seen)) for _ in group.completions]
        seen.append(group.prompt.id)
        return scores

    assert "deterministic" in bad(novelty)


def test_what_alone_says_decides_the_cache() -> None:
    def ranks(group: Group) -> list[Score]:
        order = sorted(len(c.text) for c in group.completions)
        return [Score(float(order.index(len(c.text)))) for c in group.completions]

    groups = generated_groups({})
    details = [
        {f.name: f.detail for f in check_reward(Scorer(function), groups, timeout_s=10)}["alone"]
        for function in (lengths, ranks)
    ]
    assert "`cache: completion` is safe" in details[0] and "`cache: group`" in details[1]


def test_a_reward_that_dies_on_a_bare_prompt_is_found() -> None:
    def needs_reference(group: Group) -> list[Score]:
        error = None if group.prompt.reference else "the actor died while scoring: SIGSEGV"
        return [replace(score, error=error) for score in lengths(group)]

    assert bad(needs_reference) == ["bare prompt"]


TAGS = {"target": "rlcore.rewards.rules:TagFormat", "args": {"tags": ["think", "answer"]}}
MATCH = {"target": "rlcore.rewards.rules:ExactMatch", "args": {"key": "label"}}


@pytest.mark.parametrize(
    ("target", "args"),
    [
        ("rules:TagFormat", TAGS["args"]),
        ("rules:RegexFormat", {"pattern": ".*voice.*"}),
        ("rules:ExactMatch", {"key": "label", "extract": "<answer>(.*?)</answer>"}),
        ("rules:RegexMatch", {"key": "label"}),
        ("rules:Length", {"maximum": 8, "slack": 8, "unit": "words"}),
        ("rules:Repetition", {"n": 2}),
        ("combine:WeightedSum", {"rewards": {"form": {**TAGS, "weight": 0.3}, "match": MATCH}}),
        ("combine:Product", {"rewards": {"form": TAGS, "match": MATCH}}),
        ("combine:Gate", {"gate": TAGS, "reward": MATCH}),
        ("judge:OpenAIJudge", {"model": "m", "question": "?", "dimensions": {"a": 1}, "api_key_env": None}),
        ("http_service:HTTPReward", {}),
    ],
)
def test_ready_rewards_pass_the_check(target: str, args: dict) -> None:
    """Those of models are held by tests of their own."""

    def answer(path, headers, body):
        if path == "/score":
            rows = [[{"value": len(c["text"])} for c in group["completions"]] for group in body["groups"]]
            return 200, {}, json.dumps({"scores": rows})
        grades = json.dumps({"a": 1 + len(body["messages"][1]["content"]) % 5})
        return 200, {}, json.dumps({"choices": [{"message": {"content": grades}}]})

    with service(answer) as url:
        address = {"judge": {"base_url": f"{url}/v1"}, "http_service": {"url": f"{url}/score"}}
        args = {**args, **address.get(target.partition(":")[0], {})}
        config = RewardConfig(target=f"rlcore.rewards.{target}", args=args)
        groups = [replace(g, completions=g.completions[:3]) for g in generated_groups({"label": "sad"})]
        findings = list(check_reward(RewardWorker("ready", config), groups, timeout_s=60))
    assert [(f.name, f.detail) for f in findings if not f.ok] == []
    assert len(findings) > 8


def test_recorded_samples_read_back_as_groups(tmp_path: Path) -> None:
    groups = [
        Group(
            prompt=Prompt(id=f"p{i}", text="?", media={"audio": "a.wav"}, reference={"label": "sad"}),
            prompt_token_ids=(1,),
            completions=(completion_of("one two", 5), completion_of("", 3, "length")),
        )
        for i in range(2)
    ]
    scores = {"words": [[Score(1.0), Score(0.0)]] * 2}
    with Tracker(tmp_path, {}) as tracker:
        tracker.log_samples(1, groups, scores, rewards=np.zeros((2, 2)))
        tracker.log_samples(2, groups[:1], {"words": scores["words"][:1]}, split="eval")
    path = tmp_path / "samples.jsonl"
    read = read_groups(path)
    assert [(row["step"], row["split"], group.prompt.id) for row, group in read] == [
        (1, "train", "p0"),
        (1, "train", "p1"),
        (2, "eval", "p0"),
    ]
    group = read[0][1]
    assert [(c.text, len(c.token_ids), c.finish_reason) for c in group.completions] == [
        ("one two", 5, "stop"),
        ("", 3, "length"),
    ]
    assert (group.prompt.media, group.prompt.reference) == ({"audio": "a.wav"}, {"label": "sad"})
    assert len(read_groups(path, limit=1)) == 1


def test_a_reward_is_tried_on_groups_of_the_training(tmp_path: Path) -> None:
    """A run's file begins with its first evaluation, a row for each prompt."""
    rows = [
        {"step": step, "split": split, "prompt": f"p{p}", "sample": k, "policy_version": 0}
        | {"text": "x" * k, "tokens": 1, "finish_reason": "stop"}
        for step, split, count in ((0, "eval", 1), (1, "train", 4), (1, "eval", 1))
        for p in range(3)
        for k in range(count)
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = recorded_groups(path, limit=2)
    assert [(g.prompt.id, [c.text for c in g.completions]) for g in groups] == [
        ("p0", ["", "x", "xx", "xxx"]),
        ("p1", ["", "x", "xx", "xxx"]),
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    with pytest.raises(DataError, match=r"samples\.jsonl: it holds no samples of the training"):
        recorded_groups(path, limit=2)


def test_made_up_answers_to_a_tasks_prompts_keep_media_and_reference() -> None:
    prompts = [
        Prompt(id=f"p{i}", text="?", media={"audio": f"{i}.wav"}, reference={"label": i}) for i in range(10)
    ]
    groups = asked_groups(prompts, limit=4)
    assert [g.prompt for g in groups] == [prompts[0], prompts[2], prompts[5], prompts[7]]
    answers = {c.text for c in groups[0].completions}
    assert all({c.text for c in g.completions} == answers and len(answers) == 8 for g in groups)
    assert len(asked_groups(prompts, limit=99)) == 10
    with pytest.raises(DataError, match="no prompts of the split train"):
        asked_groups([], limit=4)


def test_a_failure_in_a_large_batch_alone_is_found() -> None:
    class Memory(Scorer):
        def score(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
            rows = super().score(groups, context)
            if len(groups) < 32:
                return rows
            return [[replace(score, error="out of memory") for score in row] for row in rows]

    findings = list(check_reward(Memory(lengths), generated_groups({}), timeout_s=10))
    (bad_one,) = [f for f in findings if not f.ok]
    assert bad_one.name == "batch of 32" and "256 of 256 failed; the first: " in bad_one.detail


def test_files_that_hold_no_samples_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(DataError, match=r"metrics\.jsonl: no such file"):
        read_groups(path)
    path.write_text(json.dumps({"step": 1, "loss": 2}) + "\n")
    with pytest.raises(
        DataError, match=r"metrics\.jsonl:1: no sample of a run, it lacks \['split', 'prompt'"
    ):
        read_groups(path)
    path.write_text("not JSON\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: not a JSON object"):
        read_groups(path)
