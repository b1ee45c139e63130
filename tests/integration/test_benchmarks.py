"""`emotion evaluate` for real: Ray, vLLM and a tiny Qwen2-Audio over small files in owners' layouts."""

from __future__ import annotations

import json
from pathlib import Path

import benchmark_layouts as layouts
import numpy as np
import pytest
import soundfile
from tiny_models import make_qwen2_audio

from emotion_task.cli import main
from emotion_task.records import Utterance, write_manifest
from rlcore.cli import main as rlcore_main

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_model_answers_two_sets_and_only_what_changed_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(make_qwen2_audio(tmp_path / "base"))
    layouts.make_mmau(tmp_path / "mmau")
    words = (("agree", "sad"), ("conflict", "happy"), ("neutral", "neutral"), ("broken", "neutral"))
    for stem, _ in words:
        layouts.sound(tmp_path / f"{stem}.wav", seconds=0.5)
    # Its header is whole and its sound is not, which only the worker that decodes it finds out.
    soundfile.write(tmp_path / "whole.flac", np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "broken.wav").write_bytes(content[: len(content) // 2])
    write_manifest(
        tmp_path / "manifest.jsonl",
        [
            Utterance(
                id=stem, audio=str(tmp_path / f"{stem}.wav"), emotion="sad", text_emotion=said, split="eval"
            )
            for stem, said in words
        ]
        + [Utterance(id="other", audio=str(tmp_path / "agree.wav"), emotion="happy", split="train")],
    )
    out = tmp_path / "out"
    command = [
        *("evaluate", model, "--out", str(out)),
        *("--benchmark", "manifest", "--data", str(tmp_path / "manifest.jsonl")),
        *("--benchmark", "mmau", "--data", str(tmp_path / "mmau")),
        *("rollout.max_tokens=6", "rollout.engine.max_model_len=256", "rollout.engine.max_num_seqs=8"),
        *("rollout.engine.kv_cache_memory_bytes=67108864", "rollout.num_cpus=1", "cluster.num_cpus=2"),
    ]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "words and voice in conflict" in printed.out and "6 questions to ask" in printed.err

    report = json.loads((out / "evaluation.json").read_text())
    (name,) = report["sets"]["mmau"]["scores"]
    voices = report["sets"]["manifest"]
    assert (voices["cost"][name]["answers"], voices["cost"][name]["unanswered"]) == (3, 1)
    assert voices["scores"][name]["accuracy"]["num"] == 4 and voices["cost"][name]["answer tokens"] <= 6
    assert voices["cost"][name]["prompt tokens"] > 20 and voices["cost"][name]["seconds"] > 0
    assert {"accuracy", "unweighted accuracy", "macro F1", "emotion: sad"} <= set(voices["scores"][name])
    assert set(voices["parts"]) == {"words and voice agree", "words and voice in conflict"}
    assert {"task: sound", "task: speech"} <= set(report["sets"]["mmau"]["scores"][name])

    (folder,) = (out / "answers").iterdir()
    first = rows_of(folder / "mmau.jsonl")
    assert {row["id"] for row in first} == {"3fe64f3d", "72fb5481"}
    predictions = json.loads((folder / "mmau_predictions.json").read_text())
    assert [row["model_prediction"] for row in predictions] == [
        next(row["text"] for row in first if row["id"] == asked["id"]) for asked in layouts.MMAU
    ]
    assert [row["audio_id"] for row in predictions] == [row["audio_id"] for row in layouts.MMAU]

    # Nothing has changed but that the broken recording is gone: no engine starts, and the answers stay.
    (tmp_path / "broken.wav").unlink()
    assert main(command) == 0
    assert "questions to ask" not in capsys.readouterr().err
    assert rows_of(folder / "mmau.jsonl") == first

    # One recording is another now, and a line was cut by a kill: these two are asked again.
    layouts.sound(tmp_path / "mmau" / layouts.MMAU[0]["audio_id"], seconds=0.4)
    lines = (folder / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "manifest.jsonl").write_bytes(b"".join(lines)[: -len(lines[-1]) // 2])
    assert main(command) == 0
    assert "2 questions to ask" in capsys.readouterr().err
    assert len(rows_of(folder / "manifest.jsonl")) == 3
    again = {row["id"]: row for row in rows_of(folder / "mmau.jsonl")}
    assert again["72fb5481"] == next(row for row in first if row["id"] == "72fb5481")
    assert again["3fe64f3d"]["key"] != next(row["key"] for row in first if row["id"] == "3fe64f3d")

    # The same sets are a task for rlcore, which needs no prompts to train on.
    config = tmp_path / "run.yaml"
    config.write_text(
        f"run_dir: {tmp_path / 'run'}\nmodel: {{path: {model}}}\ncluster: {{num_cpus: 2}}\n"
        "rollout: {max_tokens: 6, engine: {max_model_len: 256, max_num_seqs: 8, "
        "kv_cache_memory_bytes: 67108864}}\n"
        "task:\n  target: emotion_task.benchmarks.asking.task:BenchmarkTask\n"
        f"  args: {{model_path: {model}, sets: [{{benchmark: mmau, data: {tmp_path / 'mmau'}}}]}}\n"
    )
    assert rlcore_main(["evaluate", "--config", str(config)]) == 0
    metrics = json.loads((tmp_path / "run/eval/metrics.jsonl").read_text().splitlines()[-1])
    report = json.loads((out / "evaluation.json").read_text())
    assert metrics["eval/mmau/accuracy"] == report["sets"]["mmau"]["scores"][name]["accuracy"]["value"]
