"""The training loop.

    prompts -> rollout (vLLM) -> rewards (actors) -> mix (PTR) -> advantage -> batch -> update (DeepSpeed)
       ^                            | reference                                            |
       +---------------------- weight sync (version + 1) <--------------------------------+

One controller drives the actors and waits for each arrow with a deadline: the rollout actors share the
prompts of a step; rewards and reference start on groups as they finish, while others are generated; the
learner's ranks update together; the rollout actors take the new weights between two tokens. With
`train.staleness: 0` the next prompts wait for the new weights; above, the rollouts of the following steps go
on during update and weight sync (`rlcore.loop.rollouts`), and `rlcore.loop.rounds` bounds how far. Every
token knows the version of the weights that wrote it.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import BoundedSemaphore
from typing import Any

import numpy as np

from rlcore.actors.group import ActorGroup
from rlcore.actors.reward_pool import RewardPool
from rlcore.actors.rollout_pool import RolloutPool
from rlcore.algorithms.advantage import group_advantages, groups_with_signal
from rlcore.algorithms.batching import shard_groups
from rlcore.algorithms.budget import fit_batch
from rlcore.algorithms.process import token_advantages
from rlcore.algorithms.ptr import MixedRewards, ProgressiveGate, annealing, mix_rewards
from rlcore.config import RunConfig
from rlcore.errors import DeadlineError, LogprobError, RLCoreError, WeightSyncError
from rlcore.loop.batch import build_batch, completion_lengths, shape_rewards, train_group
from rlcore.loop.metrics import batch_metrics, completion_metrics, reward_metrics
from rlcore.loop.rollouts import RolloutPipeline, ScoredGroup, num_scorers
from rlcore.records.timeline import Clock, Recorder
from rlcore.rewards.policy import apply_error_policy
from rlcore.types import Group, Prompt, RewardContext, Score, TrainBatch, TrainGroup, repeated
from rlcore.weight_sync.messages import call_off

logger = logging.getLogger(__name__)

Scores = dict[str, list[list[Score]]]
"""Reward name to its scores, [G][K]."""

_MARGIN_S = 15.0
"""Added to the wait for a push, whose own deadline says more."""


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Everything that runs elsewhere."""

    rollout: RolloutPool
    rewards: Mapping[str, RewardPool]
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


