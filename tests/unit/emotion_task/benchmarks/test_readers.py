"""Every benchmark's reader over a small folder in its owner's layout, and what it says of a wrong one."""

from __future__ import annotations

from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import benchmark_layouts as layouts
import pyarrow
import pytest
import soundfile
from pyarrow import parquet

from emotion_task.benchmarks import find_benchmark, own_names
from emotion_task.benchmarks.reading.questions import Question, Questions
from emotion_task.records import Utterance, write_manifest
from rlcore.errors import ConfigError, DataError


def made(name: str, root: Path) -> Questions:
    layouts.MAKERS[name](root)
    return find_benchmark(name).load(root, "eval")


def shown(question: Question) -> dict[str, Any]:
    kept = asdict(question)
    del kept["row"]
    return kept | {"audio": Path(question.audio).name}


def test_every_benchmark_has_a_small_layout() -> None:
    assert set(layouts.MAKERS) == set(own_names())


def test_mmau(tmp_path: Path) -> None:
    found = made("mmau", tmp_path)
    assert not found.left_out
    first, second = found.questions
    assert shown(first) == dict(
        id="3fe64f3d",
        audio="3fe64f3d.wav",
        text="Based on the given audio, identify the source of the speaking voice.",
        choices=("Man", "Woman", "Child", "Robot"),
        answer="Man",
        groups={
            "task": "sound",
            "difficulty": "medium",
            "category": "Reasoning",
            "sub-category": "Acoustic Source Inference",
        },
        words=None,
    )
    assert second.answer == "A teenager"  # the choice, however the answer writes it
    assert dict(first.row) == layouts.MMAU[0]


def test_mmaus_test_set_has_no_answers_and_is_asked_all_the_same(tmp_path: Path) -> None:
    layouts.make_mmau(tmp_path)
    rows = [{k: v for k, v in row.items() if k != "answer"} for row in layouts.MMAU]
    layouts.as_json(tmp_path / "mmau-test.json", rows)
    found = find_benchmark("mmau").load(tmp_path / "mmau-test.json", "eval")
    assert [question.answer for question in found.questions] == [None, None]


def test_mmar(tmp_path: Path) -> None:
    (question,) = made("mmar", tmp_path).questions
    assert question.answer == "the second speaker" and question.choices[0] == "the first speaker"
    assert question.groups == {
        "modality": "speech",
        "category": "Semantic Layer",
        "sub-category": "Speaker Analysis",
    }
    layouts.as_lines(tmp_path / "MMAR-meta.jsonl", layouts.MMAR)
    (tmp_path / "MMAR-meta.json").unlink()
    assert find_benchmark("mmar").load(tmp_path, "eval").questions == (question,)


def test_mmsu(tmp_path: Path) -> None:
    first, second = made("mmsu", tmp_path).questions
    assert first.choices == ("A cake.", "Chocolate.", "A fruit basket.", "A drink.")
    assert (first.answer, first.groups["dimension"]) == ("Chocolate.", "Semantics (Reasoning)")
    assert second.choices == ("The first", "The second")  # null is no choice
    assert second.groups == {
        "category": "Perception",
        "dimension": "Paralinguistics (Perception)",
        "task": "volume_comparison",
    }


def test_mmsu_as_parquet_with_its_recordings(tmp_path: Path) -> None:
    listed = made("mmsu", tmp_path / "listed").questions
    rows = []
    for row, question in zip(layouts.MMSU, listed, strict=True):
        samples, rate = soundfile.read(question.audio)
        buffer = BytesIO()
        soundfile.write(buffer, samples, rate, format="WAV")
        own = {key: value for key, value in row.items() if key != "audio_path"}
        rows.append(own | {"audio": {"bytes": buffer.getvalue(), "path": None}})
    (tmp_path / "hub" / "data").mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "hub/data/train-00000-of-00001.parquet")
    found = find_benchmark("mmsu").load(tmp_path / "hub", "eval").questions
    assert [q.choices for q in found] == [q.choices for q in listed]
    assert all(Path(q.audio).is_relative_to(tmp_path / "hub" / "audio") for q in found)


def test_daily_omni_by_its_sound(tmp_path: Path) -> None:
    (question,) = made("daily_omni", tmp_path).questions
    assert shown(question) == dict(
        id="bswbQtOPk6E-0",
        audio="bswbQtOPk6E_audio.wav",
        text="What is the intent of the creator's address?",
        choices=("To explain sales", "To promote content", "To compare", "To answer critics"),
        answer="To answer critics",
        groups={"type": "Inference", "duration": "30s", "category": "Gaming"},
        words=None,
    )


