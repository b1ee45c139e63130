from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_run import answer, sample

from emotion_task.report.panels import EmotionPanels
from emotion_task.report.recordings import NUM_POINTS, outline
from rlcore.report.panels import HasPanels, Intervals, Matrix, panels_of


def rows(step: int, *answers: tuple[str, str]) -> list[dict]:
    made = [sample(step, p, split="eval", text=answer(said)) for p, (_, said) in enumerate(answers)]
    for row, (truth, _) in zip(made, answers, strict=True):
        row["reference"]["emotion"] = truth
    return made


def test_figures_count_the_answers_of_the_first_and_the_last_evaluation() -> None:
    first = rows(0, ("happy", "sad"), ("happy", "happy"), ("sad", "sad"), ("sad", "nonsense"))
    last = rows(9, ("happy", "happy"), ("happy", "happy"), ("sad", "sad"), ("sad", "happy"))
    figures = EmotionPanels({}).figures({0: first, 9: last})
    recall, claims, after, before = figures
    assert (
        isinstance(recall, Intervals)
        and list(recall.names) == ["happy", "sad"]
        and list(recall.nums) == [2, 2]
    )
    assert [value for value, _, _ in recall.series["step 0"]] == [0.5, 0.5]
    assert [value for value, _, _ in recall.series["step 9"]] == [1.0, 0.5]
    assert all(low <= value <= high for each in recall.series.values() for value, low, high in each)
    assert isinstance(claims, Intervals) and list(claims.names) == ["pitch"]
    assert isinstance(after, Matrix) and after.counts == [[2, 0, 0], [1, 1, 0]] and "step 9" in after.title
    assert isinstance(before, Matrix) and before.counts == [[1, 1, 0], [0, 1, 1]]
    assert EmotionPanels({}).figures({}) == []


def test_the_outline_of_a_recording(tmp_path: Path) -> None:
    seconds = np.arange(16000) / 16000
    soundfile.write(tmp_path / "a.wav", 0.4 * np.sin(2 * math.pi * 200 * seconds) * (seconds > 0.5), 16000)
    found = outline(str(tmp_path / "a.wav"))
    assert found is not None and found["seconds"] == 1.0
    lengths = {len(found["wave"]), len(found["pitch"])}
    assert lengths == {100} and max(found["wave"]) == 255 and len(found["wave"]) <= NUM_POINTS
    assert found["wave"][10] == 0 and found["pitch"][10] == 0
    assert found["pitch"][75] == pytest.approx(200, abs=2)
    assert outline(str(tmp_path / "missing.wav")) is None
    (tmp_path / "b.wav").write_text("no sound")
    assert outline(str(tmp_path / "b.wav")) is None


def test_a_short_sound_has_fewer_points(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(160, 0.1), 16000)
    found = outline(str(tmp_path / "a.wav"))
    assert found is not None and len(found["wave"]) == len(found["pitch"]) == 1


def test_a_run_whose_manifest_is_gone_shows_levels_alone() -> None:
    panels = panels_of({"target": "emotion_task.task:EmotionTask", "args": {"manifest": "/nowhere.jsonl"}})
    assert isinstance(panels, EmotionPanels) and all(path.is_file() for path in panels.scripts)
    found = panels.of_prompt(sample(1, 0))
    assert found is not None and found["outline"] is None
    assert {fact["name"]: fact["level"] for fact in found["facts"]}["pitch_level"] == "high"
    assert all(fact["measured"] is None for fact in found["facts"])


def test_a_task_without_panels_has_none() -> None:
    assert panels_of({"target": "rlcore.tasks:Rows"}) is None
    from rlcore.tasks import Rows

    assert not isinstance(Rows, HasPanels)
