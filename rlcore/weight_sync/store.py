"""What learner and engines say to each other during a push: small JSON messages through a `TCPStore`.

The sender owns the store. Every message goes to every receiver, is answered by each in order, and either end
may call the push off with a reason that all others then raise. The weights themselves go elsewhere.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import Push

_CONNECT_TIMEOUT_S = 10.0
"""The store stands before anyone is told of it."""

_GRACE_S = 10.0


class SenderStore:
    """The learner's store, on a free port of `host`."""

    def __init__(self, host: str, timeout_s: float):
        self.host, self.timeout_s = host, timeout_s
        self.token = secrets.token_hex(16)
        self._server = dist.TCPStore(
            host, 0, None, True, timedelta(seconds=timeout_s), wait_for_workers=False
        )
        self.port: int = self._server.port
        self._num_pushes = 0

    def announce(self, backend: str, version: int, engines: tuple[int, ...], workers_per_engine: int) -> Push:
        """A new appointment at this store."""
        self._num_pushes += 1
        return Push(
            backend=backend,
            version=version,
            id=self._num_pushes,
            engines=engines,
            workers_per_engine=workers_per_engine,
            host=self.host,
            port=self.port,
            token=self.token,
            timeout_s=self.timeout_s,
        )

    def open(self, push: Push) -> SenderTalk:
        """The sender's side of one push."""
        return SenderTalk(self._server, push)


class SenderTalk:
    """One push, seen from the learner."""

    def __init__(self, store: dist.Store, push: Push):
        self.store = dist.PrefixStore(push.token, store)
        self.wait_seconds = 0.0
        self._push = push
        self._deadline = time.monotonic() + push.timeout_s
        self._num_posted = 0
        self._num_answered = dict.fromkeys(push.receivers, -1)  # 0 once it has said hello
        self._answers: dict[str, list[dict[str, Any]]] = {name: [] for name in push.receivers}

    def post(self, message: Mapping[str, Any]) -> int:
        """Sends to every receiver; returns the message's number, for `answers`."""
        text = json.dumps(message)
        for name in self._push.receivers:
            self.store.queue_push(f"{self._push.id}/{name}", text)
        self._num_posted += 1
        return self._num_posted

    def answers(self, number: int) -> dict[str, dict[str, Any]]:
        """Waits until every receiver has answered message `number` (0: has come); the answers, by name.

        Raises:
            WeightSyncError: one refused, or the deadline passed; who, and what about.
        """
        start = time.monotonic()
        while late := [name for name, answered in self._num_answered.items() if answered < number]:
            text = _pop(self.store, f"{self._push.id}/sender", self._deadline)
            if text is None:
                here = sorted(set(self._num_answered) - set(late))
                what = "come for them" if number == 0 else "answer"
                raise WeightSyncError(
                    f"weights of version {self._push.version}: {', '.join(late)} did not {what} within "
                    f"{self._push.timeout_s:g} s (weight_sync.timeout_s); {', '.join(here) or 'nobody'} did"
                )
            answer = json.loads(text)
            if "refused" in answer:
                raise WeightSyncError(answer["refused"])
            self._num_answered[answer["from"]] += 1
            self._answers[answer["from"]].append(answer["value"])
        self.wait_seconds += time.monotonic() - start
        return {name: values[number] for name, values in self._answers.items()}

    def refusal(self) -> str | None:
        """The first refusal that lies there, if any: why a connection broke."""
        while (text := _pop(self.store, f"{self._push.id}/sender", time.monotonic() + 1)) is not None:
            if "refused" in (answer := json.loads(text)):
                return str(answer["refused"])
        return None

    def call_off(self, reason: str) -> None:
        """Ends the push for every receiver that still listens."""
        self.post({"called_off": reason})


class ReceiverTalk:
    """One push, seen from a worker process of an engine.

    Raises:
        WeightSyncError: the learner's store cannot be reached.
    """

    def __init__(self, push: Push, name: str, store: dist.Store | None = None):
        self.name, self._push = name, push
        # Somewhat later than the learner's, who knows which engine it is that all the others wait for.
        self.deadline = time.monotonic() + push.timeout_s + min(push.timeout_s, _GRACE_S)
        self.server = store or _connect(push)
        self.store = dist.PrefixStore(push.token, self.server)

    def answer(self, value: Mapping[str, Any] | None = None) -> None:
        """Answers the latest message; the first answer of all says hello."""
        self._send({"from": self.name, "value": dict(value or {})})

    def next(self) -> dict[str, Any]:
        """The sender's next message.

        Raises:
            WeightSyncError: the push was called off, the deadline passed, or the learner is gone.
        """
        try:
            text = _pop(self.store, f"{self._push.id}/{self.name}", self.deadline)
        except dist.DistNetworkError as error:
            raise WeightSyncError(f"{self.name} lost the learner at {_address(self._push)}") from error
        if text is None:
            raise WeightSyncError(
                f"{self.name} heard nothing more from the learner at {_address(self._push)} within "
                f"{self._push.timeout_s:g} s (weight_sync.timeout_s)"
            )
        message: dict[str, Any] = json.loads(text)
        if "called_off" in message:
            raise WeightSyncError(f"the push was called off ({message['called_off']})")
        return message

    def end(self) -> str | None:
        """Why the learner called the push off, if it did: why a connection broke."""
        self.deadline = min(self.deadline, time.monotonic() + 5)
        try:
            while True:
                self.next()
        except WeightSyncError as error:
            return str(error)

    def refuse(self, reason: str) -> None:
        """Calls the push off; the learner raises `reason`, and tells the other engines."""
        self._send({"refused": reason})

    def _send(self, message: Mapping[str, Any]) -> None:
        self.store.queue_push(f"{self._push.id}/sender", json.dumps(message))


def call_off(push: Push, reason: str) -> None:
    """Ends a push from outside, for instance because an engine died: the learner need not wait for it."""
    ReceiverTalk(push, "controller").refuse(reason)


def _connect(push: Push) -> dist.TCPStore:
    try:
        return dist.TCPStore(
            push.host, push.port, None, False, timedelta(seconds=_CONNECT_TIMEOUT_S), wait_for_workers=False
        )
    except dist.DistError as error:
        raise WeightSyncError(
            f"weights of version {push.version}: no learner at {_address(push)} ({type(error).__name__}); "
            "engines must reach the learner's node by TCP, on any port"
        ) from error


def _pop(store: dist.Store, queue: str, deadline: float) -> bytes | None:
    """The queue's next entry; nothing once the deadline has passed."""
    store.set_timeout(timedelta(seconds=max(0.001, deadline - time.monotonic())))
    try:
        return store.queue_pop(queue)  # type: ignore[attr-defined, no-any-return]
    except dist.DistNetworkError:
        raise
    except dist.DistStoreError:
        return None


def _address(push: Push) -> str:
    return f"{push.host}:{push.port}"
