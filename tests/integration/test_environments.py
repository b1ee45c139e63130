"""Completions of several turns for real: vLLM writes, actors answer, the learner reads all and learns from
what the policy wrote."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_cases import ENGINE, PROMPTS, perturb, sender_of, weights
from loop_cases import loop_config
from tiny_models import make_qwen2_audio, make_text
from weight_pushes import push_to

from rlcore.actors.environment_pool import EnvironmentPool
from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    EnvironmentConfig,
    ModelConfig,
    RolloutConfig,
    TargetConfig,
)
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.environments import Episode, Reply
from rlcore.errors import ConfigError, EnvironmentFailedError
from rlcore.models.hf_model import load_model
from rlcore.records.tracking import read_metrics
from rlcore.run import ray_session, train
from rlcore.types import Completion, Group, Prompt, RolloutJob

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400), pytest.mark.usefixtures("engine_process")]

TARGET = "environments:Answering"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"), prepend=os.pathsep)
        with ray_session(ClusterConfig(num_cpus=2)):
            yield


def test_each_failure_costs_the_episode_that_met_it() -> None:
    faults = {name: name for name in ("raise", "hang", "die", "large")}
    config = EnvironmentConfig(
        target=TARGET, args={"faults": faults}, timeout_s=2, max_observation_tokens=8, num_workers=2
    )
    defects: list[BaseException] = []
    pool = EnvironmentPool(config, "environment", defects.append)
    assert pool.stop() == ("e",)
    replies: dict[str, Reply] = {}
    names = ["fine 1", "hang", "die", "raise", "large", "fine 2", "fine 3"]
    for name in names:
        episode = Episode(prompt=Prompt(id=name, text=""), turns=("e",), observations=())
        pool.ask([(episode, lambda reply, name=name: replies.update({name: reply}))])  # type: ignore[misc]
    deadline = time.monotonic() + 100
    while len(replies) < len(names) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {name for name, reply in replies.items() if reply.error is None} == {"fine 1", "fine 2", "fine 3"}
    assert replies["fine 3"].text == " [pitch is high] "
    for name, reason in (
        ("raise", "OSError: no such measurement"),
        ("hang", "no answer within rollout.environment.timeout_s = 2 s; its process was killed"),
        ("die", "its process died"),
        ("large", "the observation has 500 characters, rollout.environment.max_observation_tokens is 8"),
    ):
        error = replies[name].error
        assert error is not None and reason in error
    with pytest.raises(ConfigError, match="environments:Shapeless must have `stop`, a list of texts"):
        EnvironmentPool(replace(config, target="environments:Shapeless", args={}), "other", defects.append)
    assert not defects


def logprobs(path: str | torch.nn.Module, group: Group) -> list[np.ndarray]:
    model = load_model(path) if isinstance(path, str) else path
    with torch.no_grad():
        return completion_logprobs(model, [TokenGroup.of(group)]).rows()


def test_every_token_has_the_logprob_of_the_weights_that_wrote_it(tmp_path: Path) -> None:
    """A push comes between two turns of an audio prompt: from there on, tokens are the new policy's."""
    path, gate = str(make_qwen2_audio(tmp_path / "model")), tmp_path / "gate"
    environment = EnvironmentConfig(
        target=TARGET,
        args={"faults": {"p0": str(gate), "raise": "raise"}},
        timeout_s=60,
        max_turns=8,
        on_error="abort",
    )
    rollout = RolloutConfig(samples_per_prompt=4, max_tokens=96, engine=ENGINE, environment=environment)
    worker = RolloutWorker(
        ModelConfig(path=path), rollout, TargetConfig(target="engine_cases:ToneTask"), seed=0
    )
    free = worker.generate(PROMPTS[1:], step=0)
    again = worker.generate(PROMPTS[1:], step=0)  # as a run does that was killed
    completions = [c for group in free for c in group.completions]
    assert [c.token_ids for group in again for c in group.completions] == [c.token_ids for c in completions]
    assert sum(len(c.observations) for c in completions) > 20
    assert max(len(c.token_ids) for c in completions) <= 96
    for group in free:
        for completion, row in zip(group.completions, logprobs(path, group), strict=True):
            assert np.abs(row - completion.logprobs)[completion.is_sampled].max() <= 1e-4
            assert not np.array(completion.logprobs)[~completion.is_sampled].any()
            assert all(o.text in completion.transcript for o in completion.observations)
            assert "[pitch" not in completion.text

    worker.submit([RolloutJob(id=9, prompt=replace(PROMPTS[1], id="raise"), draw=0)])
    with pytest.raises(EnvironmentFailedError, match=r"(?s)completion \d of prompt 'raise': OSError.*`mask`"):
        worker.collect(60)
    worker.submit([RolloutJob(id=0, prompt=PROMPTS[0], draw=0)])
    deadline = time.monotonic() + 60
    while worker._loop.engine.num_unfinished and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.stats()["num_unfinished"] == 1  # all of its samples wait for the environment
    model = load_model(path)
    perturb(model, 1, media=False)
    sender = sender_of(model, media=False)
    assert sender is not None
    push_to(sender, 1, weights(model, media=False), [worker.update_weights])
    sender.close()
    gate.touch()
    finished: list[Group | None] = []
    while not finished:
        finished += [job.group for job in worker.collect(60).finished]
    (group,) = finished
    assert group is not None
    rows = zip(group.completions, logprobs(path, group), logprobs(model, group), strict=True)
    assert {v for c in group.completions for v in c.token_versions} == {0, 1}
    for completion, old, new in rows:
        written = np.where(completion.token_versions == 0, old, new)
        assert np.abs(written - completion.logprobs)[completion.is_sampled].max() <= 1e-4
        if completion.observations:
            assert completion.version_spans[0] == (0, sum(_first_turn(completion)))
    worker._loop.close()