class Controller:
    """Owns the loop and the run's only state outside the learner: gate, step, policy version, and which
    prompts have been used. `close` ends its threads."""

    def __init__(
        self,
        config: RunConfig,
        prompts: Sequence[Prompt],
        actors: Actors,
        recorder: Recorder | None = None,
    ):
        self.config, self.actors = config, actors
        self.recorder = recorder or Recorder()
        ptr = config.algorithm.ptr
        self.gate = ProgressiveGate(ptr.threshold, ptr.window, ptr.max_spread)
        self.step = 0
        self.policy_version = 0
        self.statistics: dict[str, float] = {}
        """The latest step's `reward/...` metrics, for rewards to see."""
        self.rollouts = RolloutPipeline(
            config,
            prompts,
            actors.rollout,
            score=self.score_groups,
            has_signal=self.has_signal,
            restore=self.restore_engines,
        )
        num_waiters = num_scorers(config) * (1 + len(config.rewards))
        self._waiters = ThreadPoolExecutor(num_waiters, thread_name_prefix="wait")
        # The reference's deadline is a call's, waiting for its turn included.
        self._reference_turns = BoundedSemaphore(2 * max(1, config.reference.num_replicas))

    def train(
        self, num_steps: int, *, after_step: Callable[[StepResult], None], should_stop: Callable[[], bool]
    ) -> None:
        """Runs from the current step up to `num_steps`; `after_step` logs, evaluates and checkpoints."""
        # Half a million objects that imports made stay for good. To walk through them takes 0.2 s of a step.
        gc.collect()
        gc.freeze()
        while self.step < num_steps and not should_stop():
            result = self.train_step()
            self.step += 1
            after_step(result)
            del result  # its groups make room for the next step's
        self.rollouts.stop()

    def train_step(self) -> StepResult:
        """One turn of the loop."""
        clock = Clock(self.recorder, self.step + 1)
        num_encoded = self.rollouts.num_encoded
        material = self.rollouts.next_round(self.step, clock)
        groups, scores, arrays = _columns(material.groups)
        algorithm = self.config.algorithm
        mixed, factor = self.mix(groups, scores)
        max_tokens = self.config.rollout.max_tokens
        rewards = shape_rewards(mixed, groups, arrays, algorithm, max_tokens=max_tokens)
        keep = rewards.mask
        if algorithm.drop_groups_without_signal:
            keep = keep & groups_with_signal(rewards.rewards, keep, rewards.step_values)[:, None]
        estimator, eps, lengths = algorithm.advantage_estimator, algorithm.std_eps, completion_lengths(groups)
        advantages = group_advantages(rewards.rewards, keep, estimator=estimator, eps=eps)
        of_tokens = token_advantages(
            rewards.steps,
            lengths,
            keep,
            estimator=estimator,
            eps=eps,
            discount=algorithm.step_discount,
        )
        batch = build_batch(groups, arrays, advantages, keep, self.policy_version, of_tokens)
        ages = token_ages(groups, self.policy_version)
        assert ages.max(initial=0) <= self.config.train.staleness, (ages.max(), self.policy_version)
        update = self.update(batch, clock)
        self.check_logprobs(update)
        metrics = {
            **reward_metrics(scores, rewards, factor),
            **completion_metrics(groups),
            **batch_metrics(batch, rewards.mask, keep),
            **update,
            **{f"seconds/{name}": seconds for name, seconds in clock.seconds.items()},
            "staleness/mean": float(ages.mean()) if ages.size else 0.0,
            "staleness/max": float(ages.max(initial=0)),
            "rollout/replaced_prompts": float(material.num_replaced),
            "rollout/cancelled_prompts": float(material.num_cancelled),
            "rollout/dropped_prompts": float(material.num_dropped),
            "rollout/restarts": float(self.actors.rollout.num_restarts),
            "media/encoded": float(self.rollouts.num_encoded - num_encoded),
            "policy_version": float(self.policy_version),
        }
        self.statistics = {k: v for k, v in metrics.items() if k.startswith("reward/") and np.isfinite(v)}
        return StepResult(
            step=self.step,
            metrics=metrics,
            groups=groups,
            scores=scores,
            mixed=rewards,
            advantages=advantages,
        )

    def update(self, batch: TrainBatch, clock: Clock) -> dict[str, float]:
        """Trains on the batch and brings the weights to the engines; rollouts that run ahead go on meanwhile.
        A batch with fewer completions than the learner has ranks, because the rest was left out, changes
        nothing: the weights stay as they are.

        Raises DataError where a sample exceeds the learner's budget, unless those are to be dropped."""
        learner = self.config.learner
        batch, num_dropped = fit_batch(batch, learner.micro_batch_tokens, learner.over_budget)
        dropped = {"dropped_samples": float(num_dropped)}
        if batch.num_sequences < learner.num_ranks:
            return {"update_skipped": 1.0, **dropped}
        if self.config.cluster.colocate:
            self.actors.rollout.sleep(timeout_s=self.config.rollout.timeout_s)
        with clock.phase("update"), self.recorder.span("learner", "update", self.step + 1):
            shards = shard_groups(batch.groups, learner.num_ranks)
            parts = [(replace(batch, groups=tuple(shard)),) for shard in shards]
            call = self.learner.call_each_async("update", parts)
            update = self.rollouts.wait(call, timeout_s=learner.timeout_s)[0]
        with clock.phase("weight_sync"):
            self.push_weights()
        if not update["current_fraction"]:
            del update["logprob_max_diff"]  # there was nothing to compare
        return {**update, "update_skipped": 0.0, **dropped}

    def check_logprobs(self, update: Mapping[str, float]) -> None:
        """The alarm on rollout and learner disagreeing, of tokens that the current weights wrote: of others,
        the learner's log-probabilities ought to differ.

        Raises LogprobError above the threshold where `train.on_logprob_diff` is `abort`."""
        limit, worst = self.config.train.max_logprob_diff, update.get("logprob_max_diff")
        if limit is None or worst is None or worst <= limit:
            return
        message = (
            f"step {self.step + 1}: rollout and learner differ by {worst:.3g} on a token's log-probability, "
            f"train.max_logprob_diff is {limit:g}: weights, kernels or dtype of the two do not agree"
        )
        if self.config.train.on_logprob_diff == "abort":
            raise LogprobError(message)
        logger.warning(message)

    @property
    def learner(self) -> ActorGroup:
        assert self.actors.learner is not None, "spawned for evaluation only"
        return self.actors.learner

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        greedy: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Group] | None:
        """Groups in the prompts' order; greedy gives one completion each. None where it was stopped."""
        return self.rollouts.generate(prompts, step=self.step, greedy=greedy, should_stop=should_stop)

    def score(
        self, groups: list[Group], *, step: int | None = None, with_reference: bool = False
    ) -> tuple[Scores, list[list[np.ndarray]] | None]:
        """Every reward, and the reference's log-probabilities where wanted, all at the same time."""
        step = self.step if step is None else step
        context = RewardContext(
            step=step, num_steps=self.config.train.num_steps, statistics=dict(self.statistics)
        )

        def started(actors: ActorGroup, method: str, ask: Callable[[], Any], turns: Any) -> Future[Any]:
            def wait() -> Any:
                with turns, self.recorder.span(actors.name, method, step + 1):
                    return ask()

            return self._waiters.submit(wait)

        scoring = {
            name: started(pool, "score", partial(pool.score, groups, context), nullcontext())
            for name, pool in self.actors.rewards.items()
        }
        logprobs = None
        if with_reference and self.config.algorithm.kl_coef > 0:
            reference, method, timeout_s = self.actors.reference, "logprobs", self.config.reference.timeout_s
            if reference is None:
                reference, method = self.learner, "reference_logprobs"
                timeout_s += self.config.learner.timeout_s  # an update may come first
            ask = partial(reference.call_shards, method, groups, timeout_s=timeout_s)
            logprobs = started(reference, method, ask, self._reference_turns)
        scores = {name: future.result() for name, future in scoring.items()}
        return scores, logprobs.result() if logprobs else None

    def score_groups(self, groups: list[Group], step: int) -> list[ScoredGroup]:
        """The training groups of `step`, with all that is known of them before the update."""
        scores, reference = self.score(groups, step=step, with_reference=True)
        return [
            ScoredGroup(
                group=group,
                scores={name: per_group[g] for name, per_group in scores.items()},
                arrays=train_group(group, None if reference is None else reference[g]),
            )
            for g, group in enumerate(groups)
        ]

    def has_signal(self, scored: ScoredGroup) -> bool:
        """Whether a group counts towards its step, under the schedule as it stands."""
        if not self.config.algorithm.drop_groups_without_signal:
            return True
        mixed = self._mixed([scored.group], {n: [list(row)] for n, row in scored.scores.items()}, self.factor)
        return bool(groups_with_signal(mixed.rewards, mixed.mask, mixed.step_values)[0])

    @property
    def factor(self) -> float:
        """The schedule's present factor on the reasoning reward."""
        ptr = self.config.algorithm.ptr
        if ptr.outcome is not None and ptr.schedule == "progressive":
            return float(self.gate.is_open)
        if ptr.schedule == "anneal":
            return annealing(self.step, ptr.anneal_steps or self.config.train.num_steps)
        return 1.0

    def mix(self, groups: list[Group], scores: Scores) -> tuple[MixedRewards, float]:
        """The reward of each completion, and the factor on the reasoning reward; moves the gate on by one
        step."""
        outcome = self.config.algorithm.ptr.outcome
        if outcome is not None and self.config.algorithm.ptr.schedule == "progressive":
            values = apply_error_policy(
                outcome, groups, scores[outcome], self.config.rewards[outcome].on_error
            )
            known = values[np.isfinite(values)]
            self.gate.update(float(known.mean()) if known.size else float("nan"))
        return self._mixed(groups, scores, self.factor), self.factor

    def _mixed(self, groups: list[Group], scores: Scores, factor: float) -> MixedRewards:
        ptr, rewards = self.config.algorithm.ptr, self.config.rewards
        return mix_rewards(
            {
                name: apply_error_policy(name, groups, per_group, rewards[name].on_error)
                for name, per_group in scores.items()
            },
            {name: rewards[name].weight for name in scores},
            outcome=ptr.outcome,
            reasoning=ptr.reasoning,
            trust=ptr.trust,
            factor=factor,
            token_values={
                name: [[score.token_values for score in row] for row in per_group]
                for name, per_group in scores.items()
                if any(score.token_values for row in per_group for score in row)
            },
        )

    def push_weights(self) -> None:
        """Brings the learner's weights into the rollout engines, as the next version. What they are writing
        goes on with it."""
        pool, timeout_s = self.actors.rollout, self.config.rollout.timeout_s
        if self.config.cluster.colocate:
            pool.wake_up("weights", timeout_s=timeout_s)
        self._push(self.policy_version + 1, pool.standing)
        self.policy_version += 1
        if self.config.cluster.colocate:
            pool.wake_up("kv_cache", timeout_s=timeout_s)

    def restore_engines(self) -> None:
        """Brings the current weights into engines that were started anew. Only while the learner is idle: its
        weights are the current version then."""
        self._push(self.policy_version, self.actors.rollout.stale)

    def _push(self, version: int, ranks: Sequence[int]) -> None:
        """Learner and engines take part at the same time: while they load one bucket, the learner gathers the
        next. Where an engine is lost meanwhile, the others are pushed to again."""
        pool, workers = self.actors.rollout, self.config.rollout.workers_per_engine
        timeout_s = self.config.weight_sync.timeout_s + _MARGIN_S
        ranks = list(ranks)
        if not ranks:  # all are being started, from the weights of `model.path`
            pool.expect(version)
        while ranks:
            push = self.learner.call_one(0, "announce_push", version, ranks, workers, timeout_s=timeout_s)
            with self.recorder.span("learner", "push_weights", self.step + 1):
                sending = self.learner.call_async("push_weights", push)
                try:
                    updated = pool.update_weights(push, ranks, timeout_s=timeout_s)
                except RLCoreError as error:
                    # The learner need not wait any longer. Where it died itself, that is the cause.
                    with suppress(WeightSyncError, DeadlineError):
                        call_off(push, str(error))
                        sending.result(timeout_s=timeout_s)
                    raise
                with suppress(WeightSyncError) if len(updated) < len(ranks) else nullcontext():
                    sending.result(timeout_s=timeout_s)
            ranks = sorted(set(ranks) & set(pool.stale))

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "policy_version": self.policy_version,
            "gate": self.gate.state_dict(),
            "statistics": self.statistics,
            "rounds": self.rollouts.buffer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step, self.policy_version = int(state["step"]), int(state["policy_version"])
        self.gate.load_state_dict(state["gate"])
        self.statistics = dict(state["statistics"])
        self.rollouts.buffer.load_state_dict(state["rounds"], step=self.step)

    def close(self) -> None:
        """Ends the threads; what they wait for ends with the actors."""
        self.rollouts.close()
        self._waiters.shutdown(wait=False, cancel_futures=True)


def token_ages(groups: Sequence[Group], policy_version: int) -> np.ndarray:
    """int64 [all completion tokens]: how many versions each is behind."""
    completions = [completion for group in groups for completion in group.completions]
    return policy_version - repeated([span for completion in completions for span in completion.spans])


def _columns(scored: Sequence[ScoredGroup]) -> tuple[list[Group], Scores, list[TrainGroup]]:
    """Groups, scores and arrays, each in the groups' order."""
    scores = {name: [list(one.scores[name]) for one in scored] for name in scored[0].scores}
    return [one.group for one in scored], scores, [one.arrays for one in scored]
