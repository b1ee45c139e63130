"""Spans to a trace and to seconds."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from small_files import no_file_beyond

from rlcore import cli
from rlcore.errors import DataError
from rlcore.records.timeline import (
    SPANS,
    STATUS,
    Clock,
    Recorder,
    Span,
    busy_seconds,
    keep_spans,
    read_spans,
    within,
    write_trace,
)


def span(actor: str, phase: str, start: float, end: float, step: int | None = None) -> Span:
    return Span(actor=actor, phase=phase, start=start, end=end, step=step)


def test_a_trace_has_a_row_an_actor_and_microseconds_from_the_start(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / SPANS)
    recorder.add([span("rollout[0]", "generate", 10.5, 12.0), span("controller", "update", 10.0, 10.25, 3)])
    with (tmp_path / SPANS).open("a") as file:
        file.write('{"actor": "cut sho')  # the run was killed
    events = json.loads(write_trace(tmp_path).read_text())["traceEvents"]
    names = {event["args"]["name"]: event["tid"] for event in events if event["ph"] == "M"}
    assert set(names) == {"rollout[0]", "controller"}
    update, generate = (event for event in events if event["ph"] == "X")
    assert (update["tid"], update["ts"], update["dur"], update["args"]) == (
        names["controller"],
        0,
        250_000,
        {"step": 3},
    )
    assert (generate["name"], generate["ts"], generate["dur"]) == ("generate", 500_000, 1_500_000)


def test_a_resumed_run_drops_what_it_does_again_and_a_line_cut_short(tmp_path: Path) -> None:
    kept = [
        span("rollout[0]", "generate", 0, 1),
        span("controller", "update", 1, 2, 1),
        span("rollout[0]", "update_weights", 1.5, 1.9),
    ]
    again = [span("rollout[0]", "generate", 2, 3), span("controller", "update", 3, 4, 2)]
    recorder = Recorder(tmp_path / SPANS)
    recorder.add([*kept, *again])
    with (tmp_path / SPANS).open("a") as file:
        file.write('{"actor": "cut sho')
    keep_spans(tmp_path, last_step=1)
    recorder.add(again)
    assert (tmp_path / SPANS).read_text().count("\n") == 5
    assert read_spans(tmp_path) == sorted([*kept, *again], key=lambda each: each.start)
    keep_spans(tmp_path, last_step=0)
    assert (tmp_path / SPANS).read_text() == ""


def test_a_line_torn_by_an_earlier_kill_costs_that_line_alone(tmp_path: Path) -> None:
    (tmp_path / SPANS).write_text('{"actor": "cut sho')
    recorder = Recorder(tmp_path / SPANS)
    recorder.add([span("a", "first", 0, 1)])
    recorder.add([span("a", "second", 1, 2)])
    assert [each.phase for each in read_spans(tmp_path)] == ["first", "second"]


def test_overlapping_spans_of_a_phase_count_once() -> None:
    spans = [
        span("r", "score", 0, 2),
        span("r", "score", 1, 3),
        span("r", "score", 5, 6),
        span("r", "x", 0, 1),
    ]
    assert busy_seconds(spans) == {"r": {"score": 4.0, "x": 1.0}}


def test_spans_are_cut_at_the_ends_of_what_is_counted() -> None:
    times = [(2, 3), (0, 9), (0, 1), (4, 9), (5, 9)]
    spans = [span("rollout[0]", "generate", start, end) for start, end in times]
    assert [(cut.start, cut.end) for cut in within(spans, 1, 5)] == [(1, 5), (2, 3), (4, 5)]


def test_a_clock_adds_up_phases_and_records_them() -> None:
    recorder = Recorder()
    clock = Clock(recorder, step=2)
    for _ in range(2):
        with clock.phase("rollout"):
            pass
    with pytest.raises(ZeroDivisionError), clock.phase("update"):
        raise ZeroDivisionError
    assert set(clock.seconds) == {"rollout", "update"}
    assert [(s.actor, s.phase, s.step) for s in recorder.take()] == [
        ("controller", "rollout", 2),
        ("controller", "rollout", 2),
        ("controller", "update", 2),
    ]
    assert recorder.take() == []


def test_a_file_says_what_the_run_does_now(tmp_path: Path) -> None:
    def status() -> tuple[str, int | None]:
        read = json.loads((tmp_path / STATUS).read_text())
        assert time.time() - 60 < read["since"] <= time.time()
        return read["phase"], read["step"]

    recorder = Recorder(tmp_path / SPANS)
    with pytest.raises(ZeroDivisionError), recorder.running():
        assert status() == ("start", None)
        with Clock(recorder, step=2).phase("update"):
            assert status() == ("update", 2)
        assert status() == ("idle", 2)
        with recorder.phase("save", 2):
            raise ZeroDivisionError
    assert status() == ("end", None)
    assert [(s.actor, s.phase) for s in read_spans(tmp_path)] == [
        ("controller", "update"),
        ("controller", "save"),
    ]
    shutil.rmtree(tmp_path)
    recorder.say("export", 3)  # a folder that was taken away is not made anew
    assert not tmp_path.exists()


def test_the_command_writes_the_trace_and_says_who_was_busy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Recorder(tmp_path / SPANS).add([span("learner", "update", 0, 1), span("rollout[0]", "generate", 1, 4)])
    assert cli.main(["timeline", str(tmp_path)]) == 0
    out = capsys.readouterr().out.split()
    assert [out[out.index("generate") + i] for i in (1, 3)] == ["3.00", "75.0%"]
    with pytest.raises(DataError, match="no such file"):
        read_spans(tmp_path / "elsewhere")


def test_spans_wait_for_room_and_no_work_fails_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path / SPANS)
    spans = [span("controller", "update", step, step + 1, step) for step in range(4)]
    recorder.add(spans[:1])
    with no_file_beyond((tmp_path / SPANS).stat().st_size + 20):
        recorder.add(spans[1:2])
        recorder.add(spans[2:3])
    assert read_spans(tmp_path) == spans[:1]
    assert caplog.text.count("spans.jsonl: spans wait until they can be written") == 1
    recorder.add(spans[3:])
    assert read_spans(tmp_path) == spans
