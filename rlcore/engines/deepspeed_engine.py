"""The learner's engine: one rank of a DeepSpeed data-parallel group that optimises the policy loss.

The engine knows forward and backward pass, optimizer and the loss of its share of a batch; not where batches
come from. Whoever takes weights asks `rlcore.engines.learner_model`. Every public method is collective: all
ranks call it, in the same order.

Exactness: losses are divided by totals of the global batch, so gradients must be *summed* over ranks and
micro-batches. DeepSpeed averages over ranks and divides by its accumulation steps: the loss is multiplied by
the world size, and the accumulation boundary is set by hand with `gradient_accumulation_steps` left at 1, so
that the number of micro-batches may change with every batch.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import deepspeed
import numpy as np
import torch
import torch.distributed as dist

from rlcore.algorithms.batching import consecutive, micro_batches, num_packed_tokens, smallest_sample
from rlcore.algorithms.budget import fit_groups
from rlcore.config import LearnerConfig, ModelConfig
from rlcore.engines import learner_checkpoint, zero
from rlcore.engines.collectives import all_reduce, batch_metrics, together
from rlcore.engines.learner_checkpoint import Progress
from rlcore.engines.learner_model import LearnerModel
from rlcore.engines.logprobs import TWO_TOKENS, CompletionLogprobs, TokenGroup, regrouped
from rlcore.engines.scorer import Scorer, check_packing
from rlcore.engines.shares import PolicyObjective, Share, SupervisedObjective, token_weights
from rlcore.engines.skipped_steps import SkippedSteps
from rlcore.engines.trainable import without_adapters
from rlcore.errors import DataError
from rlcore.models.media_modules import silent_media
from rlcore.types import TrainGroup

G = TypeVar("G", bound=TokenGroup | TrainGroup)
G_contra = TypeVar("G_contra", bound=TokenGroup | TrainGroup, contravariant=True)


class Objective(Protocol[G_contra]):
    """The loss of a global batch, micro-batch by micro-batch: `PolicyObjective`, `SupervisedObjective` or
    `PreferenceObjective`."""

    @property
    def temperature(self) -> float:
        """Temperature of the policy that sampled, and is trained."""
        ...

    @property
    def entropy_grad(self) -> bool:
        """True where `share` needs entropies with a gradient."""
        ...

    def share(self, scored: CompletionLogprobs, groups: Sequence[G_contra], index: int) -> Share:
        """Returns what micro-batch number `index` adds to the loss and the metrics of the global batch."""
        ...


class DeepSpeedEngine:
    """One rank of the learner. RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT must be in the
    environment.

    Args:
        num_steps: number of training steps, for the learning-rate schedule.
        seed: for the adapters and their dropout. Else the model stays in eval mode, so that rollout and
            learner compute the same function.
        skipped_log: file that `SkippedSteps` writes to; `None`: nowhere.
        listener: of rank 0, as for `zero.init_process_group`.

    Raises:
        ConfigError: nothing is trainable, or media modules are though the media come as embeddings.
    """

    def __init__(
        self,
        model_path: str,
        model: ModelConfig,
        learner: LearnerConfig,
        *,
        num_steps: int,
        seed: int,
        skipped_log: Path | None = None,
        listener: socket.socket | None = None,
    ):
        zero.init_process_group(learner.timeout_s, listener)
        torch.manual_seed(seed)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._config = learner
        self._seed, self._num_calls, self._num_updates = seed, 0, 0
        self._skipped = SkippedSteps(learner.max_skipped_steps, skipped_log)
        self.model = LearnerModel(model_path, model, learner)
        """The model that is trained, from which others take weights."""
        self._needs_silent_media = self.world_size > 1 and self.model.enters_media_together
        trained = list(self.model.trained.values())
        optimizer = zero.adamw(trained, learner)
        self._schedule = zero.lr_schedule(optimizer, learner, num_steps * learner.steps_per_batch)
        self._engine, *_ = deepspeed.initialize(
            model=Scorer(self.model.module, learner.compute_dtype),
            model_parameters=trained,
            optimizer=optimizer,
            lr_scheduler=self._schedule,
            config=self.model.deepspeed_config,
        )
        self._adam = zero.AdamState(self._engine, optimizer)
        check_packing(self.model.module, self._engine, compute_dtype=learner.compute_dtype)
        if learner.zero_stage == 3:
            self._engine.empty_partition_cache()

    def update(
        self, mini_batches: Sequence[tuple[Sequence[TrainGroup], PolicyObjective]]
    ) -> dict[str, float]:
        """Makes `learner.updates_per_batch` passes over the global batch, with an optimizer step for each
        mini-batch: this rank's groups, and the objective that was made for the mini-batch of all ranks.

        Returns metrics of the last pass, the same on every rank: the largest of maxima and the last of
        counters, else means over its steps. But `logprob_max_diff`, `logprob_mean_diff` and
        `current_fraction` compare the rollout engine's logprobs with the learner's before the first step, on
        the first mini-batch.

        A step whose loss or gradient is not finite is skipped: weights, Adam's state and schedule stay as
        they were, and `skipped_steps`, counted from the run's start, is one higher.

        Raises:
            NonFiniteError: more than `learner.max_skipped_steps` steps in a row were skipped.
        """
        start = time.perf_counter()
        num_passes = self._config.updates_per_batch
        # The weights have moved when a later mini-batch has its turn.
        for index, (groups, objective) in enumerate(mini_batches[1:], 1):
            if objective.recompute_logprobs:
                self._seed_dropout(index)
                self._keep_old_logprobs(groups, objective)
        passes = [[self._optimizer_step(*each) for each in mini_batches] for _ in range(num_passes)]
        num_steps = num_passes * len(mini_batches)
        num_tokens = num_passes * sum(objective.totals.num_tokens for _, objective in mini_batches)
        self._num_calls += 1
        compared = ("logprob_max_diff", "logprob_mean_diff", "current_fraction")
        first = {name: passes[0][0][name] for name in compared}
        speed = {"tokens_per_second": num_tokens / (time.perf_counter() - start)}
        return together(passes[-1]) | first | speed | {"optimizer_steps": float(num_steps)}

    @torch.no_grad()
    def _keep_old_logprobs(self, groups: Sequence[TrainGroup], objective: PolicyObjective) -> None:
        batches = self._micro_batches(groups)
        for index, scored in enumerate(self._forward(batches, groups, objective.temperature)):
            objective.old_logprobs[index] = scored.logprobs

    def supervised_update(self, groups: Sequence[TokenGroup]) -> dict[str, float]:
        """Makes one optimizer step on the weighted mean negative log-likelihood of all ranks' completion
        tokens.

        Returns metrics of the global batch, the same on every rank; `num_tokens` counts prompts too, with
        their audio. A step that is not finite is skipped as in `update`.

        Raises:
            DataError: a sample exceeds `learner.micro_batch_tokens`, and `learner.over_budget` is `error` or
                a rank keeps no sample.
            NonFiniteError: more than `learner.max_skipped_steps` steps in a row were skipped.
        """
        config = self._config
        fitting, num_dropped = fit_groups(groups, config.micro_batch_tokens, config.over_budget)
        num_fed = sum(map(num_packed_tokens, fitting))
        weight = sum(float(row.sum()) for group in fitting for row in token_weights(group))
        counts = [weight, num_dropped, not fitting, num_fed]
        total, dropped, num_idle, fed = self._all_reduce(counts, dist.ReduceOp.SUM)
        if num_idle:
            raise DataError(
                f"{num_idle:.0f} of {self.world_size} ranks have no sample within learner.micro_batch_tokens "
                f"({config.micro_batch_tokens}): raise it"
            )
        metrics = self.step(fitting, SupervisedObjective(total_weight=float(total)))
        return metrics | {"dropped_samples": float(dropped), "num_tokens": float(fed)}

    def step(self, groups: Sequence[G], objective: Objective[G]) -> dict[str, float]:
        """Makes one optimizer step on this rank's groups of a global batch; no rank may have none.

        Returns metrics of the global batch, the same on every rank. A step that is not finite is skipped as
        in `update`.

        Raises:
            NonFiniteError: more than `learner.max_skipped_steps` steps in a row were skipped.
        """
        metrics = self._optimizer_step(groups, objective)
        self._num_calls += 1
        return metrics

    @torch.no_grad()
    def answer_logprobs(self, groups: Sequence[TokenGroup], *, last: bool = False) -> list[np.ndarray]:
        """Computes log-probabilities of whole answers by the policy as it is, or of their `last` tokens, [G]
        of float64 [K]. Ranks may have different groups, or none."""
        config = self._config
        batches = consecutive(groups, config.micro_batch_tokens, config.micro_batch_audio_frames)
        rows = [row for scored in self._forward(batches, groups) for row in scored.rows()]
        rows = [row[-1:] if last else row for row in rows]
        return [np.array([row.sum(dtype=np.float64) for row in each]) for each in regrouped(rows, groups)]

    @torch.no_grad()
    def supervised_loss(self, groups: Sequence[TokenGroup]) -> float:
        """Computes the mean negative log-likelihood of all ranks' completion tokens, without an update."""
        loss = num_tokens = 0.0
        for scored in self._forward(self._micro_batches(groups), groups):
            loss -= float(scored.logprobs.sum())
            num_tokens += float(scored.mask.sum())
        total, count = self._all_reduce([loss, num_tokens], dist.ReduceOp.SUM)
        return float(total / count)

    @torch.no_grad()
    def reference_logprobs(
        self, groups: Sequence[TokenGroup], *, temperature: float = 1.0
    ) -> list[list[np.ndarray]]:
        """Computes log-probabilities, [G][K] of float32 [T], under the model that the training of adapters
        began with. Ranks may have different groups, or none."""
        config = self._config
        batches = consecutive(groups, config.micro_batch_tokens, config.micro_batch_audio_frames)
        with without_adapters(self.model.module):
            rows = [row for scored in self._forward(batches, groups, temperature) for row in scored.rows()]
        return regrouped(rows, groups)

    def _micro_batches(self, groups: Sequence[G]) -> list[list[G]]:
        return micro_batches(groups, self._config.micro_batch_tokens, self._config.micro_batch_audio_frames)

    def _forward(
        self, batches: Sequence[Sequence[G]], groups: Sequence[G], temperature: float = 1.0
    ) -> Iterator[CompletionLogprobs]:
        """Scores this rank's micro-batches of `groups`, without an update. Under ZeRO-3, whose forward pass
        needs every rank, this rank goes along with those that have more."""
        is_shared, num_batches = self._config.zero_stage == 3, len(batches)
        if is_shared:
            num_batches = int(self._all_reduce([num_batches], dist.ReduceOp.MAX)[0])
        silent_media = self._silent_media(groups)
        for index in range(num_batches):
            batch = batches[index] if index < len(batches) else [TWO_TOKENS]
            scored = self._score(batch, silent_media=silent_media, temperature=temperature)
            if index < len(batches):
                yield scored
        if is_shared:
            # After a forward alone DeepSpeed keeps gathered weights, rounded ones under autocast:
            # whoever asks for whole weights next would be given these.
            self._engine.empty_partition_cache()

    def _optimizer_step(self, groups: Sequence[G], objective: Objective[G]) -> dict[str, float]:
        self._seed_dropout()
        metrics, suspects = self._backward(groups, objective)
        metrics["lr"] = float(self._engine.get_lr()[0])
        metrics["grad_norm"], is_applied = self._apply_gradients()
        if is_applied:
            self._num_updates += 1
            self._skipped.num_in_a_row = 0
        else:
            prompt_ids = suspects or list(map(_prompt_id, groups))
            self._skipped.add(self._num_calls + 1, prompt_ids, metrics["loss"])
        return metrics | {"skipped_steps": float(self._skipped.num)}

    def _seed_dropout(self, num_ahead: int = 0) -> None:
        """Makes the adapters' dropout a function of seed and step, `num_ahead` after this one: a resumed run
        draws what this one would, and old logprobs the dropout of their first step."""
        num_steps = self._num_updates + self._skipped.num + num_ahead
        torch.manual_seed(((self._seed * 1_000_003 + num_steps) * 65_537 + self.rank) % 2**63)

    def _apply_gradients(self) -> tuple[float, bool]:
        """Makes the update, unless the gradient's norm is not finite. Returns the norm before clipping, and
        whether the update was made."""
        if self._config.zero_stage > 0:
            self._engine.step()
            return float(self._engine.get_global_grad_norm()), self._engine.was_step_applied()
        # At stage 0 DeepSpeed keeps no norm, but the reduced gradients lie on the parameters until the step.
        grads = [p.grad for p in self.model.trained.values() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads))
        if math.isfinite(norm):
            self._engine.step()
        else:
            self._engine.zero_grad()
        return norm, math.isfinite(norm)

    def _backward(self, groups: Sequence[G], objective: Objective[G]) -> tuple[dict[str, float], list[str]]:
        """Computes gradients of the global batch, micro-batch by micro-batch. Returns the batch's metrics,
        and the prompts of this rank's micro-batches whose loss is not finite. One such makes every rank's
        gradient NaN."""
        batches = self._micro_batches(groups)
        num_batches = int(self._all_reduce([len(batches)], dist.ReduceOp.MAX)[0])
        score = partial(
            self._score,
            temperature=objective.temperature,
            entropy_grad=objective.entropy_grad,
            silent_media=self._silent_media(groups),
        )
        sums, maxima = [], []
        suspects: list[str] = []
        for index in range(num_batches):
            self._engine.set_gradient_accumulation_boundary(index == num_batches - 1)
            if index < len(batches):
                scored = score(batches[index])
                share = objective.share(scored, batches[index], index)
                loss = share.loss
                if not bool(torch.isfinite(loss)):
                    # An infinite loss may have a finite gradient, and a NaN may be masked on its way back.
                    loss = scored.logprobs.sum() * math.nan
                    suspects += map(_prompt_id, batches[index])
                self._engine.backward(loss * self.world_size)
                sums.append(share.sums)
                maxima.append(share.maxima)
            else:
                # Others have work left, and the collectives inside forward and backward need every rank.
                sample = [smallest_sample(groups)]
                self._engine.backward(objective.share(score(sample), sample, index).loss * 0.0)
        metrics = batch_metrics(sums, maxima, self._engine.device)
        return metrics | {"num_micro_batches": float(num_batches)}, suspects

    def _score(
        self,
        groups: Sequence[TokenGroup | TrainGroup],
        *,
        temperature: float = 1.0,
        entropy_grad: bool = False,
        silent_media: Mapping[str, np.ndarray] | None = None,
    ) -> CompletionLogprobs:
        """Calls `completion_logprobs` through DeepSpeed's wrapper, which runs the collectives of partitioned
        weights."""
        scored = self._engine(
            groups, temperature=temperature, entropy_grad=entropy_grad, silent_media=silent_media
        )
        return CompletionLogprobs(**scored)

    def _silent_media(self, groups: Sequence[TokenGroup | TrainGroup]) -> dict[str, np.ndarray] | None:
        """Returns `silent_media` for micro-batches of text alone; None where it does not matter who enters
        tower and projector. Where they are trained or partitioned, a rank that stays outside would leave the
        others' collectives without a partner. Collective."""
        return silent_media(groups) if self._needs_silent_media else None

    def _all_reduce(self, values: Sequence[float], op: dist.ReduceOp.RedOpType) -> np.ndarray:
        return all_reduce(values, op, self._engine.device)

    def sum_over_ranks(self, values: Sequence[float]) -> np.ndarray:
        """Returns the sum over all ranks of each of `values`, float64 [N]; the same on every rank."""
        return self._all_reduce(values, dist.ReduceOp.SUM)

    def any_rank(self, flag: bool) -> bool:
        """Tells whether `flag` is true on any rank; the answer is the same on all."""
        return bool(self._all_reduce([float(flag)], dist.ReduceOp.MAX)[0])

    def save(self, folder: str | Path) -> None:
        """Writes trained weights, Adam's state and counters; `engine.json` comes when every rank is done."""
        progress = Progress(
            num_calls=self._num_calls,
            num_updates=self._num_updates,
            num_skipped=self._skipped.num,
            num_skipped_in_a_row=self._skipped.num_in_a_row,
        )
        layout = {"num_ranks": self.world_size, "zero_stage": self._config.zero_stage}
        facts = {**layout, **self.model.identity()}
        learner_checkpoint.save(Path(folder), self.model.trained, self._adam, progress, facts)

    def load(self, folder: str | Path) -> None:
        """Goes on from `save`: bit by bit under the same number of ranks and ZeRO stage, else to rounding.

        Raises:
            CheckpointError: the checkpoint is incomplete or another model's; the error says what differs.
        """
        progress = learner_checkpoint.load(
            Path(folder), self.model.trained, self._adam, self.model.identity()
        )
        self._num_calls, self._num_updates = progress.num_calls, progress.num_updates
        self._skipped.num = progress.num_skipped
        self._skipped.num_in_a_row = progress.num_skipped_in_a_row
        # The scheduler's own step sets the rate, from the count of updates alone.
        state = {"last_epoch": self._num_updates - 1, "_step_count": self._num_updates + 1}
        self._schedule.load_state_dict(self._schedule.state_dict() | state)
        self._schedule.step()

    def close(self) -> None:
        """Frees the engine; the process group stays for the next one."""
        self._engine.destroy()


def _prompt_id(group: TokenGroup | TrainGroup) -> str:
    return str(getattr(group, "prompt_id", ""))
