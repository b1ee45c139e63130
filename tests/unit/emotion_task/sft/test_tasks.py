from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from emotion_task.cot import TemplateWriter
from emotion_task.parsing import named_emotions, parse_response
from emotion_task.records import Utterance
from emotion_task.sft.tasks import MixtureConfig, build_examples, may_reveal
from rlcore.errors import ConfigError, DataError

UTTERANCES = [
    Utterance(
        id=f"u{i}",
        audio=f"/{i}.wav",
        emotion=("sad", "happy", "angry")[i % 3],
        pitch_level=("low", "high", None)[i % 3],
        energy_level="high",
        speed_level="fast",
        intonation="falling" if i % 2 else "uncertain",
    )
    for i in range(200)
]
WEIGHTS = {"pitch": 1, "energy": 1, "rate": 1, "intonation": 1, "reasoning": 2, "description": 4}


def build(seed: int = 0, fraction: float = 0.3, **kwargs):
    mixture = MixtureConfig(weights=WEIGHTS, label_fraction=fraction, seed=seed)
    return build_examples(UTTERANCES, TemplateWriter(), mixture, **kwargs)


def test_shares_follow_the_weights() -> None:
    counts = Counter(example.task for example in build(num_examples=1000))
    assert counts == {
        "pitch": 100,
        "energy": 100,
        "rate": 100,
        "intonation": 100,
        "reasoning": 200,
        "description": 400,
    }
    assert len(build()) == 200 and len(build(num_examples=7)) == 7


def test_targets_are_what_was_measured() -> None:
    by_id = {u.id: u for u in UTTERANCES}
    for example in build():
        utterance = by_id[example.id.split("/")[0]]
        if example.task == "pitch":
            assert example.target == utterance.pitch_level and example.complete
        if example.task == "intonation":
            assert example.target == "falling"
        assert example.audio == utterance.audio


def test_the_age_is_asked_where_it_is_known() -> None:
    old = [replace(u, age_years=(8.0, 25.0, 45.0, 70.0)[i % 4]) for i, u in enumerate(UTTERANCES[:8])]
    mixture = MixtureConfig(weights={"age": 1})
    examples = build_examples([*old, *UTTERANCES[8:]], TemplateWriter(), mixture, num_examples=8)
    expected = {u.id: ("child", "young", "middle-aged", "elderly")[i % 4] for i, u in enumerate(old)}
    assert {example.id.removesuffix("/age"): example.target for example in examples} == expected
    question = examples[0].messages[-1]["content"][1]["text"]
    assert question == "How old is the speaker? Choose one of: child, young, middle-aged, elderly."
    with pytest.raises(DataError, match="'age'"):
        build_examples(UTTERANCES, TemplateWriter(), mixture)


def test_transcripts_and_captions_know_no_emotion() -> None:
    spoken = [replace(u, text=f"Sentence {u.id}.") for u in UTTERANCES[:10]] + UTTERANCES[10:]
    mixture = MixtureConfig(weights={"transcript": 1, "caption": 1}, label_fraction=0.0)
    examples = build_examples(spoken, TemplateWriter(), mixture, num_examples=100)
    by_task = {task: [e for e in examples if e.task == task] for task in ("transcript", "caption")}
    assert {e.target for e in by_task["transcript"]} == {f"Sentence u{i}." for i in range(10)}
    for example in by_task["caption"]:
        assert example.complete and example.target and "<" not in example.target
        assert not named_emotions(example.target)


def test_a_withheld_emotion_is_never_written() -> None:
    revealed = {u.id for u in UTTERANCES if may_reveal(u, 0.3, seed=0)}
    assert 40 <= len(revealed) <= 80
    for example in build(num_examples=2000):
        name = example.id.split("/")[0]
        if example.task == "reasoning":
            parsed = parse_response(example.target)
            assert name in revealed and example.complete and parsed is not None
        else:
            assert named_emotions(example.target) == []
        if example.task == "description":
            # Open: what follows the description is left for labelled examples to teach.
            assert name not in revealed and not example.complete and example.target.endswith(".")
            assert "</think>" not in example.target


def test_larger_fractions_reveal_more_of_the_same() -> None:
    small, large = ({u.id for u in UTTERANCES if may_reveal(u, f, seed=0)} for f in (0.2, 0.6))
    assert small < large
    other = {u.id for u in UTTERANCES if may_reveal(u, 0.2, seed=1)}
    assert other != small


def test_examples_are_a_function_of_seed_and_epoch() -> None:
    assert build(seed=1) == build(seed=1)
    assert build(seed=1) != build(seed=2)
    assert [e.target for e in build(epoch=0)] != [e.target for e in build(epoch=1)]


def test_written_traces_are_used_where_a_corpus_has_them() -> None:
    trace = "<think>As written.</think><answer>sad</answer>"
    utterances = [Utterance(id="1", audio="/1.wav", emotion="sad", trace=trace)]
    (example,) = build_examples(utterances, TemplateWriter(), MixtureConfig(weights={"reasoning": 1.0}))
    assert example.target == trace


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown tasks \['pich'\]; allowed are"):
        MixtureConfig(weights={"pich": 1.0})
    with pytest.raises(ConfigError, match="one is > 0"):
        MixtureConfig(weights={"pitch": 0.0})
    with pytest.raises(ConfigError, match=r"label_fraction: got 1\.5"):
        MixtureConfig(weights={"pitch": 1.0}, label_fraction=1.5)
    with pytest.raises(DataError, match="sft task 'description': none of 200"):
        build(fraction=1.0)


def test_melody_and_profile_say_what_was_measured() -> None:
    utterance = Utterance(
        id="a",
        audio="/a.wav",
        gender="female",
        pitch_level="high",
        energy_level="low",
        measured={"f0_contour_hz": [70.0, 83.0, 84.0, 140.0, None, 600.0, 50.0]},
    )
    mixture = MixtureConfig(weights={"melody": 1, "profile": 1})
    targets = {
        e.task: e.target for e in build_examples([utterance], TemplateWriter(), mixture, num_examples=2)
    }
    # A quarter octave above 70 Hz ends at 83.2 Hz; an octave is four of them; beyond the scale is its end.
    assert targets == {"melody": "0014-90", "profile": "pitch high, energy low, gender female"}
