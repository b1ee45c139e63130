"""The reward model's four dimensions (EmotionThinker, stage 3), its question, and the rules that grade a
response.

`grade_response` grades what can be checked: claims against measured prosody, the named emotion against the
label, completeness, form. It needs the utterance's facts, so a model that predicts its grades has to listen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from emotion_task.evaluation.claims import find_claims
from emotion_task.facts import PROSODY, stated_facts
from emotion_task.parsing import Parsed, named_emotions, normalise_label, parse_response
from emotion_task.prompt import Messages, audio_messages
from emotion_task.records import Utterance


@dataclass(frozen=True, slots=True)
class Dimension:
    name: str
    weight: float
    """Share in the reward; the weights sum to 1."""
    meaning: str


DIMENSIONS: tuple[Dimension, ...] = (
    Dimension("factual", 0.4, "what is said of the voice is what is heard"),
    Dimension(
        "interpretation", 0.2, "the reasoning names the emotion that it answers, and the voice bears it out"
    ),
    Dimension("completeness", 0.2, "pitch, energy, rate and intonation are all spoken of"),
    Dimension("fluency", 0.2, "whole sentences in a clear order, nothing repeated, the schema kept"),
)
"""In the order of the score tokens. The paper's weights are not known; facts weigh double here, because
they are what the other rewards cannot see."""

JUDGE_SYSTEM_PROMPT = "You grade answers about a voice."
JUDGE_QUESTION = "Rate this answer from 1 to 5: facts, insight, completeness, fluency."

MAX_GRADE = 5


def judge_messages(response: str) -> Messages:
    """The conversation in which the reward model writes one digit a dimension. The response comes last, so
    that the responses to one recording share a prefix."""
    return audio_messages(JUDGE_SYSTEM_PROMPT, f"{JUDGE_QUESTION}\n{response}")


def judge_texts() -> Iterator[str]:
    """The judge's own words, for training a tokenizer."""
    yield from (JUDGE_SYSTEM_PROMPT, JUDGE_QUESTION)


def grade_response(text: str, utterance: Utterance) -> dict[str, int]:
    """Grades of 1 to 5 by dimension, for any response to an utterance whose facts are known.

    factual: 5 less one a claim that measurement denies (what was not measured is not denied); 1 without
        any claim.
    interpretation: 5 where reasoning and answer name the right emotion; 3 both the same wrong one; 2 the
        reasoning names none; 1 they contradict each other, or there is no answer.
    completeness: 5 less two an attribute of `PROSODY` that is known and not spoken of.
    fluency: 5 less three for a broken schema, two for a repeated sentence, two for an emotion named before
        the last sentence, one each for a stuttered word and a sentence that is cut off.
    """
    parsed = parse_response(text)
    think = parsed.think if parsed else re.sub(r"<answer>.*", "", text, flags=re.DOTALL)
    facts, claims = stated_facts(utterance), find_claims(think)
    num_wrong = sum(facts[name] != value for name, value in claims.items() if name in facts)
    num_missing = sum(name in facts and name not in claims for name in PROSODY)
    grades = {
        "factual": MAX_GRADE - num_wrong if claims else 1,
        "interpretation": _interpretation(parsed, utterance.emotion),
        "completeness": MAX_GRADE - 2 * num_missing,
        "fluency": MAX_GRADE - (0 if parsed else 3) - _disorder(think),
    }
    return {name: clamp(grade) for name, grade in grades.items()}


def clamp(grade: int) -> int:
    return max(1, min(MAX_GRADE, grade))


def weighted(grades: Sequence[float]) -> float:
    """R_t = sum_j w_j g_j / 5 of grades in the order of `DIMENSIONS`."""
    return sum(d.weight * g for d, g in zip(DIMENSIONS, grades, strict=True)) / MAX_GRADE


def _interpretation(parsed: Parsed | None, emotion: str | None) -> int:
    answer = normalise_label(parsed.answer) if parsed else None
    if parsed is None or answer is None:
        return 1
    named = named_emotions(parsed.think)
    if not named:
        return 2
    if named[-1] != answer:
        return 1
    return 5 if emotion is None or answer == emotion else 3


def _disorder(think: str) -> int:
    unquoted = re.sub(r'"[^"]*"', " quote ", re.sub(r"</?\w+>", " ", think))
    sentences = [s.strip().lower() for s in re.split(r"(?<=[.!?])\s+", unquoted) if s.strip()]
    repeated = len(set(sentences)) < len(sentences)
    early = any(named_emotions(sentence) for sentence in sentences[:-1])
    words = re.findall(r"[a-z']+", unquoted.lower())
    stuttered = any(a == b for a, b in pairwise(words))
    cut_off = bool(sentences) and sentences[-1][-1] not in ".!?"
    return 2 * repeated + 2 * early + stuttered + cut_off
