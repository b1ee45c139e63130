"""The ready task for rows: what each form of a row becomes, and what is said of the bad ones."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pytest
import soundfile
from pyarrow import parquet
from tiny_models import make_family, make_qwen2_audio, make_text

from rlcore.config import ModelConfig, RewardConfig, RunConfig, TargetConfig
from rlcore.errors import ConfigError, DataError
from rlcore.models.media import MediaEncoder
from rlcore.rewards.reading import check_reading
from rlcore.tasks import Rows
from rlcore.types import Completion, Group, Prompt, Score

SOUND = "<|audio_bos|><|AUDIO|><|audio_eos|>"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {"audio": str(make_qwen2_audio(folder / "audio")), "text": str(make_text(folder / "text"))}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two recordings: 0.5 s at 8 kHz in stereo, 0.25 s at 16 kHz."""
    (tmp_path / "clips").mkdir()
    tone = 0.3 * np.sin(np.arange(4000) / 5)
    soundfile.write(tmp_path / "clips" / "1.wav", np.stack([tone, np.zeros(4000)], axis=1), 8000)
    soundfile.write(tmp_path / "clips" / "2.flac", tone, 16000)
    return tmp_path


def write(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def asked(data: Path, model: str, rows: Sequence[Mapping[str, Any] | str], **args: Any) -> list[Prompt]:
    """The training prompts of rows that are all to be trained on."""
    path = write(data / "rows.jsonl", rows)
    return Rows(str(path), model, eval=str(path), **args).prompts("train")


def chat(*turns: tuple[str, str]) -> str:
    """What the tiny models' template makes of turns of text."""
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return f"{said}<|im_start|>assistant\n"


def test_a_question_in_columns_of_ones_own(data: Path, models: dict[str, str]) -> None:
    row = {"q": "How much?", "gold": "#### 42", "source": "book", "level": 3, "empty": None}
    (prompt,) = asked(data, models["text"], [row], columns={"prompt": "q", "answer": "gold"}, system="Count.")
    assert prompt.id == "rows-1"
    assert prompt.text == chat(("system", "Count."), ("user", "How much?"))
    assert prompt.reference == {"answer": "#### 42", "source": "book", "level": 3}
    assert prompt.media == {}


def test_recordings_stand_before_the_question_and_are_read_at_the_models_rate(
    data: Path, models: dict[str, str]
) -> None:
    rows = [
        {"id": 7, "prompt": "What?", "audio": "clips/1.wav"},
        {"id": "b", "prompt": "Both?", "audio": ["clips/1.wav", str(data / "clips" / "2.flac")]},
    ]
    one, two = asked(data, models["audio"], rows)
    assert (one.id, two.id) == ("7", "b")
    assert one.text == chat(("user", f"{SOUND}What?"))
    assert two.text == chat(("user", f"{SOUND}{SOUND}Both?"))
    task = Rows("unread", models["audio"])
    media = task.load_media(two)
    assert media["sampling_rate"] == 16000
    assert [len(waveform) for waveform in media["audio"]] == [8000, 4000]
    assert all(waveform.dtype == np.float32 for waveform in media["audio"])
    # The mean of the channels: one holds the tone, the other nothing.
    assert np.abs(media["audio"][0][1000:-1000]).max() == pytest.approx(0.15, abs=0.005)
    cut = Rows("unread", models["audio"], max_seconds=0.1).load_media(two)
    assert [len(waveform) for waveform in cut["audio"]] == [1600, 1600]
    encoded = MediaEncoder(models["audio"], task.load_media, media="raw").encode([one, two])
    assert len(encoded[1].prompt_token_ids) > len(encoded[0].prompt_token_ids) > 20


def test_choices_get_letters_and_the_answer_is_one(data: Path, models: dict[str, str]) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "Who?", "choices": ["a dog", "a cat"], "answer": "a cat"},
        {"prompt": "Who?", "choices": ["a dog", "a cat"], "answer": "A"},
        {"prompt": "Who?", "choices": ["a dog", "a cat"], "answer": 1},
        {"prompt": "Who?", "choices": {"text": ["a dog", "a cat"], "label": ["1", "2"]}, "answer": "2"},
        {"prompt": "Who?", "choices": {"x": "a dog", "y": "a cat"}, "answer": "y"},
    ]
    prompts = asked(data, models["text"], rows)
    assert {p.text for p in prompts} == {chat(("user", "Who?\nA. a dog\nB. a cat"))}
    assert [p.reference["answer"] for p in prompts] == ["B", "A", "B", "B", "B"]
    assert [p.reference["answer_text"] for p in prompts] == ["a cat", "a dog", "a cat", "a cat", "a cat"]
    assert prompts[3].reference["choices"] == ["a dog", "a cat"]
    (prompt,) = asked(data, models["text"], rows[:1], template="{choices}\n{prompt} One letter.")
    assert prompt.text == chat(("user", "A. a dog\nB. a cat\nWho? One letter."))


