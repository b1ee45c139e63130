from __future__ import annotations

from pathlib import Path

import pytest

from rlcore.cli import main
from rlcore.config import RunConfig, load_config
from rlcore.config.origins import annotated_yaml

BASE = """
model: {path: m}
task: {target: "a.b:C", args: {folder: "${run_dir}/rows", key: "${oc.env:ROWS_KEY}"}}
learner: {lr: 1.0e-5, lora: {rank: 8}}
rewards:
  brief: {target: "a.b:brief", weight: 0.5}
"""
MINE = """
learner: {lr: 3.0e-5, recompute_logprobs: true}
rewards: {brief: null, kind: {target: "a.b:kind"}}
rollout: {engine: {max_model_len: 512}, structured: {regex: "a # b"}}
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("ROWS_KEY", "s3cret")
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "mine.yaml").write_text(MINE)
    return [str(tmp_path / "base.yaml"), str(tmp_path / "mine.yaml")]


def test_each_value_tells_where_it_comes_from(files: list[str]) -> None:
    base, mine = files
    overrides = ["rollout.engine.max_num_seqs=4", "seed=7", "run_dir='runs/two\nlines'"]
    lines = annotated_yaml(load_config(files, overrides), files, overrides).splitlines()
    for line in (
        f"  path: m  # {base}",
        "  dtype: null  # default",
        f"  lr: 3.0e-05  # {mine}",
        f"    rank: 8  # {base}",
        "    alpha: 32  # default",
        f"    max_model_len: 512  # {mine}",
        "    max_num_seqs: 4  # rollout.engine.max_num_seqs=4",
        f"    regex: 'a # b'  # {mine}",
        "seed: 7  # seed=7",
        f"    target: a.b:kind  # {mine}",
        "    weight: 1.0  # default",
        f"    key: ${{oc.env:ROWS_KEY}}  # {base}",
    ):
        assert line in lines, line
    assert "brief" not in str(lines) and "s3cret" not in str(lines)


@pytest.mark.parametrize("only_set", [False, True])
def test_what_is_shown_is_the_same_configuration(files: list[str], tmp_path: Path, only_set: bool) -> None:
    overrides = ["train.num_steps=3", "learner.betas=[0.8, 0.9]", "rewards.kind.args={a: [1, {b: c}]}"]
    config = load_config(files, overrides)
    shown = annotated_yaml(config, files, overrides, only_set=only_set)
    assert ("# default" in shown) != only_set
    (tmp_path / "shown.yaml").write_text(shown)
    assert load_config([tmp_path / "shown.yaml"], [], RunConfig) == config


def test_the_command_prints_it(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", files[0], "--config", files[1], "seed=3", "--set"]) == 0
    out = capsys.readouterr().out
    assert "seed: 3  # seed=3\n" in out and "default" not in out
    assert main(["config", "show", "--config", files[0], "sed=3"]) == 2
    assert "did you mean seed?" in capsys.readouterr().err
