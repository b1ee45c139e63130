"""`rlcore data check`: what is shown of a task's rows before a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import make_text

from rlcore.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("models") / "text")


@pytest.fixture
def config(tmp_path: Path, model: Path) -> Path:
    rows = [{"id": f"r{i}", "question": f"What is {i} + 1?", "answer": i + 1} for i in range(30)]
    lines = [json.dumps(row) for row in [*rows, {"id": "bad", "answer": 1}]]
    (tmp_path / "sums.jsonl").write_text("\n".join(lines))
    settings = {
        "run_dir": str(tmp_path / "run"),
        "model": {"path": str(model)},
        "task": {
            "target": "rlcore.tasks:Rows",
            "args": {
                "train": str(tmp_path / "sums.jsonl"),
                "model_path": "${model.path}",
                "columns": {"prompt": "question"},
                "quarantine": "${run_dir}/bad.jsonl",
            },
        },
        "rollout": {"max_tokens": 16, "engine": {"max_model_len": 256}},
        "rewards": {
            "right": {"target": "rlcore.rewards.answers:NumberMatch"},
            "brief": {"target": "rlcore.rewards.rules:Length", "args": {"maximum": 9}, "weight": 0.1},
        },
    }
    (tmp_path / "sums.yaml").write_text(json.dumps(settings))  # JSON is YAML
    return tmp_path / "sums.yaml"


def test_it_shows_what_rows_become(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--config", str(config), "--limit", "1"]) == 0
    said = capsys.readouterr().out
    assert "27 prompts to train on, 3 held out" in said
    assert "r0\n  | <|im_start|>user\n  | What is 0 + 1?<|im_end|>\n  | <|im_start|>assistant\n" in said
    assert "answer: 1\n  a right answer: '1'\n  right gives it 1\n" in said
    assert "r1\n" not in said
    assert "right answers: known of 30 of 30 prompts\n  right: gives more than 0 to 30 of 30\n" in said
    assert "brief: not tried, it is no reward by rule" in said
    (bad,) = (config.parent / "run" / "bad.jsonl").read_text().splitlines()
    assert json.loads(bad)["where"].endswith("sums.jsonl:31")


def test_it_says_what_a_run_could_not_learn_from(
    config: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tags = ["rewards.form.target=rlcore.rewards.rules:TagFormat", "rewards.form.args.tags=[think, answer]"]
    assert main(["data", "check", "--config", str(config), *tags]) == 1
    said = capsys.readouterr().out
    assert (
        "form: gives more than 0 to 0 of 30\n    the first of the others: '1' of prompt r0: got 0\n" in said
    )
    assert "task.args.answer_template" in said
    form = "task.args.answer_template=<think>I count.</think><answer>{answer}</answer>"
    assert main(["data", "check", "--config", str(config), *tags, form]) == 0
    assert "form: gives more than 0 to 30 of 30" in capsys.readouterr().out
    assert (
        "1 bad rows are left out, all in" in caplog.text
        and "sums.jsonl:31: no column 'question'" in caplog.text
    )
    assert main(["data", "check", "--config", str(config), "rollout.engine.max_model_len=30"]) == 1
    assert "do not fit into rollout.engine.max_model_len (30)" in capsys.readouterr().out
    assert main(["data", "check", "--config", str(config), "task.args.quarantine=null"]) == 2
    assert "1 bad rows; mend them, or set task.args.quarantine" in capsys.readouterr().err
