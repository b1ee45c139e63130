"""The learner's end of a push by vLLM, on threads where it may wait for ever without anyone waiting for it.

    the learner's thread                        vLLM's threads
    gathers a tensor when asked      <-------   send_weights: packs and broadcasts, asks for the next
    calls the push off, aborts                  update_weights: talks to the engines while they receive

A collective with an engine that died never returns. Then the talk with the engines, which has a deadline,
says so, and the learner's thread aborts the collective.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from queue import Empty, SimpleQueue
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightSource,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.messages import SenderTalk, call_off

logger = logging.getLogger(__name__)

_ABORT_S = 5.0
"""Seconds in which threads have to end that were aborted."""

_LAST_S = 1.0
"""Added to the deadline of the talk, which says better than this thread who is late."""


class Trainer:
    """A trainer engine of vLLM's for one group of engines, which may be sent to many times.

    Args:
        info: its setup.
        tensors: what every push brings, in order.
    """

    def __init__(self, info: TrainerInitInfo, tensors: Sequence[ParamMeta]):
        self._info = info
        self._events: SimpleQueue[object] = SimpleQueue()
        self._source = _Source(tensors, self._events)
        self._client = _PortClient(self._events)
        self._engine: TrainerWeightTransferEngine | None = None
        self._thread: threading.Thread | None = None
        self._is_aborted = False

    def send(self, push: Push, talk: SenderTalk | None, stream: Iterator[tuple[str, Tensor]]) -> None:
        """Sends the tensors of a stream, which is advanced by the calling thread: gathering is collective.

        Args:
            talk: with the engines, on rank 0; other ranks have none.

        Raises WeightSyncError where an engine refused or left, or the deadline passed; what the stream and
        vLLM raise.
        """
        self._client.talk = talk
        deadline = (time.monotonic() + push.timeout_s if talk is None else talk.deadline) + _LAST_S
        device = torch.accelerator.current_device_index() if torch.accelerator.is_available() else None
        self._thread = threading.Thread(target=self._run, args=(device,), name="weight sync", daemon=True)
        self._thread.start()
        try:
            while (event := self._event(push, deadline)) is not _ENDED:
                if isinstance(event, BaseException):
                    raise event
                item = next(stream, None)
                _finish()  # what made the tensor: vLLM's thread reads it on another stream
                self._source.given.put(item)
        except BaseException as error:
            self._client.end(push, str(error))
            raise

    def abort(self) -> None:
        """Ends whatever vLLM is doing, and leaves the group. Idempotent."""
        self._is_aborted = True
        self._source.given.put(WeightSyncError("the push was called off"))
        if self._engine is not None:
            self._engine.shutdown()
        if self._thread is not None:
            self._thread.join(_ABORT_S)
            if self._thread.is_alive():  # NCCL cannot abort a group that is being made
                logger.warning("weight sync: a thread of a push that was called off still hangs in vLLM")

    def _event(self, push: Push, deadline: float) -> object:
        try:
            return self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise WeightSyncError(
                f"weights of version {push.version}: vLLM did not send them within {push.timeout_s:g} s "
                "(weight_sync.timeout_s), though no engine had left"
            ) from None

    def _run(self, device: int | None) -> None:
        try:
            # A thread begins with the first device, and with streams of its own: vLLM leaves it on others.
            with nullcontext() if device is None else torch.accelerator.device_index(device):
                if self._engine is None:
                    self._engine = WeightTransferTrainerFactory.trainer_init(
                        self._info, client=self._client, source=self._source
                    )
                    if self._is_aborted:
                        self._engine.shutdown()
                        return
                self._engine.send_weights()
        except BaseException as error:
            self._events.put(error)
        else:
            self._events.put(_ENDED)


_ENDED = object()
_NEXT = object()


class _Source(WeightSource):
    """The weights of the push under way, as vLLM's thread asks the learner's for them."""

    def __init__(self, tensors: Sequence[ParamMeta], events: SimpleQueue[object]):
        self.given: SimpleQueue[tuple[str, Tensor] | Exception | None] = SimpleQueue()
        self._tensors, self._events = list(tensors), events

    def metadata(self) -> list[ParamMeta]:
        return self._tensors

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        dtype = self._tensors[0].dtype
        while True:
            self._events.put(_NEXT)
            item = self.given.get()
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            # A copy, and a whole one: vLLM collects tensors, and a gathered one is valid only until the next
            # is asked for, by a thread that knows nothing of this one's streams.
            copy = item[1].detach().to(accelerator or "cpu", dtype, copy=True)
            _finish()
            yield item[0], copy


def _finish() -> None:
    """Waits for what this thread has begun on the GPU."""
    if torch.accelerator.is_available():
        torch.accelerator.current_stream().synchronize()


class _PortClient:
    """vLLM's `VLLMWeightSyncClient`: every call goes to all engines and returns when all have done it."""

    def __init__(self, events: SimpleQueue[object]):
        self.talk: SenderTalk | None = None
        self._events = events
        self._is_idle = threading.Event()
        self._is_idle.set()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._call("init_weight_transfer_engine", init_info)

    def start_weight_update(self) -> None:
        self._call("start_weight_update", {})

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        self._call("update_weights", update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._call("finish_weight_update", {})

    def end(self, push: Push, reason: str) -> None:
        """Ends the call under way, if there is one, so that the talk is the learner's thread's again; there
        will be no other."""
        talk, self.talk = self.talk, None
        if talk is not None and not self._is_idle.is_set():
            call_off(push, reason)
            self._is_idle.wait(_ABORT_S)

    def _call(self, method: str, argument: Any) -> None:
        self._is_idle.clear()
        try:
            if (talk := self.talk) is None:
                raise WeightSyncError("the push was called off")
            talk.answers(talk.post({"call": method, "argument": to_json(argument)}))
        except BaseException as error:  # vLLM's other thread may wait in the collective, and not raise it
            self._events.put(error)
            raise
        finally:
            self._is_idle.set()


_HANDLE_CLASSES = {
    c.__name__: c for c in (Tensor, torch.nn.Parameter, torch.UntypedStorage, torch.storage.TypedStorage)
}


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