def test_messages_in_openais_form(data: Path, models: dict[str, str]) -> None:
    held = base64.b64encode((data / "clips" / "2.flac").read_bytes()).decode()
    parts = [
        {"type": "text", "text": "First"},
        {"type": "audio", "audio": "clips/1.wav"},
        {"type": "text", "text": "then"},
        {"type": "input_audio", "input_audio": {"data": held, "format": "flac"}},
    ]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "system", "content": "Hear."}, {"role": "user", "content": parts}]},
        {"messages": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "sad"}]},
        {"messages": [{"role": "user", "content": "Hm?"}], "audio": "clips/1.wav", "answer": "x"},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
                },
                {"role": "assistant", "content": "So?"},
                {"role": "user", "content": [{"type": "text", "text": "this "}, {"type": "audio"}]},
            ],
            "audio": "clips/2.flac",
        },
    ]
    full, short, beside, placed = asked(data, models["audio"], rows, system="Be short.")
    assert full.text == chat(("system", "Hear."), ("user", f"First{SOUND}then{SOUND}"))
    first, second = full.media["audio"]
    assert first == str(data / "clips" / "1.wav")
    assert Path(second).parent == data / "audio" and Path(second).suffix == ".flac"
    assert Path(second).read_bytes() == (data / "clips" / "2.flac").read_bytes()
    assert short.text == chat(("system", "Be short."), ("user", "Hm?"))
    assert short.reference == {"answer": "sad"}
    assert beside.text == chat(("system", "Be short."), ("user", f"{SOUND}Hm?"))
    turns = (("user", "one\ntwo"), ("assistant", "So?"), ("user", f"this {SOUND}"))
    assert placed.text == chat(("system", "Be short."), *turns)
    assert placed.media == {"audio": [str(data / "clips" / "2.flac")]}


