"""The differences between DeepSpeed's ZeRO stages, in one place: configuration, whole weights, Adam's state.

Every function that gives or takes whole tensors is collective. This module knows neither losses nor files.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from typing import TypeAlias

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from transformers.integrations import HfDeepSpeedConfig
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from rlcore.algorithms.schedule import LR_SCHEDULES, lr_factor
from rlcore.config import LearnerConfig
from rlcore.config.targets import choice
from rlcore.engines.rendezvous import listen
from rlcore.engines.weights import Weight

GATHER_BYTES = 256 << 20
"""Bytes of full parameters that exist at once while ZeRO-3 partitions are gathered."""

JsonValue: TypeAlias = "str | int | float | bool | dict[str, JsonValue] | None"
"""A value in DeepSpeed's configuration."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""torch's keys of Adam's state of a parameter."""


def init_process_group(timeout_s: float, listener: socket.socket | None = None) -> None:
    """Joins the process group that the environment describes, or takes over the one that Ray Train has made.

    `timeout_s` is the deadline of every collective. `listener` is rank 0's socket at MASTER_ADDR and
    MASTER_PORT, which becomes the group's; without it one is made.
    """
    # This op would be compiled on first use (57 s, and a compiler is needed); plain gloo serves.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl"
    timeout = timedelta(seconds=timeout_s)
    if not dist.is_initialized():
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        descriptor = None
        if rank == 0:
            # The store asks nobody for a token. By itself torch would have it listen on every address.
            descriptor = (listener or listen(host, port)).detach()
        store = dist.TCPStore(host, port, size, rank == 0, timeout, master_listen_fd=descriptor)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, timeout=timeout)


def deepspeed_config(learner: LearnerConfig, *, hidden_size: int) -> dict[str, JsonValue]:
    """Returns DeepSpeed's configuration for a learner of a decoder with this hidden size."""
    has_accelerator = torch.cuda.is_available()
    zero: dict[str, JsonValue] = {
        "stage": learner.zero_stage,
        "overlap_comm": has_accelerator,
        # Biases and norms stay whole: gathering them costs more than they weigh.
        "stage3_param_persistence_threshold": 10 * hidden_size,
    }
    offload: dict[str, JsonValue] = {"device": "cpu", "pin_memory": has_accelerator}
    if learner.offload_optimizer == "cpu":
        zero["offload_optimizer"] = offload
    if learner.offload_parameters == "cpu":
        zero["offload_param"] = offload
    config: dict[str, JsonValue] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": learner.max_grad_norm,
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }
    if learner.own_precision == "autocast":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif learner.own_precision == "bf16":
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


@contextmanager
def partitioned_loading(config: dict[str, JsonValue]) -> Iterator[None]:
    """Lets transformers partition a model's parameters over the ranks as it builds and loads the model, for
    the length of the block, where `config` (DeepSpeed's) says stage 3: no rank ever holds the whole.
    Collective."""
    # In bfloat16 DeepSpeed would round buffers as well, such as the rotary embedding's frequencies.
    in_float32 = {key: value for key, value in config.items() if key != "bf16"}
    handle = HfDeepSpeedConfig(in_float32)  # transformers keeps a weak reference, and looks at the stage
    try:
        yield
    finally:
        del handle
        unset_hf_deepspeed_config()


@torch.no_grad()
def narrow(weights: Iterable[torch.nn.Parameter]) -> None:
    """Rounds weights, or with ZeRO-3 this rank's parts of them, to bfloat16. Call before
    `deepspeed.initialize`."""
    for weight in weights:
        part = getattr(weight, "ds_tensor", weight)
        rounded = part.data.bfloat16()
        part.data = rounded.pin_memory() if part.is_pinned() else rounded  # as offloaded ones are
        weight.data = weight.data.bfloat16()


@torch.no_grad()
def narrow_frozen(weights: Iterable[torch.nn.Parameter]) -> None:
    """Narrows those of `weights` to bfloat16 that lose nothing and are not trained. Where autocast would
    round them to bfloat16 anyway, the same is computed with half of their memory. Collective.

    Published checkpoints are in bfloat16, so nearly all weights are such. Call before `deepspeed.initialize`.
    """
    frozen = [weight for weight in weights if not weight.requires_grad]
    if not frozen:
        return
    held = [getattr(weight, "ds_tensor", weight) for weight in frozen]  # with ZeRO-3 this rank's part
    is_exact = torch.tensor([bool((part.bfloat16() == part).all()) for part in held], dtype=torch.int32)
    is_exact = is_exact.to(get_accelerator().current_device_name())
    dist.all_reduce(is_exact, op=dist.ReduceOp.MIN)
    narrow(weight for weight, exact in zip(frozen, is_exact.tolist(), strict=True) if exact)


def adamw(parameters: Sequence[torch.nn.Parameter], learner: LearnerConfig) -> torch.optim.AdamW:
    """Makes torch's own AdamW; DeepSpeed's would be compiled on first use.

    On GPUs, and where the state is in main memory, the update is torch's fused kernel: one pass over the
    memory, and none beside it.
    """
    fused = True if torch.cuda.is_available() or learner.offload_optimizer == "cpu" else None
    return torch.optim.AdamW(
        parameters, lr=learner.lr, betas=learner.betas, weight_decay=learner.weight_decay, fused=fused
    )


