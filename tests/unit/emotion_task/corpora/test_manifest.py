from __future__ import annotations

import pytest

from emotion_task.corpora import load_corpus
from emotion_task.records import Utterance, read_manifest, shared_by_splits
from rlcore.errors import ConfigError, DataError


def test_csv_and_jsonl_say_the_same(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "audio,text,emotion,speaker,gender,split\na/1.wav,Hello there,happy,anna,female,train\na/2.wav,,,,,\n"
    )
    first, second = load_corpus("manifest", tmp_path, dataset="mine")
    assert (first.id, first.text, first.emotion, first.dataset) == ("a/1", "Hello there", "happy", "mine")
    assert first.audio == str(tmp_path / "a" / "1.wav")
    assert (second.text, second.emotion, second.split, second.gender) == (None, None, None, None)
    (tmp_path / "list.jsonl").write_text(
        '{"id": "a/1", "audio": "a/1.wav", "text": "Hello there", "emotion": "happy", "speaker": "anna",'
        ' "gender": "female", "split": "train", "dataset": "mine"}\n{"id": "a/2", "audio": "a/2.wav"}\n'
    )
    assert load_corpus("manifest", tmp_path, file="list.jsonl", dataset="mine") == [first, second]
    assert load_corpus("manifest", tmp_path / "list.jsonl", dataset="mine") == [first, second]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio,emotoin\n1.wav,happy\n", "emotoin"),
        ("text\nhello\n", "`audio` is required"),
        ("audio,emotion\n1.wav,hapy\n", "hapy.*neutral, happy"),
        ("audio,split\n1.wav,test\n", "'test' is not one of train, eval"),
        ("audio,age_years\n1.wav,old\n", "age_years 'old' is no age"),
        ("audio,text\n,hello\n", "manifest.csv:2: no audio path"),
        ("audio,text\n1.wav,caf\xe9\n", r"manifest.csv:2: not UTF-8 .*0xe9.*save it as UTF-8"),
        ("audio,text\n", "manifest.csv: no utterance in it"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    (tmp_path / "manifest.csv").write_text(text, encoding="cp1252")
    with pytest.raises(DataError, match=message):
        load_corpus("manifest", tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"manifest.jsonl or manifest.csv"):
        load_corpus("manifest", tmp_path)
    for missing in ("none.jsonl", "none"):
        with pytest.raises(DataError, match=rf"{missing}: no such file or folder$"):
            load_corpus("manifest", tmp_path / missing)
    with pytest.raises(ConfigError, match=r"allowed are cmu_mosei, .*emodb, .*manifest, .*synthetic"):
        load_corpus("iemocapp", tmp_path)
    with pytest.raises(ConfigError, match=r"train_speaker'\].*allowed are train_speakers"):
        load_corpus("ravdess", tmp_path, train_speaker=[1])


def test_parquet_says_the_same(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [
        {"audio": "a/1.wav", "text": "Hello", "emotion": "happy", "age_years": 20.5},
        {"audio": "a/2.wav", "text": None, "emotion": None, "age_years": None},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "manifest.parquet")
    first, second = load_corpus("manifest", tmp_path, dataset="mine")
    assert (first.id, first.text, first.emotion, first.age_level) == ("a/1", "Hello", "happy", "young")
    assert (second.id, second.text, second.dataset) == ("a/2", None, "mine")
    (tmp_path / "bad.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"bad\.parquet: not a Parquet file"):
        load_corpus("manifest", tmp_path, file="bad.parquet")


def test_numbers_are_names_too(tmp_path):
    """Speaker 7 and speaker "7" are one, and 0 is a name."""
    lines = ['{"audio": "a.wav", "id": 0, "speaker": 0}', '{"audio": "b.wav", "id": 1, "speaker": 7}']
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    found = load_corpus("manifest", tmp_path)
    assert [(u.id, u.speaker) for u in found] == [("0", "0"), ("1", "7")]
    (tmp_path / "written.jsonl").write_text('{"audio": "b.wav", "id": "1", "speaker": 7}')
    with pytest.raises(DataError, match=r"written.jsonl:1: .*speaker 7 is no text; write it in quotes"):
        read_manifest(tmp_path / "written.jsonl")


def test_the_first_ten_mistakes_and_their_number(tmp_path):
    rows = [f'{{"audio": "{i}.wav", "emotion": "hapy"}}' for i in range(8)]
    rows += ['{"audio": "ok.wav"}', '{"audio": "ok.wav", "text": "again"}', '{"text": "no file"}']
    rows += ['{"audio": "../x.wav"}', '{"audio": "/etc/passwd", "id": 7, "emotoin": "sad"}']
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError) as error:
        load_corpus("manifest", tmp_path)
    head, *listed = str(error.value).split("\n  ")
    assert head.endswith("manifest.jsonl: 13 mistakes") and len(listed) == 11
    assert listed[0].startswith("manifest.jsonl:1: emotion 'hapy' is not one of neutral")
    assert listed[8] == "manifest.jsonl:10: the id 'ok' stands at manifest.jsonl:9 already"
    assert listed[9] == "manifest.jsonl:11: no audio path (`audio` is required)"
    assert listed[10] == "... and 3 more"


def test_a_video_lies_where_recordings_lie(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"audio": "1.wav", "video": "1.mp4"}\n{"audio": "2.wav"}\n')
    one, two = load_corpus("manifest", tmp_path)
    assert (one.video, two.video) == (str(tmp_path / "1.mp4"), None)
    path.write_text('{"audio": "1.wav", "video": "../1.mp4"}\n{"audio": "2.wav", "video": 7}\n')
    with pytest.raises(
        DataError, match=r"1: video '../1.mp4' leads out of .*audio_root[^$]*2: video 7 is no text"
    ):
        load_corpus("manifest", tmp_path)


def test_recordings_outside_the_folder(tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "manifest.jsonl").write_text(f'{{"audio": "../a/1.wav"}}\n{{"audio": "{tmp_path}/a/2.wav"}}\n')
    with pytest.raises(DataError, match=r"1: audio '../a/1.wav' leads out of .*audio_root"):
        load_corpus("manifest", folder)
    found = load_corpus("manifest", folder, audio_root=str(tmp_path / "a"))
    assert [u.audio for u in found] == [f"{tmp_path}/a/1.wav", f"{tmp_path}/a/2.wav"]


def test_nan_is_nothing_and_never_a_word(tmp_path):
    """A table's missing cells are NaN, in every format that it is written in."""
    import pyarrow
    from pyarrow import parquet

    lines = [
        '{"id": "a", "audio": "a.wav", "text": NaN, "speaker": NaN, "emotion": NaN,'
        ' "gender": NaN, "age_years": NaN}'
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    table = pyarrow.table({"audio": ["a.wav"], "text": [float("nan")], "speaker": [float("nan")]})
    parquet.write_table(table, tmp_path / "t.parquet")
    (own,) = read_manifest(tmp_path / "manifest.jsonl")
    for u in (own, *load_corpus("manifest", tmp_path), *load_corpus("manifest", tmp_path, file="t.parquet")):
        assert (u.text, u.speaker, u.emotion, u.gender, u.age_level) == (None, None, None, None, None)
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "audio": NaN}')
    with pytest.raises(DataError, match=r"manifest.jsonl:1: .*audio"):
        read_manifest(tmp_path / "manifest.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('audio,text\na.wav,"she said\nb.wav,yes\n', r"manifest.csv:2: not CSV: .*never closed"),
        ('audio,text\na.wav,"she said\nb.wav,"yes"\n', r"manifest.csv:2: not CSV: .*never closed"),
        (
            'audio,text\na.wav,"hi\nb.wav,said"\nc.wav\n',
            r"manifest.csv:4: fewer cells than columns \(1, not 2\)",
        ),
        ("audio,text\na.wav,hi\n\nb.wav\n", r"manifest.csv:4: fewer cells than columns \(1, not 2\)"),
        ("audio,text\na.wav,hi,there\n", r"manifest.csv:2: more cells than columns \(3, not 2\)"),
        ("audio,text,text\na.wav,hi,there\n", r"manifest.csv:1: the columns \['text'\] stand there twice"),
        (
            f"audio,text\na.wav,hi\nb.wav,{'a' * 140_000}\n",
            r"manifest.csv:3: .*larger than field limit \(131072\)",
        ),
        ("", r"manifest.csv: columns \[\]; `audio` is required"),
    ],
)
def test_a_row_never_swallows_others(tmp_path, text, message):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_corpus("manifest", tmp_path)


def test_quoted_cells_keep_commas_quotes_and_line_ends(tmp_path):
    rows = 'audio,text\r\na.wav,"one, ""two""\r\nthree"\r\n\r\nb.wav,5" wide\r\n'
    (tmp_path / "manifest.csv").write_bytes(rows.encode())
    found = load_corpus("manifest", tmp_path)
    assert [u.text for u in found] == ['one, "two"\r\nthree', '5" wide']


def test_a_path_that_names_no_file_is_one_mistake_among_others(tmp_path):
    rows = [f'{{"audio": "{path}"}}' for path in (".", "/", "a/..", "..", "./")] + ['{"text": "hello"}']
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError) as error:
        load_corpus("manifest", tmp_path)
    head, *listed = str(error.value).split("\n  ")
    assert (
        head.endswith("6 mistakes") and listed[-1] == "manifest.jsonl:6: no audio path (`audio` is required)"
    )
    assert listed[0] == "manifest.jsonl:1: audio '.' names a folder, no recording"
    assert all("names a folder, no recording" in mistake for mistake in listed[:5])


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lines = ['{"id": "a", "audio": "~/a.wav"}', '{"id": "b", "audio": "~b.wav"}']
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    expected = [str(tmp_path / "home" / "a.wav"), str(tmp_path / "~b.wav")]
    assert [u.audio for u in read_manifest(tmp_path / "manifest.jsonl")] == expected
    assert [u.audio for u in load_corpus("manifest", tmp_path)] == expected


def test_what_both_splits_hold_is_told():
    def row(id, split, speaker=None, audio=None, **fields):
        return Utterance(id=id, audio=audio or f"/a/{id}.wav", split=split, speaker=speaker, **fields)

    train = [row("a", "train", "anna", emotion="sad"), row("b", "train", "ben"), row("c", "train")]
    assert shared_by_splits([*train, row("d", "eval", "cem"), row("e", "eval"), row("f", None, "anna")]) == []
    assert shared_by_splits([*train, row("d", "eval", "anna", dataset="other")]) == []
    same = row("d", "eval", "ben", audio="/a/../a/a.wav", emotion="happy")
    assert shared_by_splits([*train, same, row("e", "eval", "anna")]) == [
        "1 recordings are in train and in eval: /a/a.wav",
        "2 speakers are in train and in eval: anna, ...",
    ]
    other_channel = [
        row("x", "train", audio="/a/a.wav", channel=1),
        row("y", "eval", audio="/a/a.wav", channel=2),
    ]
    assert shared_by_splits(other_channel) == []
