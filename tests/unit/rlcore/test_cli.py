from __future__ import annotations

import argparse
import contextlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from emotion_task.cli import main as emotion_main
from rlcore import cli
from rlcore.commands import train
from rlcore.commands.shared import lasting_output, print_metrics
from rlcore.config.targets import load_target
from rlcore.errors import ConfigError, DataError, PlacementError, RLCoreError


def test_overrides_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(train, "run", lambda arguments: seen.append(arguments) or 0)
    assert (
        cli.main(["train", "a=1", "--config", "x.yaml", "b=2", "--config", "y.yaml", "--resume", "c=-3"]) == 0
    )
    (arguments,) = seen
    assert arguments.config == ["x.yaml", "y.yaml"]
    assert arguments.overrides == ["a=1", "b=2", "c=-3"]
    assert arguments.resume is True


@pytest.mark.parametrize(
    "words",
    [
        "",
        "train",
        "train --config x --resum-e",
        "dance",
        "doctor seed=1",
        "evaluate --config x --resume",
        "reward",
        "reward score x:Y",
    ],
)
def test_wrong_usage_exits_with_2(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    assert stop.value.code == 2
    assert "usage: rlcore" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "",
        "train",
        "prefer",
        "evaluate",
        "reward",
        "reward check",
        "reward score",
        "timeline",
        "plan",
        "bench",
        "bench compare",
        "submit",
        "config",
        "config show",
        "data check",
        "doctor",
        "version",
    ],
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert "usage: rlcore" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("a.b: no"), 2), (DataError("x: no"), 2), (PlacementError("few"), 1), (RLCoreError("?"), 1)],
)
def test_errors_are_one_line_and_a_code(
    error: RLCoreError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise pickle.loads(pickle.dumps(error))

    assert cli.run_command(fail, program="rlcore", debug=False) == code
    assert capsys.readouterr().err == f"rlcore: error: {error}\n"
    assert cli.run_command(fail, program="rlcore", debug=True) == code
    assert "Traceback" in capsys.readouterr().err


def test_a_path_that_cannot_be_read_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        return len(Path("/no/such/file").read_text())

    assert cli.run_command(fail, program="rlcore", debug=False) == 2
    assert capsys.readouterr().err == (
        "rlcore: error: /no/such/file: No such file or directory (--debug shows where)\n"
    )
    assert cli.run_command(fail, program="rlcore", debug=True) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_is_130_and_defects_keep_their_traceback() -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    def defect() -> int:
        raise KeyError("oops")

    assert cli.run_command(interrupt, program="rlcore", debug=False) == 130
    with pytest.raises(KeyError):
        cli.run_command(defect, program="rlcore", debug=False)


def test_an_error_that_crossed_ray_is_told_by_its_cause() -> None:
    class Wrapped(DataError):
        cause = DataError("x.wav: not audio")

    assert cli.message_of(Wrapped("ray::Actor.load() ... many lines")) == "x.wav: not audio"


def test_misspelt_key_ends_with_2_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model: {path: m}\ntask: {target: 'a.b:C'}\nrolout: {num_replicas: 2}\n")
    assert cli.main(["train", "--config", str(path)]) == 2
    assert "c.yaml: rolout: unknown key; did you mean rollout?" in capsys.readouterr().err


def test_version_lists_the_tested_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert "deepspeed" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["rlcore", "emotion"])
def test_a_shell_learns_the_commands(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = cli.main if program == "rlcore" else emotion_main
    with pytest.raises(SystemExit):
        main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    word = {"rlcore": "tr train", "emotion": "quick quickstart"}[program].split()
    asked = f"_shtab_{program} {program} {word[0]} {program}"
    words = f"COMP_WORDS=({program} {word[0]}); COMP_CWORD=1"
    done = subprocess.run(
        ["bash", "-c", f'{script}\n{words}; {asked}; echo "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1] == word[1], done.stderr


def test_metrics_are_listed_with_dotted_sections(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics("run", {"eval": {"accuracy": 0.56789}, "steps": 3})
    assert capsys.readouterr().out.split() == ["run", "eval.accuracy", "0.5679", "steps", "3"]


def test_classes_in_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_module_of_mine.py").write_text("class Brevity: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])

    def command() -> int:
        return len(load_target("a_module_of_mine:Brevity", where="rewards.brevity").__name__)

    assert cli.run_command(command, program="rlcore", debug=False) == 7


def test_settings_of_a_reward_are_read_as_in_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    words = "reward check rlcore.rewards.rules:ExactMatch args.key=label"
    assert cli.main([*words.split(), "replica=2"]) == 2
    assert "replica: unknown key; did you mean replicas?" in capsys.readouterr().err
    assert cli.main([*words.split(), "--reference", "sad"]) == 2
    assert "--reference: got 'sad', must be like '{label: sad}'" in capsys.readouterr().err
    assert cli.main(["reward", "check", "rlcore.rewards.rules:ExactMatch", "args.kye=label"]) == 2
    assert "reward.args: rlcore.rewards.rules:ExactMatch was given ['kye']" in capsys.readouterr().err
    # A variable for its actors brings no package: what is misspelt is still told before Ray starts.
    nowhere = ["reward", "check", "rlcore.rewards.rules:ExactMatsch", "runtime_env.env_vars.A=1"]
    assert cli.main(nowhere) == 2
    assert "reward.target: module 'rlcore.rewards.rules' has no 'ExactMatsch'" in capsys.readouterr().err
    part = "args.rewards.form={target: 'rlcore.rewards.rules:TagFormat', args: {tgas: [a]}}"
    assert cli.main(["reward", "check", "rlcore.rewards.combine:WeightedSum", part]) == 2
    assert "reward.args.rewards.form.args: rlcore.rewards.rules:TagFormat was" in capsys.readouterr().err
    assert cli.main([*words.split(), "--limit", "0"]) == 2
    assert "--limit: got 0, must be at least 1" in capsys.readouterr().err
    assert cli.main(["reward", "check", "not a target"]) == 2
    assert "target: got 'not a target', must be package.module:Class" in capsys.readouterr().err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_who_goes_away_ends_no_work(stream: str, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from rlcore.cli import run_command
def work():
    for number in range(20_000):
        print(number, file=sys.{stream})
    Path("done").touch()
    return 0
sys.exit(run_command(work, program="it", debug=False))
"""
    command = [sys.executable, "-c", program]
    running = subprocess.Popen(command, cwd=tmp_path, **{stream: subprocess.PIPE})
    reader = running.stdout or running.stderr
    assert reader is not None
    assert reader.readline() == b"0\n"
    reader.close()
    assert running.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_a_disk_that_is_full_is_no_reader_who_went_away() -> None:
    def work() -> int:
        with open("/dev/full", "w") as full, contextlib.redirect_stdout(full), lasting_output():
            print("a result")
        return 0

    with pytest.raises(OSError, match="No space left"):
        work()