def lr_schedule(
    optimizer: torch.optim.Optimizer, learner: LearnerConfig, num_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Makes the schedule `learner.lr_schedule` over `num_steps` optimizer steps."""
    schedule = choice(LR_SCHEDULES, learner.lr_schedule, where="learner.lr_schedule")

    def factor(step: int) -> float:
        return lr_factor(step, schedule, warmup_steps=learner.warmup_steps, num_steps=num_steps)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def master(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Returns a whole parameter as the optimizer knows it: of a trained one in bfloat16 the float32 copy, of
    any other, which must be whole, itself. Collective."""
    if parameter.requires_grad and parameter.dtype == torch.bfloat16:
        return safe_get_full_fp32_param(parameter)
    return parameter.detach()


def gathered(
    weights: Sequence[Weight],
    *,
    zero_stage: int,
    dtype: torch.dtype = torch.float32,
    read: Callable[[torch.nn.Parameter], torch.Tensor] = torch.Tensor.detach,
) -> Iterator[tuple[Weight, torch.Tensor]]:
    """Yields weights with their full tensors (`Weight.tensor`), each valid until the next is asked for.
    ZeRO-3 partitions are gathered in buckets. `read` gives a whole parameter's values, for instance
    `master`."""
    for bucket in _buckets(weights):
        parameters = _parameters(bucket)
        with deepspeed.zero.GatheredParameters(parameters, enabled=zero_stage == 3):
            for weight in bucket:
                yield weight, weight.tensor(dtype, read)


def _buckets(weights: Sequence[Weight]) -> Iterator[list[Weight]]:
    """Yields runs of at most `GATHER_BYTES`; a larger parameter is alone, with all of its parts."""
    bucket: list[Weight] = []
    size = 0
    for _, parts in groupby(weights, key=lambda weight: [id(p) for p in weight.parameters]):
        run = list(parts)
        num_bytes = sum(map(num_parameter_bytes, run[0].parameters))
        if bucket and size + num_bytes > GATHER_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket += run
        size += num_bytes
    if bucket:
        yield bucket


def _parameters(weights: Sequence[Weight]) -> list[torch.nn.Parameter]:
    """Returns each parameter of the weights once, in order."""
    return list({id(p): p for weight in weights for p in weight.parameters}.values())


def num_parameter_bytes(parameter: torch.nn.Parameter) -> int:
    """Returns the bytes of a whole parameter, of which this rank may hold a part."""
    return int(getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size())


class AdamState:
    """Weights and Adam's moments of one DeepSpeed engine, parameter by parameter, whole on every rank.

    Args:
        engine: what `deepspeed.initialize` returned.
        optimizer: the torch optimizer that `deepspeed.initialize` was given.
    """

    def __init__(self, engine: deepspeed.DeepSpeedEngine, optimizer: torch.optim.Optimizer):
        self._engine, self._optimizer = engine, optimizer
        self._stage = int(engine.zero_optimization_stage())

    def read(self, parameter: torch.nn.Parameter, *, with_moments: bool) -> dict[str, torch.Tensor]:
        """Returns a parameter's whole tensors: `weight`, and with moments `exp_avg` and `exp_avg_sq`, which
        exist from the first update on."""
        with deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
            tensors = {"weight": master(parameter).clone()}
        for key in MOMENTS if with_moments else ():
            tensors[key] = (
                self._optimizer.state[parameter][key]
                if self._stage == 0
                else safe_get_full_optimizer_state(parameter, key)
            )
        return tensors

    def write(self, parameter: torch.nn.Parameter, tensors: dict[str, torch.Tensor]) -> None:
        """Writes what `read` returned, in an engine of any layout. `prepare` comes before the first `write`,
        `finish` after the last."""
        with (
            torch.no_grad(),
            deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=self._stage == 3),
        ):
            parameter.copy_(tensors["weight"])
        if parameter.dtype == torch.bfloat16:
            safe_set_full_fp32_param(parameter, tensors["weight"].to(self._engine.device))
        for key in MOMENTS:
            if key not in tensors:
                continue
            if self._stage == 0:
                self._optimizer.state[parameter][key].copy_(tensors[key])
            else:
                safe_set_full_optimizer_state(parameter, tensors[key].to(self._engine.device), key)

    def prepare(self, num_updates: int) -> None:
        """Makes the state that Adam has after `num_updates` updates; torch makes none before the first
        update."""
        if num_updates == 0:
            return
        for owner in self._owners():
            state = self._optimizer.state[owner]
            # torch keeps the count beside the parameter where one kernel reads both.
            fused = self._optimizer.param_groups[0]["fused"]
            device = owner.device if fused else torch.device("cpu")
            state["step"] = torch.tensor(float(num_updates), device=device)
            for key in MOMENTS:
                if key not in state:
                    state[key] = torch.zeros_like(owner)
        if self._stage in (1, 2):
            # DeepSpeed does this after the first update: parameters then know their part of the flat state.
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def finish(self) -> None:
        """Brings the copies that the optimizer works on in line with the weights, where `write` has not."""
        if self._stage > 0 and not self._engine.bfloat16_enabled():
            self._engine.optimizer.refresh_fp32_params()

    def _owners(self) -> list[torch.Tensor]:
        """Returns what torch's optimizer updates: parameters, or this rank's flat parts of them."""
        if self._stage == 0:
            return [p for group in self._optimizer.param_groups for p in group["params"]]
        if self._stage == 3:
            return list(self._engine.optimizer.fp32_partitioned_groups_flat)
        return list(self._engine.optimizer.single_partition_of_fp32_groups)
