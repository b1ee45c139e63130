from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_files import no_file_beyond

from rlcore.config import ModelConfig, RunConfig, TargetConfig, load_config
from rlcore.errors import DataError
from rlcore.records.checkpoint import Change
from rlcore.records.plots import _running_mean, plot_run
from rlcore.records.tracking import Tracker, keep_earlier, merge_summary, read_metrics
from rlcore.types import Completion, Group, Prompt, Score

CONFIG = RunConfig(seed=3, model=ModelConfig(path="m"), task=TargetConfig(target="a.b:C"))


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def group(name: str) -> Group:
    completions = tuple(
        Completion(token_ids=(1, 2), logprobs=(-1.0, -2.0), text=t, finish_reason="stop", policy_version=4)
        for t in ("good", "bad")
    )
    prompt = Prompt(
        id=name,
        text="?",
        media={"audio": "/a.wav", "array": np.zeros((2, 3))},
        reference={"label": "sad", "f0": float("nan")},
    )
    return Group(prompt=prompt, prompt_token_ids=(0,), completions=completions)


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG) as tracker:
        tracker.log(1, {"kl": 0.5, "loss": float("nan")})
        assert rows(tmp_path / "metrics.jsonl")[0] | {"time": 0} == {
            "step": 1,
            "time": 0,
            "kl": 0.5,
            "loss": None,
        }
    assert load_config([tmp_path / "config.yaml"]) == CONFIG
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"python", "torch", "numpy"} <= summary["versions"].keys()
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_resume_drops_what_will_be_done_again(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG) as tracker:
        for step in range(6):
            tracker.log(step, {"kl": float(step)})
            tracker.log_samples(step, [group("p")], {})
        tracker.update_summary({"sft": {"accuracy": 0.5}})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "kl"')  # a kill in the middle of a line
    with Tracker(tmp_path, CONFIG, resume_step=3) as tracker:
        tracker.log(4, {"kl": 40.0})
    assert [(r["step"], r["kl"]) for r in read_metrics(tmp_path)] == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 40)]
    assert max(r["step"] for r in rows(tmp_path / "samples.jsonl")) == 3
    assert json.loads((tmp_path / "summary.json").read_text())["sft"] == {"accuracy": 0.5}


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_evaluation_of_the_resumed_step_is_kept_only_whole(tmp_path: Path, is_whole: bool) -> None:
    with Tracker(tmp_path, CONFIG) as tracker:
        for step in (0, 2):
            tracker.log(step, {"kl": 0.5})
            tracker.log_samples(step, [group("p")], {})
            tracker.log_samples(step, [group("p")], {}, split="eval")
            if step == 0 or is_whole:
                tracker.log(step, {"eval/accuracy": 0.25, "eval/gain": float("nan")})
    with Tracker(tmp_path, CONFIG, resume_step=2) as tracker:
        assert tracker.evaluation(0)["accuracy"] == 0.25 and tracker.evaluation(1) == {}
        assert tracker.evaluation(2) == (
            {"accuracy": 0.25, "gain": pytest.approx(np.nan, nan_ok=True)} if is_whole else {}
        )
    found = [(row["step"], row["split"]) for row in rows(tmp_path / "samples.jsonl")[::2]]
    assert found == [(0, "train"), (0, "eval"), (2, "train"), *([(2, "eval")] if is_whole else [])]


def test_skipped_updates_are_counted_by_the_learner(tmp_path: Path) -> None:
    """Of steps 1 to 4 the second trained on nothing: step 4 was the third update."""
    with Tracker(tmp_path, CONFIG) as tracker:
        for step in (1, 2, 3, 4):
            tracker.log(step, {"update_skipped": float(step == 2)})
            tracker.log(step, {"eval/accuracy": 0.5})
    skipped = tmp_path / "skipped.jsonl"
    skipped.write_text("".join(json.dumps({"step": n, "reason": "loss"}) + "\n" for n in (1, 3, 4)))
    with Tracker(tmp_path, CONFIG, resume_step=4):
        assert [row["step"] for row in rows(skipped)] == [1, 3]
    with Tracker(tmp_path, CONFIG, resume_step=3):
        assert [row["step"] for row in rows(skipped)] == [1]


def test_fresh_run_starts_empty(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with Tracker(tmp_path, CONFIG) as tracker:
            tracker.log(0, {"kl": value})
    assert [r["kl"] for r in read_metrics(tmp_path)] == [2.0]
    assert len(list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))) == 1


def test_samples_hold_text_scores_and_where_they_came_from(tmp_path: Path) -> None:
    scores = {
        "format": [[Score(value=1.0), Score(value=0.0)]],
        "judge": [[Score(value=0.7, parts={"factual": 4.0}), Score(value=0.0, error="no answer")]],
    }
    with Tracker(tmp_path, CONFIG) as tracker:
        tracker.log_samples(2, [group("p7")], scores, rewards=np.array([[1.7, np.nan]]), split="eval")
    good, bad = rows(tmp_path / "samples.jsonl")
    assert good["prompt"] == "p7" and good["split"] == "eval" and good["sample"] == 0 and bad["sample"] == 1
    assert good["media"] == {"audio": "/a.wav", "array": "ndarray[2, 3]"}
    assert good["reference"] == {"label": "sad", "f0": None}
    assert good["scores"] == {"format": {"value": 1.0}, "judge": {"value": 0.7, "parts": {"factual": 4.0}}}
    assert bad["scores"]["judge"] == {"error": "no answer"}
    assert (good["reward"], bad["reward"]) == (1.7, None)
    assert (good["tokens"], good["policy_version"]) == (2, 4)


