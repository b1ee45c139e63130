from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_run import make_run, step_row

from rlcore.errors import DataError
from rlcore.records.alarms import ALARMS, drop_earlier_alarms, kept_alarms
from rlcore.records.files import append_rows, read_rows, write_json
from rlcore.records.tracking import read_metrics
from rlcore.report.listing import listed
from rlcore.report.state import alarms_of, check_run, read_config, seconds_per_step, state_of


def state(folder: Path) -> dict:
    return state_of(folder, read_config(folder), read_metrics(folder))


def lock(folder: Path, pid: int, host: str = "", since: float | None = None) -> None:
    when = time.strftime("%F %T %z", time.localtime(since))
    (folder / "run.lock").write_text(f"process {pid} on {host or socket.gethostname()} since {when}\n")


def test_a_finished_run(tmp_path: Path) -> None:
    found = state(make_run(tmp_path / "rl"))
    assert (found["state"], found["step"], found["num_steps"], found["eta_s"]) == ("finished", 12, 12, None)


def test_a_run_whose_process_lives_goes_on(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl", num_steps=4, is_over=False)
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("steps: 4", "steps: 10"))
    write_json(folder / "status.json", {"phase": "update", "step": 5, "since": 5.0})
    lock(folder, os.getpid())
    found = state(folder)
    assert (found["state"], found["phase"], found["step"]) == ("running", "update", 4)
    assert found["eta_s"] == 6.0  # a second a step


def test_a_run_whose_process_is_gone_ended_early(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl", is_over=False)
    write_json(folder / "status.json", {"phase": "update", "step": 5, "since": 5.0})
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    lock(folder, child.pid)
    assert state(folder)["state"] == "ended early"
    lock(folder, os.getpid(), since=0.0)  # the number of the process is another one's now
    assert state(folder)["state"] == "ended early"


def test_of_another_host_the_age_of_the_records_decides(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl", is_over=False)
    write_json(folder / "status.json", {"phase": "update", "step": 5, "since": 5.0})
    lock(folder, 1, host="elsewhere")
    assert state(folder)["state"] == "running"
    for path in folder.glob("*.json*"):
        os.utime(path, (1.0, 1.0))
    assert state(folder)["state"] == "ended early"


def test_a_run_that_a_signal_stopped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl")
    write_json(folder / "summary.json", {"steps": 12, "stopped_by": "SIGTERM"})
    assert state(folder)["state"] == "stopped"


def test_an_evaluation_is_finished_and_has_no_steps(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "eval", num_steps=0)
    write_json(folder / "summary.json", {})
    found = state(folder)
    assert (found["state"], found["num_steps"]) == ("finished", None)


def test_a_folder_without_a_run_names_those_below(tmp_path: Path) -> None:
    make_run(tmp_path / "line" / "rl")
    with pytest.raises(DataError, match=f"Below it are .*{tmp_path}/line/rl"):
        check_run(tmp_path / "line")
    with pytest.raises(DataError, match="Name the folder of a run"):
        check_run(tmp_path / "nothing")


def test_a_configuration_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(DataError, match=r"config\.yaml: not YAML"):
        read_config(tmp_path)


def test_the_pace_is_that_of_steps_evaluations_between_them_included() -> None:
    rows = [step_row(step) for step in range(1, 6)]
    assert seconds_per_step(rows) == 1.0
    assert seconds_per_step(rows[:1]) is None


def test_warnings_are_kept_and_counted(tmp_path: Path) -> None:
    log = logging.getLogger("rlcore.loop.metrics")
    with kept_alarms(tmp_path):
        log.warning("answers were cut: %d %%", 40)
        log.warning("answers were cut: %d %%", 40)
        log.info("nothing")
    log.warning("after the run")
    assert [row["text"] for row in read_rows(tmp_path / ALARMS)] == ["answers were cut: 40 %"] * 2
    (alarm,) = alarms_of(tmp_path, [])
    assert (alarm["text"], alarm["count"]) == ("answers were cut: 40 %", 2)
    append_rows(tmp_path / ALARMS, [{"time": 5.0, "text": "of the run before"}])
    drop_earlier_alarms(tmp_path)
    assert len(alarms_of(tmp_path, [])) == 1


def test_a_warning_that_is_kept_is_shown_once_all_the_same(tmp_path: Path) -> None:
    program = f"""
import logging, pathlib
from rlcore.records.alarms import kept_alarms
own = logging.getLogger("own")
own.addHandler(logging.StreamHandler())
with kept_alarms(pathlib.Path({str(tmp_path)!r})):
    logging.getLogger("rlcore.run").warning("the gate cannot open")
    own.warning("shown by its own handler")
    logging.getLogger("rlcore.run").info("nothing")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.stderr == "the gate cannot open\nshown by its own handler\n"
    assert len(list(read_rows(tmp_path / ALARMS))) == 2


def test_a_folder_that_cannot_be_written_loses_the_warning_alone(tmp_path: Path) -> None:
    with kept_alarms(tmp_path / "gone"):
        logging.getLogger("rlcore").warning("still said")


def test_metrics_tell_of_alarms_too(tmp_path: Path) -> None:
    rows = [step_row(step) for step in range(1, 5)]
    rows[1] |= {"completion/truncated": 0.5, "reward_errors/outcome": 3.0}
    rows[2] |= {"update_skipped": 1.0, "completion/truncated": 0.4, "rollout/restarts": 1.0}
    rows[3] |= {"loss": None, "rollout/restarts": 1.0}
    told = {alarm["text"]: (alarm["step"], alarm["count"]) for alarm in alarms_of(tmp_path, rows)}
    assert told == {
        "training: more than 20% of the answers were cut at the token limit": (2, 2),
        "scores of the reward outcome failed": (2, 1),
        "an update was skipped: too few answers were left to train on": (3, 1),
        "actors were lost and started anew": (3, 1),
        "the loss was not finite": (4, 1),
    }


def test_runs_are_listed_with_state_and_headline_the_newest_last(tmp_path: Path) -> None:
    make_run(tmp_path / "new" / "rl", num_steps=20)
    make_run(tmp_path / "old")
    broken = make_run(tmp_path / "broken")
    (broken / "metrics.jsonl").write_text("nonsense\n")
    lines = listed([tmp_path])
    assert [Path(line[0]).name for line in lines] == ["broken", "old", "rl"]
    assert lines[0][1] == "unreadable" and "metrics.jsonl:1" in lines[0][3]
    assert lines[2][1:3] == ("finished", "20/20") and lines[2][3].startswith("accuracy 0.")
    append_rows(tmp_path / "old" / "metrics.jsonl", [{"step": 13, "time": time.time(), "kl": 0.0}])
    assert Path(listed([tmp_path])[-1][0]).name == "old"
    with pytest.raises(DataError, match="no such folder"):
        listed([tmp_path / "nowhere"])
