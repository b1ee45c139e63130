"""The learner's end of a push: meets the engines, gathers, packs and sends, several buckets under way."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from torch import Tensor

from rlcore.config import WeightSyncConfig
from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import MediumOut, Push, PushReport, load_end
from rlcore.weight_sync.buckets import Layout, Packer, combined
from rlcore.weight_sync.messages import SenderPort, SenderTalk

NUM_SLOTS = 3
"""Buckets under way: one being packed, one travelling, one being loaded."""


class WeightSender(ABC):
    """The learner's end. One sender lives as long as its learner and pushes many versions."""

    num_bytes: int
    """Bytes of all tensors of a push."""
    num_buckets: int
    """Buckets of a push; 0 where vLLM sends."""

    def __init__(self, config: WeightSyncConfig, host: str):
        self.backend = config.backend
        self._port = SenderPort(host, config.timeout_s)

    def announce(self, version: int, engines: Iterable[int], *, workers_per_engine: int = 1) -> Push:
        """Makes the appointment for a push. Only the latest one is kept."""
        return self._port.announce(self.backend, version, tuple(engines), workers_per_engine)

    def push(self, push: Push, tensors: Iterable[tuple[str, Tensor]]) -> PushReport:
        """Sends the tensors (hub name, full tensor), in the order announced to `make_sender`. Exhausts the
        iterator even where the push fails: other ranks gather along.

        Raises:
            WeightSyncError: an engine refused them, or did not come or answer in time; it is named.
        """
        start, stream = time.perf_counter(), iter(tensors)
        talk = self._port.open(push)
        try:
            checksum = self._send(push, talk, stream)
        except BaseException as error:
            cause = talk.refusal() if isinstance(error, ConnectionError) else None
            talk.call_off(cause or str(error))
            self._reset()
            for _ in stream:  # the learner's other ranks gather along to the end
                pass
            if isinstance(error, ConnectionError):
                raise WeightSyncError(cause or f"weights of version {push.version}: {error}") from error
            raise
        return self._report(push, checksum, start, talk.wait_seconds)

    def close(self) -> None:
        """Stops listening, and frees what the sender holds. Idempotent."""
        self._port.close()

    def _report(self, push: Push, checksum: str, start: float, wait_seconds: float) -> PushReport:
        return PushReport(
            version=push.version,
            checksum=checksum,
            num_bytes=self.num_bytes,
            num_buckets=self.num_buckets,
            seconds=time.perf_counter() - start,
            wait_seconds=wait_seconds,
        )

    @abstractmethod
    def _send(self, push: Push, talk: SenderTalk, stream: Iterator[tuple[str, Tensor]]) -> str:
        """Brings the tensors to all engines; returns their checksum, empty where the medium takes none."""

    @abstractmethod
    def _reset(self) -> None:
        """Forgets the medium's connections, after a failure."""


class BucketSender(WeightSender):
    """A sender that gathers and packs the next buckets while engines load one.

    Args:
        shapes: (hub name, full shape) of every tensor that will be pushed, in order.
        dtype: what the weights travel as, the engines' dtype.
        host: address of this node, as the engines reach it.
    """

    def __init__(
        self,
        config: WeightSyncConfig,
        shapes: Iterable[tuple[str, tuple[int, ...]]],
        *,
        dtype: str,
        host: str,
    ):
        super().__init__(config, host)
        self.layout = Layout.of(shapes, dtype, config.bucket_bytes)
        self.num_bytes, self.num_buckets = self.layout.num_bytes, len(self.layout.buckets)
        medium = load_end(config.medium.sender, MediumOut)  # type: ignore[type-abstract]
        self.medium = medium(self.layout.largest, min(NUM_SLOTS, self.num_buckets))

    def close(self) -> None:
        super().close()
        self.medium.close()

    def _reset(self) -> None:
        self.medium.reset()

    def _send(self, push: Push, talk: SenderTalk, stream: Iterator[tuple[str, Tensor]]) -> str:
        if not self.medium.slots:
            raise WeightSyncError("this sender of weights is closed")
        packer, num_slots, checksums = Packer(stream), len(self.medium.slots), []
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
        """Tells every receiver of a packed bucket, and begins to send its bytes."""
        talk.post({"bucket": index, "slot": slot, "checksum": checksum})
        self.medium.send(slot, self.layout.buckets[index].num_bytes)
