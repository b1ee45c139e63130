"""Where a claim stands in a reasoning, and whether it is right."""

from __future__ import annotations

import pytest

from emotion_task.claims.placed import placed_claims

REFERENCE = {
    "pitch_level": "low",
    "energy_level": "high",
    "intonation": "falling",
    "text": "I never said that",
    "stressed_words": ["never"],
}


def placed(reasoning: str) -> list[tuple[str, str, str]]:
    claims = placed_claims(reasoning, REFERENCE)
    return [(reasoning[claim.start : claim.end], claim.value, claim.verdict) for claim in claims]


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        (
            "This is a male voice. The energy is low and the pitch sounds low.",
            [
                ("male", "male", "unmeasured"),
                ("energy is low", "low", "wrong"),
                ("pitch sounds low", "low", "right"),
            ],
        ),
        ("Häßlich 🙂 gesagt: the pitch is low!", [("pitch is low", "low", "right")]),
        ("The pitch is high. Wait, it is low.", [("Wait, it is low", "low", "right")]),
        (
            "The pitch is low. The pitch is high.",
            [("pitch is low", "contradictory", "wrong"), ("pitch is high", "contradictory", "wrong")],
        ),
        ("The voice is loud. A loud voice!", [("loud", "high", "right"), ("loud", "high", "right")]),
        ("Neither fast nor slow.", [("Neither fast nor slow", "normal", "unmeasured")]),
        (
            'She says "never mind".',
            [("She", "female", "unmeasured"), ('"never mind"', "never mind", "wrong")],
        ),
        ("It is a sad day.", []),
        ("", []),
    ],
)
def test_claims_stand_where_they_are_made(reasoning: str, expected: list[tuple[str, str, str]]) -> None:
    assert placed(reasoning) == expected
