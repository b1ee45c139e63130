"""The learner's end of the media that move buckets: gathers, packs and sends, several buckets under way."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor

from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import Push, PushReport
from rlcore.weight_sync.buckets import Layout, Packer, combined
from rlcore.weight_sync.messages import SenderPort, SenderTalk

NUM_SLOTS = 3
"""Buckets under way: one being packed, one travelling, one being loaded."""


class MediumOut(Protocol):
    """How buckets leave the learner."""

    slots: tuple[Tensor, ...]
    """uint8 buffers to pack into."""

    def plan(self, held: list[dict[str, Any]]) -> dict[str, Any]:
        """What receivers need to connect, given what each of them still holds."""
        ...

    def connect(self, timeout_s: float) -> None: ...

    def send(self, slot: int, num_bytes: int) -> None: ...

    def wait(self, slot: int) -> None:
        """Until a slot's bytes have left."""
        ...

    def reset(self) -> None:
        """Forgets connections, after a failure."""
        ...

    def close(self) -> None: ...


class BucketSender:
    """While engines load a bucket, the next ones are gathered and packed.

    Args:
        backend: the medium's name.
        medium: class of the medium, called with the bytes and the number of slots.
        shapes: (hub name, full shape) of every tensor that will be pushed, in order.
        dtype: what the weights travel as, the engines' dtype.
        bucket_bytes: how much is gathered, sent and loaded at a time.
        host: address of this node, as the engines reach it.
        timeout_s: deadline of a push.
    """

    def __init__(
        self,
        backend: str,
        medium: type[Any],
        shapes: Iterable[tuple[str, tuple[int, ...]]],
        *,
        dtype: str,
        bucket_bytes: int,
        host: str,
        timeout_s: float,
    ):
        self.layout = Layout.of(shapes, dtype, bucket_bytes)
        self.backend = backend
        self._port = SenderPort(host, timeout_s)
        num_slots = min(NUM_SLOTS, len(self.layout.buckets))
        self.medium: MediumOut = medium(self.layout.largest, num_slots)

    def announce(self, version: int, engines: Iterable[int], *, workers_per_engine: int = 1) -> Push:
        return self._port.announce(self.backend, version, tuple(engines), workers_per_engine)

    def push(self, push: Push, tensors: Iterable[tuple[str, Tensor]]) -> PushReport:
        start, packer = time.perf_counter(), Packer(tensors)
        if not self.medium.slots:
            raise WeightSyncError("this sender of weights is closed")
        talk = self._port.open(push)
        try:
            checksum = self._send(push, talk, packer)
        except BaseException as error:
            cause = talk.refusal() if isinstance(error, ConnectionError) else None
            talk.call_off(cause or str(error))
            self.medium.reset()
            packer.skip()  # the learner's other ranks gather along to the end
            if isinstance(error, ConnectionError):
                raise WeightSyncError(cause or f"weights of version {push.version}: {error}") from error
            raise
        return PushReport(
            version=push.version,
            checksum=checksum,
            num_bytes=self.layout.num_bytes,
            num_buckets=len(self.layout.buckets),
            seconds=time.perf_counter() - start,
            wait_seconds=talk.wait_seconds,
        )

    def close(self) -> None:
        self._port.close()
        self.medium.close()

    def _send(self, push: Push, talk: SenderTalk, packer: Packer) -> str:
        num_slots, checksums = len(self.medium.slots), []
        first = 2  # messages 0 and 1 are the meeting and the plan
        for index, bucket in enumerate(self.layout.buckets):
            slot = index % num_slots
            if index >= num_slots:
                self.medium.wait(slot)
                talk.answers(first + index - num_slots)
            checksums.append(packer.fill(bucket, self.medium.slots[slot]))
            if index == 0:
                self._meet(push, talk)
            self.post_bucket(talk, index, slot, checksums[-1])
        packer.finish()
        for slot in range(num_slots):
            self.medium.wait(slot)
        talk.answers(first + len(checksums) - 1)  # all have loaded all: only now may anyone call it a version
        checksum = combined(checksums)
        talk.answers(talk.post({"end": len(self.layout.buckets), "checksum": checksum}))
        return checksum

    def _meet(self, push: Push, talk: SenderTalk) -> None:
        """Waits for every receiver; agrees with them on what will come, and how."""
        held = [talk.answers(0)[name] for name in push.receivers]
        plan = self.medium.plan(held)
        is_known = all(one["layout"] == self._port.token for one in held)
        number = talk.post({"plan": plan, "layout": None if is_known else self.layout.description()})
        if not is_known:  # they may refuse it
            talk.answers(number)
        self.medium.connect(push.timeout_s)

    def post_bucket(self, talk: SenderTalk, index: int, slot: int, checksum: str) -> None:
        talk.post({"bucket": index, "slot": slot, "checksum": checksum})
        self.medium.send(slot, self.layout.buckets[index].num_bytes)
