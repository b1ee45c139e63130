from __future__ import annotations

import pytest

from emotion_task.claims.finder import read_claims
from emotion_task.report.claim_spans import placed_claims

REFERENCE = {
    "pitch_level": "high",
    "energy_level": "low",
    "speed_level": None,
    "text": "I lost my best friend",
}


def marked(answer: str) -> dict[str, tuple[str, list[str]]]:
    return {
        claim.type: (claim.verdict, [answer[start:end] for start, end in claim.places])
        for claim in placed_claims(answer, REFERENCE)
    }


def test_each_claim_has_its_place_and_verdict() -> None:
    answer = (
        "<think>The pitch is high and the voice is loud. The rate is slow, so this points to sad.</think>"
        "<answer>sad</answer>"
    )
    assert marked(answer) == {
        "pitch_level": ("right", ["The pitch is high"]),
        "energy_level": ("wrong", ["the voice is loud"]),
        "speed_level": ("unmeasured", ["The rate is slow"]),
    }


def test_a_claim_of_several_clauses_is_marked_as_a_whole() -> None:
    found = marked("The intonation is falling and then rising. The pitch is raised.")
    assert found["intonation"] == ("unmeasured", ["The intonation is falling and then rising"])


def test_a_claim_that_contradicts_itself_is_wrong_wherever_it_is_made() -> None:
    verdict, places = marked("The pitch is high. Later the pitch is low.")["pitch_level"]
    assert verdict == "wrong" and places == ["The pitch is high", "Later the pitch is low"]


def test_a_quotation_that_was_not_spoken_is_wrong() -> None:
    assert marked('The speaker says "my best friend".')["quoted_words"][0] == "right"
    assert marked('The speaker says "my worst enemy".')["quoted_words"][0] == "wrong"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<think></think>",
        "<b>&amp;",
        "\U0001f600 The pitch is high \U0001f600.",
        "The pitch is high" * 50,
        "\n.\n!?",
    ],
)
def test_any_text_has_places_inside_it(answer: str) -> None:
    for claim in placed_claims(answer, REFERENCE):
        assert all(0 <= start < end <= len(answer) for start, end in claim.places)
    assert len(placed_claims(answer, {})) == len(read_claims(answer))