BAD_ROWS: list[tuple[dict[str, Any] | str, str]] = [
    ("{", "not JSON: Expecting property name"),
    ("[1]", r"no JSON object: '\[1\]'"),
    ({"q": "x"}, r"no column 'prompt' \(task.args.columns.prompt .*the row has \['q'\]"),
    ({"prompt": ""}, r"no column 'prompt' .*, or it is empty; the row has \[\]"),
    ({"prompt": 3}, "column 'prompt' is '3'; it must be a text"),
    ({"prompt": "x", "id": 1.5}, "column 'id' is 1.5; an id is a text or a whole number"),
    ({"prompt": "x", "audio": "clips/3.wav"}, "audio 'clips/3.wav': no such file below"),
    ({"prompt": "x", "audio": "../../etc/passwd"}, "leads out of .*audio_root"),
    ({"prompt": "x", "audio": "/etc/passwd"}, "leads out of"),
    ({"prompt": "x", "audio": "https://a.b/c.wav"}, "is an address: download"),
    ({"prompt": "x", "audio": 5}, "audio is '5'; it must be the path of a file"),
    ({"prompt": "x", "audio": "rows.jsonl"}, "unreadable audio"),
    ({"prompt": "x", "audio": "empty.wav"}, "empty: the file holds no samples"),
    ({"prompt": "x", "audio": "cut.wav"}, "truncated"),
    ({"prompt": "x", "audio": "long.wav"}, r"4.0 s are longer than the 3 s .*task.args.max_seconds=3 cuts"),
    ({"prompt": "x", "images": ["a.png"]}, "image 'a.png': no such file below"),
    (
        {"prompt": "x", "images": "clips/1.wav"},
        "images or videos, which Qwen2-Audio does not take here; Qwen2.5-Omni and Qwen2.5-VL do",
    ),
    ({"prompt": "x", "choices": "A) one B) two"}, "column 'choices': .*task.args.columns.choices=null"),
    ({"prompt": "x", "choices": ["one"]}, "1 choices; 2 to 26 are allowed"),
    ({"prompt": "x", "choices": ["one", "two"], "answer": "three"}, "the answer 'three' is not one of the 2"),
    ({"prompt": "x", "choices": ["one", "two"], "answer": 2}, "the answer 2 is not one of the 2"),
    ({"prompt": "x", "choices": ["one", "one"], "answer": "one"}, "the answer 'one' is not one of"),
    ({"prompt": "say <|AUDIO|>"}, r"its text holds '<\|AUDIO\|>', which the model reads as media"),
    ({"messages": []}, "they must be a list of turns"),
    ({"messages": [{"role": "user"}]}, "messages: turn 1: its content is 'None'"),
    ({"messages": [{"role": "me", "content": "x"}]}, "messages: turn 1: got .*'me'.*system, developer"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "no turn of the user"),
    ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "got the part .*smell.*type: image"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "1 parts of type video name no file"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image is 'None'; it must be the"),
    ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "1 parts of type audio name no file"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "?"}}]}]},
        "input_audio: its data is no base64",
    ),
]


