"""Media of vLLM's own, for GPUs: both ends' part in what vLLM sends and receives.

vLLM's trainer engines move the weights and drive the rollout engines through a client. Here the client speaks
through the learner's port, and `serve` does at the engine what it is told. The engine checks names and shapes
before anything moves; the bytes themselves take no checksum on this way. Which of vLLM's engines it is, a
medium's `TrainerInfo` says (`nccl`, `ipc`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightSource,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

from rlcore.config import WeightSyncConfig
from rlcore.config.targets import load_named
from rlcore.errors import MixedWeightsError, WeightSyncError
from rlcore.models.checkpoint_names import check_names, checkpoint_shapes
from rlcore.models.hf_model import load_config
from rlcore.weight_sync.base import Push, PushReport, receiver_name
from rlcore.weight_sync.buckets import DTYPES
from rlcore.weight_sync.messages import ReceiverTalk, SenderTalk
from rlcore.weight_sync.sender import WeightSender

if TYPE_CHECKING:
    from vllm import LLM

_HANDLE_CLASSES = {
    c.__name__: c for c in (Tensor, torch.nn.Parameter, torch.UntypedStorage, torch.storage.TypedStorage)
}


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
        self._source = _Source(shapes, DTYPES[dtype])
        self.num_bytes = self._source.num_bytes
        self._bucket_bytes = max(config.bucket_bytes, self._source.largest)
        self._client = _PortClient()
        self._engine: TrainerWeightTransferEngine | None = None
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
        start, self._source.stream = perf_counter(), iter(tensors)
        self._new_engine(push).send_weights()
        return self._report(push, "", start, 0.0)

    def close(self) -> None:
        super().close()
        self._reset()

    def _send(self, push: Push, talk: SenderTalk, stream: Iterator[tuple[str, Tensor]]) -> str:
        self._client.talk, self._source.stream = talk, stream
        held = talk.answers(0).values()
        talk.answers(talk.post({"tensors": self._source.shapes}))
        standing = push.engines == self._engines and all(one["group"] == self._group for one in held)
        if self._engine is None or not standing:
            self._reset()
            self._group += 1
            self._engine, self._engines = self._new_engine(push), push.engines
        self._engine.send_weights()
        talk.answers(talk.post({"end": True, "group": self._group}))
        return ""

    def _reset(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    def _new_engine(self, push: Push) -> TrainerWeightTransferEngine:
        info = self._trainer_info(
            push,
            rank=self._rank,
            workers_per_engine=self._workers_per_engine,
            bucket_bytes=self._bucket_bytes,
        )
        return WeightTransferTrainerFactory.trainer_init(info, client=self._client, source=self._source)


class _Source(WeightSource):
    """The weights of the push under way."""

    def __init__(self, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: torch.dtype):
        self.shapes = [(name, tuple(shape)) for name, shape in shapes]
        self.stream: Iterator[tuple[str, Tensor]] = iter(())
        self._dtype = dtype

    @property
    def num_bytes(self) -> int:
        return sum(prod(shape) * self._dtype.itemsize for _, shape in self.shapes)

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor: vLLM packs whole ones."""
        return max(prod(shape) * self._dtype.itemsize for _, shape in self.shapes)

    def metadata(self) -> list[ParamMeta]:
        return [ParamMeta(name, self._dtype, shape) for name, shape in self.shapes]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.stream:
            # A copy: vLLM collects tensors, and a gathered one is valid only until the next is asked for.
            yield name, tensor.detach().to("cuda", self._dtype, copy=True)


class _PortClient:
    """vLLM's `VLLMWeightSyncClient`: every call goes to all engines and returns when all have done it."""

    talk: SenderTalk

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._call("init_weight_transfer_engine", init_info)

    def start_weight_update(self) -> None:
        self._call("start_weight_update", {})

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        self._call("update_weights", update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._call("finish_weight_update", {})

    def _call(self, method: str, argument: Any) -> None:
        self.talk.answers(self.talk.post({"call": method, "argument": to_json(argument)}))


class NativeEngineReceiver:
    """The end of an engine whose workers receive by vLLM's own backend; an `EngineReceiver`."""

    def __init__(self, rank: int, model_path: str):
        self._rank, self._model_path = rank, model_path
        self._group = 0

    def attach(self, llm: LLM) -> None:
        """Does nothing: every learner makes the workers ready by itself."""

    def take(self, llm: LLM, push: Push) -> None:
        """Does what the learner asks for; raises as `serve`."""
        checkpoint, config = checkpoint_shapes(self._model_path), load_config(self._model_path)
        group, self._group = self._group, 0
        self._group = serve(
            llm,
            push,
            engine=self._rank,
            group=group,
            accept=lambda shapes: check_names(shapes, checkpoint, config),
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
                llm.init_weight_transfer_engine({"init_info": argument})
            elif message["call"] == "update_weights":
                llm.update_weights({"update_info": argument})
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


def to_json(value: Any) -> Any:
    """Returns plain values for vLLM's messages, whose CUDA handles hold bytes, dtypes and classes. Nothing is
    pickled: what comes through a network port must not be able to run."""
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {"__tuple__": [to_json(item) for item in value]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        return {"__bytes__": base64.b64encode(value).decode()}
    if isinstance(value, torch.dtype):
        return {"__dtype__": str(value).removeprefix("torch.")}
    if isinstance(value, type):
        return {"__class__": value.__name__}
    return value


def from_json(value: Any) -> Any:
    """Returns what `to_json` was given."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"__tuple__": items}:
            return tuple(from_json(item) for item in items)
        case {"__bytes__": text}:
            return base64.b64decode(text)
        case {"__dtype__": name}:
            return getattr(torch, name)
        case {"__class__": name}:
            return _HANDLE_CLASSES[name]
    return {key: from_json(item) for key, item in value.items()}
