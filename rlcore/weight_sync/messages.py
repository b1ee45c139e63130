"""The talk of learner and engines during a push: one TCP connection per engine, one line of JSON per message.

The learner listens. Every message goes to every receiver, is answered by each in order, and either end may
call the push off with a reason that all others then raise. Connections outlive a push that went well; after
any other, the learner hangs up and listens anew, so that nothing stale is ever read. The weights themselves
go elsewhere.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from rlcore.config.weight_media import medium_of, names_of
from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import Message, Push

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10.0
"""Seconds to connect: the learner listens before anyone is told of it."""

_GRACE_S = 10.0

_MAX_HELLO_BYTES = 4096
"""Longest line of someone who has not yet shown the token."""

_NO_DESCRIPTOR_S = 0.5
"""Seconds before the next try where a connection could not be accepted."""


class Line:
    """A line carries messages over one connection."""

    def __init__(self, connection: socket.socket, timeout_s: float):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(timeout_s)
        self.socket = connection
        self.name = ""
        """Name of the other end; empty until the token was shown."""
        self._rest = b""

    def send(self, message: Message) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> Iterator[Message]:
        """Yields the messages that have come, waiting no longer than the socket's timeout. A line is looked
        at once those before it have been taken: the first may bring the token.

        Raises:
            OSError: the other end hung up, or nothing came.
            ValueError: no JSON, or too much of it before the token.
        """
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("it hung up")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._check_length(line)
            yield json.loads(line)
        self._check_length(self._rest)

    def _check_length(self, line: bytes) -> None:
        if not self.name and len(line) > _MAX_HELLO_BYTES:
            raise ValueError("no token")


class SenderPort:
    """The port where the learner listens, a free one of `host`."""

    def __init__(self, host: str, timeout_s: float):
        self.host, self.timeout_s = host, timeout_s
        self.token = secrets.token_hex(16)
        self.lines: dict[str, Line] = {}
        self._selector: selectors.DefaultSelector | None = None
        self._messages: list[Message] = []
        self._num_pushes = 0

    def announce(self, backend: str, version: int, engines: tuple[int, ...], workers_per_engine: int) -> Push:
        """Makes a new appointment at this port."""
        if self._selector is None:
            self._listen()
        self._num_pushes += 1
        return Push(
            backend=backend,
            version=version,
            id=self._num_pushes,
            engines=engines,
            workers_per_engine=workers_per_engine,
            host=self.host,
            port=self._listener.getsockname()[1],
            token=self.token,
            timeout_s=self.timeout_s,
        )

    def open(self, push: Push) -> SenderTalk:
        """Returns the sender's side of one push."""
        return SenderTalk(self, push)

    def messages(self, push_id: int, deadline: float) -> list[Message]:
        """Returns what receivers have said about a push, waiting for something; nothing once the deadline has
        passed. Someone who hung up is `{"from": name, "gone": True}`."""
        is_late = False
        while self._selector is not None:
            mine = [message for message in self._messages if message["push"] == push_id]
            if mine:  # what belongs to an earlier push is dropped, who comes early for the next one waits
                self._messages = [message for message in self._messages if message["push"] > push_id]
                return mine
            if is_late:  # strangers may keep the port busy for ever
                return []
            left_s = deadline - time.monotonic()
            is_late = left_s <= 0
            ready = self._selector.select(max(0.0, left_s))
            for key, _ in ready:
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data, push_id)
        return []

    def close(self) -> None:
        """Hangs up and stops listening; the next announcement opens another port."""
        if self._selector is not None:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()
        self._selector, self.lines, self._messages = None, {}, []

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # Not at the host's address: where it is translated, this machine does not know it as its own.
        address = self.host if self.host == "127.0.0.1" else ""
        self._listener = socket.create_server((address, 0), family=family)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        assert self._selector is not None
        try:
            line = Line(self._listener.accept()[0], self.timeout_s)
        except OSError as error:  # this process has no descriptor left, or whoever came is gone again
            logger.warning("weight sync: a connection could not be accepted: %s", error)
            time.sleep(_NO_DESCRIPTOR_S)
            return
        self._selector.register(line.socket, selectors.EVENT_READ, line)

    def _read(self, line: Line, push_id: int) -> None:
        try:
            for message in line.read():
                if not line.name:
                    if not hmac.compare_digest(str(message["token"]), self.token):
                        raise ValueError("wrong token")
                    line.name = str(message["from"])
                    self.lines[line.name] = line
                else:
                    self._messages.append(message)
        except Exception:  # the boundary to the network: a line ends its own connection alone
            self._selector.unregister(line.socket)  # type: ignore[union-attr]
            line.socket.close()
            if self.lines.get(line.name) is line:
                del self.lines[line.name]
                self._messages.append({"push": push_id, "from": line.name, "gone": True})


