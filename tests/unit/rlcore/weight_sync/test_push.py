"""Both media that run on CPUs, sender and receivers in threads: what arrives, and what every failure says."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlcore.config import LearnerConfig, RolloutConfig, RunConfig, WeightSyncConfig
from rlcore.errors import ConfigError, MixedWeightsError, WeightSyncError
from rlcore.weight_sync import Push, make_sender, messages, shared_memory
from rlcore.weight_sync.buckets import Layout
from rlcore.weight_sync.messages import ReceiverTalk, call_off
from rlcore.weight_sync.receiver import Receiver
from rlcore.weight_sync.sender import NUM_SLOTS, BucketSender
from rlcore.weight_sync.shared_memory import PREFIX, SharedMemoryOut

pytestmark = pytest.mark.slow

SHAPES = [(f"t{i}", (40, 100)) for i in range(9)]  # 16 kB each
CONFIG = WeightSyncConfig(bucket_mb=32 / 1024, timeout_s=20)  # five buckets, one of them alone
BACKENDS = ("shared_memory", "gloo")


def weights(version: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(version)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES}


class Engine:
    """A receiver and what it has loaded."""

    def __init__(self, backend: str, rank: int = 0, broken: Callable[[str], None] | None = None):
        self.rank, self.loaded, self._broken = rank, {}, broken
        self.receiver = Receiver(backend)
        self.checksum = ""

    def take(self, push: Push) -> None:
        self.checksum = self.receiver.take(
            push, engine=self.rank, accept=lambda shapes: None, load=self._load
        )

    def _load(self, layout: Layout, payloads: Iterator[torch.Tensor]) -> None:
        for name, tensor in layout.tensors(payloads):
            if self._broken is not None:
                self._broken(name)
            self.loaded[name] = tensor

    def holds(self, version: int) -> bool:
        expected = weights(version)
        return list(self.loaded) == list(expected) and all(
            torch.equal(self.loaded[name], tensor) for name, tensor in expected.items()
        )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of /dev/shm, where this machine's runs have theirs."""
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture(params=BACKENDS)
def sender(request: pytest.FixtureRequest) -> Iterator[BucketSender]:
    made = make_sender(replace(CONFIG, backend=request.param), SHAPES, dtype="float32")
    assert isinstance(made, BucketSender)
    yield made
    made.close()


def engines_of(sender: BucketSender, count: int) -> list[Engine]:
    return [Engine(sender.backend, rank) for rank in range(count)]


def push_to(
    sender: BucketSender, version: int, engines: Sequence[Engine], push: Push | None = None
) -> tuple[Any, list[Exception | None]]:
    """The report or what the sender raised, and what each engine raised."""
    push = push or sender.announce(version, [engine.rank for engine in engines])
    with ThreadPoolExecutor(len(engines) + 1) as threads:
        sending = threads.submit(sender.push, push, weights(version).items())
        taking = [threads.submit(engine.take, push) for engine in engines]
        return sending.exception() or sending.result(), [future.exception() for future in taking]


def test_every_engine_gets_every_version_and_the_same_checksum(sender: BucketSender) -> None:
    engines = engines_of(sender, 2)
    for version in (1, 2, 3):
        report, errors = push_to(sender, version, engines)
        assert errors == [None, None]
        assert all(engine.holds(version) for engine in engines)
        assert {engine.checksum for engine in engines} == {report.checksum}
        assert (report.version, report.num_bytes, report.num_buckets) == (version, 9 * 16000, 5)


def test_memory_is_bounded_and_buckets_overlap(sender: BucketSender) -> None:
    """The learner goes on gathering while an engine loads, and no further than its slots reach."""
    events: list[str] = []

    def gather() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights(1).items():
            events.append(f"gather {name}")
            yield name, tensor

    def slow(name: str) -> None:
        deadline = time.monotonic() + 10
        while "gather t4" not in events and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.1)  # in which nothing more may be gathered
        events.append(f"loaded {name}")

    engine = Engine(sender.backend, broken=slow)
    push = sender.announce(1, [0])
    with ThreadPoolExecutor(2) as threads:
        sending = threads.submit(sender.push, push, gather())
        engine.take(push)
        sending.result()
    assert engine.holds(1)
    first_loaded = events.index("loaded t1")
    assert events.index("gather t4") < first_loaded  # the third bucket was gathered meanwhile
    assert events.index("gather t6") > first_loaded  # the fourth has to wait for a slot
    assert sum(slot.numel() for slot in sender.medium.slots) <= NUM_SLOTS * 33_000


