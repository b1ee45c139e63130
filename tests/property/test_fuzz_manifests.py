"""Manifests as people and tools break them: a row is read as it stands, put aside with the reason, or the
file is refused by name and line. Nothing else is raised, and no row goes missing or gets another's values."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_task.corpora import load_corpus
from emotion_task.corpora.manifest import load_manifest
from emotion_task.facts import reference_of
from emotion_task.labels import ALL_LABELS
from emotion_task.records import Utterance, read_manifest, write_manifest
from emotion_task.task import EmotionTask
from rlcore.errors import ConfigError, DataError

Row = dict[str, Any]

ROWS: tuple[Row, ...] = (
    {
        "id": "1",
        "audio": "a.wav",
        "text": "Get out, now!",
        "emotion": "angry",
        "speaker": "s1",
        "split": "train",
    },
    {
        "id": "2",
        "audio": "b.wav",
        "text": 'He said "no"',
        "emotion": "sad",
        "gender": "female",
        "split": "eval",
    },
    {
        "id": "3",
        "audio": "d/ü.wav",
        "text": "caf\u00e9\u2028 \U0001f600",
        "emotion": "happy",
        "age_years": 31.5,
        "split": "train",
    },
    {"id": "4", "audio": "c.wav", "emotion": "calm", "language": "de", "dataset": "mine", "split": "eval"},
)
MEASURED: tuple[Row, ...] = tuple(
    row
    | {
        "pitch_level": "low",
        "intonation": "rising",
        "stressed_words": ["out"],
        "measured": {"f0_reliable": False, "level_reliable": True, "voiced_fraction": 0.1},
    }
    for row in ROWS
)
VALUES = (
    *(
        None,
        True,
        False,
        0,
        -1,
        7,
        10**400,
        1e308,
        0.5,
        float("nan"),
        float("inf"),
        "",
        " ",
        "x",
        "nan",
        "NaN",
        "None",
    ),
    *(
        "1",
        "angry",
        "ANGRY",
        "../../x.wav",
        "/etc/passwd",
        "a\x00b",
        "\ud800",
        "a\nb",
        "\u2028",
        "x" * 5000,
        "1e999",
        "-3",
    ),
    *([], ["a"], [1], [None], {}, {"a": 1}, {"a": {"b": [None]}}, ["\udfff"]),
)
KEYS = (*get_type_hints(Utterance), "Audio", "extra", "", "id ", "\ufeffid")
BYTES = (
    b"\x00",
    b"\xff",
    b"\xe9",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b"\n",
    b'"',
    b"'",
    b",",
    b"{",
    b"}",
    b"\t",
    b";",
    b"\\u12",
    b"\\ud83d",
    b"\x1a",
    b"NaN",
    b"\xe2\x80\xa8",
    b"null",
)
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "utf-7")


@st.composite
def broken_rows(draw: st.DrawFn, rows: tuple[Row, ...]) -> tuple[list[Row], set[int]]:
    """Draws rows of which some have another value, key or place, and the indices of those that have not."""
    found, whole = [dict(row) for row in rows], set(range(len(rows)))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(found) - 1))
        whole.discard(at)
        match draw(st.sampled_from(("value", "value", "value", "key", "drop", "same id"))):
            case "value":
                found[at][draw(st.sampled_from(tuple(get_type_hints(Utterance))))] = draw(
                    st.sampled_from(VALUES)
                )
            case "key":
                found[at][draw(st.sampled_from(KEYS))] = draw(st.sampled_from(VALUES))
            case "drop":
                found[at].pop(draw(st.sampled_from(tuple(found[at]))), None)
            case "same id":
                found[at]["id"] = found[at - 1].get("id")
                whole.discard((at - 1) % len(found))
    return found, whole


@st.composite
def broken_bytes(draw: st.DrawFn, text: str) -> bytes:
    """Draws a file of which bytes were changed, put in or cut, in an encoding of its own."""
    data = text.encode(draw(st.sampled_from(ENCODINGS)), errors="replace")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("insert", "insert", "cut", "end", "line"))):
            case "insert":
                data = data[:at] + draw(st.sampled_from(BYTES)) + data[at:]
            case "cut":
                data = data[:at] + data[at + draw(st.integers(1, 30)) :]
            case "end":
                data = data[:at]
            case "line":
                lines = data.splitlines(keepends=True)
                data = b"".join(lines[:1] + lines)
    return data


def jsonl(rows: list[Row] | tuple[Row, ...]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows: list[Row] | tuple[Row, ...], delimiter: str = ",") -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def check_typed(utterances: list[Utterance]) -> None:
    """What is read has the types that it says, can be written, read again and turned into a prompt."""
    hints = get_type_hints(Utterance)
    for utterance in utterances:
        for name, value in asdict(utterance).items():
            types = tuple(getattr(t, "__origin__", t) for t in (get_args(hints[name]) or (hints[name],)))
            assert isinstance(value, (*types, int) if float in types else types) and value == value, (
                name,
                value,
            )
            assert not isinstance(value, bool), (name, value)
        reference_of(utterance)
        assert utterance.id and Path(utterance.audio).is_absolute()


def check_task(path: Path) -> None:
    """The task reads what `read_manifest` reads, or says what is wrong."""
    try:
        task = EmotionTask(str(path), "unused")
        for split in ("train", "eval"):
            rows = task.utterances(split)
            assert rows and all(row.emotion in ALL_LABELS and row.split == split for row in rows)
            ids = [row.id for row in rows]
            assert len(set(ids)) == len(ids), ids
    except (DataError, ConfigError) as error:
        assert str(path) in str(error)


class Aside(logging.Handler):
    """Counts the rows that the log says are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        assert re.search(r":\d+: left out: \S", record.getMessage())
        self.count += 1


