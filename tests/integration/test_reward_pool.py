"""Rewards in real Ray actors, doing what rewards of users do: every fault is named, costs its own group
alone, and never hangs the step or passes for a zero."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray

from rlcore import cli
from rlcore.actors.placement import Bundle, reserve
from rlcore.actors.reward_pool import RewardPool
from rlcore.actors.watch import Watch
from rlcore.config import RewardConfig
from rlcore.errors import ActorError, RewardError
from rlcore.rewards.policy import apply_error_policy
from rlcore.types import Completion, Group, Prompt, RewardContext

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
CONTEXT = RewardContext(step=3)
SUPPORT = str(Path(__file__).parents[1] / "support")
PYTHONPATH = os.pathsep.join(filter(None, [SUPPORT, os.environ.get("PYTHONPATH")]))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PYTHONPATH}


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        resources={"rack": 1},
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": ENVIRONMENT["PYTHONPATH"]}},
    )
    yield
    ray.shutdown()


def group(name: str, *texts: str) -> Group:
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    prompt = Prompt(id=name, text="", media={"audio": f"{name}.wav"}, reference={"label": name})
    return Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)


@contextmanager
def pool(attribute: str, **settings) -> Iterator[RewardPool]:
    config = RewardConfig(target=f"faulty_rewards:{attribute}", num_cpus=0.1, **settings)
    actors = RewardPool("mine", config, startup_timeout_s=30)
    try:
        actors.call("ready", timeout_s=60)
        yield actors
    finally:
        actors.shutdown()


def score(actors: RewardPool, groups: list[Group]):
    """As the controller asks."""
    return actors.score(groups, CONTEXT)


def values(scores) -> list[list[float | None]]:
    return [[None if s.error else s.value for s in row] for row in scores]


def test_batches_go_to_free_replicas_and_come_back_in_order() -> None:
    groups = [group(f"p{i}", "x" * i, "y" * (i + 1)) for i in range(7)]
    with pool("Scripted", args={"scale": 2.0}, replicas=2, batch_size=2) as actors:
        scores = score(actors, groups)
        assert values(scores) == [[2.0 * i, 2.0 * (i + 1)] for i in range(7)]
        assert len({s.parts["pid"] for row in scores for s in row}) == 2
        assert score(actors, []) == []


def test_functions_plain_async_and_of_groups() -> None:
    with pool("words", args={"scale": 10}) as actors:
        (row,) = score(actors, [group("a", "one two", "raise", "")])
        assert values([row]) == [[23.0, None, 3.0]]
        assert row[1].error.startswith("ValueError: unreadable\nTraceback")
        assert "in words" in row[1].error and "base.py" not in row[1].error
    with pool("ranked") as actors:
        assert values(score(actors, [group("a", "xxx", "", "yy")])) == [[2.0, 0.0, 1.0]]
    with pool("in_time") as actors:  # a handler of signals needs the main thread
        assert values(score(actors, [group("a", "x")])) == [[60.0]]
    with pool("slowly") as actors:
        scores = score(actors, [group("a", *["x"] * 8), group("b", *["yy"] * 8)])
        assert values(scores) == [[1.0] * 8, [2.0] * 8]
        assert {s.parts["most_in_flight"] for row in scores for s in row} == {16.0}


@pytest.mark.parametrize("attribute", ["Scripted", "Batched"])
def test_what_raises_is_named_with_its_traceback_and_costs_its_group_alone(attribute: str) -> None:
    groups = [group("good", "abc", "de"), group("bad", "x", "raise"), group("late", "z", "")]
    with pool(attribute) as actors:
        scores = score(actors, groups)
    assert values(scores) == [[3.0, 2.0], [None, None], [1.0, 0.0]]
    assert scores[1][0].error.startswith("KeyError: 'no such key'\nTraceback (most recent call last):")
    assert 'raise KeyError("no such key")' in scores[1][0].error
    with pytest.raises(
        RewardError, match=r"rewards.mine: failed on completion 0 of prompt 'bad': KeyError"
    ) as e:
        apply_error_policy("mine", groups, scores, "abort")
    assert "in act" in str(e.value)
    np.testing.assert_array_equal(
        apply_error_policy("mine", groups, scores, "mask"), [[3, 2], [np.nan, np.nan], [1, 0]]
    )


def test_nan_and_a_wrong_length_are_named() -> None:
    with pool("Scripted") as actors:
        scores = score(actors, [group("a", "nan", "ok"), group("b", "short", "x")])
    assert [s.error for s in scores[0]] == ["value is nan; it must be a finite number", None]
    assert [s.error for s in scores[1]] == ["returned 1 scores for 2 completions"] * 2


def test_what_hangs_is_killed_at_its_deadline_and_the_rest_is_scored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    groups = [group("a", "x", "xx"), group("bad", "x", "hang"), group("c", "xxx", "")]
    with pool("Scripted", timeout_s=1.0, retries=0) as actors:
        began = time.monotonic()
        scores = score(actors, groups)
        assert time.monotonic() - began < 25
        assert values(scores) == [[1.0, 2.0], [None, None], [3.0, 0.0]]
        late = "no answer within timeout_s = 1 s; the actor was killed; threads of process "
        assert scores[1][1].error.startswith(late) and "act (faulty_rewards.py:" in scores[1][1].error
        assert "failed on 2 completions; the first: completion 0 of prompt 'bad'" in caplog.text
        assert values(score(actors, groups[:1])) == [[1.0, 2.0]]  # and the next step goes on


def test_a_killed_actor_is_named_and_started_anew(tmp_path: Path) -> None:
    groups = [group("a", "x"), group("bad", "kill"), group("c", "xxx")]
    with pool("Batched", retries=0) as actors:
        scores = score(actors, groups)
        assert values(scores) == [[1.0], [None], [3.0]]
        assert "the actor died while scoring" in scores[1][0].error
        with pytest.raises(RewardError, match="completion 0 of prompt 'bad': the actor died"):
            apply_error_policy("mine", groups, scores, "abort")
    with pool("Scripted", retries=1) as actors:  # what failed once is tried again
        text = f"once:{tmp_path / 'marker'}"
        assert values(score(actors, [group("a", text)])) == [[float(len(text))]]


def test_one_that_is_frozen_is_killed_long_before_the_deadline_and_its_groups_are_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One process is stopped, one keeps Python's lock; a third is busy for longer than they are silent."""
    stopped, locked = (f"{fault}:{tmp_path / fault}" for fault in ("stop", "lock"))
    settings = {"timeout_s": 1000, "replicas": 3, "batch_size": 1, "retries": 1}
    with pool("Scripted", **settings) as actors, closing(Watch([actors])):
        scores = score(actors, [group("a", stopped), group("b", locked), group("c", "sleep 20")])
        assert values(scores) == [[float(len(stopped))], [float(len(locked))], [8.0]]
        silences = [reason for reason in actors.lost_calls if "gave no sign of life for 15 s" in reason]
        assert len(silences) == 2 == actors.lost_calls.total()
        assert all("act (faulty_rewards.py:" in reason for reason in silences)
        assert (
            len(re.findall(r"reward:mine\[[01]\] on [\d.]+ is killed: process \d+ gave no", caplog.text)) == 2
        )


