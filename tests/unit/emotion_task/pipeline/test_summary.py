from __future__ import annotations

import json
from pathlib import Path

from emotion_task.pipeline.summary import _confusions


def test_an_evaluation_that_was_logged_twice_counts_once(tmp_path: Path) -> None:
    """Without a step of training, before and after are both step 0."""
    rows = [
        {
            "step": 0,
            "split": "eval",
            "prompt": prompt,
            "text": f"<think>A voice.</think><answer>{answer}</answer>",
            "reference": {"emotion": "sad"},
        }
        for prompt, answer in (("a", "sad"), ("b", "happy"))
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    counts, labels = _confusions(tmp_path)
    assert labels == ["sad"]
    assert counts["sft"].sum() == counts["rl"].sum() == 2