def test_emobox_all_folds_one_corpus_or_one_fold(tmp_path: Path) -> None:
    found = made("emobox", tmp_path)
    assert [(q.id, q.answer, q.groups["fold"]) for q in found.questions] == [
        ("savee-JE-n23", "neutral", "savee fold_1"),
        ("savee-JE-su08", "surprise", "savee fold_1"),
        ("savee-JE-a12", "angry", "savee fold_2"),
    ]
    assert found.questions[0].choices == ("angry", "neutral", "surprise")
    load = find_benchmark("emobox").load
    assert load(tmp_path / "data" / "savee", "eval") == found
    assert [q.id for q in load(tmp_path / "data/savee/fold_2", "eval").questions] == ["savee-JE-a12"]

    (tmp_path / "downloads/savee/JE_a12.wav").unlink()
    cut = layouts.EMOBOX[0] | {"key": "part", "start_time": 0.5, "end_time": 1.0}
    layouts.as_lines(tmp_path / "data/savee/fold_2/savee_test_fold_2.jsonl", [layouts.EMOBOX[2], cut])
    assert load(tmp_path, "eval").left_out == {
        "no recording of savee": 1,
        "a part of a longer recording of savee, which is not cut": 1,
    }
    layouts.as_json(tmp_path / "data/savee/label_map.json", {"n": "Neutral"})
    with pytest.raises(DataError, match=r"savee_test_fold_1.jsonl:2: 'su' has no class in .*label_map.json"):
        load(tmp_path, "eval")


def test_an_emotion_corpus_in_its_owners_layout(tmp_path: Path) -> None:
    for stem in ("DC_a01", "DC_sa02", "KL_n01", "KL_h02"):
        layouts.sound(tmp_path / f"{stem}.wav")
    benchmark = find_benchmark("savee")
    assert benchmark.asks_emotion
    held_out = benchmark.load(tmp_path, "eval").questions
    assert [(q.id, q.answer) for q in held_out] == [("savee-KL-h02", "happy"), ("savee-KL-n01", "neutral")]
    assert held_out[0].choices == ("neutral", "happy", "sad", "angry")  # of the whole corpus
    assert len(benchmark.load(tmp_path, "all").questions) == 4
    assert {q.words for q in held_out} == {None}  # the owner does not tell what the words say


def test_a_manifest_tells_words_and_voice_apart(tmp_path: Path) -> None:
    layouts.sound(tmp_path / "a.wav")
    rows = [("agree", "sad", "sad"), ("conflict", "sad", "happy"), ("fixed", "sad", "neutral")]
    rows += [("neutral voice", "neutral", "angry"), ("untold", "happy", None), ("lost", "happy", "sad")]
    write_manifest(
        tmp_path / "manifest.jsonl",
        [
            Utterance(
                id=id,
                audio=str(tmp_path / ("a.wav" if id != "lost" else "b.wav")),
                emotion=emotion,
                text_emotion=words,
                split="eval",
            )
            for id, emotion, words in rows
        ],
    )
    found = find_benchmark("manifest").load(tmp_path, "eval")
    assert {q.id: (q.answer, q.words) for q in found.questions} == {
        "agree": ("sad", "sad"),
        "conflict": ("sad", "happy"),
        "fixed": ("sad", None),  # neutral words contradict no voice
        "neutral voice": ("neutral", "angry"),
        "untold": ("happy", None),
    }
    assert found.left_out == {"no recording": 1}


@pytest.mark.parametrize("name", list(layouts.MAKERS))
def test_a_folder_without_the_benchmark_is_refused_with_its_layout(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Expected is") as error:
        find_benchmark(name).load(tmp_path, "eval")
    assert str(tmp_path) in str(error.value)
    with pytest.raises(DataError, match=r"no such (file or )?folder"):
        find_benchmark(name).load(tmp_path / "nowhere", "eval")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": "Man"}, r"question 0: 'choices' must be a list of texts, got 'Man'; the row has \['an"),
        ({"id": None}, "question 0: 'id' must be text, got None"),
        ({"audio_id": 7.5}, None),
    ],
)
def test_a_row_of_another_form_is_named(change: dict, message: str | None, tmp_path: Path) -> None:
    layouts.make_mmau(tmp_path)
    layouts.as_json(tmp_path / "mmau-test-mini.json", [layouts.MMAU[0] | change, layouts.MMAU[1]])
    load = find_benchmark("mmau").load
    if message is None:
        assert load(tmp_path, "eval").left_out == {"no recording": 1}
    else:
        with pytest.raises(DataError, match=message):
            load(tmp_path, "eval")


def test_rows_that_cannot_be_graded_are_counted(tmp_path: Path) -> None:
    layouts.make_mmau(tmp_path)
    first, second = layouts.MMAU
    rows = [
        first,
        second,
        first,
        first | {"id": "x", "answer": "Dog"},
        first | {"id": "y", "choices": ["Man"]},
    ]
    layouts.as_json(tmp_path / "mmau-test-mini.json", rows)
    found = find_benchmark("mmau").load(tmp_path, "eval")
    assert len(found.questions) == 2
    assert found.left_out == {
        "listed twice": 1,
        "the answer is none of the choices": 1,
        "fewer than two choices": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "not JSON"),
        ('{"a": 1}', "a list of questions is expected, got dict"),
        ("[3]", "question 0: an obj"),
    ],
)
def test_a_list_that_is_none_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "qa.json").write_text(content)
    with pytest.raises(DataError, match=message):
        find_benchmark("daily_omni").load(tmp_path, "eval")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="allowed are daily_omni, emobox, mmar, mmau, mmsu, the corpora"):
        find_benchmark("mmlu")
    with pytest.raises(ConfigError, match=r"is no emotion_task\.benchmarks\.Benchmark"):
        find_benchmark("json:dumps")
    assert find_benchmark("emotion_task.benchmarks.mmau:BENCHMARK").prediction_key == "model_prediction"
