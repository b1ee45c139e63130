from __future__ import annotations

import random
from collections import Counter

import pytest

from emotion_task.claims.finder import find_claims
from emotion_task.cot import TemplateWriter
from emotion_task.facts import known_facts, stated_facts
from emotion_task.parsing import named_emotions, parse_response
from emotion_task.records import Utterance
from rlcore.errors import ConfigError

UTTERANCE = Utterance(
    id="1",
    audio="1.wav",
    text='He said "stop <now>", at last!',
    emotion="angry",
    gender="male",
    pitch_level="low",
    energy_level="high",
    speed_level="fast",
    intonation="falling",
)
WHISPER = Utterance(
    id="2",
    audio="2.wav",
    emotion="whisper",
    energy_level="low",
    intonation="too_short",
    measured={"f0_reliable": False, "level_reliable": True, "voiced_fraction": 0.05},
)


def test_facts_are_what_was_measured() -> None:
    assert stated_facts(UTTERANCE) == {
        "pitch_level": "low",
        "energy_level": "high",
        "speed_level": "fast",
        "intonation": "falling",
        "gender": "male",
    }
    assert stated_facts(WHISPER) == {"pitch_level": "none", "energy_level": "low"}


@pytest.mark.parametrize(
    "measured",
    [
        None,
        {"f0_reliable": True, "level_reliable": True, "voiced_fraction": 0.05},
        {"f0_reliable": False, "level_reliable": True, "voiced_fraction": 0.25},
        {"f0_reliable": False, "level_reliable": False, "voiced_fraction": 0.0},  # drowned in noise
    ],
)
def test_an_unknown_pitch_is_not_called_absent(measured: dict | None) -> None:
    utterance = Utterance(id="3", audio="3.wav", energy_level="low", measured=measured)
    assert stated_facts(utterance) == {"energy_level": "low"}
    trace = TemplateWriter().write(utterance, random.Random(0), answer=False)
    assert trace is not None and "pitch" not in trace


def test_the_emotion_is_named_once_in_the_last_sentence() -> None:
    rng = random.Random(0)
    for style in ("short", "long"):
        writer = TemplateWriter(quote_rate=0.5, style=style)
        for _ in range(50):
            parsed = parse_response(writer.write(UTTERANCE, rng) or "")
            assert parsed is not None and parsed.answer == "angry"
            assert named_emotions(parsed.think) == ["angry"]
            assert named_emotions(parsed.think.split(". ")[-1]) == ["angry"]


def test_a_withheld_label_leaves_reasoning_alone() -> None:
    trace = TemplateWriter().write(UTTERANCE, random.Random(0), answer=False)
    assert trace is not None and trace.startswith("<think>") and trace.endswith("</think>")
    assert named_emotions(trace) == [] and "answer" not in trace


def test_quotes_hold_no_marks_that_could_break_the_schema() -> None:
    trace = TemplateWriter(quote_rate=1.0, max_quote_words=4).write(UTTERANCE, random.Random(0)) or ""
    assert '"He said stop now"' in trace
    assert TemplateWriter(quote_rate=0.0).write(UTTERANCE, random.Random(0)).count('"') == 0


def test_the_same_state_writes_the_same_and_another_varies() -> None:
    writer = TemplateWriter()
    assert writer.write(UTTERANCE, random.Random(5)) == writer.write(UTTERANCE, random.Random(5))
    traces = {writer.write(UTTERANCE, random.Random(seed)) for seed in range(100)}
    assert len(traces) > 95


def test_the_short_style_is_short() -> None:
    rng = random.Random(0)
    lengths = [len((TemplateWriter().write(UTTERANCE, rng) or "").split()) for _ in range(200)]
    assert min(lengths) >= 15 and max(lengths) <= 45


def test_facts_are_stated_at_their_rate() -> None:
    writer = TemplateWriter(fact_rate=0.7)
    traces = [writer.write(UTTERANCE, random.Random(seed)) or "" for seed in range(1000)]
    stated = Counter(name for trace in traces for name in find_claims(trace))
    for name in known_facts(UTTERANCE):
        assert stated[name] / 1000 == pytest.approx(0.7, abs=0.05), name


def test_too_little_to_reason_from_gives_none() -> None:
    assert TemplateWriter().write(Utterance(id="4", audio="4.wav", emotion="sad"), random.Random(0)) is None
    unlabelled = Utterance(id="5", audio="5.wav", pitch_level="low")
    assert TemplateWriter().write(unlabelled, random.Random(0)) is None


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="style: got 'epic'; allowed are"):
        TemplateWriter(style="epic")
    with pytest.raises(ConfigError, match="quote_rate: got 2"):
        TemplateWriter(quote_rate=2)
    with pytest.raises(ConfigError, match="fact_rate: got -1"):
        TemplateWriter(fact_rate=-1)