class SenderTalk:
    """The learner's side of one push."""

    def __init__(self, port: SenderPort, push: Push):
        self.wait_seconds = 0.0
        self._port, self._push = port, push
        self.deadline = time.monotonic() + push.timeout_s
        self._num_posted = 0
        self._end: int | None = None  # number of the last message of the push
        self._num_answered = dict.fromkeys(push.receivers, -1)  # 0 once it has said hello
        self._answers: dict[str, list[Message]] = {name: [] for name in push.receivers}

    def post(self, message: Message) -> int:
        """Sends to every receiver; returns the message's number, for `answers`."""
        for name in self._push.receivers:
            if name in self._port.lines:
                with suppress(OSError):  # it is gone: `answers` reads why
                    self._port.lines[name].send({"push": self._push.id, **message})
        self._num_posted += 1
        if "end" in message:
            self._end = self._num_posted
        return self._num_posted

    def answers(self, number: int) -> dict[str, Message]:
        """Waits until every receiver has answered message `number` (0: has come); returns the
        answers, by name.

        Raises:
            WeightSyncError: one refused or hung up, or the deadline passed; who, and what about.
        """
        start = time.monotonic()
        while late := [name for name, answered in self._num_answered.items() if answered < number]:
            messages = self._port.messages(self._push.id, self.deadline)
            if not messages:
                here = sorted(set(self._num_answered) - set(late))
                what = "come for them" if number == 0 else "answer"
                raise WeightSyncError(
                    f"weights of version {self._push.version}: {', '.join(late)} did not {what} within "
                    f"{self._push.timeout_s:g} s (weight_sync.timeout_s); {', '.join(here) or 'nobody'} did"
                )
            for message in messages:
                self._take(message)
        self.wait_seconds += time.monotonic() - start
        return {name: values[number] for name, values in self._answers.items()}

    def refusal(self) -> str | None:
        """Returns the first refusal that lies there, if any: the reason why a connection broke."""
        while messages := self._port.messages(self._push.id, time.monotonic() + 1):
            for message in messages:
                if "refused" in message:
                    return str(message["refused"])
        return None

    def call_off(self, reason: str) -> None:
        """Ends the push for every receiver, and hangs up."""
        self.post({"called_off": reason})
        self._port.close()

    def _take(self, message: Message) -> None:
        if "refused" in message:
            raise WeightSyncError(message["refused"])
        name = message["from"]
        if name not in self._num_answered:
            return
        if "gone" in message:
            # Before its hello that was the line of an earlier push, and its next hello comes by another; who
            # has answered the end may leave, whoever is still awaited.
            if self._num_answered[name] in (-1, self._end):
                return
            raise WeightSyncError(f"weights of version {self._push.version}: {name} hung up; did it die?")
        self._num_answered[name] += 1
        self._answers[name].append(message["value"])


class ReceiverTalk:
    """The side of one push that a worker process of an engine has.

    Args:
        line: of an earlier push to the same port.

    Raises:
        WeightSyncError: the learner cannot be reached.
    """

    def __init__(self, push: Push, name: str, line: Line | None = None):
        self.name, self._push = name, push
        # Somewhat later than the learner's, who knows which engine it is that all the others wait for.
        self.deadline = time.monotonic() + push.timeout_s + min(push.timeout_s, _GRACE_S)
        self.line = line or _connect(push, name)
        self._messages: list[Message] = []

    def answer(self, value: Message | None = None) -> None:
        """Answers the latest message; the first answer of all says hello."""
        self._send({"value": dict(value or {})})

    def next(self) -> Message:
        """Returns the sender's next message.

        Raises:
            WeightSyncError: the push was called off, the deadline passed, or the learner is gone.
        """
        while not self._messages:
            self.line.socket.settimeout(max(0.001, self.deadline - time.monotonic()))
            try:
                self._messages = [one for one in self.line.read() if one["push"] == self._push.id]
            except TimeoutError as error:
                raise WeightSyncError(
                    f"{self.name} heard nothing more from the learner at {_address(self._push)} within "
                    f"{self._push.timeout_s:g} s (weight_sync.timeout_s)"
                ) from error
            except OSError as error:
                raise WeightSyncError(
                    f"{self.name} lost the learner at {_address(self._push)}: it called the push off before "
                    "this engine came, or died"
                ) from error
        message = self._messages.pop(0)
        if "called_off" in message:
            raise WeightSyncError(f"the push was called off ({message['called_off']})")
        return message

    def end(self) -> str | None:
        """Returns why the learner called the push off, if it did: the reason why a connection broke."""
        self.deadline = min(self.deadline, time.monotonic() + 5)
        try:
            while True:
                self.next()
        except WeightSyncError as error:
            return str(error)

    def refuse(self, reason: str) -> None:
        """Calls the push off; the learner raises `reason`, and tells the other engines."""
        self._send({"refused": reason})

    def _send(self, message: Message) -> None:
        with suppress(OSError):  # the learner is gone: `next` says so
            self.line.send({"push": self._push.id, "from": self.name, **message})


def call_off(push: Push, reason: str) -> None:
    """Ends a push from outside, for instance because an engine died: the learner need not wait for it. Where
    nobody listens any more it has ended already."""
    with suppress(WeightSyncError):
        ReceiverTalk(push, "controller").refuse(reason)


def _connect(push: Push, name: str) -> Line:
    try:
        connection = socket.create_connection((push.host, push.port), timeout=_CONNECT_TIMEOUT_S)
        line = Line(connection, push.timeout_s)
        line.name = "learner"  # who owns the port that the appointment names: its messages may be long
        line.send({"token": push.token, "from": name})
        return line
    except OSError as error:
        advice = "engines must reach the learner's node by TCP, on any port"
        if medium_of(push.backend).one_machine:
            others = names_of(lambda medium: not medium.one_machine and medium.gpus == "none")
            advice = f"{push.backend} is for one machine; between several, weight_sync.backend={others}"
        raise WeightSyncError(
            f"weights of version {push.version}: no learner at {_address(push)} ({error}); {advice}"
        ) from error


def _address(push: Push) -> str:
    return f"{push.host}:{push.port}"