def test_bad_rows_are_put_aside_with_their_reasons(data: Path, models: dict[str, str]) -> None:
    whole = (data / "clips" / "1.wav").read_bytes()
    (data / "cut.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(data / "empty.wav", np.zeros(0), 16000)
    soundfile.write(data / "long.wav", np.zeros(64000), 16000)
    path = write(data / "rows.jsonl", [{"prompt": "good"}, *(row for row, _ in BAD_ROWS), {"prompt": "last"}])
    aside = data / "bad" / "rows.jsonl"
    task = Rows(str(path), models["audio"], eval=str(path), quarantine=str(aside))
    assert [p.id for p in task.prompts("train")] == ["rows-1", f"rows-{len(BAD_ROWS) + 2}"]
    told = [json.loads(line) for line in aside.read_text().splitlines()][: len(BAD_ROWS)]
    for number, (row, reason) in enumerate(BAD_ROWS, 2):
        found = told[number - 2]
        assert found["where"] == f"{path}:{number}"
        assert re.search(reason, found["reason"]), (reason, found["reason"])
        assert found["row"] == ({} if isinstance(row, str) else {k: v for k, v in row.items() if v != ""})
    with pytest.raises(
        DataError, match=rf"{2 * len(BAD_ROWS)} bad rows; mend them, or set task.args.quarant"
    ):
        Rows(str(path), models["audio"], eval=str(path)).prompts("train")
    write(path, [{"prompt": "good"}])
    Rows(str(path), models["audio"], eval=str(path), quarantine=str(aside)).prompts("train")
    assert not aside.exists()
    write(path, ["{"])
    with pytest.raises(DataError, match=r"rows.jsonl: no good row in it\n  .*rows.jsonl:1: not JSON"):
        Rows(str(path), models["audio"], quarantine=str(aside)).prompts("train")


def test_a_model_that_cannot_be_loaded_is_no_rows_fault(data: Path) -> None:
    with pytest.raises(DataError, match=r"^.*/nowhere: no such model"):
        asked(data, str(data / "nowhere"), [{"prompt": "x"}], quarantine=str(data / "bad.jsonl"))
    assert not (data / "bad.jsonl").exists()


def test_a_text_model_hears_nothing(data: Path, models: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"it has a recording, and text \(any \*ForCausalLM\) hears none"):
        asked(data, models["text"], [{"prompt": "x", "audio": "clips/1.wav"}])


def test_a_named_column_that_a_row_lacks_is_a_mistake(data: Path, models: dict[str, str]) -> None:
    rows = [{"prompt": "x", "wav": "clips/1.wav", "gold": "a"}, {"prompt": "y", "gold": "b"}]
    with pytest.raises(DataError, match=r"rows.jsonl:2: no column 'wav' \(task.args.columns.audio\)"):
        asked(data, models["audio"], rows, columns={"audio": "wav"})
    with pytest.raises(DataError, match=r"rows.jsonl:2: no column 'a' \(task.args.columns.answer\)"):
        asked(data, models["text"], [{"prompt": "x", "a": 1}, {"prompt": "y"}], columns={"answer": "a"})
    with pytest.raises(DataError, match=r"no column 'name' \(task.args.template\), .*\['gold', 'prompt'\]"):
        asked(data, models["audio"], rows[1:], template="{name}?")
    with pytest.raises(ConfigError, match=r"columns.id: no row has a column 'key'; there are \['gold'"):
        asked(data, models["audio"], rows[1:], columns={"id": "key"})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"columns": {"promt": "q"}}, r"task.args.columns: \['promt'\] are no roles; roles are id, prompt"),
        ({"template": "{answer}"}, r"task.args.template: \{answer\} shows the model the right answer"),
        ({"template": "{answer[0]}"}, r"\{answer\} shows the model the right answer"),
        ({"template": "{prompt:{answer}}"}, r"\{answer\} shows the model the right answer"),
        ({"template": "{gold}", "columns": {"answer": "gold"}}, "shows the model the right answer"),
        ({"template": "{audio} what?"}, "would write a path; recordings and pictures stand in front"),
        ({"template": "{images} what?"}, "would write a path; recordings and pictures stand in front"),
        ({"template": "{q"}, "task.args.template: .*columns stand in {curly brackets}, others are doubled"),
        ({"template": "{}"}, r"task.args.template: \{\} names no column"),
        ({"answer_template": "<a>"}, "task.args.answer_template: got '<a>', must have {answer} in it"),
        ({"eval_fraction": 1.0}, "task.args.eval_fraction: got 1.0"),
        ({"max_seconds": 0}, "task.args.max_seconds: got 0"),
        ({"max_pixels": 0}, "task.args.max_pixels: got 0"),
    ],
)
def test_settings_are_checked_before_any_row_is_read(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Rows("rows.jsonl", "model", **args)


def test_an_id_stands_once(data: Path, models: dict[str, str]) -> None:
    rows = [{"prompt": "x", "id": "1"}, {"prompt": "y", "id": 1}]
    said = r"rows.jsonl:2: the id '1' stands at .*rows.jsonl:1 already.*columns.id"
    with pytest.raises(DataError, match=said):
        asked(data, models["text"], rows, quarantine=str(data / "bad.jsonl"))
    assert [p.id for p in asked(data, models["text"], rows, columns={"id": None})] == ["rows-1", "rows-2"]


def test_the_held_out_rows_depend_on_their_ids_alone(data: Path, models: dict[str, str]) -> None:
    rows = [{"prompt": "x", "id": f"r{i}", "speaker": f"s{i % 7}"} for i in range(200)]
    path = write(data / "rows.jsonl", rows)

    def held_out(**args: Any) -> set[str]:
        task = Rows(str(path), models["text"], **args)
        train, held = ({p.id for p in task.prompts(split)} for split in ("train", "eval"))
        assert not train & held and len(train | held) == len(path.read_text().splitlines())
        return held

    first = held_out(eval_fraction=0.2)
    assert len(first) == 40
    assert held_out(eval_fraction=0.2, seed=1) != first
    assert held_out(eval_fraction=0.1) < first
    speakers = {int(id[1:]) % 7 for id in held_out(eval_fraction=0.3, split_by="speaker")}
    assert len(speakers) == 3  # of 28 or 29 rows each: two are less than the share
    assert len(held_out(eval_fraction=0.3, split_by="speaker")) == sum(i % 7 in speakers for i in range(200))
    write(path, rows[::-1])
    assert held_out(eval_fraction=0.2) == first
    write(path, rows[:2])
    assert len(held_out(eval_fraction=0.001)) == 1
    write(path, rows[:1])
    with pytest.raises(DataError, match=r"nothing to train on is left of 1 rows \(task.args.eval_fraction"):
        held_out()
    with pytest.raises(DataError, match=r"row 'r0' has no column 'who' \(task.args.split_by\)"):
        held_out(split_by="who")


def test_files_of_other_forms(data: Path, models: dict[str, str]) -> None:
    rows = [{"prompt": "x,\n1", "answer": "1"}, {"prompt": "y", "answer": "2"}]
    (data / "list.json").write_text(json.dumps([*rows, 3], indent=1))
    task = Rows(str(data / "list.json"), models["text"], eval_fraction=0.01, quarantine=str(data / "bad"))
    assert {p.reference["answer"] for s in ("train", "eval") for p in task.prompts(s)} == {"1", "2"}
    assert json.loads((data / "bad").read_text())["reason"] == "no JSON object: '3'"
    (data / "table.csv").write_text('prompt,answer\n"x,\n1",1\ny,\n')
    one, two = Rows(
        str(data / "table.csv"), models["text"], eval=str(data / "list.json"), quarantine=str(data / "bad")
    ).prompts("train")
    assert (one.id, two.id, one.reference, two.reference) == ("table-2", "table-4", {"answer": "1"}, {})
    with pytest.raises(DataError, match=r"nope.jsonl: no such file or folder"):
        Rows(str(data / "nope.jsonl"), models["text"]).prompts("train")
    (data / "none").mkdir()
    with pytest.raises(DataError, match=r"none: holds no rows: no Parquet files"):
        Rows(str(data / "none"), models["text"]).prompts("train")


def test_a_data_set_of_the_hub(data: Path, models: dict[str, str]) -> None:
    """Parquet as `Dataset.push_to_hub` writes it: recordings inside, classes by number, files by split."""
    features = datasets.Features(
        {
            "speech": datasets.Audio(decode=False),
            "label": datasets.ClassLabel(names=["calm", "angry"]),
            "question": datasets.Value("string"),
        }
    )
    sounds = [(data / "clips" / name).read_bytes() for name in ("1.wav", "2.flac")]
    rows = [
        {"speech": {"bytes": sound, "path": "x.wav"}, "label": label, "question": "How?"}
        for label, sound in enumerate(sounds)
    ]
    root = data / "hub"
    for split, held in (("train", rows), ("test", rows[:1]), ("validation", rows[1:])):
        path = root / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(held, schema=features.arrow_schema), path)
    columns = {"prompt": "question", "answer": "label"}
    for audio_root in (None, str(data / "elsewhere")):
        task = Rows(str(root), models["audio"], columns=columns, audio_root=audio_root)
        train, held_out = task.prompts("train"), task.prompts("eval")
        assert [p.id for p in train] == ["train-00000-of-00001-1", "train-00000-of-00001-2"]
        assert [p.reference for p in train] == [{"answer": "calm"}, {"answer": "angry"}]
        assert [Path(p.media["audio"][0]).read_bytes() for p in train] == sounds
        assert Path(train[0].media["audio"][0]).parent == Path(audio_root or root) / "audio"
        assert [p.id for p in held_out] == ["test-00000-of-00001-1"]
        assert len(task.load_media(train[0])["audio"][0]) == 8000
    lone = Rows(str(root / "data" / "validation-00000-of-00001.parquet"), models["audio"], columns=columns)
    with pytest.raises(DataError, match="nothing to train on is left of 1 rows"):
        lone.prompts("train")


