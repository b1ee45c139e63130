"""Events as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_files import no_file_beyond
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlcore.records.events import EventWriter


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_what_is_finite_and_forgets_what_is_done_again(tmp_path: Path) -> None:
    first = EventWriter(tmp_path)
    for step in (1, 2, 3):
        first.add(step, {"kl": step / 4, "loss": float("nan"), "reward/mean": float(step)})
    assert scalars(tmp_path) == {
        "kl": [(1, 0.25), (2, 0.5), (3, 0.75)],
        "reward/mean": [(1, 1.0), (2, 2.0), (3, 3.0)],
    }
    first.close()
    resumed = EventWriter(tmp_path, purge_step=2)
    resumed.add(2, {"kl": 8.0})
    resumed.close()
    assert scalars(tmp_path) == {"kl": [(1, 0.25), (2, 8.0)], "reward/mean": [(1, 1.0)]}


def test_events_that_cannot_be_written_end_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = EventWriter(tmp_path / "full")
    writer.add(1, {"kl": 0.5})
    with no_file_beyond(100):
        for step in (2, 3, 4):
            writer.add(step, {"kl": 0.5})
    writer.add(5, {"kl": 0.5})
    writer.close()
    assert scalars(tmp_path / "full") == {"kl": [(1, 0.5)]}
    assert caplog.text.count("full: events for TensorBoard end here, as they cannot be written (File") == 1
    (tmp_path / "file").touch()
    nowhere = EventWriter(tmp_path / "file" / "tensorboard")
    nowhere.add(1, {"kl": 0.5})
    nowhere.close()
    assert "file/tensorboard: events for TensorBoard end here" in caplog.text
