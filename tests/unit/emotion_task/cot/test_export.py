from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import yaml
from pyarrow import parquet

from emotion_task.cli import main
from emotion_task.corpora.manifest import load_manifest
from emotion_task.cot import export
from emotion_task.cot.export import export_dataset
from emotion_task.records import Utterance, read_manifest, write_manifest
from rlcore.errors import DataError
from rlcore.records.files import read_rows

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


def test_a_recording_that_is_gone_is_left_out_with_the_reason(traces: Path, tmp_path: Path, capsys) -> None:
    manifest, out = traces / "manifest.jsonl", tmp_path / "hub"
    rows = read_manifest(manifest)
    gone = [replace(rows[0], id="gone", audio=str(tmp_path / "corpus" / "a" / "gone.wav"))]
    folder = [replace(rows[0], id="folder", audio=str(tmp_path / "corpus" / "a"))]
    write_manifest(manifest, [*gone, *rows, *folder])
    assert main(["export", str(traces), "--out", str(out), "--with-audio"]) == 0
    told = capsys.readouterr().out
    assert f"{out}: 1 train, 1 test, 2 other" in told and "2 left out, the first: " in told
    assert {row["id"]: row["reason"] for row in read_rows(out / "left_out.jsonl")} == {
        "gone": "a/gone.wav: no recording: No such file or directory",
        "folder": "a: no recording: Is a directory",
    }
    assert load(out).num_rows == {"train": 1, "test": 1, "other": 2}
    assert "| train | 1 |" in (out / "README.md").read_text(encoding="utf-8")
    write_manifest(manifest, rows)
    assert export_dataset(traces, out, with_audio=True).left_out == []
    assert not (out / "left_out.jsonl").exists()
    (tmp_path / "corpus/a/1.wav").unlink()
    with pytest.raises(DataError, match=r"none of 4 recordings: 1\.wav: no recording: No such file"):
        export_dataset(traces, out, with_audio=True)


@pytest.mark.parametrize("with_audio", [True, False])
def test_the_manifests_reader_reads_the_same_rows(traces: Path, tmp_path: Path, with_audio: bool) -> None:
    rows = [u for u in read_manifest(traces / "manifest.jsonl") if u.trace]
    export_dataset(traces, tmp_path / "hub", with_audio=with_audio)
    root = None if with_audio else str(tmp_path / "corpus" / "a")
    for _ in range(2):
        found = load_manifest(tmp_path / "hub", audio_root=root)
        by_id = {u.id: u for u in found}
        for row in rows:
            split = row.split if row.split != "dev" else None
            assert by_id.pop(row.id) == replace(row, audio=found[0].audio, split=split)
        assert not by_id
    assert Path(found[0].audio).read_bytes() == Path(rows[0].audio).read_bytes()
    (shard,) = (tmp_path / "hub" / "data").glob("train-*")
    assert [u.id for u in load_manifest(shard, audio_root=root)] == ["1"]
    if with_audio:
        Path(found[0].audio).write_bytes(b"mine")
        with pytest.raises(
            DataError, match=r"hub/audio/mine/1\.wav: is another recording than .* audio_root"
        ):
            load_manifest(tmp_path / "hub")
        assert Path(found[0].audio).read_bytes() == b"mine"


def test_shards_and_row_groups_are_cut_by_bytes(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow reads at most 2 GB of nested bytes at once."""
    monkeypatch.setattr(export, "_SHARD_BYTES", 8 * 7000)
    monkeypatch.setattr(export, "_GROUP_BYTES", 2 * 7000)
    (first, *_) = read_manifest(traces / "manifest.jsonl")
    soundfile.write(first.audio, np.zeros(3000), 16000)  # 6 kB
    write_manifest(traces / "manifest.jsonl", [replace(first, id=str(i)) for i in range(20)])
    export_dataset(traces, tmp_path / "hub", with_audio=True)
    groups = []
    for path in sorted((tmp_path / "hub" / "data").iterdir()):
        assert path.name.endswith("-of-00003.parquet")
        metadata = parquet.ParquetFile(path).metadata
        groups.append([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)])
    assert groups == [[2, 2, 2, 2], [2, 2, 2, 2], [2, 2]]
    assert load(tmp_path / "hub")["train"]["id"][:] == [str(i) for i in range(20)]


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
