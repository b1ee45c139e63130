"""The training loop.

    prompts -> rollout (vLLM) -> rewards (actors) -> mix (PTR) -> advantage -> batch -> update (DeepSpeed)
       ^                            | reference                                            |
       +---------------------- weight sync (version + 1) <--------------------------------+

One controller drives the actors and waits for each arrow with a deadline: the rollout actors share the
prompts of a step; every reward and the reference start on the finished groups at once and the slowest is
waited for; the learner's ranks update together; the rollout actors take the new weights before the next
prompts. A completion always carries the version of the weights that wrote it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlcore.actors.group import ActorGroup
from rlcore.algorithms.advantage import group_advantages, groups_with_signal
from rlcore.algorithms.ptr import MixedRewards, ProgressiveGate, annealing, mix_rewards
from rlcore.batch import build_batch, is_truncated, shape_rewards
from rlcore.budget import fit_batch
from rlcore.config import RunConfig
from rlcore.errors import DeadlineError, RLCoreError, WeightSyncError
from rlcore.prompts import PromptStream
from rlcore.rewards.policy import apply_error_policy
from rlcore.types import Group, Prompt, RewardContext, Score, TrainBatch
from rlcore.weight_sync.store import call_off

Scores = dict[str, list[list[Score]]]
"""Reward name to its scores, [G][K]."""

_MARGIN_S = 15.0
"""Added to the wait for a push, whose own deadline says more."""


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Everything that runs elsewhere."""

    rollout: ActorGroup
    rewards: Mapping[str, ActorGroup]
    learner: ActorGroup | None
    """Absent where a policy is only evaluated."""
    reference: ActorGroup | None
    """Absent where no KL is asked for."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step produced, for tracking."""

    step: int
    metrics: dict[str, float]
    groups: list[Group]
    scores: Scores
    mixed: MixedRewards
    advantages: np.ndarray
    """float32 [G, K]"""


