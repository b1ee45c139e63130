"""The training loop.

    prompts -> rollouts -> scored groups -> mixed rewards -> advantages -> batch -> update -> weight push
       ^       (vLLM)      (rewards,                                            (DeepSpeed)      |
       |                    reference)                                                           |
       +--------------------------------- next step <--------------------------------------------+

`Controller.train_step` is this line, each arrow a call downward. Who waits for whom:

- The controller waits for the step's round of scored groups, for the learner, and for the push; each wait has
  a deadline.
- Rewards and reference start on groups as they finish, while others are generated.
- The learner's ranks update together. Then engines take the new weights between two tokens.
- With `train.staleness: 0` the next prompts wait for the new weights. Above, the rollouts of the following
  steps go on during update and push, and `rlcore.loop.rounds` bounds how far.

Every token knows the version of the weights that wrote it.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlcore.actors.crew import Actors
from rlcore.actors.group import ActorGroup
from rlcore.actors.learner_worker import start_learner
from rlcore.algorithms.budget import check_fits
from rlcore.config import RunConfig
from rlcore.errors import LogprobError
from rlcore.loop.batch import Advantages, build_batch, estimate_advantages, rank_batches, shape_rewards
from rlcore.loop.metrics import (
    batch_metrics,
    completion_metrics,
    environment_metrics,
    reward_metrics,
    staleness_metrics,
)
from rlcore.loop.mixing import Mixer
from rlcore.loop.moving_reference import MovingReference
from rlcore.loop.rollouts import RolloutPipeline
from rlcore.loop.scored import Scores, columns, is_over_budget
from rlcore.loop.scoring import Scoring
from rlcore.loop.weight_push import WeightPush
from rlcore.records.timeline import Clock, Recorder
from rlcore.types import Group, Prompt, TrainBatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """A step's result holds what one step produced, for tracking."""

    step: int
    metrics: dict[str, float]
    groups: list[Group]
    scores: Scores
    rewards: np.ndarray
    """float64 [G, K]: what the advantages are of, KL and over-long penalty included."""
    advantages: Advantages


