from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import make_qwen2_audio, tone

from emotion_task.perception.ask import Listener, hits
from emotion_task.perception.emotions import recall_report
from emotion_task.perception.hearing import floors, write_perception
from emotion_task.perception.questions import attributes_of, turns_of
from emotion_task.prompt import attribute_messages
from emotion_task.records import Utterance, write_manifest
from emotion_task.sft.stressed_word import stress_words
from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import format_prompt
from rlcore.models.hf_model import load_model, load_processor, tokenizer_of

UTTERANCE = Utterance(
    id="u0",
    audio="/0.wav",
    text="I left the keys on the table",
    emotion="sad",
    gender="male",
    split="eval",
    pitch_level="low",
    energy_level="high",
    intonation="rising",
    stressed_words=["keys"],
)
WHISPER = Utterance(
    id="u1",
    audio="/1.wav",
    energy_level="low",
    measured={"f0_reliable": False, "level_reliable": True, "voiced_fraction": 0.0},
)


def test_only_what_was_measured_is_asked() -> None:
    turns = turns_of(UTTERANCE, "single")
    asked = {c.attribute: c for turn in turns for c in turn.choices}
    assert list(asked) == ["pitch", "energy", "intonation", "stress"]  # no rate: it was not measured
    assert asked["stress"].options == ("I", "left", "the", "keys", "on", "table")
    assert asked["stress"].answer == "keys"
    (profile,) = turns_of(UTTERANCE, "profile")
    assert [c.attribute for c in profile.choices] == ["pitch", "energy", "intonation", "gender"]


def test_a_whisper_is_asked_for_its_pitch_but_not_graded_on_it() -> None:
    turns = [turns_of(WHISPER, "profile")]
    assert [c.answer for c in turns[0][0].choices] == ["none", "low"]
    assert attributes_of(turns) == ["energy"]
    np.testing.assert_array_equal(hits(turns, [[["none", "low"]]], ["energy"]), [[1.0]])


@pytest.mark.parametrize(
    "text, stressed", [("the key is the door", "the"), ("no", "no"), ("a b", "c"), (None, "a")]
)
def test_a_stressed_word_without_one_answer_is_not_asked(text: str | None, stressed: str) -> None:
    assert stress_words(Utterance(id="u", audio="/u", text=text, stressed_words=[stressed])) is None


def test_floors_need_no_ears() -> None:
    turns = [turns_of(UTTERANCE, "single"), turns_of(WHISPER, "single")]
    found = floors(turns, ["energy", "stress"])
    assert found["energy"] == {"chance": pytest.approx(1 / 3), "majority": 0.5}
    assert found["stress"] == {"chance": pytest.approx(1 / 6)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return str(make_qwen2_audio(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    rows = []
    for index in range(3):
        soundfile.write(folder / f"{index}.wav", tone(index, 0.5 + 0.2 * index), 16000)
        rows.append(
            Utterance(
                id=f"u{index}",
                audio=str(folder / f"{index}.wav"),
                emotion="sad",
                split="eval",
                pitch_level=("low", "high", "low")[index],
                energy_level="normal",
                intonation="rising",
            )
        )
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def test_the_choice_is_the_likeliest_option_with_its_end(model: str, manifest: Path) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    utterances = [Utterance(**row) for row in rows]
    turns = [turns_of(utterance, "single") for utterance in utterances]
    chosen = Listener(model, batch_size=2).choose(utterances, turns)

    processor, policy = load_processor(model), load_model(model)
    eos = tokenizer_of(processor).eos_token
    prompt = format_prompt(processor, attribute_messages("intonation"))
    waveform = soundfile.read(utterances[1].audio, dtype="float32")[0]
    sums = []
    options = turns[1][2].choices[0].options
    for option in options:
        inputs = processor(
            text=prompt + option + eos, audio=[waveform], sampling_rate=16000, return_tensors="pt"
        )
        length = len(tokenizer_of(processor)(option + eos, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logits = policy(**inputs).logits[0, -length - 1 : -1]
        target = inputs["input_ids"][0, -length:]
        sums.append(float(logits.log_softmax(-1).gather(1, target[:, None]).sum()))
    assert chosen[1][2] == [options[int(np.argmax(sums))]]


def test_what_cannot_be_asked_is_said_before_a_model_is_loaded(manifest: Path, tmp_path: Path) -> None:
    models = {"before": "no_model", "after": "no_model"}
    with pytest.raises(ConfigError, match=r"got 'long'; allowed are \['single', 'profile'\]"):
        write_perception(manifest, models, tmp_path, form="long")
    with pytest.raises(DataError, match="of 0 utterances with the split 'test'"):
        write_perception(manifest, models, tmp_path, split="test")
    with pytest.raises(FileNotFoundError, match="no_samples"):
        write_perception(manifest, {"model": "no_model"}, tmp_path, samples=[tmp_path / "no_samples.jsonl"])
    with pytest.raises(ConfigError, match="samples: got 3 files"):
        write_perception(manifest, {"model": "no_model"}, tmp_path, samples=["a", "b", "c"])


def test_recall_by_emotion_from_a_runs_answers(tmp_path: Path) -> None:
    def row(step: int, prompt: str, truth: str, said: str) -> str:
        text = f"<think>Listen.</think><answer>{said}</answer>"
        reference = {"emotion": truth}
        return json.dumps(
            {"step": step, "split": "eval", "prompt": prompt, "text": text, "reference": reference}
        )

    lines = [
        row(0, "a", "sad", "angry"),
        row(0, "b", "sad", "sad"),
        row(0, "c", "angry", "nonsense"),
        row(40, "a", "sad", "sad"),
        row(40, "b", "sad", "sad"),
        row(40, "c", "angry", "angry"),
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(lines) + "\n")
    report = recall_report([path])
    before, after = report["models"]["before"], report["models"]["after"]
    assert (before["sad"].value, before["angry"].value, before["mean"].value) == (0.5, 0.0, 0.25)
    assert (after["sad"].value, after["mean"].value, report["gain"]["mean"].value) == (1.0, 1.0, 0.75)
    assert recall_report([path, path])["gain"]["mean"].value == 0.0
