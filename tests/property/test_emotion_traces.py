"""Write then read is the identity, for every fact and every wording."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from emotion_task.claims.finder import find_claims
from emotion_task.claims.support import learn_table
from emotion_task.cot import TemplateWriter
from emotion_task.cot.phrases import CLAUSES, NOUN_PHRASES
from emotion_task.facts import PROSODY, VALUES, known_facts
from emotion_task.labels import ALL_LABELS
from emotion_task.parsing import format_response, named_emotions, normalise_label, parse_response
from emotion_task.records import AGE_LEVELS, Utterance
from emotion_task.reward_model.faults import (
    HEDGEABLE,
    Plan,
    bent_claims,
    contradiction,
    early_label,
    hedge,
    long_prose,
    missing_claim,
    repeated_sentence,
    shuffled_sentences,
    text_only,
    unnamed_emotion,
    wrong_claim,
    wrong_emotion,
    wrong_quotation,
)
from emotion_task.reward_model.grades import DIMENSIONS, grade_response

ages = dict(zip(AGE_LEVELS, (8.0, 25.0, 50.0, 75.0), strict=True))
facts = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from(values) for name, values in (VALUES | {"age_level": tuple(ages)}).items()
    },
)
texts = st.sampled_from(
    (None, "He said the pitch is high", "She talks fast, not slow", "Get out! I am angry")
)


def utterance_of(known: dict[str, str], text: str | None, emotion: str | None) -> Utterance:
    fields = {name: value for name, value in known.items() if value != "none" and name != "age_level"}
    age = ages[known["age_level"]] if "age_level" in known else None
    whispered = {"f0_reliable": False, "level_reliable": True, "voiced_fraction": 0.1}
    measured = whispered if known.get("pitch_level") == "none" else None
    return Utterance(
        id="u", audio="u.wav", text=text, emotion=emotion, age_years=age, measured=measured, **fields
    )


_any_trace = given(
    facts,
    texts,
    st.sampled_from(ALL_LABELS),
    st.sampled_from(("short", "long")),
    st.booleans(),
    st.integers(0),
)


@settings(max_examples=200)
@_any_trace
def test_a_trace_may_leave_facts_out(
    known: dict[str, str], text: str | None, emotion: str, style: str, answer: bool, seed: int
) -> None:
    utterance, writer = utterance_of(known, text, emotion), TemplateWriter(style=style, fact_rate=0.3)
    trace = writer.write(utterance, random.Random(seed), answer=answer)
    if not any(name in known for name in PROSODY):
        assert trace is None
        return
    stated = find_claims(trace or "")
    assert stated.items() <= known.items() and any(name in stated for name in PROSODY)


@settings(max_examples=200)
@_any_trace
def test_a_trace_claims_exactly_the_facts(
    known: dict[str, str], text: str | None, emotion: str, style: str, answer: bool, seed: int
) -> None:
    utterance = utterance_of(known, text, emotion)
    trace = TemplateWriter(quote_rate=0.5, style=style).write(utterance, random.Random(seed), answer=answer)
    if not any(name in known for name in PROSODY):
        assert trace is None
        return
    assert trace is not None
    assert find_claims(trace) == known_facts(utterance) == known
    parsed = parse_response(trace)
    if answer:
        assert parsed is not None
        assert normalise_label(parsed.answer) == emotion
        assert named_emotions(parsed.think) == [emotion]
    else:
        assert parsed is None and named_emotions(trace) == []


def test_every_phrase_states_its_fact_alone() -> None:
    for table in (CLAUSES, NOUN_PHRASES):
        for (name, value), phrases in table.items():
            for phrase in phrases:
                assert find_claims(phrase) == {name: value}, phrase


@given(st.text(max_size=40), st.text(max_size=20))
def test_whatever_is_parsed_was_formatted(think: str, answer: str) -> None:
    parsed = parse_response(format_response(think, answer))
    if parsed is not None:
        assert (parsed.think, parsed.answer) == (think.strip(), answer.strip())


FOUND = (
    wrong_claim,
    missing_claim,
    wrong_quotation,
    long_prose,
    repeated_sentence,
)
"""Faults that the rules find, in any mixture."""
TABLE = learn_table(
    utterance_of({"pitch_level": pitch, "speed_level": speed, "intonation": "flat"}, None, emotion)
    for pitch, speed, emotion in (
        ("low", "slow", "sad"),
        ("low", "normal", "sad"),
        ("high", "fast", "happy"),
        ("high", "normal", "angry"),
    )
)


@settings(max_examples=150)
@example(
    dict(zip(VALUES, ("low", "low", "slow", "rising", "male"), strict=True)),
    [wrong_claim, missing_claim, wrong_quotation, long_prose],
    None,
    shuffled_sentences,
    "pitch_level",
    "the car is next to the house",
    1,
)
@given(
    st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()}),
    st.lists(
        st.sampled_from(FOUND),
        max_size=5,
        unique=True,
    ),
    st.sampled_from((None, wrong_emotion, bent_claims, text_only, contradiction, unnamed_emotion)),
    st.sampled_from((None, early_label, shuffled_sentences)),
    st.sampled_from((None, *HEDGEABLE)),
    st.sampled_from((None, "the car is next to the house", "stop")),
    st.integers(0),
)
def test_known_faults_lower_the_grades_that_the_rules_find(
    known, faults, of_emotion, of_order, hedged, text, seed
) -> None:
    rng = random.Random(seed)
    plan = Plan(
        facts=known,
        truth=known,
        speaker_emotion="sad",
        emotion="sad",
        answer="sad",
        table=TABLE,
        text=text,
        text_emotion="happy",
        quote=text,
    )
    if hedged is not None:
        plan = hedge(plan, hedged, rng)
    for fault in filter(None, (of_emotion, *faults, of_order)):
        plan = fault(plan, rng)
    graded = grade_response(plan.write(TemplateWriter(), rng), utterance_of(known, text, "sad"), TABLE)
    assert graded == {d.name: plan.grades[d.name] for d in DIMENSIONS}


@given(st.text(max_size=200))
def test_grades_of_any_text_are_on_the_scale(text: str) -> None:
    grades = grade_response(text, utterance_of({"pitch_level": "low", "energy_level": "high"}, None, "sad"))
    assert set(grades.values()) <= {1, 2, 3, 4, 5}