@dataclass
class Clock:
    """Seconds spent in each phase of a step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class Controller:
    """Owns the loop and the run's only state outside the learner: gate, step and policy version."""

    def __init__(self, config: RunConfig, prompts: Sequence[Prompt], actors: Actors):
        self.config = config
        self.prompts = prompts
        self.actors = actors
        self.stream = PromptStream(len(prompts), config.train.prompts_per_step, config.seed)
        ptr = config.algorithm.ptr
        self.gate = ProgressiveGate(ptr.threshold, ptr.window, ptr.max_spread)
        self.step = 0
        self.policy_version = 0

    def train(
        self, num_steps: int, *, after_step: Callable[[StepResult], None], should_stop: Callable[[], bool]
    ) -> None:
        """Runs from the current step up to `num_steps`; `after_step` logs, evaluates and checkpoints."""
        while self.step < num_steps and not should_stop():
            result = self.train_step()
            self.step += 1
            after_step(result)

    def train_step(self) -> StepResult:
        """One turn of the loop."""
        clock = Clock()
        prompts = [self.prompts[i] for i in self.stream.indices(self.step)]
        with clock.phase("rollout"):
            groups = self.generate(prompts)
        stats = self.actors.rollout.call("stats", timeout_s=self.config.rollout.timeout_s)
        with clock.phase("score"):
            scores, reference_logprobs = self.score(groups, with_reference=True)
        algorithm = self.config.algorithm
        mixed, factor = self.mix(groups, scores)
        max_tokens = self.config.rollout.max_tokens
        rewards = shape_rewards(mixed, groups, reference_logprobs, algorithm, max_tokens=max_tokens)
        keep = rewards.mask
        if algorithm.drop_groups_without_signal:
            keep = keep & groups_with_signal(rewards.rewards, keep)[:, None]
        advantages = group_advantages(
            rewards.rewards, keep, estimator=algorithm.advantage, eps=algorithm.std_eps
        )
        batch = build_batch(groups, advantages, keep, reference_logprobs, self.policy_version)
        update = self.update(batch, clock)
        metrics = {
            **_reward_metrics(scores, rewards, factor),
            **_completion_metrics(groups),
            **_batch_metrics(batch, rewards.mask, keep),
            **update,
            **{f"seconds/{name}": seconds for name, seconds in clock.seconds.items()},
            "media/encoded": float(sum(one["media_encoded"] for one in stats)),
            "policy_version": float(self.policy_version),
        }
        return StepResult(
            step=self.step,
            metrics=metrics,
            groups=groups,
            scores=scores,
            mixed=rewards,
            advantages=advantages,
        )

    def update(self, batch: TrainBatch, clock: Clock) -> dict[str, float]:
        """Trains on the batch and brings the weights to the engines. A batch with fewer completions than the
        learner has ranks, because the rest was left out, changes nothing: the weights stay as they are.

        Raises DataError where a sample exceeds the learner's budget, unless those are to be dropped."""
        learner = self.config.learner
        batch, num_dropped = fit_batch(batch, learner.micro_batch_tokens, learner.over_budget)
        dropped = {"dropped_samples": float(num_dropped)}
        if batch.num_sequences < learner.num_ranks:
            return {"update_skipped": 1.0, **dropped}
        with clock.phase("update"):
            update = self.learner.call("update", batch, timeout_s=learner.timeout_s)[0]
        with clock.phase("weight_sync"):
            self.push_weights()
        return {**update, "update_skipped": 0.0, **dropped}

    @property
    def learner(self) -> ActorGroup:
        assert self.actors.learner is not None, "spawned for evaluation only"
        return self.actors.learner

    def generate(self, prompts: Sequence[Prompt], *, greedy: bool = False) -> list[Group]:
        """Groups in the prompts' order; greedy gives one completion each."""
        pending = self.actors.rollout.call_shards_async(
            "generate", prompts, step=self.step, greedy=greedy, policy_version=self.policy_version
        )
        return pending.result(timeout_s=self.config.rollout.timeout_s)

    def score(
        self, groups: list[Group], *, with_reference: bool = False
    ) -> tuple[Scores, list[list[np.ndarray]] | None]:
        """Every reward, and the reference's log-probabilities where wanted, all at the same time."""
        context = RewardContext(step=self.step, num_steps=self.config.train.num_steps)
        pending = {
            name: actors.call_shards_async("score", groups, context=context)
            for name, actors in self.actors.rewards.items()
        }
        reference = self.actors.reference if with_reference else None
        pending_reference = reference.call_shards_async("logprobs", groups) if reference else None
        scores = {
            name: call.result(timeout_s=self.config.rewards[name].timeout_s) for name, call in pending.items()
        }
        logprobs = (
            pending_reference.result(timeout_s=self.config.reference.timeout_s) if pending_reference else None
        )
        return scores, logprobs

    def mix(self, groups: list[Group], scores: Scores) -> tuple[MixedRewards, float]:
        """The reward of each completion, and the factor on the reasoning reward; moves the gate on by one
        step."""
        ptr, rewards = self.config.algorithm.ptr, self.config.rewards
        values = {
            name: apply_error_policy(name, groups, per_group, rewards[name].on_error)
            for name, per_group in scores.items()
        }
        factor = 1.0
        if ptr.outcome is not None and ptr.schedule == "progressive":
            known = values[ptr.outcome][np.isfinite(values[ptr.outcome])]
            factor = float(self.gate.update(float(known.mean()) if known.size else float("nan")))
        elif ptr.schedule == "anneal":
            factor = annealing(self.step, ptr.anneal_steps or self.config.train.num_steps)
        mixed = mix_rewards(
            values,
            {name: rewards[name].weight for name in values},
            outcome=ptr.outcome,
            reasoning=ptr.reasoning,
            trust=ptr.trust,
            factor=factor,
        )
        return mixed, factor

    def push_weights(self) -> None:
        """Brings the learner's weights into every rollout engine, as the next version. Learner and engines
        take part at the same time: while they load one bucket, the learner gathers the next."""
        version, rollout = self.policy_version + 1, self.actors.rollout
        timeout_s = self.config.weight_sync.timeout_s + _MARGIN_S
        workers = self.config.rollout.workers_per_engine
        push = self.learner.call_one(
            0, "announce_push", version, range(rollout.size), workers, timeout_s=timeout_s
        )
        sending = self.learner.call_async("push_weights", push)
        try:
            versions = rollout.call("update_weights", push, timeout_s=timeout_s)
        except RLCoreError as error:
            # The learner need not wait for engines that are gone. Where it died itself, that is the cause.
            with suppress(WeightSyncError, DeadlineError):
                call_off(push, str(error))
                sending.result(timeout_s=timeout_s)
            raise
        sending.result(timeout_s=timeout_s)
        assert set(versions) == {version}, (versions, version)
        self.policy_version = version

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "policy_version": self.policy_version, "gate": self.gate.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step, self.policy_version = int(state["step"]), int(state["policy_version"])
        self.gate.load_state_dict(state["gate"])


def _reward_metrics(scores: Scores, mixed: MixedRewards, factor: float) -> dict[str, float]:
    metrics = {"reward/mean": float(mixed.rewards[mixed.mask].mean()) if mixed.mask.any() else float("nan")}
    metrics["reward/masked"] = float((~mixed.mask).sum())
    metrics["ptr/tau"], metrics["ptr/gate"] = float(mixed.tau.mean()), factor
    metrics["groups_without_signal"] = float((~groups_with_signal(mixed.rewards, mixed.mask)).mean())
    for name, per_group in scores.items():
        made = [score for group in per_group for score in group if score.error is None]
        metrics[f"reward/{name}"] = float(np.mean([s.value for s in made])) if made else float("nan")
        metrics[f"reward_errors/{name}"] = float(sum(len(group) for group in per_group) - len(made))
        for part in sorted({part for score in made for part in score.parts}):
            values = [score.parts[part] for score in made if part in score.parts]
            metrics[f"reward/{name}/{part}"] = float(np.mean(values))
    return metrics


def _completion_metrics(groups: Sequence[Group]) -> dict[str, float]:
    completions = [completion for group in groups for completion in group.completions]
    return {
        "completion/tokens": float(np.mean([len(c.token_ids) for c in completions])),
        "completion/truncated": float(is_truncated(groups).mean()),
    }


def _batch_metrics(batch: TrainBatch, mask: np.ndarray, keep: np.ndarray) -> dict[str, float]:
    """What the update saw, and what was left out."""
    return {
        "batch/sequences": float(batch.num_sequences),
        "batch/tokens": float(batch.num_tokens),
        "batch/groups_dropped": float((mask.any(axis=1) & ~keep.any(axis=1)).sum()),
    }
