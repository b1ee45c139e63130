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
import os
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist

from rlcore.algorithms.batching import micro_batches, smallest_sample
from rlcore.algorithms.schedule import lr_factor
from rlcore.checkpoint import read_json, write_json
from rlcore.config import LearnerConfig, ModelConfig
from rlcore.engines.hf_model import (
    checkpoint_parameters,
    is_media_parameter,
    load_model,
    load_processor,
    save_checkpoint,
)
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup, completion_logprobs
from rlcore.engines.media_modules import attach_media_modules, detach_media_modules
from rlcore.engines.shares import PolicyObjective, SupervisedObjective
from rlcore.errors import CheckpointError, ConfigError, RLCoreError
from rlcore.types import TrainGroup

GATHER_BYTES = 256 << 20
"""Full parameters that exist at once while ZeRO-3 partitions are gathered."""

LAYOUT = "engine.json"


class _Scorer(torch.nn.Module):
    """The forward that DeepSpeed wraps: groups in, completion logprobs out."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, groups: Sequence[TrainGroup | TokenGroup]) -> dict[str, torch.Tensor]:
        """The fields of `CompletionLogprobs`, as ZeRO-3 looks for tensors in dictionaries only."""
        scored = completion_logprobs(self.model, groups)
        return {"logprobs": scored.logprobs, "entropies": scored.entropies, "mask": scored.mask}


class DeepSpeedEngine:
    """One rank. RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT must be in the environment.

    `num_steps` is the number of training steps, for the learning-rate schedule; `seed` is for dropout, if the
    model has any. The model stays in eval mode, so that rollout and learner compute the same function.

    Raises ConfigError where nothing is trainable, or media modules are though the media come as embeddings.
    """

    def __init__(
        self, model_path: str, model: ModelConfig, learner: LearnerConfig, *, num_steps: int, seed: int
    ):
        _init_process_group(learner.timeout_s)
        torch.manual_seed(seed)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._model_path, self._model_config, self._config = model_path, model, learner
        self._model = load_model(model_path, dtype="float32", trust_remote_code=model.trust_remote_code)
        self._freeze(model.freeze)
        # Given embeddings, the forward never enters the tower: it waits on the CPU for the export.
        self._media_modules = detach_media_modules(self._model) if model.media == "embeds" else {}
        optimizer = torch.optim.AdamW(
            self._trainable(), lr=learner.lr, betas=learner.betas, weight_decay=learner.weight_decay
        )
        self._engine, *_ = deepspeed.initialize(
            model=_Scorer(self._model),
            model_parameters=self._trainable(),
            optimizer=optimizer,
            lr_scheduler=_schedule(optimizer, learner, num_steps * learner.updates_per_batch),
            config=_deepspeed_config(learner, hidden_size=self._model.config.get_text_config().hidden_size),
        )

    def _freeze(self, patterns: Sequence[str]) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(not any(pattern in name for pattern in patterns))
        trainable = [name for name, parameter in self._model.named_parameters() if parameter.requires_grad]
        if not trainable:
            raise ConfigError(
                f"model.freeze: {list(patterns)} leaves no parameter of {self._model_path} to train"
            )
        media = [name for name in trainable if is_media_parameter(self._model, name)]
        if media and self._model_config.media == "embeds":
            raise ConfigError(
                f"model.freeze: {media[0]} and {len(media) - 1} more media parameters are to be trained, but "
                "with model.media=embeds the tower stays as it is: freeze it or set model.media=raw"
            )

    def _trainable(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def update(self, groups: Sequence[TrainGroup], objective: PolicyObjective) -> dict[str, float]:
        """`learner.updates_per_batch` optimizer steps on the global batch, of which `groups` are this rank's.

        `objective` was made for this batch. Returns metrics of the global batch, the same on every rank, of
        the last step; but `logprob_max_diff` and `logprob_mean_diff` compare the rollout engine's logprobs
        with the learner's before the first.

        Raises RLCoreError where the loss is not finite, before any weight is touched.
        """
        start = time.perf_counter()
        steps = [self._optimizer_step(groups, objective) for _ in range(self._config.updates_per_batch)]
        seconds = time.perf_counter() - start
        first = {name: steps[0][name] for name in ("logprob_max_diff", "logprob_mean_diff")}
        return steps[-1] | first | {"tokens_per_second": objective.num_tokens * len(steps) / seconds}

    def supervised_update(self, groups: Sequence[TokenGroup]) -> dict[str, float]:
        """One optimizer step on the mean negative log-likelihood of all ranks' completion tokens.

        Returns metrics of the global batch, the same on every rank; raises as `update`.
        """
        num_tokens = sum(len(tokens) for group in groups for tokens in group.token_ids)
        total = int(self._all_reduce([num_tokens], dist.ReduceOp.SUM)[0])
        return self._optimizer_step(groups, SupervisedObjective(num_tokens=total))

    def _optimizer_step(
        self, groups: Sequence[Any], objective: PolicyObjective | SupervisedObjective
    ) -> dict[str, float]:
        metrics = self._backward(groups, objective)
        if not math.isfinite(metrics["loss"]):
            raise RLCoreError(
                f"the loss is {metrics['loss']} at optimizer step {self._engine.global_steps}; no weight was "
                "changed. Lower learner.lr, or look for infinite logprobs in the batch"
            )
        metrics["lr"] = float(self._engine.get_lr()[0])
        # At stage 0 DeepSpeed keeps no norm, but the reduced gradients lie on the parameters until the step.
        grads = [p.grad for p in self._trainable() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads) if self._config.zero_stage == 0 else None
        self._engine.step()
        metrics["grad_norm"] = float(self._engine.get_global_grad_norm() if norm is None else norm)
        return metrics

    def _backward(
        self, groups: Sequence[Any], objective: PolicyObjective | SupervisedObjective
    ) -> dict[str, float]:
        """Gradients of the global batch, micro-batch by micro-batch, and its metrics."""
        config = self._config
        batches = micro_batches(groups, config.micro_batch_tokens, config.micro_batch_audio_frames)
        num_batches = int(self._all_reduce([len(batches)], dist.ReduceOp.MAX)[0])
        shares = []
        for index in range(num_batches):
            self._engine.set_gradient_accumulation_boundary(index == num_batches - 1)
            if index < len(batches):
                share = objective.share(self._score(batches[index]), batches[index], index)
                self._engine.backward(share.loss * self.world_size)
                shares.append((share.sums, share.maxima))
            else:
                # Others have work left, and the collectives inside forward and backward need every rank.
                sample = [smallest_sample(groups)]
                self._engine.backward(objective.share(self._score(sample), sample, index).loss * 0.0)
        sums = {name: sum(float(sums[name]) for sums, _ in shares) for name in shares[0][0]}
        maxima = {name: max(float(maxima[name]) for _, maxima in shares) for name in shares[0][1]}
        sums = dict(zip(sums, self._all_reduce(list(sums.values()), dist.ReduceOp.SUM).tolist(), strict=True))
        maxima = dict(
            zip(maxima, self._all_reduce(list(maxima.values()), dist.ReduceOp.MAX).tolist(), strict=True)
        )
        num_tokens = max(sums.pop("tokens"), 1.0)
        metrics = {name: total if name in _ARE_MEANS else total / num_tokens for name, total in sums.items()}
        return metrics | maxima | {"num_micro_batches": float(num_batches)}

    def _score(self, groups: Sequence[TrainGroup | TokenGroup]) -> CompletionLogprobs:
        return CompletionLogprobs(**self._engine(groups))

    def _all_reduce(self, values: Sequence[float], op: Any) -> np.ndarray:
        tensor = torch.tensor(values, dtype=torch.float64, device=self._engine.device)
        dist.all_reduce(tensor, op=op)
        return tensor.cpu().numpy()

    def weight_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """(hub name, full shape) of what `iter_weights` gives, in its order; not collective."""
        return [
            (hub_name, tuple(getattr(parameter, "ds_shape", parameter.shape)))
            for _, hub_name, parameter in self._rollout_parameters()
        ]

    def iter_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(hub name, full float32 tensor) of the language model, and of media modules that are trained.

        Tied copies are left out. From every ZeRO stage, on every rank; every rank must exhaust the iterator,
        and a tensor is valid only until the next one is asked for.
        """
        parameters = [(hub_name, parameter) for _, hub_name, parameter in self._rollout_parameters()]
        yield from self._gathered(parameters)

    def _rollout_parameters(self) -> Iterator[tuple[str, str, torch.nn.Parameter]]:
        for name, hub_name in checkpoint_parameters(self._model):
            parameter = self._model.get_parameter(name)
            if parameter.requires_grad or not is_media_parameter(self._model, name):
                yield name, hub_name, parameter

    def _gathered(
        self, parameters: Sequence[tuple[str, torch.nn.Parameter]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Full tensors; ZeRO-3 partitions are gathered in buckets."""
        for bucket in _buckets(parameters):
            owned = [parameter for _, parameter in bucket]
            with deepspeed.zero.GatheredParameters(owned, enabled=self._config.zero_stage == 3):
                for name, parameter in bucket:
                    yield name, parameter.detach()

    def save(self, folder: str | Path) -> None:
        """Writes weights, optimizer, schedule and counters; `engine.json` comes when every rank is done."""
        folder = Path(folder)
        self._engine.save_checkpoint(str(folder), tag="deepspeed", save_latest=False)
        dist.barrier()
        if self.rank == 0:
            write_json(folder / LAYOUT, self._layout())
        dist.barrier()

    def load(self, folder: str | Path) -> None:
        """Continues bit-exactly from `save`, given the same number of ranks and the same ZeRO stage.

        DeepSpeed's files are pickles: load only what this project's own runs wrote.
        Raises CheckpointError where the checkpoint is incomplete or was written by another layout.
        """
        folder = Path(folder)
        found = read_json(folder / LAYOUT)
        if found != self._layout():
            raise CheckpointError(
                f"{folder}: written with {found}, but this run has {self._layout()}; set learner.num_ranks "
                "and learner.zero_stage as they were"
            )
        path, _ = self._engine.load_checkpoint(str(folder), tag="deepspeed")
        if path is None:
            raise CheckpointError(f"{folder}: DeepSpeed found no checkpoint there")

    def _layout(self) -> dict[str, int]:
        return {"num_ranks": self.world_size, "zero_stage": self._config.zero_stage}

    def export(self, folder: str | Path) -> None:
        """Writes a Hugging Face folder (hub names, safetensors, processor) for transformers and vLLM."""
        weights = {}
        for name, tensor in self._gathered(list(self._model.named_parameters())):
            if self.rank == 0:
                weights[name] = tensor.cpu().clone()
        if self.rank == 0:
            processor = load_processor(
                self._model_path, trust_remote_code=self._model_config.trust_remote_code
            )
            attach_media_modules(self._model, self._media_modules)
            state = self._model.state_dict() | weights
            save_checkpoint(self._model, folder, state_dict=state, processor=processor)
            if self._media_modules:
                detach_media_modules(self._model)
        dist.barrier()

    def close(self) -> None:
        """Frees the engine; the process group stays for the next one."""
        self._engine.destroy()


_ARE_MEANS = ("loss", "policy_loss")
"""Sums that were divided by the batch's totals already."""


def _buckets(
    parameters: Sequence[tuple[str, torch.nn.Parameter]],
) -> Iterator[list[tuple[str, torch.nn.Parameter]]]:
    """Runs of at most `GATHER_BYTES`; a larger parameter alone."""
    bucket: list[tuple[str, torch.nn.Parameter]] = []
    size = 0
    for name, parameter in parameters:
        num_bytes = getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size()
        if bucket and size + num_bytes > GATHER_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, parameter))
        size += num_bytes
    if bucket:
        yield bucket


def _schedule(
    optimizer: torch.optim.Optimizer, learner: LearnerConfig, num_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    def factor(step: int) -> float:
        return lr_factor(step, learner.lr_schedule, warmup_steps=learner.warmup_steps, num_steps=num_steps)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _init_process_group(timeout_s: float) -> None:
    """Joins the group that the environment describes, or takes over the one that Ray Train has made."""
    # This op would be compiled on first use (57 s, and a compiler is needed); plain gloo serves.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl"
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, timeout=timedelta(seconds=timeout_s))


def _deepspeed_config(learner: LearnerConfig, *, hidden_size: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": learner.max_grad_norm,
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": learner.zero_stage,
            "overlap_comm": torch.cuda.is_available(),
            # Biases and norms stay whole: gathering them costs more than they weigh.
            "stage3_param_persistence_threshold": 10 * hidden_size,
        },
    }
    if learner.autocast == "bfloat16":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return config
