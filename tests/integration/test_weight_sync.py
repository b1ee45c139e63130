"""Pushes by gloo into two real engines, in processes of their own: every wrong one is caught at once, by
name, and the next right one heals it. Shared memory: test_vllm_engine.py, and test_loop.py for engines that
die."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from tiny_models import TEXT_PROMPT, make_text
from weight_pushes import drop, flip_a_byte, heal, push_to

from rlcore.actors.group import ActorGroup
from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.config import ModelConfig, RolloutConfig, TargetConfig, WeightSyncConfig
from rlcore.engines.vllm_engine import engine_env
from rlcore.errors import MixedWeightsError, WeightSyncError
from rlcore.models.hf_model import load_model, load_processor
from rlcore.models.names import checkpoint_parameters
from rlcore.types import Prompt, RolloutJob
from rlcore.weight_sync import make_sender
from rlcore.weight_sync.base import Push

pytestmark = pytest.mark.integration

BACKEND = "gloo"
PROMPTS = [Prompt(id="p", text=TEXT_PROMPT)]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_text(tmp_path_factory.mktemp("text")))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class NoMedia:
    """A task of text alone."""

    def load_media(self, prompt: Prompt) -> dict[str, Any]:
        return {}


class Engines:
    """Rollout actors, one a group, so that one can be restarted."""

    def __init__(self, model_path: str):
        self._model_path = model_path
        self.groups = [self._start(rank) for rank in range(2)]
        for group in self.groups:
            group.call("ready", timeout_s=120)

    def _start(self, rank: int) -> ActorGroup:
        arguments = {
            "model": ModelConfig(path=self._model_path),
            "rollout": RolloutConfig(max_tokens=12, engine={"max_model_len": 128}),
            "task": TargetConfig(target=f"{__name__}:NoMedia"),
            "seed": 0,
            "weight_backend": BACKEND,
            "rank": rank,
        }
        env = {
            **engine_env(cpu=True),
            "PYTHONPATH": ":".join(("", str(Path(__file__).parents[1] / "support"))),
        }
        return ActorGroup(f"rollout{rank}", RolloutWorker, [arguments], num_cpus=0.5, env_vars=env)

    def restart(self, rank: int) -> None:
        self.groups[rank].shutdown()
        self.groups[rank] = self._start(rank)
        self.groups[rank].call("ready", timeout_s=120)

    def take(self, rank: int, push: Push) -> int:
        return self.groups[rank].call_one(0, "update_weights", push, timeout_s=60)

    def takers(self) -> list[Any]:
        return [lambda push, rank=rank: self.take(rank, push) for rank in range(2)]

    def answer(self, rank: int, version: int) -> tuple[int, ...]:
        """A greedy answer, by an engine that is believed to hold `version`."""
        (group,) = self.groups[rank].call_one(
            0, "generate", PROMPTS, step=0, greedy=True, policy_version=version, timeout_s=60
        )
        (completion,) = group.completions
        assert completion.policy_version == version
        return completion.token_ids


class Learner:
    """A model whose weights move, and a sender."""

    def __init__(self, path: str):
        self.model = load_model(path)
        self._prompt = load_processor(path)(TEXT_PROMPT, return_tensors="pt")["input_ids"]
        self.config = WeightSyncConfig(backend=BACKEND, bucket_mb=0.25, timeout_s=60)
        shapes = [(name, tuple(tensor.shape)) for name, tensor in self.weights()]
        self.sender = make_sender(self.config, shapes, dtype="float32")
        assert len(self.sender.layout.buckets) > 4

    def weights(self) -> list[tuple[str, torch.Tensor]]:
        state = self.model.state_dict()
        return [(hub_name, state[name]) for name, hub_name in checkpoint_parameters(self.model)]

    def move(self) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)

    def push(self, version: int, takers: Sequence[Any]) -> list[int]:
        return push_to(self.sender, version, self.weights(), takers)

    def answer(self) -> tuple[int, ...]:
        """What transformers answers with the weights as they are."""
        tokens = self.model.generate(self._prompt, max_new_tokens=12, do_sample=False)
        return tuple(tokens[0, self._prompt.shape[1] :].tolist())


def test_wrong_pushes_are_caught_by_name_and_healed(model_path: str) -> None:
    torch.manual_seed(0)
    engines, learner = Engines(model_path), Learner(model_path)
    initial = learner.answer()

    learner.move()
    assert learner.push(1, engines.takers()) == [1, 1]
    assert initial != learner.answer() == engines.answer(0, 1) == engines.answer(1, 1)

    # One bucket dropped: it is named, nobody generates with half the weights, and the next push heals.
    learner.move()
    drop(learner.sender, bucket=2)
    with pytest.raises(
        WeightSyncError, match=r"version 2: bucket 2 \(model.layers.* was dropped: bucket 3 came"
    ):
        learner.push(2, engines.takers())
    for rank in range(2):
        with pytest.raises(
            WeightSyncError, match=rf"rollout\[{rank}\] cannot generate since a push failed midway"
        ):
            engines.answer(rank, 1)
    # What is handed over meanwhile, as from an engine that died in the push, waits for whole weights.
    waiting = RolloutJob(id=7, prompt=PROMPTS[0], draw=0, greedy=True)
    engines.groups[0].call_one(0, "submit", [waiting], 1, timeout_s=60)
    heal(learner.sender)
    assert learner.push(3, engines.takers()) == [3, 3]
    (done,) = engines.groups[0].call_one(0, "collect", 60.0, timeout_s=90).finished
    assert done.group.completions[0].token_ids == learner.answer()
    assert learner.answer() == engines.answer(0, 3) == engines.answer(1, 3)

    # One flipped byte, in a bucket that comes after others were loaded.
    flip_a_byte(learner.sender, bucket=3)
    with pytest.raises(MixedWeightsError, match=r"version 4: .*bucket 3 \(.*\) arrived with checksum"):
        learner.push(4, engines.takers())
    heal(learner.sender)

    # A stale engine: it has missed a version, and says so where the version matters.
    learner.move()
    learner.push(5, engines.takers())
    learner.move()
    assert learner.push(6, engines.takers()[:1]) == [6]
    assert engines.answer(0, 6) == learner.answer()
    with pytest.raises(
        WeightSyncError, match=r"rollout\[1\] is stale: it holds version 5 .* version 6 was asked"
    ):
        engines.answer(1, 6)

    # An engine that dies is stale too, until it has been pushed to.
    engines.restart(1)
    with pytest.raises(WeightSyncError, match=r"rollout\[1\] is stale: it holds version 0"):
        engines.answer(1, 6)
    assert learner.push(7, engines.takers()) == [7, 7]
    assert learner.answer() == engines.answer(0, 7) == engines.answer(1, 7)

    learner.sender.close()
    for group in engines.groups:
        group.shutdown()
