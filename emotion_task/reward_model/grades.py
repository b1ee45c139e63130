"""Defines the reward model's five dimensions (EmotionThinker, stage 3), its question, and the rules that
grade a response.

`grade_response` grades what can be checked: claims against measured prosody, the named emotion against the
label, completeness, form. These rules need the utterance's facts, so a model that predicts the grades has to
listen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from emotion_task.claims.finder import find_claims, read_claims, read_denials
from emotion_task.claims.quotes import clean_words, quoted_claims
from emotion_task.claims.support import ClaimTable
from emotion_task.facts import PROSODY, stated_facts
from emotion_task.labels import ALL_LABELS
from emotion_task.parsing import QUOTE, named_emotions, normalise_label, parse_response
from emotion_task.prompt import audio_messages
from emotion_task.records import Utterance
from emotion_task.reward_model.listening import LISTEN_QUESTION, LISTEN_SYSTEM_PROMPT, reasoning_of
from rlcore.models.chat_template import Messages


@dataclass(frozen=True, slots=True)
class Dimension:
    """Holds one dimension in which a response is graded."""

    name: str
    weight: float
    """Share in the reward; the weights of all dimensions sum to 1."""


DIMENSIONS: tuple[Dimension, ...] = (
    Dimension("factual", 0.4),  # what is said of the voice is what is heard
    Dimension("interpretation", 0.2),  # the claims support the emotion that is named, and it is the speaker's
    Dimension("completeness", 0.2),  # pitch, energy, rate and intonation are all spoken of
    Dimension("fluency", 0.1),  # whole sentences, words in order, nothing repeated
    Dimension("structure", 0.1),  # the schema is kept, and the emotion follows from what is described before
)
"""Dimensions in the order of the score tokens. The paper's weights are not known. Facts weigh double here,
because the other rewards cannot see them; the paper's `fluency and structural clarity` is two dimensions
here."""

JUDGE_SYSTEM_PROMPT = LISTEN_SYSTEM_PROMPT
JUDGE_QUESTION = "Rate this answer from 1 to 5: facts, insight, completeness, fluency, structure."
HEARD = "Heard: "
"""Beginning of the question's last line: what the judge heard of each claim (`listening.support`)."""

MAX_GRADE = 5
"""Best grade; the worst is 1."""


def judge_messages(response: str, heard: str) -> Messages:
    """Returns the conversation in which the reward model writes one digit per dimension.

    The response comes after the recording and the question, so that the responses to one recording share a
    prefix. `heard` (of `listening.support`) comes after the response, so that nothing in the response can
    take its place."""
    return audio_messages(JUDGE_SYSTEM_PROMPT, f"{JUDGE_QUESTION}\n{response}\n{HEARD}{heard}")


def judge_texts() -> Iterator[str]:
    """Yields the judge's own words, for training a tokenizer."""
    yield from (JUDGE_SYSTEM_PROMPT, JUDGE_QUESTION, LISTEN_QUESTION, HEARD)


def grade_response(text: str, utterance: Utterance, table: ClaimTable | None = None) -> dict[str, int]:
    """Grades any response to an utterance whose facts are known, from 1 to 5 in each dimension.

    factual: 5 less one per claim that measurement denies, and one per quotation that the transcript does not
        hold (what was not measured is not denied); 1 without any claim.
    interpretation: 5 less two where the emotion is not the speaker's (any is where the label is not known),
        and two where the claims, true or not, do not support it (`ClaimTable.supports`); 2 where the
        reasoning names no emotion; 1 where reasoning and answer contradict each other, or there is no answer.
        The emotion that the reasoning names is the one that it concludes (`concluded_emotion`): rivals that
        it weighs and rejects do not count.
    completeness: 5 less two per attribute of `PROSODY` that is known and not spoken of, be it only to say
        what it is not.
    fluency: 5 less two for a repeated sentence, one each for a stuttered word and a sentence that is cut off.
    structure: 5 less three for a broken schema, two where the emotion that the reasoning concludes is named
        before it describes the voice, or is named for the last time before the description ends.

    No grade is under 1. A response without any word is graded 1 in every dimension.

    Args:
        table: tells what the claims support, and its labels are those that an answer may name; None does not
            ask the first, and takes `ALL_LABELS`.
    """
    labels = ALL_LABELS if table is None else table.labels
    parsed, think = parse_response(text), reasoning_of(text)
    if not re.search(r"\w", text):
        return {dimension.name: 1 for dimension in DIMENSIONS}
    facts, claims = stated_facts(utterance), find_claims(think)
    answer = normalise_label(parsed.answer, labels) if parsed else None
    num_wrong = sum(facts[name] != value for name, value in claims.items() if name in facts)
    num_wrong += num_misquoted(think, utterance.text)
    spoken_of = claims.keys() | {name for name, _ in read_denials(think)}
    num_missing = sum(name in facts and name not in spoken_of for name in PROSODY)
    grades = {
        "factual": MAX_GRADE - num_wrong if claims else 1,
        "interpretation": grade_interpretation(
            concluded_emotion(think, labels), answer, utterance.emotion, claims, table
        ),
        "completeness": MAX_GRADE - 2 * num_missing,
        "fluency": MAX_GRADE - _clumsiness(think),
        "structure": MAX_GRADE - (0 if parsed else 3) - 2 * is_early(think, labels),
    }
    return {name: clamp(grade) for name, grade in grades.items()}