def test_an_audiofolder(data: Path, models: dict[str, str]) -> None:
    for split in ("train", "test"):
        (data / "set" / split).mkdir(parents=True)
        (data / "set" / split / "a.wav").write_bytes((data / "clips" / "1.wav").read_bytes())
        (data / "set" / split / "metadata.csv").write_text(f"file_name,prompt,answer\na.wav,What?,{split}\n")
    task = Rows(str(data / "set"), models["audio"])
    for split, name in (("train", "train"), ("eval", "test")):
        (prompt,) = task.prompts(split)
        assert prompt.id == f"{name}/a" and prompt.reference["answer"] == name
        assert prompt.media == {"audio": [str(data / "set" / name / "a.wav")]}


def test_the_score_is_the_metrics_mean(data: Path, models: dict[str, str]) -> None:
    prompts = asked(data, models["text"], [{"prompt": "x"}, {"prompt": "y"}, {"prompt": "z"}])
    answer = Completion(
        token_ids=(1, 2), logprobs=(0.0, 0.0), text="", finish_reason="stop", policy_version=0
    )
    groups = [Group(prompt=p, prompt_token_ids=(1,), completions=(answer,)) for p in prompts]
    scores = {
        "form": [Score(1.0), Score(1.0), Score(0.0)],
        "right": [Score(1.0, parts={"x": 4.0}), Score(0.0, parts={"x": 2.0}), Score(0.0, error="why")],
    }
    first = Rows("t", models["text"]).evaluate(groups, scores)
    assert next(iter(first)) == "score" and first["score"] == pytest.approx(2 / 3)
    assert first["unscored"] == 0 and first["tokens"] == 2
    named = Rows("t", models["text"], metric="right").evaluate(groups, scores)
    assert (named["score"], named["reward/right"], named["reward/right/x"], named["unscored"]) == (
        0.5,
        0.5,
        3,
        1,
    )
    with pytest.raises(ConfigError, match=r"task.args.metric: got 'wrong', must be a reward: \['form'"):
        Rows("t", models["text"], metric="wrong").evaluate(groups, scores)