def test_text_that_is_no_unicode_ends_no_run(tmp_path: Path) -> None:
    half = "\udc80"
    scores = {"judge": [[Score(value=1.0, parts={half: 0.5}), Score(value=0.0, error=f"bad byte {half}")]]}
    strange = Completion(
        token_ids=(1,),
        logprobs=(-1.0,),
        text="a",
        finish_reason=Path("stop"),
        policy_version=0,  # type: ignore[arg-type]
    )
    with Tracker(tmp_path, CONFIG) as tracker:
        tracker.log_samples(1, [group("p")], scores)
        tracker.log_samples(1, [replace(group("q"), completions=(strange,))], {})
        tracker.update_summary({half: 1})
    with Tracker(tmp_path, CONFIG, resume_step=1):
        good, bad, other = rows(tmp_path / "samples.jsonl")
    assert good["scores"]["judge"]["parts"] == {half: 0.5}
    assert bad["scores"]["judge"]["error"] == f"bad byte {half}" and other["finish_reason"] == "stop"


def test_summary_merges_sections(tmp_path: Path) -> None:
    path = tmp_path / "run" / "summary.json"
    merge_summary(path, {"seconds": {"sft": 10}, "seed": 0})
    assert merge_summary(path, {"seconds": {"rl": 20}}) == {"seconds": {"sft": 10, "rl": 20}, "seed": 0}
    assert [p.name for p in path.parent.iterdir()] == ["summary.json"]


def test_rows_of_one_step_are_read_as_one(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG) as tracker:
        tracker.log(2, {"kl": 0.1})
        tracker.log(2, {"eval/accuracy": 0.6})
    (row,) = read_metrics(tmp_path)
    assert (row["kl"], row["eval/accuracy"]) == (0.1, 0.6)
    with pytest.raises(DataError, match=r"metrics\.jsonl: no such file"):
        read_metrics(tmp_path / "nothing")


def test_plots_are_drawn_for_what_was_logged(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG) as tracker:
        for step in range(1, 31):
            metrics = {"reward/outcome": step / 30, "reward/format": 1.0, "ptr/gate": float(step > 9)}
            tracker.log(step, {**metrics, "ptr/tau": 0.9, "kl": 0.01})
        tracker.log(30, {"eval/accuracy": 0.6})
    paths = plot_run(tmp_path)
    sheets = ["overview.png", "overview.pdf", "overview.svg"]
    assert [p.name for p in paths] == ["rewards.png", "accuracy.png", "ptr.png", "kl.png", *sheets]
    begins = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert all(p.read_bytes().startswith(begins[p.suffix]) for p in paths)
    sheet = paths[-1].read_text()
    assert all(f"<!-- {label} -->" in sheet for label in ("outcome", "format", "Rewards", "gate"))


def test_a_plot_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Tracker(tmp_path, CONFIG) as tracker:
        tracker.log(1, {"reward/outcome": 0.5, "kl": 0.1})
    before = [path.read_bytes() for path in plot_run(tmp_path)]
    with no_file_beyond(1000):
        assert plot_run(tmp_path) == []
    assert caplog.text.count("not all plots are drawn: ") == 1
    assert [path.read_bytes() for path in plot_run(tmp_path)] == before
    assert len(list((tmp_path / "plots").iterdir())) == 5


def test_running_mean_uses_what_there_is() -> None:
    assert _running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]


def test_an_earlier_evaluation_is_kept_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "eval"
    for accuracy in (0.1, 0.2, 0.3):
        folder.mkdir(exist_ok=True)
        (folder / "run.lock").write_text("held")
        keep_earlier(folder)
        with Tracker(folder, RunConfig()) as tracker:
            tracker.log(0, {"eval/accuracy": accuracy})
    found = {path.name: read_metrics(path)[0]["eval/accuracy"] for path in tmp_path.iterdir()}
    assert found == {"eval.1": 0.1, "eval.2": 0.2, "eval": 0.3}
    assert [path.name for path in tmp_path.glob("*/run.lock")] == ["run.lock"] and (
        folder / "run.lock"
    ).is_file()
    assert (tmp_path / "eval.1" / "config.yaml").is_file() and (tmp_path / "eval.2" / "tensorboard").is_dir()
    assert f"{folder}: the earlier evaluation is kept as {folder}.2" in caplog.text
    (folder / "metrics.jsonl").write_text("")  # cut short: there is nothing to keep
    keep_earlier(folder)
    assert not (tmp_path / "eval.3").exists()


def test_a_step_back_within_a_run_drops_later_rows_alone(tmp_path: Path) -> None:
    """And not what the run has noted of its own start."""
    with Tracker(tmp_path, RunConfig()) as tracker:
        for step in (0, 1, 2):
            tracker.log(step, {"loss": step})
        tracker.log_changes(1, [Change("learner.lr", 1e-6, 2e-6)])
        tracker.rewind(1)
        tracker.log(2, {"loss": 7.0})
    assert [row["loss"] for row in read_metrics(tmp_path)] == [0, 1, 7]
    (change,) = map(json.loads, (tmp_path / "changes.jsonl").read_text().splitlines())
    assert (change["step"], change["key"]) == (1, "learner.lr")
