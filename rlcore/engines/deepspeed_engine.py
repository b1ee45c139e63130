"""The learner's engine: one rank of a DeepSpeed data-parallel group that optimises the policy loss.

It knows model, optimizer and the loss of its share of a batch; not where batches come from, nor who takes the
weights. Every public method is collective: all ranks call it, in the same order.

Exactness: losses are divided by totals of the global batch, so gradients must be *summed* over ranks and
micro-batches. DeepSpeed averages over ranks and divides by its accumulation steps: the loss is multiplied by
the world size, and the accumulation boundary is set by hand with `gradient_accumulation_steps` left at 1, so
that the number of micro-batches may change with every batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist

from rlcore.algorithms.batching import consecutive, micro_batches, num_packed_tokens, smallest_sample
from rlcore.algorithms.budget import fit_groups
from rlcore.config import LearnerConfig, ModelConfig
from rlcore.engines import learner_checkpoint, zero
from rlcore.engines.logprobs import TWO_TOKENS, CompletionLogprobs, TokenGroup, regrouped
from rlcore.engines.scorer import Scorer, check_packing
from rlcore.engines.shares import PolicyObjective, SupervisedObjective, token_weights
from rlcore.engines.skipped_steps import SkippedSteps
from rlcore.engines.trainable import (
    Weight,
    adapter_weights,
    add_lora,
    checkpoint_activations,
    freeze,
    rollout_weights,
    trained_media,
    weights,
    without_adapters,
)
from rlcore.errors import ConfigError, DataError
from rlcore.models.hf_model import (
    load_config,
    load_model,
    load_processor,
    multiplied_weights,
    save_checkpoint,
)
from rlcore.models.media_modules import attach_media_modules, detach_media_modules, silent_media
from rlcore.types import TrainGroup
from rlcore.weight_sync.buckets import DTYPES


class DeepSpeedEngine:
    """One rank. RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT must be in the environment.

    `num_steps` is the number of training steps, for the learning-rate schedule; `seed` is for the adapters
    and their dropout. Else the model stays in eval mode, so that rollout and learner compute the same
    function. `skipped_log` is for `SkippedSteps`.

    Raises ConfigError where nothing is trainable, or media modules are though the media come as embeddings.
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
    ):
        zero.init_process_group(learner.timeout_s)
        torch.manual_seed(seed)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._model_path, self._model_config, self._config = model_path, model, learner
        self._seed, self._num_calls, self._num_updates = seed, 0, 0
        self._skipped = SkippedSteps(learner.max_skipped_steps, skipped_log)
        self._frozen_fingerprint: str | None = None
        text_config = load_config(model_path).get_text_config()
        deepspeed_config = zero.deepspeed_config(learner, hidden_size=text_config.hidden_size)
        with zero.partitioned_loading(deepspeed_config):
            self._model = load_model(model_path, dtype="float32")
        self._choose_trained()
        if learner.autocast == "bfloat16":
            zero.narrow_frozen(multiplied_weights(self._model))
        # Given embeddings, the forward never enters the tower: it waits on the CPU for the export.
        self._media_modules = detach_media_modules(self._model) if model.media == "embeds" else {}
        if learner.activation_checkpointing:
            checkpoint_activations(self._model)
        is_shared = learner.zero_stage == 3 and model.media == "raw"
        self._enters_media_together = is_shared or bool(trained_media(self._model))
        self._parameters = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        trained = list(self._parameters.values())
        optimizer = zero.adamw(trained, learner)
        self._schedule = zero.lr_schedule(optimizer, learner, num_steps * learner.updates_per_batch)
        self._engine, *_ = deepspeed.initialize(
            model=Scorer(self._model),
            model_parameters=trained,
            optimizer=optimizer,
            lr_scheduler=self._schedule,
            config=deepspeed_config,
        )
        self._adam = zero.AdamState(self._engine, optimizer)
        check_packing(self._model, self._engine, autocast=learner.autocast)
        if learner.zero_stage == 3:
            self._engine.empty_partition_cache()

    def _choose_trained(self) -> None:
        freeze(self._model, self._model_config.freeze)
        if self._config.lora.rank > 0:
            add_lora(self._model, self._config.lora, self._model_config.freeze)
        media = trained_media(self._model)
        if media and self._model_config.media == "embeds":
            raise ConfigError(
                f"model.freeze: {media[0]} and {len(media) - 1} more media parameters are to be trained, but "
                "with model.media=embeds the tower stays as it is: freeze it or set model.media=raw"
            )

    def update(self, groups: Sequence[TrainGroup], objective: PolicyObjective) -> dict[str, float]:
        """`learner.updates_per_batch` optimizer steps on the global batch, of which `groups` are this rank's.

        `objective` was made for this batch. Returns metrics of the global batch, the same on every rank, of
        the last step; but `logprob_max_diff` and `logprob_mean_diff` compare the rollout engine's logprobs
        with the learner's before the first.

        A step whose loss or gradient is not finite is skipped: weights, Adam's state and schedule stay as
        they were, and `skipped_steps`, counted from the run's start, is one higher.
        Raises NonFiniteError after more than `learner.max_skipped_steps` of them in a row.
        """
        start = time.perf_counter()
        steps = [self._optimizer_step(groups, objective) for _ in range(self._config.updates_per_batch)]
        seconds = time.perf_counter() - start
        self._num_calls += 1
        first = {name: steps[0][name] for name in ("logprob_max_diff", "logprob_mean_diff")}
        return steps[-1] | first | {"tokens_per_second": objective.totals.num_tokens * len(steps) / seconds}

    def supervised_update(self, groups: Sequence[TokenGroup]) -> dict[str, float]:
        """One optimizer step on the weighted mean negative log-likelihood of all ranks' completion tokens.

        Returns metrics of the global batch, the same on every rank (`num_tokens` counts prompts, with their
        audio, too); skips and raises as `update`. Raises DataError where a sample exceeds
        `learner.micro_batch_tokens`, unless those are to be dropped and every rank keeps one.
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
        metrics = self._optimizer_step(fitting, SupervisedObjective(total_weight=float(total)))
        self._num_calls += 1
        return metrics | {"dropped_samples": float(dropped), "num_tokens": float(fed)}

    @torch.no_grad()
    def supervised_loss(self, groups: Sequence[TokenGroup]) -> float:
        """Mean negative log-likelihood of all ranks' completion tokens, without an update.

        Raises DataError where a sample exceeds `learner.micro_batch_tokens`.
        """
        config = self._config
        batches = micro_batches(groups, config.micro_batch_tokens, config.micro_batch_audio_frames)
        loss = num_tokens = 0.0
        for scored in self._forward(batches, groups):
            loss -= float(scored.logprobs.sum())
            num_tokens += float(scored.mask.sum())
        total, count = self._all_reduce([loss, num_tokens], dist.ReduceOp.SUM)
        return float(total / count)

    @torch.no_grad()
    def reference_logprobs(
        self, groups: Sequence[TokenGroup], *, temperature: float = 1.0
    ) -> list[list[np.ndarray]]:
        """[G][K] of float32 [T], of the model that the training of adapters began with; ranks may have
        different groups, or none."""
        batches = consecutive(groups, self._config.micro_batch_tokens)
        with without_adapters(self._model):
            rows = [row for scored in self._forward(batches, groups, temperature) for row in scored.rows()]
        return regrouped(rows, groups)

    def _forward(
        self, batches: Sequence[Sequence[TokenGroup]], groups: Sequence[TokenGroup], temperature: float = 1.0
    ) -> Iterator[CompletionLogprobs]:
        """Scores this rank's micro-batches of `groups`, without an update. Under ZeRO-3, whose forward pass
        needs every rank, it goes along with those that have more."""
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

    def _optimizer_step(
        self, groups: Sequence[Any], objective: PolicyObjective | SupervisedObjective
    ) -> dict[str, float]:
        # A function of seed and step, for the adapters' dropout: a resumed run draws what this one would.
        num_steps = self._num_updates + self._skipped.num
        torch.manual_seed(((self._seed * 1_000_003 + num_steps) * 65_537 + self.rank) % 2**63)
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

    def _apply_gradients(self) -> tuple[float, bool]:
        """The gradient's norm before clipping, and whether the update was made: it is not where the norm is
        not finite."""
        if self._config.zero_stage > 0:
            self._engine.step()
            return float(self._engine.get_global_grad_norm()), self._engine.was_step_applied()
        # At stage 0 DeepSpeed keeps no norm, but the reduced gradients lie on the parameters until the step.
        grads = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads))
        if math.isfinite(norm):
            self._engine.step()
        else:
            self._engine.zero_grad()
        return norm, math.isfinite(norm)

    def _backward(
        self, groups: Sequence[Any], objective: PolicyObjective | SupervisedObjective
    ) -> tuple[dict[str, float], list[str]]:
        """Gradients of the global batch, micro-batch by micro-batch; its metrics; and the prompts of this
        rank's micro-batches whose loss is not finite. One such makes every rank's gradient NaN."""
        config = self._config
        batches = micro_batches(groups, config.micro_batch_tokens, config.micro_batch_audio_frames)
        num_batches = int(self._all_reduce([len(batches)], dist.ReduceOp.MAX)[0])
        how = {
            "temperature": objective.temperature,
            "entropy_grad": objective.entropy_grad,
            "silent_media": self._silent_media(groups),
        }
        shares = []
        suspects: list[str] = []
        for index in range(num_batches):
            self._engine.set_gradient_accumulation_boundary(index == num_batches - 1)
            if index < len(batches):
                scored = self._score(batches[index], **how)
                share = objective.share(scored, batches[index], index)
                loss = share.loss
                if not bool(torch.isfinite(loss)):
                    # An infinite loss may have a finite gradient, and a NaN may be masked on its way back.
                    loss = scored.logprobs.sum() * math.nan
                    suspects += map(_prompt_id, batches[index])
                self._engine.backward(loss * self.world_size)
                shares.append((share.sums, share.maxima))
            else:
                # Others have work left, and the collectives inside forward and backward need every rank.
                sample = [smallest_sample(groups)]
                scored = self._score(sample, **how)
                self._engine.backward(objective.share(scored, sample, index).loss * 0.0)
        sums = {name: sum(float(sums[name]) for sums, _ in shares) for name in shares[0][0]}
        maxima = {name: max(float(maxima[name]) for _, maxima in shares) for name in shares[0][1]}
        sums = dict(zip(sums, self._all_reduce(list(sums.values()), dist.ReduceOp.SUM).tolist(), strict=True))
        maxima = dict(
            zip(maxima, self._all_reduce(list(maxima.values()), dist.ReduceOp.MAX).tolist(), strict=True)
        )
        num_tokens = max(sums.pop("tokens"), 1.0)
        metrics = {name: total if name in _ARE_MEANS else total / num_tokens for name, total in sums.items()}
        return metrics | maxima | {"num_micro_batches": float(num_batches)}, suspects

    def _score(
        self, groups: Sequence[TrainGroup | TokenGroup], silent_media: Any = None, **how: Any
    ) -> CompletionLogprobs:
        return CompletionLogprobs(**self._engine(groups, silent_media=silent_media, **how))

    def _silent_media(self, groups: Sequence[Any]) -> dict[str, np.ndarray] | None:
        """For micro-batches of text alone, `silent_media`; None where it does not matter who enters tower and
        projector. It matters where they are trained or partitioned: then a rank that stays outside leaves
        the others' collectives without a partner. Collective."""
        if self.world_size == 1 or not self._enters_media_together:
            return None
        return silent_media(groups)

    def _all_reduce(self, values: Sequence[float], op: Any) -> np.ndarray:
        tensor = torch.tensor(values, dtype=torch.float64, device=self._engine.device)
        dist.all_reduce(tensor, op=op)
        return tensor.cpu().numpy()

    def any_rank(self, flag: bool) -> bool:
        """Whether any rank says so; the same answer on all. Collective."""
        return bool(self._all_reduce([float(flag)], dist.ReduceOp.MAX)[0])

    def push_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """(name, full shape) of what `iter_push` gives, in its order; not collective."""
        return [(weight.hub_name, weight.shape) for weight in self._push_weights()]

    def iter_push(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(hub name, full tensor) of what engines of `model.dtype` get: `rollout_weights`, or with
        `learner.lora.push: adapters` `adapter_weights`. From every ZeRO stage; every rank must exhaust the
        iterator, and a tensor is valid only until the next one is asked for."""
        stage, dtype = self._config.zero_stage, DTYPES[self._model_config.dtype]
        for weight, tensor in zero.gathered(self._push_weights(), zero_stage=stage, dtype=dtype):
            yield weight.hub_name, tensor

    def _push_weights(self) -> list[Weight]:
        alone = self._config.lora.push == "adapters"
        return list((adapter_weights if alone else rollout_weights)(self._model))

    def save(self, folder: str | Path) -> None:
        """Writes trained weights, Adam's state and counters; `engine.json` comes when every rank is done."""
        counters = {
            "num_calls": self._num_calls,
            "num_updates": self._num_updates,
            "num_skipped": self._skipped.num,
            "num_skipped_in_a_row": self._skipped.num_in_a_row,
        }
        layout = {"num_ranks": self.world_size, "zero_stage": self._config.zero_stage}
        header = {**counters, **layout, **self._identity()}
        learner_checkpoint.save(Path(folder), self._parameters, self._adam, header)

    def load(self, folder: str | Path) -> None:
        """Goes on from `save`: bit by bit under the same number of ranks and ZeRO stage, else to rounding.

        Raises CheckpointError where the checkpoint is incomplete or another model's; it says what differs.
        """
        header = learner_checkpoint.load(Path(folder), self._parameters, self._adam, self._identity())
        self._num_calls, self._num_updates = header["num_calls"], header["num_updates"]
        self._skipped.num, self._skipped.num_in_a_row = header["num_skipped"], header["num_skipped_in_a_row"]
        # The scheduler's own step sets the rate, from the count of updates alone.
        state = {"last_epoch": self._num_updates - 1, "_step_count": self._num_updates + 1}
        self._schedule.load_state_dict(self._schedule.state_dict() | state)
        self._schedule.step()

    def _identity(self) -> dict[str, Any]:
        """What must be the same where training goes on. Collective at the first call."""
        lora = self._config.lora
        if self._frozen_fingerprint is None:
            with self._media_attached():
                frozen = [
                    Weight(name, name, (parameter,))
                    for name, parameter in self._model.named_parameters()
                    if name not in self._parameters
                ]
            tensors = ((w.name, t) for w, t in zero.gathered(frozen, zero_stage=self._config.zero_stage))
            self._frozen_fingerprint = learner_checkpoint.fingerprint(tensors)
        return {
            "frozen_fingerprint": self._frozen_fingerprint,
            "lora": {"rank": lora.rank, "alpha": lora.alpha} if lora.rank else None,
        }

    def export(self, folder: str | Path) -> None:
        """Writes a Hugging Face folder (hub names, safetensors, processor) for transformers and vLLM.

        Adapters are merged into the weights."""
        full = {}
        with self._media_attached():
            all_weights = list(weights(self._model))
            for weight, tensor in zero.gathered(all_weights, zero_stage=self._config.zero_stage):
                if self.rank == 0:
                    full[weight.name] = tensor.cpu().clone()
            if self.rank == 0:
                processor = load_processor(self._model_path)
                state = self._model.state_dict() | full
                save_checkpoint(self._model, folder, state_dict=state, processor=processor)
        dist.barrier()

    @contextmanager
    def _media_attached(self) -> Iterator[None]:
        """The whole model, with the tower that waits outside it."""
        attach_media_modules(self._model, self._media_modules)
        yield
        if self._media_modules:
            detach_media_modules(self._model)

    def close(self) -> None:
        """Frees the engine; the process group stays for the next one."""
        self._engine.destroy()


_ARE_MEANS = ("loss", "policy_loss")
"""Sums that were divided by the batch's totals already."""


def _prompt_id(group: Any) -> str:
    return str(getattr(group, "prompt_id", ""))
