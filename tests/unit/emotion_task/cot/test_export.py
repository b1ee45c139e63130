from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import yaml

from emotion_task.cli import main
from emotion_task.cot.export import export_dataset
from emotion_task.records import Utterance, write_manifest
from rlcore.errors import DataError

TRACE = "<think>The voice is loud.</think><answer>angry</answer>"


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    audio = tmp_path / "corpus" / "a" / "1.wav"
    audio.parent.mkdir(parents=True)
    soundfile.write(audio, 0.1 * np.ones(800), 16000)
    first = Utterance(
        id="1",
        audio=str(audio),
        text="Go \u2014 now!",
        emotion="angry",
        dataset="mine",
        energy_level="high",
        split="train",
        language="en",
        age_years=30.0,
        stressed_words=["now"],
        measured={"duration_s": 0.05},
        trace=TRACE,
    )
    rows = [
        first,
        replace(first, id="2", split="eval", stressed_words=None, measured=None),
        replace(first, id="3", trace=None),
        replace(first, id="4", split=None),
        replace(first, id="5", split="dev"),
    ]
    write_manifest(tmp_path / "cot" / "manifest.jsonl", rows)
    return tmp_path / "cot"


def load(folder: Path) -> datasets.DatasetDict:
    return datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))


def test_the_hub_layout_is_read_back(traces: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "hub"
    assert main(["export", str(traces), "--out", str(out), "--license", "cc-by-4.0"]) == 0
    assert f"{out}: 1 train, 1 test, 2 other" in capsys.readouterr().out
    found = load(out)
    assert {split: rows["id"][:] for split, rows in found.items()} == {
        "train": ["1"],
        "test": ["2"],
        "other": ["4", "5"],
    }
    row = found["train"][0]
    assert (row["audio"], row["emotion"], row["age_level"]) == ("1.wav", "angry", "young")
    assert row["trace"] == TRACE
    assert row["text"] == "Go \u2014 now!" and row["stressed_words"] == ["now"]
    assert row["measured"] == '{"duration_s": 0.05}' and row["pitch_level"] is None
    header, text = (out / "README.md").read_text(encoding="utf-8").split("---\n")[1:3]
    card = yaml.safe_load(header)
    assert (card["license"], card["language"]) == ("cc-by-4.0", ["en"])
    assert card["configs"][0]["data_files"][1] == {"split": "test", "path": "data/test-*.parquet"}
    assert "| angry | 4 |" in text and "| mine | 4 |" in text
    assert str(tmp_path) not in header + text


def test_recordings_only_where_asked_for(traces: Path, tmp_path: Path) -> None:
    export_dataset(traces / "manifest.jsonl", tmp_path / "hub", with_audio=True)
    found = load(tmp_path / "hub")
    assert isinstance(found["train"].features["audio"], datasets.Audio)
    audio = found["train"].cast_column("audio", datasets.Audio(decode=False))[0]["audio"]
    assert audio["path"] == "1.wav" and audio["bytes"] == (tmp_path / "corpus/a/1.wav").read_bytes()
    (tmp_path / "corpus/a/1.wav").unlink()
    with pytest.raises(DataError, match=r"1\.wav: no recording of 1"):
        export_dataset(traces, tmp_path / "hub", with_audio=True)


def test_only_an_earlier_export_is_replaced(traces: Path, tmp_path: Path) -> None:
    """`--out .` beside `data/` would cost what lies there."""
    out = tmp_path / "hub"
    for _ in range(2):
        export_dataset(traces, out)
    assert len(list((out / "data").iterdir())) == 3
    (out / "data" / "requests.jsonl").write_text("paid for")
    with pytest.raises(DataError, match=r"hub: holds .*requests\.jsonl, which no export has written"):
        export_dataset(traces, out)
    assert len(list((out / "data").iterdir())) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("mine")
    with pytest.raises(DataError, match=r"other: holds .*README\.md"):
        export_dataset(traces, tmp_path / "other")


def test_nothing_to_export(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.jsonl", [Utterance(id="1", audio="1.wav")])
    with pytest.raises(DataError, match="no utterance has a trace"):
        export_dataset(tmp_path, tmp_path / "hub")
