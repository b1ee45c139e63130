"""vLLM's own media for GPUs: `nccl` (learner and engines on separate GPUs) and `ipc` (sharing them).

vLLM's trainer engines move the weights and drive the rollout engines through a client. Here the client speaks
through the learner's port, and `serve` does at the engine what it is told. The engine checks names and shapes
before anything moves; the bytes themselves take no checksum on this way.
"""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from math import prod
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta, TrainerInitInfo, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from rlcore.errors import MixedWeightsError, WeightSyncError
from rlcore.weight_sync.base import Push, PushReport
from rlcore.weight_sync.buckets import DTYPES
from rlcore.weight_sync.messages import ReceiverTalk, SenderPort, SenderTalk

_HANDLE_CLASSES = {
    c.__name__: c for c in (Tensor, torch.nn.Parameter, torch.UntypedStorage, torch.storage.TypedStorage)
}


class NativeSender:
    """Drives vLLM's trainer engine of a backend. For `ipc` every learner rank has one and pushes, since each
    lends the engine on its own GPU its memory; for `nccl` rank 0 alone.

    Args: as of `BucketSender`.
    """

    def __init__(
        self,
        backend: str,
        shapes: Iterable[tuple[str, tuple[int, ...]]],
        *,
        dtype: str,
        bucket_bytes: int,
        host: str,
        timeout_s: float,
        rank: int = 0,
    ):
        self._backend, self._rank = backend, rank
        self._source = _Source(shapes, DTYPES[dtype])
        self._bucket_bytes = max(bucket_bytes, self._source.largest)
        self._port = SenderPort(host, timeout_s) if rank == 0 else None
        self._client = _PortClient()
        self._engine: Any = None
        self._engines: tuple[int, ...] = ()
        self._group = 0
        self._workers_per_engine = 1

    def announce(self, version: int, engines: Iterable[int], *, workers_per_engine: int = 1) -> Push:
        """Engines speak for their workers, so the appointment is with one receiver an engine."""
        assert self._port is not None, "rank 0 makes the appointments"
        self._workers_per_engine = workers_per_engine
        return self._port.announce(self._backend, version, tuple(engines), 1)

    def push(self, push: Push, tensors: Iterable[tuple[str, Tensor]]) -> PushReport:
        start, stream = time.perf_counter(), iter(tensors)
        self._source.stream = stream
        if self._port is None:  # of `ipc`: vLLM's engine takes part in rank 0's gathering of handles
            self._new_engine(push).send_weights()
            return self._report(push, start, 0.0)
        self._client.talk = talk = self._port.open(push)
        try:
            held = talk.answers(0).values()
            talk.answers(talk.post({"tensors": self._source.shapes}))
            standing = self._engine is not None and push.engines == self._engines
            if not (standing and all(one["group"] == self._group for one in held)):
                self.close()
                self._group += 1
                self._engine, self._engines = self._new_engine(push), push.engines
            self._engine.send_weights()
            talk.answers(talk.post({"end": True, "group": self._group}))
        except BaseException as error:
            talk.call_off(str(error))
            self.close()
            for _ in stream:  # the learner's other ranks gather along to the end
                pass
            raise
        return self._report(push, start, talk.wait_seconds)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    def _new_engine(self, push: Push) -> Any:
        info: TrainerInitInfo
        if self._backend == "ipc":
            info = IPCTrainerInitInfo(
                packed=True, packed_buffer_size_bytes=self._bucket_bytes, rank=self._rank
            )
        else:
            info = NCCLTrainerInitInfo(
                master_address=push.host,
                master_port=_free_port(),
                world_size=1 + len(push.engines) * self._workers_per_engine,
                packed_buffer_size_bytes=self._bucket_bytes,
                rank=self._rank,
            )
        return WeightTransferTrainerFactory.trainer_init(info, client=self._client, source=self._source)

    def _report(self, push: Push, start: float, wait_seconds: float) -> PushReport:
        return PushReport(
            version=push.version,
            checksum="",
            num_bytes=self._source.num_bytes,
            num_buckets=0,
            seconds=time.perf_counter() - start,
            wait_seconds=wait_seconds,
        )


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


def serve(llm: Any, push: Push, *, engine: int, group: int, accept: Callable[[Iterable[Any]], None]) -> int:
    """The engine's part in a push: does with `vllm.LLM` what the learner's client asks for.

    Args:
        group: what the last push returned, 0 for none.
        accept: raises WeightSyncError where (name, shape)s such as these are not wanted.

    Returns the group that the engine is in now.

    Raises:
        WeightSyncError: the push does not fit or was called off; nothing has been touched.
        MixedWeightsError: it failed here or was called off after vLLM had begun to replace the weights.
    """
    talk, is_begun = ReceiverTalk(push, f"rollout[{engine}]"), False
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
        talk.refuse(f"rollout[{engine}] refused {reason}")
        if not is_begun:
            raise WeightSyncError(reason) from error
        with suppress(Exception):  # where it is open no more, or cannot be closed, the next push will tell
            llm.finish_weight_update()
        raise MixedWeightsError(reason) from error


def to_json(value: Any) -> Any:
    """Plain values for vLLM's messages, whose CUDA handles hold bytes, dtypes and classes. No pickle: what
    comes through a network port must not be able to run."""
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
    """The inverse of `to_json`."""
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


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