class Controller:
    """Owns the loop and what a checkpoint needs of it beside the learner: step, policy version, reward
    schedule, statistics, and which prompts have been used. `close` ends its threads."""

    def __init__(
        self,
        config: RunConfig,
        prompts: Sequence[Prompt],
        actors: Actors,
        recorder: Recorder | None = None,
    ):
        self.config, self.actors = config, actors
        self.recorder = recorder or Recorder()
        self.step = 0
        self.num_restarts = 0
        """Times that the learner was started anew."""
        self.scoring = Scoring(config, actors, self.recorder)
        self.mixer = Mixer(config)
        self.weights = WeightPush(config, actors, self.recorder)
        self.reference = MovingReference(config, actors, self.recorder)
        self.rollouts = RolloutPipeline(
            config,
            prompts,
            actors.rollout,
            score=self.scoring.submit,
            counts=self.mixer.counts,
            restore=self.weights.restore,
        )

    @property
    def num_replicas(self) -> int:
        """Returns the number of rollout replicas that stand."""
        return len(self.actors.rollout.standing)

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
            self.reference.follow(self.step)
            after_step(result)
            del result  # its groups make room for the next step's
        self.rollouts.stop()

    def train_step(self) -> StepResult:
        """Runs one turn of the loop: the line in the module's docstring.

        Raises what its stages raise, among them RewardError, DataError, WeightSyncError and DeadlineError.
        """
        algorithm, version = self.config.algorithm, self.weights.version
        clock = Clock(self.recorder, self.step + 1)
        num_encoded = self.rollouts.num_encoded

        self.rollouts.open(self.step)
        round_ = self.rollouts.take(self.step, clock)
        scored = round_.groups
        mixed = self.mixer.mix(scored, self.step)
        self.mixer.advance(scored, self.step)
        rewards = shape_rewards(mixed, scored, algorithm, self.config.rollout)
        advantages = estimate_advantages(rewards, mixed, scored, algorithm)
        batch = build_batch(scored, advantages, version)
        staleness = staleness_metrics(scored, version)
        assert staleness["staleness/max"] <= self.config.train.staleness, (staleness, version)
        update = self.update(batch, clock)
        if not update["update_skipped"]:
            with clock.phase("weight_sync"):
                self.push_weights()
        self.check_logprobs(update)

        metrics = {
            **reward_metrics(scored, mixed, rewards),
            **completion_metrics(scored),
            **(environment_metrics(scored) if self.config.rollout.environment.target else {}),
            **batch_metrics(batch, mixed, advantages),
            "dropped_samples": float(is_over_budget(scored, self.config.learner.micro_batch_tokens).sum()),
            **update,
            **{f"seconds/{name}": seconds for name, seconds in clock.seconds.items()},
            **staleness,
            "rollout/replaced_prompts": float(round_.num_replaced),
            "rollout/cancelled_prompts": float(round_.num_cancelled),
            "rollout/dropped_prompts": float(round_.num_dropped),
            "rollout/failed_prompts": float(round_.num_failed),
            "rollout/replicas": float(self.num_replicas),
            "rollout/restarts": float(self.actors.rollout.num_restarts),
            "learner/restarts": float(self.num_restarts),
            "reference/restarts": float(self.actors.reference.num_restarts if self.actors.reference else 0),
            "media/encoded": float(self.rollouts.num_encoded - num_encoded),
            "policy_version": float(self.weights.version),
        }
        self.scoring.statistics = {
            k: v for k, v in metrics.items() if k.startswith("reward/") and np.isfinite(v)
        }
        return StepResult(
            step=self.step,
            metrics=metrics,
            groups=[one.group for one in scored],
            scores=columns(scored),
            rewards=rewards,
            advantages=advantages,
        )

    def update(self, batch: TrainBatch, clock: Clock) -> dict[str, float]:
        """Trains on the batch; rollouts that run ahead go on meanwhile. A batch with fewer completions than
        the learner has ranks, because the rest was left out, changes nothing (`update_skipped` is 1).

        Raises DataError where a sample exceeds the learner's budget. Those that are to be dropped were masked
        before the advantages.
        """
        learner = self.config.learner
        check_fits(batch.groups, learner.micro_batch_tokens)
        if batch.num_sequences < learner.num_ranks:
            return {"update_skipped": 1.0}
        if self.config.cluster.colocate:
            self.actors.rollout.sleep(timeout_s=self.config.rollout.timeout_s)
        with clock.phase("update"), self.recorder.span("learner", "update", self.step + 1):
            parts = rank_batches(batch, learner)
            call = self.learner.call_each_async("update", parts)
            update = self.rollouts.wait(call, timeout_s=learner.timeout_s)[0]
        if not update["current_fraction"]:
            del update["logprob_max_diff"]  # there was nothing to compare
        return {**update, "update_skipped": 0.0}

    def check_logprobs(self, update: Mapping[str, float]) -> None:
        """Warns or aborts when rollout and learner log-probabilities disagree. Only tokens sampled from the
        current weights are compared.

        Raises LogprobError above the threshold where `train.on_logprob_diff` is `abort`.
        """
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
        """Returns the learner's ranks. A run that only evaluates has none."""
        return self.actors.needed_learner

    def restart_learner(self) -> None:
        """Starts all ranks of the learner anew, from `model.path`: when one dies, its process group does. The
        caller loads a checkpoint, takes the controller's state back with it, and pushes the weights."""
        self.num_restarts += 1
        self.learner.restart_all()
        start_learner(self.learner, timeout_s=self.config.cluster.startup_timeout_s)

    def push_weights(self) -> None:
        """Brings the learner's weights into the engines, as the next version."""
        self.weights.push(self.step)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        greedy: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Group] | None:
        """Generates groups in the prompts' order; greedy gives one completion each. Returns None where
        `should_stop` ended it."""
        return self.rollouts.generate(prompts, step=self.step, greedy=greedy, should_stop=should_stop)

    def score(self, groups: list[Group]) -> Scores:
        """Returns every reward's scores of some groups, failures included."""
        return self.scoring.score(groups, self.step)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs, as JSON values."""
        return {
            "step": self.step,
            "policy_version": self.weights.version,
            "schedule": self.mixer.schedule.state_dict(),
            "statistics": self.scoring.statistics,
            "rounds": self.rollouts.buffer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned. What is under way is given up."""
        self.step = int(state["step"])
        # Never lower than what engines were given: two policies of a run have two versions.
        self.weights.version = max(self.weights.version, int(state["policy_version"]))
        self.mixer.load_state_dict(state["schedule"])
        self.scoring.statistics = dict(state["statistics"])
        self.rollouts.load_state_dict(state["rounds"], step=self.step)

    def close(self) -> None:
        """Ends the threads; what they wait for ends with the actors."""
        self.scoring.close()
