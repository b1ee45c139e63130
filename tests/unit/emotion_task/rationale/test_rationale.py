from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from emotion_task.claims.finder import find_claims
from emotion_task.claims.support import learn_table, prosodic
from emotion_task.parsing import named_emotions, parse_response
from emotion_task.rationale.asking import Finished, Forced
from emotion_task.rationale.moves import TITLES, Probed, as_markdown, estimates, moves
from emotion_task.rationale.rewriting import Traces, draw_donor, rewrite
from emotion_task.records import Utterance

LEVELS = {"sad": ("low", "low", "slow"), "angry": ("high", "high", "fast"), "gloat": ("high", "low", "slow")}
RECORDINGS = [
    Utterance(
        id=f"{emotion}-{gender}-{n}",
        audio=f"/{emotion}-{gender}-{n}.wav",
        emotion=emotion,
        gender=gender,
        pitch_level=pitch,
        energy_level=energy,
        speed_level=rate,
    )
    for emotion, (pitch, energy, rate) in LEVELS.items()
    for gender in ("male", "female")
    for n in range(3)
]
TABLE = learn_table(RECORDINGS, list(LEVELS))
HEARD = RECORDINGS[0]
THINK = (
    'A man speaks with a low pitch. He says "I am so angry". The voice is quiet and slow. '
    "One might think of fear. All of this fits sadness."
)


def test_swapped_claims_are_read_as_the_donors_and_the_rest_stays() -> None:
    for seed in range(20):
        traces = rewrite(THINK, "sad", HEARD, RECORDINGS, TABLE, random.Random(seed))
        assert isinstance(traces, Traces)
        assert traces.donor.emotion in ("angry", "gloat") and traces.donor.gender == "male"
        own = {"pitch_level": "low", "energy_level": "low", "speed_level": "slow"}
        donor = {name: getattr(traces.donor, name) for name in own}
        assert prosodic(find_claims(traces.own)) == prosodic(find_claims(traces.paraphrased)) == own
        assert prosodic(find_claims(traces.swapped)) == donor
        assert traces.paraphrased != traces.own
        for text in (traces.own, traces.paraphrased, traces.swapped):
            assert named_emotions(text, TABLE.labels) == []
            assert 'He says "I am so angry".' in text
            assert find_claims(text)["gender"] == "male"
        assert traces.own == THINK[: THINK.index(" One might")]
        assert traces.conclusion == ("All of this fits", ".")


@pytest.mark.parametrize(
    "think, reason",
    [
        ("I wonder.", "no claims"),
        ("The low voice, with its low pitch, is sad.", "claims in a sentence that names an emotion"),
        ("The pitch is low. The energy is high. The intonation is flat.", "no other profile"),
    ],
)
def test_what_cannot_be_rewritten_is_told(think: str, reason: str) -> None:
    assert rewrite(think, "sad", HEARD, RECORDINGS, TABLE, random.Random(0)) == reason


def test_a_set_of_labels_of_ones_own_is_taken_out_of_the_reasoning() -> None:
    traces = rewrite("The pitch is low. So they gloat.", "gloat", HEARD, RECORDINGS, TABLE, random.Random(0))
    assert isinstance(traces, Traces) and traces.own == "The pitch is low."
    assert traces.conclusion == ("So they", ".")


@pytest.mark.parametrize(
    "last", ["They feel it.", 'He says "I am sad", sadly.', "A low pitch and sadness go together."]
)
def test_a_reasoning_without_a_plain_conclusion_is_closed(last: str) -> None:
    think = f"The pitch is low. {last}"
    traces = rewrite(think, "sad", HEARD, RECORDINGS, TABLE, random.Random(0))
    assert isinstance(traces, Traces) and traces.conclusion is None


@pytest.mark.parametrize("conclusion", [None, ("So they", ".")])
def test_every_answer_begins_alike(conclusion: tuple[str, str] | None) -> None:
    forced = Forced(audio="a.wav", think="The pitch is low.", conclusion=conclusion, label="sad")
    for label in LEVELS:
        answer = forced.response(label)
        assert answer.startswith(forced.beginning) and parse_response(answer).answer == label
        assert label not in forced.beginning


def test_a_donors_levels_speak_for_its_own_emotion() -> None:
    odd = replace(RECORDINGS[6], id="odd", pitch_level="low", energy_level="low", speed_level="slow")
    assert odd.emotion == "angry"
    claims = {"pitch_level": "high", "energy_level": "normal"}
    others = [odd, *RECORDINGS]
    donors = [draw_donor(claims, "gloat", HEARD, others, TABLE, random.Random(seed)) for seed in range(40)]
    assert {donor.emotion for donor in donors if donor} == {"angry"}
    assert odd not in donors
    assert draw_donor(claims, "angry", HEARD, [odd], TABLE, random.Random(0)) is None


def test_moves_are_counted_against_the_forced_reasoning_of_ones_own() -> None:
    donor = next(u for u in RECORDINGS if u.emotion == "angry")
    traces = Traces(
        own="own", paraphrased="other words", swapped="swapped", conclusion=("So", "."), donor=donor
    )
    tested = [Probed(utterance=HEARD, label="sad", traces=traces)] * 2
    assert [(f.audio, f.think) for f in tested[0].forms] == [
        (HEARD.audio, "own"),
        (HEARD.audio, "other words"),
        (HEARD.audio, "swapped"),
        (donor.audio, "own"),
        (donor.audio, "swapped"),
    ]
    written = [("sad", "sad", "sad", "angry", "angry"), ("gloat", "gloat", "angry", None, "sad")]
    finished = [
        [Finished(label=label, logprob=-1.0 - k) for k, label in enumerate(labels)] for labels in written
    ]
    tables = moves(tested, finished)
    np.testing.assert_array_equal(tables["moved"], [[0, 0, 0, 1, 1], [1, 0, 1, 1, 1]])
    np.testing.assert_array_equal(tables["followed"], [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]])
    np.testing.assert_array_equal(tables["logprob"], [[0, -1, -2, -3, -4]] * 2)
    found = estimates(tables, seed=0)
    assert [list(by_form) for by_form in found.values()] == [list(TITLES)] * 3
    text = as_markdown(
        {"model": "m", "num_tested": 2, "num_utterances": 3, "left_out": {"no claims": 1}, **found}
    )
    assert "m: 2 of 3 held-out answers (left out: 1 no claims)" in text
    assert "| claims swapped | 50.0 [0.0, 100.0] | 50.0 [0.0, 100.0] | -2.00 [-2.00, -2.00] |" in text
