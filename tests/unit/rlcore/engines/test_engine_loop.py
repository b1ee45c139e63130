"""The engine's thread, with an engine that counts."""

from __future__ import annotations

import threading
import time

import pytest

from rlcore.engines.engine_loop import EngineLoop


class CountingEngine:
    """A request is a number of steps; everything that happens is written down, with its thread."""

    def __init__(self) -> None:
        self.remaining: dict[str, int] = {}
        self.events: list[str] = []
        self.threads = {threading.current_thread().name}
        self.gate = threading.Event()
        self.gate.set()

    @property
    def num_unfinished(self) -> int:
        return len(self.remaining)

    def submit(self, key: str, steps: int) -> None:
        self.events.append(f"submit {key}")
        self.remaining[key] = steps

    def step(self) -> dict[str, str]:
        self.gate.wait(10)
        self.threads.add(threading.current_thread().name)
        if "broken" in self.remaining:
            raise RuntimeError("out of memory")
        self.events.append("step")
        for key in self.remaining:
            self.remaining[key] -= 1
        done = [key for key, left in self.remaining.items() if left == 0]
        return {key: f"text of {key}" for key in done if self.remaining.pop(key) == 0}

    def cancel(self, keys) -> None:
        for key in keys:
            self.remaining.pop(key, None)


def test_requests_finish_out_of_order_and_new_ones_join_between_steps() -> None:
    loop = EngineLoop(CountingEngine)
    engine = loop.engine
    engine.gate.clear()
    loop.call(lambda e: [e.submit("long", 3), e.submit("short", 1)]).result(5)
    joined = loop.call(lambda e: e.submit("late", 1))
    assert not joined.done()  # the engine is in a step
    assert loop.collect(0.01) == {}
    engine.gate.set()
    got: dict[str, str] = {}
    order: list[str] = []
    while len(got) < 3:
        new = loop.collect(5)
        got |= new
        order += new
    assert order[0] == "short" and order[-1] == "long"
    assert engine.events == ["submit long", "submit short", "step", "submit late", "step", "step"]
    assert engine.threads == {"engine"}
    loop.close()


def test_the_state_is_known_while_the_engine_is_stuck() -> None:
    loop = EngineLoop(CountingEngine)
    assert loop.state().stalled_s == 0.0
    loop.engine.gate.clear()
    loop.call(lambda e: e.submit("a", 1)).result(5)
    deadline = time.monotonic() + 5
    while loop.state().stalled_s < 0.04 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert loop.state().stalled_s >= 0.04
    loop.engine.gate.set()
    assert loop.collect(5) == {"a": "text of a"}
    loop.call(lambda e: None).result(5)
    deadline = time.monotonic() + 5
    while loop.state().stalled_s and time.monotonic() < deadline:
        time.sleep(0.001)
    assert loop.state().stalled_s == 0.0 and loop.state().num_unfinished == 0
    loop.close()


def test_errors_reach_whoever_caused_or_waits_for_them() -> None:
    def fail() -> CountingEngine:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        EngineLoop(fail)
    loop = EngineLoop(CountingEngine)
    with pytest.raises(ZeroDivisionError):
        loop.call(lambda e: 1 // 0).result(5)
    assert loop.call(lambda e: 7).result(5) == 7  # a call that fails is its caller's business alone
    loop.call(lambda e: e.submit("broken", 1)).result(5)
    with pytest.raises(RuntimeError, match="out of memory"):
        loop.collect(5)
    with pytest.raises(RuntimeError, match="out of memory"):
        loop.call(lambda e: None).result(5)
    loop.close()


def test_busy_stretches_are_told() -> None:
    told: list[tuple[float, float]] = []
    loop = EngineLoop(CountingEngine, on_busy=lambda start, end: told.append((start, end)))
    for key in ("a", "b"):
        loop.call(lambda e, key=key: e.submit(key, 2)).result(5)
        assert loop.collect(5) == {key: f"text of {key}"}
        deadline = time.monotonic() + 5
        while len(told) < (1 if key == "a" else 2) and time.monotonic() < deadline:
            time.sleep(0.001)
    assert len(told) == 2 and all(start <= end for start, end in told)

    # A call ends a stretch: an engine that is never idle is seen to work all the same.
    loop.call(lambda e: e.submit("never ends", 10**9)).result(5)
    loop.call(lambda e: time.sleep(0.02)).result(5)
    loop.call(lambda e: None).result(5)
    assert len(told) == 4 and loop.state().num_unfinished == 1
    assert told[3][0] - told[2][1] >= 0.02  # the call is no part of either
    loop.close()