def test_a_perfect_answer_is_known_where_its_form_is(data: Path, models: dict[str, str]) -> None:
    one, two = asked(data, models["text"], [{"prompt": "x", "answer": "4"}, {"prompt": "y"}])
    form = "<think>{x}</think><answer>{answer}</answer>"
    task = Rows("t", models["text"], answer_template=form)
    assert task.perfect_answer(one) == "<think>{x}</think><answer>4</answer>"
    assert task.perfect_answer(two) is None
    assert Rows("t", models["text"]).perfect_answer(one) is None


def test_a_run_tries_its_rewards_on_answers_whose_form_is_given(data: Path, models: dict[str, str]) -> None:
    prompts = asked(data, models["text"], [{"prompt": "x", "answer": "4"}, {"prompt": "y"}])
    tags = RewardConfig(target="rlcore.rewards.rules:TagFormat", args={"tags": ["answer"]})
    config = RunConfig(
        model=ModelConfig(path=models["text"]), task=TargetConfig(target="a:B"), rewards={"form": tags}
    )
    check_reading(config, Rows("t", models["text"]), prompts)
    check_reading(config, Rows("t", models["text"], answer_template="<answer>{answer}</answer>"), prompts)
    with pytest.raises(
        ConfigError, match=r"rewards.form: gives 0 to perfect answers of the task, such as '4'"
    ):
        check_reading(config, Rows("t", models["text"], answer_template="{answer}"), prompts)


def test_a_list_beside_parquet_files_tells_no_split(data: Path, models: dict[str, str]) -> None:
    (data / "set").mkdir()
    rows = [{"prompt": f"{i}?"} for i in range(10)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), data / "set" / "train-0.parquet")
    write(data / "set" / "test.jsonl", rows)
    task = Rows(str(data / "set"), models["text"])
    assert [len(task.prompts(split)) for split in ("train", "eval")] == [9, 1]


def test_a_model_with_several_windows_hears_more_than_one(data: Path) -> None:
    soundfile.write(data / "long.wav", np.zeros(4 * 8000), 8000)
    model = str(make_family(data / "model", "audio_flamingo3", window=3))
    (prompt,) = asked(data, model, [{"prompt": "What?", "audio": "long.wav"}])
    assert prompt.media == {"audio": [str(data / "long.wav")]}