def _first_turn(completion: Completion) -> tuple[int, int]:
    """Tokens of the first turn and of its observation."""
    return completion.observations[0].first, completion.observations[0].num_tokens


def test_a_run_learns_from_what_the_policy_wrote_and_outlives_its_tools(tmp_path: Path) -> None:
    model = make_text(tmp_path / "text")
    faults = {"train3": "raise", "train5": "die", "train7": "large"}
    environment = EnvironmentConfig(target=TARGET, args={"faults": faults}, max_observation_tokens=32)
    config = loop_config(tmp_path / "run", model, algorithm=AlgorithmConfig(kl_coef=0.1))
    rollout = replace(config.rollout, max_tokens=64, environment=environment)
    steps = replace(config.train, num_steps=3, staleness=1, max_logprob_diff=1e-4, on_logprob_diff="abort")
    train(replace(config, rollout=rollout, train=steps))
    _, *rows = read_metrics(config.run_dir)
    assert len(rows) == 3 and all(row["environment/observations"] > 0.2 for row in rows)
    assert all(row["staleness/max"] <= 1 and row.get("logprob_max_diff", 0) <= 1e-4 for row in rows)
    assert abs(rows[0]["kl"]) < 1e-8 and rows[-1]["kl"] > 1e-8
    text = (tmp_path / "run" / "samples.jsonl").read_text()
    samples = [row for row in map(json.loads, text.splitlines()) if row["split"] == "train"]
    failed = [row for row in samples if "error" in row]
    assert {row["prompt"] for row in failed} == set(faults)
    for step, row in enumerate(rows, 1):
        of_step = [sample for sample in samples if sample["step"] == step]
        kept = [sample for sample in of_step if "error" not in sample]
        assert row["environment/failed"] == pytest.approx(1 - len(kept) / len(of_step))
        assert row["batch/sequences"] == len(kept)
        assert row["batch/tokens"] == sum(sample["tokens"] for sample in kept)
    assert any(" [pitch is high] " in row.get("transcript", "") for row in samples)
