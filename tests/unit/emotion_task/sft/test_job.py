"""What the driver of a supervised job shows."""

from __future__ import annotations

import io
from pathlib import Path

from tqdm import tqdm

from emotion_task.sft.job import _advance
from rlcore.records.files import append_rows


def test_the_bar_goes_on_over_a_step_whose_loss_is_no_number(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    with tqdm(total=3, file=io.StringIO()) as bar:
        _advance(bar, metrics)
        assert bar.n == 0
        append_rows(metrics, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}])
        _advance(bar, metrics)
        assert bar.n == 2