def read(path: Path) -> tuple[list[Utterance], int] | None:
    """Returns a JSONL manifest's utterances and how many rows were put aside; None where it is refused."""
    aside, log = Aside(), logging.getLogger("emotion_task.records")
    log.addHandler(aside)
    try:
        return read_manifest(path), aside.count
    except DataError as error:
        assert re.match(rf"{re.escape(str(path))}(:\d+)?: \S", str(error)), error
        return None
    finally:
        log.removeHandler(aside)


def listed(path: Path) -> list[Utterance] | None:
    try:
        return load_manifest(path)
    except DataError as error:
        assert str(path.name) in str(error)
        return None


def same(utterance: Utterance, row: Row, folder: Path) -> bool:
    expected = {"dataset": "manifest"} | row | {"audio": str((folder / row["audio"]).resolve())}
    return {name: value for name, value in asdict(utterance).items() if value is not None} == expected


@given(broken_rows(MEASURED))
def test_rows_of_a_broken_manifest_are_right_or_told(drawn: tuple[list[Row], set[int]]) -> None:
    rows, whole = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "m.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if (found := read(path)) is not None:
            utterances, num_aside = found
            assert len(utterances) + num_aside == len(rows)
            check_typed(utterances)
            for at in whole:
                assert any(same(u, rows[at], path.parent) for u in utterances)
            write_manifest(path, utterances)
            assert b"\\ud" not in path.read_bytes() and read_manifest(path) == utterances
        check_task(path)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))  # as it was
        if (listing := listed(path)) is not None:
            assert len(listing) == len(rows) and len({u.id for u in listing}) == len(rows)
            check_typed(listing)
            assert all(any(same(u, rows[at], path.parent) for u in listing) for at in whole)


@given(st.data(), st.sampled_from((".jsonl", ".csv", ".tsv")))
def test_a_manifest_of_broken_bytes_is_read_whole_or_refused(data: st.DataObject, suffix: str) -> None:
    write = {".jsonl": jsonl, ".csv": table, ".tsv": lambda rows: table(rows, "\t")}[suffix]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / f"m{suffix}"
        path.write_bytes(data.draw(broken_bytes(write(ROWS))))
        if (listing := listed(path)) is not None:
            check_typed(listing)
            assert len({u.id for u in listing}) == len(listing)
        if suffix == ".jsonl":
            num_rows = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
            if (found := read(path)) is not None:
                assert len(found[0]) + found[1] == num_rows
                check_typed(found[0])
            check_task(path)


