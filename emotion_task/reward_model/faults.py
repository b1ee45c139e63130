"""Puts known faults into responses: each fault lowers known grades by known amounts.

A response is written from a plan (facts to state, emotion to name, answer to give). Faults of content change
the plan before the response is written, faults of form change its sentences afterwards. So every grade
follows by construction.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from emotion_task.cot.template import TemplateWriter
from emotion_task.facts import PROSODY, VALUES
from emotion_task.parsing import format_response
from emotion_task.reward_model.grades import DIMENSIONS, MAX_GRADE, clamp
from emotion_task.reward_model.listening import DIGITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Holds a response before it is written, with the grades that it has earned so far."""

    facts: Mapping[str, str]
    """Facts that the response will state, true or not."""
    truth: Mapping[str, str]
    """Facts that were measured."""
    emotion: str
    """Emotion that the reasoning will name."""
    answer: str
    """Emotion that the response will answer."""
    labels: tuple[str, ...]
    """Emotions to choose from, the right one included."""
    quote: str | None = None
    """Words that the response will quote; None for no quotation."""
    grades: Mapping[str, int] = field(default_factory=lambda: {d.name: MAX_GRADE for d in DIMENSIONS})
    """Grade of each dimension, with the faults so far."""
    arrange: tuple[Callable[[list[str], random.Random], list[str]], ...] = ()
    """Faults of form that are applied to the written sentences, in order."""
    finish: tuple[Callable[[str, random.Random], str], ...] = ()
    """Faults of form that are applied to the whole response, in order."""

    def lowered(self, **amounts: int) -> Mapping[str, int]:
        """Returns the plan's grades less `amounts`, never under 1."""
        return {name: clamp(grade - amounts.get(name, 0)) for name, grade in self.grades.items()}

    def write(self, writer: TemplateWriter, rng: random.Random) -> str:
        """Writes the response that the plan asks for."""
        sentences = writer.describe(self.facts, self.quote, rng)
        sentences.append(writer.conclude(self.facts, self.emotion, rng))
        for change in self.arrange:
            sentences = change(sentences, rng)
        response = format_response(" ".join(sentences), self.answer)
        for finish in self.finish:
            response = finish(response, rng)
        return response


Fault = Callable[[Plan, random.Random], Plan]


def wrong_claim(plan: Plan, rng: random.Random) -> Plan:
    """Makes one fact wrong that was still right: factual -1. A plan without a right fact stays as it is."""
    right = [name for name, value in plan.facts.items() if plan.truth.get(name) == value]
    if not right:
        return plan
    name = rng.choice(right)
    value = rng.choice([value for value in VALUES[name] if value != plan.truth[name]])
    return replace(plan, facts={**plan.facts, name: value}, grades=plan.lowered(factual=1))


def missing_claim(plan: Plan, rng: random.Random) -> Plan:
    """Leaves out one right prosodic fact: completeness -2. The last prosodic fact stays, or there would be
    nothing to reason from."""
    right = [name for name in PROSODY if plan.facts.get(name) == plan.truth.get(name, "")]
    if len([name for name in PROSODY if name in plan.facts]) < 2 or not right:
        return plan
    dropped = rng.choice(right)
    facts = {name: value for name, value in plan.facts.items() if name != dropped}
    return replace(plan, facts=facts, grades=plan.lowered(completeness=2))


def nothing_claimed(plan: Plan, rng: random.Random) -> Plan:
    """Names an emotion without any reason: factual and completeness 1."""
    return replace(plan, facts={}, quote=None, grades=_capped(plan, factual=1, completeness=1))


def wrong_emotion(plan: Plan, rng: random.Random) -> Plan:
    """Makes reasoning and answer agree on another emotion than the plan's: interpretation 3."""
    emotion = _other(plan.emotion, plan.labels, rng)
    return replace(plan, emotion=emotion, answer=emotion, grades=_capped(plan, interpretation=3))


def contradiction(plan: Plan, rng: random.Random) -> Plan:
    """Makes the answer another emotion than the reasoning names: interpretation 1."""
    answer = _other(plan.emotion, plan.labels, rng)
    return replace(plan, answer=answer, grades=_capped(plan, interpretation=1))


def wrong_quotation(plan: Plan, rng: random.Random) -> Plan:
    """Quotes words that were not spoken: factual -1. A plan without a quotation stays as it is."""
    if plan.quote is None:
        return plan
    # The first word changes, since a writer cuts long quotations at their end.
    _, *rest = plan.quote.split()
    changed = [rng.choice(_WORDS), *rest]
    return replace(plan, quote=" ".join(changed), grades=plan.lowered(factual=1))


def repeated_sentence(plan: Plan, rng: random.Random) -> Plan:
    """Says a sentence twice: fluency -2."""
    return replace(plan, arrange=(*plan.arrange, _repeat), grades=plan.lowered(fluency=2))


def shuffled_words(plan: Plan, rng: random.Random) -> Plan:
    """Shuffles the words of the description: fluency -3. A plan without a description stays as it is.

    The other grades stay: a patient reader can still put the plan's claims together."""
    if not plan.facts and plan.quote is None:
        return plan
    return replace(plan, arrange=(*plan.arrange, _shuffle_words), grades=plan.lowered(fluency=3))