def test_check_fails_a_reward_that_hung_and_was_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ["reward", "check", "faulty_rewards:HangsOnce", f"args.marker={tmp_path / 'marker'}"]
    command = [sys.executable, "-m", "rlcore.cli", *target, "timeout_s=1"]  # a Ray of its own, as a user's
    checked = subprocess.run(command, capture_output=True, text=True, timeout=100, env=ENVIRONMENT)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 1 and "(raylet)" not in said, said
    assert "FAIL  lost calls           1: no answer within timeout_s = 1 s; the actor was killed" in said
    assert said.count("FAIL") == 1 and "48 finite scores for 48 completions of 6 groups" in said
    assert cli.main([*target, "timeout_s=1"]) == 0  # its marker is there
    assert "FAIL" not in capsys.readouterr().out


def test_a_reward_that_listens_is_checked_before_any_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as audio:
        audio.setparams((1, 2, 8000, 0, "NONE", ""))
        audio.writeframes(bytes(2 * 4000))
    args = f"{{audio: {tmp_path / 'a.wav'}}}"
    config = f"model: {{path: m}}\ntask: {{target: 'faulty_rewards:Recordings', args: {args}}}\n"
    (tmp_path / "run.yaml").write_text(config)
    words = ["reward", "check", "faulty_rewards:heard", "--config", str(tmp_path / "run.yaml")]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "48 finite scores for 48 completions of 6 groups" in said
    assert "range                1.5 to 114, mean" in said  # half a second for each of 3 to 228 letters
    assert cli.main(["reward", "check", "faulty_rewards:heard"]) == 1  # made-up prompts have no recording
    assert "KeyError: 'audio'" in capsys.readouterr().out