@given(broken_rows(ROWS))
def test_rows_of_a_broken_table_are_right_or_told(drawn: tuple[list[Row], set[int]]) -> None:
    rows, whole = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "m.csv"
        path.write_bytes(table(rows).encode("utf-8", errors="surrogatepass"))
        if (listing := listed(path)) is not None:
            assert len(listing) == len(rows)
            check_typed(listing)
            assert all(any(same(u, rows[at], path.parent) for u in listing) for at in whole)


OWNERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "crema_d": (
        "VideoDemographics.csv",
        "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Asian,Not Hispanic\n1091,29,Female,Asian,Hispanic\n",
        ("AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1091_IEO_HAP_HI.wav"),
    ),
    "esd": (
        "0011/0011.txt",
        "0011_000351\tThe nine, the eggs.\tAngry\n0011_000701\tTom \u2014 no.\tHappy\n",
        ("0011/Angry/0011_000351.wav", "0011/Happy/0011_000701.wav"),
    ),
    "msp_improv": (
        "Evalution.txt",
        "UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.5; V:2.0; D:NaN ; N:4.0;\nu1; Neutral; Sad,; A:3.0; V:2.0;\n"
        "UTD-IMPROV-S01H-M06-R-MM02.avi; H; A:4.0; V:4.0; D:3.0 ; N:4.0;\n",
        tuple(f"Audio/MSP-IMPROV-{turn}.wav" for turn in ("S01A-F01-P-FM01", "S01H-M06-R-MM02")),
    ),
    "cmu_mosei": (
        "Labels/a.csv",
        "Input.VIDEO_ID,Input.CLIP,Answer.anger,Answer.disgust,Answer.fear,Answer.happiness,Answer.sadness,"
        "Answer.surprise,Answer.sentiment\nv,0,1,0,0,0,0,0,-1\nw,1,0,0,0,2,0,0,2\n",
        ("Audio/v_0.wav", "Audio/w_1.wav"),
    ),
    "msp_podcast": (
        "Labels/labels_consensus.csv",
        "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
        "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Train\n"
        "MSP-PODCAST_0001_0009.wav,A,3.8,3.6,3.8,39,Female,Test1\n",
        ("Audios/MSP-PODCAST_0001_0008.wav", "Audios/MSP-PODCAST_0001_0009.wav"),
    ),
    "meld": (
        "train/train_sent_emo.csv",
        "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
        "\n"
        '1,"It\u2019s over, really.",Ross,sadness,negative,3,0,4,7,"00:20:57,256","00:21:00,049"\n'
        '2,Hi.,Guy,joy,positive,3,1,4,7,"00:20:57,256","00:21:00,049"\n',
        ("train/train_splits/dia3_utt0.wav", "train/train_splits/dia3_utt1.wav"),
    ),
    "ears": (
        "speaker_statistics.json",
        '{"p001": {"age": "36-45", "gender": "male"}, "p107": {"age": "66-75", "gender": "female"}}',
        ("p001/emo_anger_sentences.wav", "p107/emo_anger_sentences.wav"),
    ),
    "iemocap": (
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt",
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\texc\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n\n"
        "[10.0100 - 11.3925]\tSes01F_impro01_M000\tneu\t[2.5000, 2.5000, 2.5000]\n",
        tuple(
            f"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_{turn}.wav" for turn in ("F000", "M000")
        ),
    ),
}
"""Tables that owners of corpora ship: the table's name, its text, and the recordings that it tells about."""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpora")
    for name, (table_name, _, recordings) in OWNERS.items():
        for file in (table_name, *recordings):
            (root / name / file).parent.mkdir(parents=True, exist_ok=True)
            (root / name / file).touch()
    return root


@given(st.data(), st.sampled_from(sorted(OWNERS)))
@settings(max_examples=100)
def test_an_owners_broken_table_is_read_or_refused_by_name(
    corpora: Path, data: st.DataObject, name: str
) -> None:
    table_name, text, recordings = OWNERS[name]
    (corpora / name / table_name).write_bytes(data.draw(broken_bytes(text)))
    try:
        found = load_corpus(name, corpora / name)
    except DataError as error:
        assert str(error).startswith(str(corpora / name))
        return
    check_typed(found)
    assert len({u.audio for u in found}) == len(found) <= len(recordings)