def test_an_engine_that_restarts_or_is_left_out_catches_up(sender: BucketSender) -> None:
    engines = engines_of(sender, 3)
    push_to(sender, 1, engines)
    push_to(sender, 2, engines[:1])
    assert [engine.holds(2) for engine in engines] == [True, False, False]
    engines[1] = Engine(sender.backend, 1)  # restarted: it holds neither group nor layout
    report, errors = push_to(sender, 2, engines[1:])  # the same version again
    assert errors == [None, None]
    _, errors = push_to(sender, 3, engines)
    assert errors == [None] * 3 and all(engine.holds(3) for engine in engines)
    assert report.version == 2


def test_a_new_learner_is_met_by_the_same_engines(sender: BucketSender) -> None:
    (engine,) = engines_of(sender, 1)
    push_to(sender, 1, [engine])
    other = make_sender(replace(CONFIG, backend=sender.backend), SHAPES, dtype="float32")
    _, errors = push_to(other, 2, [engine])
    assert errors == [None] and engine.holds(2)
    other.close()


def test_a_dropped_bucket_is_named_by_all_and_healed_by_the_next_push(
    sender: BucketSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = engines_of(sender, 2)
    push_to(sender, 1, engines)
    post = sender.post_bucket
    with monkeypatch.context() as patch:
        patch.setattr(
            sender, "post_bucket", lambda talk, index, *rest: index == 2 or post(talk, index, *rest)
        )
        report, errors = push_to(sender, 2, engines)
    expected = r"rollout\[\d\] refused weights of version 2: bucket 2 \(t4 to t5\) was dropped: bucket 3 came"
    with pytest.raises(WeightSyncError, match=expected):
        raise report
    for error in errors:
        with pytest.raises(MixedWeightsError, match=r"bucket 2 \(t4 to t5\) was dropped"):
            raise error
    _, errors = push_to(sender, 3, engines)
    assert errors == [None, None] and all(engine.holds(3) for engine in engines)


def test_a_flipped_byte_is_named(sender: BucketSender, monkeypatch: pytest.MonkeyPatch) -> None:
    (engine,) = engines_of(sender, 1)
    post = sender.post_bucket

    def flip(talk: Any, index: int, slot: int, checksum: str) -> None:
        if index == 0:
            sender.medium.slots[slot][16_100] ^= 1
        post(talk, index, slot, checksum)

    monkeypatch.setattr(sender, "post_bucket", flip)
    _, (error,) = push_to(sender, 1, [engine])
    with pytest.raises(WeightSyncError, match=r"version 1: bucket 0 \(t0 to t1\) arrived with checksum"):
        raise error
    assert not isinstance(error, MixedWeightsError) and not engine.loaded


def test_an_engine_that_does_not_come_is_named(sender: BucketSender) -> None:
    engines = engines_of(sender, 2)
    push = replace(sender.announce(1, [0, 1]), timeout_s=2.0)
    report, errors = push_to(sender, 1, engines[:1], push)
    with pytest.raises(
        WeightSyncError, match=r"rollout\[1\] did not come for them within 2 s .* rollout\[0\] did"
    ):
        raise report
    assert "version 1" in str(errors[0])
    with pytest.raises(WeightSyncError, match=r"are for rollout\[0\], not for rollout\[1\]"):
        engines[1].take(sender.announce(2, [0]))


def test_a_failing_engine_ends_the_push_for_all_at_once(sender: BucketSender) -> None:
    def fail(name: str) -> None:
        if name == "t4":
            raise RuntimeError("out of memory")

    engines = [Engine(sender.backend, 0), Engine(sender.backend, 1, broken=fail)]
    start = time.monotonic()
    report, errors = push_to(sender, 1, engines)
    assert time.monotonic() - start < CONFIG.timeout_s / 2
    with pytest.raises(WeightSyncError, match=r"rollout\[1\] refused weights of version 1: out of memory"):
        raise report
    assert all(isinstance(error, MixedWeightsError) for error in errors)


def test_a_failing_learner_ends_it_too_and_gathers_to_the_end(sender: BucketSender) -> None:
    (engine,) = engines_of(sender, 1)
    gathered: list[str] = []

    def wrong() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights(1).items():
            gathered.append(name)
            yield name, (tensor[:1] if name == "t5" else tensor)

    push = sender.announce(1, [0])
    with ThreadPoolExecutor(2) as threads:
        sending = threads.submit(sender.push, push, wrong())
        with pytest.raises(WeightSyncError, match=r"called off \(weights to push: expected t5 \(40, 100\)"):
            engine.take(push)
        assert isinstance(sending.exception(), WeightSyncError)
    assert gathered == [name for name, _ in SHAPES]


def test_a_push_can_be_called_off_from_outside(sender: BucketSender) -> None:
    push = sender.announce(1, [0])
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(sender.push, push, weights(1).items())
        call_off(push, "rollout[0] died")
        with pytest.raises(WeightSyncError, match=r"rollout\[0\] died"):
            sending.result(timeout=10)


def test_a_layout_may_be_long_and_come_in_parts(sender: BucketSender) -> None:
    """A mixture of experts has tens of thousands of tensors, whose names are a megabyte."""
    shapes = [
        (f"model.layers.{i // 400}.mlp.experts.{i % 400}.down_proj.weight", (1,)) for i in range(20_000)
    ]
    long = make_sender(replace(CONFIG, backend=sender.backend, bucket_mb=1.0), shapes, dtype="float32")
    assert isinstance(long, BucketSender)
    push, engine = long.announce(1, [0]), Engine(sender.backend)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(long.push, push, ((name, torch.ones(1)) for name, _ in shapes))
        engine.take(push)
        sending.result(timeout=10)
    assert list(engine.loaded) == [name for name, _ in shapes]
    long.close()


def test_an_engine_that_hangs_up_is_named_at_once(sender: BucketSender) -> None:
    push = sender.announce(1, [0])
    talk = ReceiverTalk(push, "rollout[0]")
    talk.answer({"layout": "", "generation": 0})
    talk.line.socket.close()
    start = time.monotonic()
    with pytest.raises(WeightSyncError, match=r"version 1: rollout\[0\] hung up; did it die"):
        sender.push(push, weights(1).items())
    assert time.monotonic() - start < CONFIG.timeout_s / 2
    engines = engines_of(sender, 1)
    _, errors = push_to(sender, 2, engines)
    assert errors == [None] and engines[0].holds(2)


def test_who_has_answered_the_end_may_leave_while_others_are_awaited() -> None:
    port = messages.SenderPort("127.0.0.1", 20)
    push = port.announce("gloo", 1, (0, 1), 1)
    talk, (first, second) = port.open(push), [ReceiverTalk(push, name) for name in push.receivers]
    for receiver in (first, second):
        receiver.answer()
    talk.answers(0)
    number = talk.post({"end": 0})
    first.next(), second.next()
    first.answer()
    first.line.socket.close()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(talk.answers, number)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        second.answer()
        assert list(waiting.result(timeout=10)) == ["rollout[0]", "rollout[1]"]
    port.close()


def test_a_stranger_cannot_call_a_push_off(sender: BucketSender) -> None:
    push = sender.announce(1, [0])
    call_off(replace(push, token="guessed"), "no reason")
    hello = json.dumps({"token": push.token, "from": "rollout[0]", "and": "x" * 5000}).encode()
    for line in (b"x" * 5000 + b"\n[1]", b"[" * 3000, b"{}\n" + b"[" * 3000, b"9" * 4096, b"\xff", hello):
        with socket.create_connection((push.host, push.port)) as stranger:
            stranger.sendall(line + b"\n")
    engines = engines_of(sender, 1)
    _, errors = push_to(sender, 1, engines, push)
    assert errors == [None] and engines[0].holds(1)


def test_a_long_reason_may_follow_the_token_at_once(sender: BucketSender) -> None:
    push = sender.announce(1, [0])
    call_off(push, "x" * 5000)
    with pytest.raises(WeightSyncError, match="x" * 5000):
        sender.push(push, weights(1).items())


def test_a_connection_that_cannot_be_accepted_is_tried_again_until_the_deadline(
    sender: BucketSender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, failures = socket.socket.accept, iter([OSError(errno.EMFILE, "Too many open files")] * 2)

    def failing(listener: socket.socket) -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return accept(listener)

    monkeypatch.setattr(messages, "_NO_DESCRIPTOR_S", 0.01)
    monkeypatch.setattr(socket.socket, "accept", failing)
    engines = engines_of(sender, 1)
    _, errors = push_to(sender, 1, engines)
    assert errors == [None] and engines[0].holds(1)
    assert caplog.text.count("could not be accepted: [Errno 24] Too many open files") == 2
    failures = itertools.repeat(OSError(errno.EMFILE, "Too many open files"))
    push = replace(sender.announce(2, [1]), timeout_s=0.3)
    with socket.create_connection((push.host, push.port)), pytest.raises(WeightSyncError, match="not come"):
        sender.push(push, weights(2).items())


def test_nobody_listens_after_the_learner_is_gone(sender: BucketSender) -> None:
    push = replace(sender.announce(1, [0]), timeout_s=0.3)
    with pytest.raises(WeightSyncError, match=r"heard nothing more from the learner at .* within 0.3 s"):
        Engine(sender.backend).take(push)


def test_shared_memory_is_private_and_removed(folder: Path) -> None:
    # Of a process that is gone, and of one that nobody has waited for, or whose number another has by now.
    orphans = [folder / f"{PREFIX}{pid}-test" for pid in (999999999, os.getpid())]
    for orphan in orphans:
        orphan.write_bytes(b"x")
    medium = SharedMemoryOut(128, 2)
    assert not any(orphan.exists() for orphan in orphans)
    path = Path(medium.plan([])["path"])
    assert (os.stat(path).st_mode & 0o777, path.stat().st_size) == (0o600, 256)
    medium.close()
    medium.close()
    assert not path.exists()
    with pytest.raises(WeightSyncError, match="no room for weights"):
        SharedMemoryOut(1 << 44, 2)


def test_a_living_learner_of_another_container_keeps_its_file(folder: Path) -> None:
    """It shares /dev/shm, and nobody here knows its process."""
    other = SharedMemoryOut(128, 2)
    path = Path(other.plan([])["path"])
    elsewhere = path.rename(folder / f"{PREFIX}999999999-elsewhere")
    SharedMemoryOut(128, 2).close()
    assert elsewhere.exists()
    other.close()
    SharedMemoryOut(128, 2).close()
    assert not list(folder.iterdir())


def test_another_machine_is_told_what_to_use(folder: Path) -> None:
    sender = make_sender(CONFIG, SHAPES, dtype="float32")
    next(folder.glob(f"{PREFIX}*")).unlink()
    _, (error,) = push_to(sender, 1, [Engine("shared_memory")])
    with pytest.raises(WeightSyncError, match=r"on one machine, in one container; gloo does not"):
        raise error
    push = sender.announce(2, [0])
    sender.close()  # another machine's 127.0.0.1, where no learner listens
    with pytest.raises(WeightSyncError, match=r"no learner at 127.0.0.1:.*weight_sync.backend=gloo"):
        Engine("shared_memory").take(push)
    with pytest.raises(WeightSyncError, match="closed"):
        sender.push(push, [])


def test_backends_that_need_a_gpu_say_so() -> None:
    with pytest.raises(ConfigError, match=r"weight_sync.backend: got 'nccl', must be shared_memory or gloo"):
        RunConfig(weight_sync=WeightSyncConfig(backend="nccl"))
    with pytest.raises(ConfigError, match="backend: got 'pigeon', must be one of shared_memory, gloo"):
        WeightSyncConfig(backend="pigeon")
    on_gpus = RunConfig(
        weight_sync=WeightSyncConfig(backend="nccl"),
        learner=LearnerConfig(num_gpus=1),
        rollout=RolloutConfig(num_gpus=2, engine={"tensor_parallel_size": 2}),
    )
    assert on_gpus.rollout.workers_per_engine == 2
    if not torch.cuda.is_available():
        with pytest.raises(
            ConfigError, match="'nccl', which moves weights between GPUs, and this process sees"
        ):
            make_sender(on_gpus.weight_sync, SHAPES, dtype="float32")
    assert make_sender(CONFIG, SHAPES, dtype="float32", rank=1) is None