def clamp(grade: int) -> int:
    return max(1, min(MAX_GRADE, grade))


def grade_interpretation(
    concluded: str | None,
    answer: str | None,
    emotion: str | None,
    claims: Mapping[str, str],
    table: ClaimTable | None,
) -> int:
    """Grades whether the reasoning leads to the answer and the answer is right, as `grade_response` says.

    Args:
        concluded: emotion at which the reasoning arrives; None where it names none.
        answer: emotion that is answered, one of the table's; None where there is no answer.
        emotion: the speaker's; None where it is not known.
        claims: claimed value by attribute.
    """
    if answer is None or concluded not in (None, answer):
        return 1
    if concluded is None:
        return 2
    is_wrong = emotion is not None and answer != emotion
    is_unsupported = table is not None and not table.supports(claims, answer)
    return MAX_GRADE - 2 * is_wrong - 2 * is_unsupported


def num_misquoted(think: str, transcript: str | None) -> int:
    """Returns how many quotations the transcript does not hold; 0 where it is not known."""
    if transcript is None:
        return 0
    spoken = f" {clean_words(transcript)} "
    quoted = {words for kind, words in quoted_claims(think) if kind == "quoted_words"}
    return sum(f" {words} " not in spoken for words in quoted)


def concluded_emotion(think: str, labels: Sequence[str] = ALL_LABELS) -> str | None:
    """Returns the emotion at which reasoning arrives: the last one that it names and does not reject or only
    weigh ("rather than fear", "one might suspect anger"). Where it rejects all, the last one of all; None
    where it names none."""
    held = [emotion for sentence in sentences_of(think) for emotion in _held(sentence, labels)]
    named = held or named_emotions(think, labels)
    return named[-1] if named else None


def _held(sentence: str, labels: Sequence[str]) -> list[str]:
    """Returns the emotions that a sentence names without rejecting or only weighing them."""
    clauses = [clause for clause in _CLAUSE.split(sentence) if clause and not _RIVAL.search(clause)]
    return [emotion for clause in clauses for emotion in named_emotions(clause, labels)]


QUOTED = " quote "
"""Stands for a quotation: what was said is no word of the reasoning."""
_CLAUSE = re.compile(
    r"[,;:()\u2013\u2014]|(?=\b(?:rather|instead|as opposed|not|"
    r"nor|than|but|yet|while|whereas|although|though|unlike|"
    r"because|since|so|hence|therefore)\b)",
    re.IGNORECASE,
)
_RIVAL = re.compile(
    r"^\W*(?:rather than|instead of|as opposed to|not|nor|than|"
    r"unlike)\b|\b(?:if|would(?! (?:\w+ )?(?:say|call|name|choose|"
    r"go|"
    r"label|settle|pick|lean|opt|attribute|describe|classify|conclude))|"
    r"might|could|may|suspect\w*|consider\w*|"
    r"rul(?:e|ed|es|ing) out|exclud\w+|mistak\w+|unlikely|neither|"
    r"never|no(?! pitch\b)|isn't|not|hardly|without|contrary|typical of|"
    r"usually|commonly|typically|often|alike|at first)\b",
    re.IGNORECASE,
)
"""Marks a clause that rejects the emotion that it names, or only weighs it."""


def sentences_of(think: str) -> list[str]:
    """Returns the sentences of a reasoning, with a placeholder for each quotation."""
    unquoted = QUOTE.sub(QUOTED, re.sub(r"</?\w+>", " ", think))
    return [s.strip() for s in re.split(r"(?<=[.!?])\s+", unquoted) if s.strip()]


def is_early(think: str, labels: Sequence[str] = ALL_LABELS) -> bool:
    """Returns whether the concluded emotion is named before the voice is described, or never again once the
    description goes on."""
    sentences, emotion = sentences_of(think), concluded_emotion(think, labels)
    naming = [k for k, sentence in enumerate(sentences) if emotion in _held(sentence, labels)]
    claiming = [k for k, sentence in enumerate(sentences) if QUOTED in sentence or read_claims(sentence)]
    if not naming or not claiming:
        return False
    return naming[0] < claiming[0] or naming[-1] < claiming[-1]


def _clumsiness(think: str) -> int:
    """Returns how many grades fluency loses."""
    sentences = [s.lower() for s in sentences_of(think)]
    repeated = len(set(sentences)) < len(sentences)
    stuttered = any(re.search(r"\b([a-z']+)\s+\1\b", sentence) for sentence in sentences)
    cut_off = bool(sentences) and not re.search(r"[.!?][\"')\u201d\u2019]*$", sentences[-1])
    return 2 * repeated + stuttered + cut_off