def test_groups_of_one_thread_do_not_wait_for_those_of_another() -> None:
    """A replica hangs on the first thread's group; the second thread's come back long before."""
    with ThreadPoolExecutor(2) as threads, pool("Scripted", timeout_s=8, replicas=2, retries=0) as actors:
        slow = threads.submit(score, actors, [group("a", "hang")])
        time.sleep(0.5)
        quick = [threads.submit(score, actors, [group(f"b{i}", "x")]) for i in range(3)]
        assert [values(each.result(timeout=6)) for each in quick] == [[[1.0]]] * 3
        assert not slow.done()
        assert values(slow.result(timeout=30)) == [[None]]


def test_where_nothing_works_the_pool_gives_up() -> None:
    groups = [group(f"p{i}", "hang") for i in range(40)]
    with pool("Scripted", timeout_s=0.5, retries=3, batch_size=4) as actors:
        began = time.monotonic()
        scores = score(actors, groups)
        assert time.monotonic() - began < 40
    assert values(scores) == [[None]] * 40
    assert "given up after 4 failed calls in a row: no answer within" in scores[39][0].error


def test_a_run_that_ends_does_not_wait_for_what_hangs() -> None:
    with ThreadPoolExecutor(1) as waiting, pool("Scripted", timeout_s=100) as actors:
        scores = waiting.submit(score, actors, [group("a", "hang")])
        time.sleep(1)
        actors.shutdown()
        began = time.monotonic()
        ((only,),) = scores.result(timeout=10)
    assert only.error == "the run was ending" and time.monotonic() - began < 10


def test_replicas_that_cannot_start(tmp_path: Path) -> None:
    with (
        pytest.raises(ActorError, match=r"reward:mine\[0\] died in ready.*no such weights"),
        pool("Unbuildable"),
    ):
        pass
    with pool("DiesThenFails", args={"marker": str(tmp_path / "m")}) as actors:
        for _ in range(2):
            (score_of_a,) = score(actors, [group("a", "x")])[0]
            assert "no replica is left" in score_of_a.error
            assert "the weights are gone" in score_of_a.error


def test_equal_content_is_scored_once() -> None:
    first, second = group("a", "x", "once"), group("a", "x", "kill")
    with pool("Scripted", cache="completion", replicas=2, batch_size=1, retries=0) as actors:
        pid = score(actors, [first])[0][0].parts["pid"]
        scores = score(actors, [second])
        assert scores[0][0].parts["pid"] == pid and scores[0][1].error is not None
    with pool("ranked", cache="group") as actors:
        assert values(score(actors, [group("a", "", "yy")])) == [[0.0, 1.0]]
        assert values(score(actors, [group("a", "xxx", "yy")])) == [[1.0, 0.0]]


def test_environment_and_custom_resources_of_the_replicas() -> None:
    runtime_env = {"env_vars": {"A_SETTING": "7"}}
    config = RewardConfig(target="faulty_rewards:environment", resources={"rack": 1}, runtime_env=runtime_env)
    reservation = reserve([Bundle(role="reward:mine", num_cpus=0.1, custom=(("rack", 1.0),))], timeout_s=20)
    actors = RewardPool("mine", config, reservation=reservation, env_vars={"A_SETTING": "1"})
    try:
        assert values(score(actors, [group("a", "x")])) == [[7.0]]
    finally:
        actors.shutdown()
        reservation.release()