def shuffled_sentences(plan: Plan, rng: random.Random) -> Plan:
    """Names the emotion before the reasons: structure -2. A plan without reasons stays as it is."""
    if not plan.facts and plan.quote is None:
        return plan
    return replace(plan, arrange=(*plan.arrange, _shuffle_sentences), grades=plan.lowered(structure=2))


def broken_schema(plan: Plan, rng: random.Random) -> Plan:
    """Drops a tag, so that no answer can be read: structure -3, interpretation 1."""
    plan = replace(plan, grades=plan.lowered(structure=3))
    return replace(plan, finish=(*plan.finish, _drop_tag), grades=_capped(plan, interpretation=1))


def foreign_text(plan: Plan, rng: random.Random) -> Plan:
    """Inserts text that is no description of a voice (orders to the reader, scores, code, noise) into the
    reasoning: fluency and structure 1."""
    grades = _capped(plan, fluency=1, structure=1)
    return replace(plan, arrange=(*plan.arrange, _insert_foreign), grades=grades)


def foreign_ending(plan: Plan, rng: random.Random) -> Plan:
    """Puts foreign text after the answer or before the reasoning: fluency, structure and interpretation 1."""
    grades = _capped(plan, fluency=1, structure=1, interpretation=1)
    return replace(plan, finish=(*plan.finish, _surround), grades=grades)


CONTENT_FAULTS: tuple[Fault, ...] = (
    wrong_claim,
    missing_claim,
    nothing_claimed,
    wrong_emotion,
    contradiction,
    wrong_quotation,
)
FORM_FAULTS: tuple[Fault, ...] = (
    repeated_sentence,
    shuffled_words,
    shuffled_sentences,
    broken_schema,
    foreign_text,
    foreign_ending,
)


def _other(label: str, labels: Sequence[str], rng: random.Random) -> str:
    return rng.choice([other for other in labels if other != label])


def _capped(plan: Plan, **limits: int) -> Mapping[str, int]:
    return {name: min(grade, limits.get(name, grade)) for name, grade in plan.grades.items()}


def _repeat(sentences: list[str], rng: random.Random) -> list[str]:
    index = rng.randrange(max(1, len(sentences) - 1))
    return [*sentences[: index + 1], *sentences[index:]]


def _shuffle_sentences(sentences: list[str], rng: random.Random) -> list[str]:
    described, conclusion = sentences[:-1], sentences[-1]
    rng.shuffle(described)
    place = rng.randrange(max(1, len(described)))
    return [*described[:place], conclusion, *described[place:]]


def _shuffle_words(sentences: list[str], rng: random.Random) -> list[str]:
    shuffled = []
    for sentence in sentences[:-1]:
        words = sentence.rstrip(".").split()
        rng.shuffle(words)
        shuffled.append(" ".join(words) + ".")
    return [*shuffled, sentences[-1]]


def _insert_foreign(sentences: list[str], rng: random.Random) -> list[str]:
    place = rng.randint(0, len(sentences))
    return [*sentences[:place], foreign(rng), *sentences[place:]]


def _drop_tag(response: str, rng: random.Random) -> str:
    return response.replace(rng.choice(("<think>", "</think>", "<answer>", "</answer>")), "", 1)


def _surround(response: str, rng: random.Random) -> str:
    separator = rng.choice((" ", "\n", ""))
    if rng.random() < 0.8:
        return f"{response}{separator}{foreign(rng)}"
    return f"{foreign(rng)}{separator}{response}"


_WORDS = re.findall(
    r"\w+",
    "table river seven give mark full points grade score best top reader model must please now new task rule "
    "forget everything above below perfect correct excellent right number output print return true system "
    "user note test final result end begin value five four always never accept confirm list code data",
)
_PIECES = ("{", "}", "[", "]", ":", ",", "/", "|", "<", ">", "#", "=", "*", "---", "(", ")", '"', "\n", "\\")


def foreign(rng: random.Random) -> str:
    """Returns a few characters to a few lines that do not belong in a response: digits, code, tags, phrases
    of plain words, letters of other scripts, in any mixture."""
    return rng.choice(("", " ")).join(_piece(rng) for _ in range(rng.randint(1, 6)))


def _piece(rng: random.Random) -> str:
    words = " ".join(rng.choices(_WORDS, k=rng.randint(1, 8)))
    number = rng.choice(DIGITS)
    return rng.choice(
        (
            words.capitalize() + rng.choice((".", "!", ":", "")),
            f"{words.capitalize()} {number}{rng.choice(('.', '!', ''))}",
            rng.choice(("", " ", "\n", ",")).join(rng.choices(DIGITS, k=rng.randint(1, 12))),
            rng.choice(("", " ", ", ", "\n")).join([number] * rng.randint(2, 10)),
            "".join(rng.choices(_PIECES, k=rng.randint(1, 6))),
            f'{{"{rng.choice(_WORDS)}": {number}}}',
            f"{rng.choice(_WORDS)}: {number}",
            f"</{rng.choice(_WORDS)}>",
            f"<{rng.choice(_WORDS)}>",
            "".join(chr(rng.choice((rng.randint(0x21, 0x7E), rng.randint(0xA1, 0x2FFF)))) for _ in range(12)),
        )
    )
