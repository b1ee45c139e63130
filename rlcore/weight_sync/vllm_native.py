"""Media of vLLM's own, for GPUs: both ends' part in what vLLM sends and receives.

vLLM's trainer engines move the weights and drive the rollout engines through a client. Here the client speaks
through the learner's port, and `serve` does at the engine what it is told. The engine checks names and shapes
before anything moves; the bytes themselves take no checksum on this way. Which of vLLM's engines it is, a
medium's `TrainerInfo` says (`nccl`, `ipc`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta, TrainerInitInfo

from rlcore.config import WeightSyncConfig
from rlcore.config.targets import load_named
from rlcore.errors import MixedWeightsError, WeightSyncError
from rlcore.models.checkpoint_names import check_names, checkpoint_shapes
from rlcore.models.hf_model import load_config
from rlcore.weight_sync.base import Push, PushReport, receiver_name
from rlcore.weight_sync.buckets import DTYPES
from rlcore.weight_sync.messages import ReceiverTalk, SenderTalk
from rlcore.weight_sync.sender import WeightSender
from rlcore.weight_sync.vllm_trainer import Trainer, from_json

if TYPE_CHECKING:
    from vllm import LLM


class TrainerInfo(Protocol):
    """A function that returns the setup of vLLM's sender for one medium."""

    def __call__(
        self, push: Push, *, rank: int, workers_per_engine: int, bucket_bytes: int
    ) -> TrainerInitInfo:
        """Returns the setup of a learner rank's sender for a push, and for all that follow to the same
        engines."""
        ...


class NativeSender(WeightSender):
    """Drives vLLM's trainer engine of a medium, on rank 0 and wherever else the medium wants one.

    Args:
        shapes: (hub name, full shape) of every tensor that will be pushed, in order.
        dtype: what the weights travel as, the engines' dtype.
        host: address of this node, as the engines reach it.
    """

    num_buckets = 0

    def __init__(
        self,
        config: WeightSyncConfig,
        shapes: Iterable[tuple[str, tuple[int, ...]]],
        *,
        dtype: str,
        host: str,
        rank: int = 0,
    ):
        super().__init__(config, host)
        self._rank = rank
        self._trainer_info: TrainerInfo = load_named(config.medium.sender, key="weight_sync.backend")
        self._shapes = [(name, tuple(shape)) for name, shape in shapes]
        self._dtype = DTYPES[dtype]
        sizes = [prod(shape) * self._dtype.itemsize for _, shape in self._shapes]
        self.num_bytes = sum(sizes)
        self._bucket_bytes = max(config.bucket_bytes, *sizes)  # vLLM packs whole tensors
        self._trainer: Trainer | None = None
        self._engines: tuple[int, ...] = ()
        self._group = 0
        self._workers_per_engine = 1

    def announce(self, version: int, engines: Iterable[int], *, workers_per_engine: int = 1) -> Push:
        """Makes the appointment for a push with one receiver an engine: engines speak for their workers."""
        self._workers_per_engine = workers_per_engine
        return super().announce(version, engines)

    def push(self, push: Push, tensors: Iterable[tuple[str, Tensor]]) -> PushReport:
        """Sends the tensors, as `WeightSender.push`. Beside rank 0, vLLM's engine takes part in rank 0's
        gathering of handles."""
        # vLLM packs on streams of its own, which would not wait for an optimizer step that is still queued.
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        if self._rank == 0:
            return super().push(push, tensors)
        start, stream, trainer = perf_counter(), iter(tensors), self._new_trainer(push)
        try:
            trainer.send(push, None, stream)
        except BaseException:
            trainer.abort()
            for _ in stream:  # rank 0 gathers on to the end
                pass
            raise
        return self._report(push, "", start, 0.0)

    def close(self) -> None:
        super().close()
        self._reset()

    def _send(self, push: Push, talk: SenderTalk, stream: Iterator[tuple[str, Tensor]]) -> str:
        held = talk.answers(0).values()
        talk.answers(talk.post({"tensors": self._shapes}))
        standing = push.engines == self._engines and all(one["group"] == self._group for one in held)
        if self._trainer is None or not standing:
            self._reset()
            self._group += 1
            self._trainer, self._engines = self._new_trainer(push), push.engines
        self._trainer.send(push, talk, stream)
        talk.answers(talk.post({"end": True, "group": self._group}))
        return ""

    def _reset(self) -> None:
        if self._trainer is not None:
            self._trainer.abort()
            self._trainer = None

    def _new_trainer(self, push: Push) -> Trainer:
        info = self._trainer_info(
            push,
            rank=self._rank,
            workers_per_engine=self._workers_per_engine,
            bucket_bytes=self._bucket_bytes,
        )
        return Trainer(info, [ParamMeta(name, self._dtype, shape) for name, shape in self._shapes])


class NativeEngineReceiver:
    """The end of an engine whose workers receive by vLLM's own backend; an `EngineReceiver`."""

    def __init__(self, rank: int, model_path: str):
        self._rank, self._model_path = rank, model_path
        self._group = 0

    def attach(self, llm: LLM) -> None:
        """Reads what a push must bring; every learner makes the workers ready by itself."""
        self._shapes, self._config = checkpoint_shapes(self._model_path), load_config(self._model_path)

    def take(self, llm: LLM, push: Push) -> None:
        """Does what the learner asks for; raises as `serve`."""
        group, self._group = self._group, 0
        self._group = serve(
            llm,
            push,
            engine=self._rank,
            group=group,
            accept=lambda shapes: check_names(shapes, self._shapes, self._config),
        )


def serve(llm: LLM, push: Push, *, engine: int, group: int, accept: Callable[[Iterable[Any]], None]) -> int:
    """Takes an engine's part in a push: does with vLLM what the learner's client asks for. Returns the group
    that the engine is in now.

    Args:
        group: what the last push returned, 0 for none.
        accept: raises WeightSyncError where (name, shape)s such as these are not wanted.

    Raises:
        WeightSyncError: the push does not fit or was called off; nothing has been touched.
        MixedWeightsError: it failed here or was called off after vLLM had begun to replace the weights; the
            next push brings them all.
    """
    name, is_begun = receiver_name(engine, 0, 1), False
    talk = ReceiverTalk(push, name)
    try:
        talk.answer({"group": group})
        accept((name, tuple(shape)) for name, shape in talk.next()["tensors"])
        talk.answer()
        while "end" not in (message := talk.next()):
            argument = from_json(message["argument"])
            if message["call"] == "init_weight_transfer_engine":
                if "rank_offset" in argument:  # the learner's rank 0 comes first, then engine after engine
                    workers = llm.llm_engine.vllm_config.parallel_config.world_size
                    argument["rank_offset"] += push.engines.index(engine) * workers
                # vLLM would only drop a group that it holds, which may have a member that died.
                llm.shutdown_weight_transfer_engine()
                llm.collective_rpc("join_push", args=(message["call"], argument, push, engine))
            elif message["call"] == "update_weights":
                llm.collective_rpc("join_push", args=(message["call"], argument, push, engine))
            elif message["call"] == "finish_weight_update":
                llm.finish_weight_update(weight_version=str(push.version))
            else:
                is_begun = True
                llm.start_weight_update()
            talk.answer()
        talk.answer()
        return int(message["group"])
    except Exception as error:
        reason = f"weights of version {push.version}: {error}"
        talk.refuse(f"{name} refused {reason}")
        if not is_begun:
            raise WeightSyncError(reason) from error
        try:
            llm.collective_rpc("abandon_weight_update")
        except Exception as also:
            reason = f"{reason}; and the update could not be closed: {also}"
        raise MixedWeightsError(reason) from error
