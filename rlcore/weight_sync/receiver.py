"""Takes part in a push for whoever wants the weights: meets, verifies every bucket, hands it over, answers.

It knows neither medium nor engine: `rlcore.weight_sync.vllm_receiver` loads what comes into vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from rlcore.config.weight_media import medium_of
from rlcore.errors import MixedWeightsError, WeightSyncError
from rlcore.weight_sync.base import MediumIn, Push, load_end, receiver_name
from rlcore.weight_sync.buckets import Bucket, Layout, combined
from rlcore.weight_sync.messages import Line, ReceiverTalk

Accept = Callable[[Iterable[tuple[str, tuple[int, ...]]]], None]
Load = Callable[[Layout, Iterator[Tensor]], None]


class Receiver:
    """A worker process's end of many pushes, by one learner or, after a restart, another."""

    def __init__(self, backend: str):
        target = medium_of(backend).receiver
        assert target is not None, f"vLLM receives what {backend} brings"
        self._medium = load_end(target, MediumIn)()  # type: ignore[type-abstract]
        self._sender = ""  # token of the sender whose layout this is
        self._line: Line | None = None  # to its port, where the last push went well
        self._port = 0
        self._layout: Layout | None = None
        self.is_mixed = False
        """True after a push that failed midway: some buckets were handed over, others were not."""

    def take(
        self,
        push: Push,
        *,
        engine: int,
        worker: int = 0,
        accept: Accept,
        load: Load,
    ) -> str:
        """Takes part in a push, as worker process `worker` of rollout engine `engine`; returns its checksum.

        Args:
            accept: raises WeightSyncError where (name, shape)s such as these are not wanted. Called before
                anything comes, the first time a learner's layout is seen.
            load: takes all buckets of a layout in order (uint8, verified); each is valid until the next one
                is asked for.

        Raises:
            WeightSyncError: the push does not fit, is damaged or incomplete, or was called off, and nothing
                has been loaded.
            MixedWeightsError: the same, after something had been loaded.
        """
        name = receiver_name(engine, worker, push.workers_per_engine)
        if name not in push.receivers:
            raise WeightSyncError(
                f"weights of version {push.version} are for {', '.join(push.receivers)}, not for {name}"
            )
        if push.token != self._sender:
            self.close()
        talk = ReceiverTalk(push, name, self._line if push.port == self._port else None)
        self._line = None
        try:
            self._meet(push, talk, accept)
            checksum = self._take_buckets(talk, load)
        except Exception as error:
            # First say why, then hang up: others notice a broken connection and ask for the reason.
            talk.refuse(f"{name} refused weights of version {push.version}: {error}")
            self._medium.reset()
            cause = talk.end() if isinstance(error, ConnectionError) else None
            reason = f"weights of version {push.version}: {cause or error}"
            if self.is_mixed:
                raise MixedWeightsError(
                    f"{reason}; {name} now holds old weights and new ones, and needs a whole push"
                ) from error
            raise WeightSyncError(reason) from error
        self.is_mixed, self._line, self._port = False, talk.line, push.port
        return checksum

    def close(self) -> None:
        """Leaves the sender: the next push connects anew."""
        self._medium.reset()
        self._line, self._sender = None, ""

    def _meet(self, push: Push, talk: ReceiverTalk, accept: Accept) -> None:
        talk.answer({"layout": self._sender, **self._medium.held()})
        message = talk.next()
        if self._sender != push.token:
            layout = Layout.of(**message["layout"])
            accept(layout.shapes)
            self._layout, self._sender = layout, push.token
        talk.answer()
        rank = 1 + push.receivers.index(talk.name)
        self._medium.connect(message["plan"], push.host, rank, push.timeout_s)

    def _take_buckets(self, talk: ReceiverTalk, load: Load) -> str:
        assert self._layout is not None
        checksums: list[str] = []
        payloads = self._payloads(talk, self._layout, checksums)
        load(self._layout, payloads)
        if next(payloads, None) is not None:
            raise WeightSyncError(f"bucket {len(checksums) - 1} and what follows were not loaded")
        end, checksum = talk.next(), combined(checksums)
        if (end.get("end"), end.get("checksum")) != (len(checksums), checksum):
            raise WeightSyncError(
                f"{len(checksums)} buckets with checksum {checksum} came, the learner's: {end}"
            )
        talk.answer()
        return checksum

    def _payloads(self, talk: ReceiverTalk, layout: Layout, checksums: list[str]) -> Iterator[Tensor]:
        """One verified bucket after another; its answer, that it has been loaded, when the next is wanted."""
        for index, bucket in enumerate(layout.buckets):
            payload, checksum = self._receive(talk, index, bucket)
            checksums.append(checksum)
            self.is_mixed = True
            yield payload
            talk.answer()

    def _receive(self, talk: ReceiverTalk, index: int, bucket: Bucket) -> tuple[Tensor, str]:
        """The payload of the bucket that must come now, verified, and its checksum."""
        message = talk.next()
        if message.get("bucket") != index:
            came = f"bucket {message['bucket']}" if "bucket" in message else "the end"
            raise WeightSyncError(f"bucket {index} ({bucket}) was dropped: {came} came in its place")
        payload = self._medium.receive(message["slot"], bucket.num_bytes)
        checksum = bucket.checksum(payload)
        if checksum != message["checksum"]:
            raise WeightSyncError(
                f"bucket {index} ({bucket}) arrived with checksum {checksum}, the learner's is "
                f"{message['checksum']}"
            )
        return payload, checksum
