"""Known faults: responses that go wrong in one known way, each lowering known grades by known amounts.

A response is written from a plan (facts to state, emotion to name, answer to give). Faults of content
change the plan before it is written, faults of form change the sentences after; so every grade follows by
construction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from emotion_task.cot.template import TemplateWriter
from emotion_task.facts import PROSODY, VALUES
from emotion_task.parsing import format_response
from emotion_task.reward_model.grades import DIMENSIONS, MAX_GRADE, clamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A response before it is written, with the grades that it has earned so far."""

    facts: Mapping[str, str]
    """What the response will state, true or not."""
    truth: Mapping[str, str]
    """What was measured."""
    emotion: str
    """What the reasoning will name."""
    answer: str
    labels: tuple[str, ...]
    """The options, the right one included."""
    quote: str | None = None
    grades: Mapping[str, int] = field(default_factory=lambda: {d.name: MAX_GRADE for d in DIMENSIONS})
    arrange: tuple[Callable[[list[str], random.Random], list[str]], ...] = ()
    """Faults of form: applied to the written sentences in order."""

    def lowered(self, **amounts: int) -> Mapping[str, int]:
        """The plan's grades, less `amounts`, never under 1."""
        return {name: clamp(grade - amounts.get(name, 0)) for name, grade in self.grades.items()}

    def write(self, writer: TemplateWriter, rng: random.Random) -> str:
        """The response that the plan asks for."""
        sentences = writer.describe(self.facts, self.quote, rng)
        sentences.append(writer.conclude(self.facts, self.emotion, rng))
        for change in self.arrange:
            sentences = change(sentences, rng)
        return format_response(" ".join(sentences), self.answer)


Fault = Callable[[Plan, random.Random], Plan]


def wrong_claim(plan: Plan, rng: random.Random) -> Plan:
    """One fact that was still right is stated wrongly: factual -1."""
    right = [name for name, value in plan.facts.items() if plan.truth.get(name) == value]
    if not right:
        return plan
    name = rng.choice(right)
    value = rng.choice([value for value in VALUES[name] if value != plan.truth[name]])
    return replace(plan, facts={**plan.facts, name: value}, grades=plan.lowered(factual=1))


def missing_claim(plan: Plan, rng: random.Random) -> Plan:
    """One right prosodic fact is left out: completeness -2. The last one stays, or there is nothing to
    reason from."""
    right = [name for name in PROSODY if plan.facts.get(name) == plan.truth.get(name, "")]
    if len([name for name in PROSODY if name in plan.facts]) < 2 or not right:
        return plan
    dropped = rng.choice(right)
    facts = {name: value for name, value in plan.facts.items() if name != dropped}
    return replace(plan, facts=facts, grades=plan.lowered(completeness=2))


def wrong_emotion(plan: Plan, rng: random.Random) -> Plan:
    """Reasoning and answer agree on an emotion that is not the speaker's: interpretation 3."""
    emotion = _other(plan.emotion, plan.labels, rng)
    return replace(plan, emotion=emotion, answer=emotion, grades=_capped(plan, interpretation=3))


def contradiction(plan: Plan, rng: random.Random) -> Plan:
    """The answer is not the emotion that the reasoning names: interpretation 1."""
    answer = _other(plan.emotion, plan.labels, rng)
    return replace(plan, answer=answer, grades=_capped(plan, interpretation=1))


def repeated_sentence(plan: Plan, rng: random.Random) -> Plan:
    """A sentence is said twice: fluency -2."""
    return replace(plan, arrange=(*plan.arrange, _repeat), grades=plan.lowered(fluency=2))


def early_conclusion(plan: Plan, rng: random.Random) -> Plan:
    """The emotion comes first and the reasons after: fluency -2."""
    return replace(plan, arrange=(*plan.arrange, _conclude_first), grades=plan.lowered(fluency=2))


def shuffled_words(plan: Plan, rng: random.Random) -> Plan:
    """Words of the description lose their order: fluency -3. Which claim is then made is anyone's guess,
    but what a patient reader would put together is still the plan's, so the other grades stay."""
    return replace(plan, arrange=(*plan.arrange, _shuffle_words), grades=plan.lowered(fluency=3))


CONTENT_FAULTS: tuple[Fault, ...] = (wrong_claim, missing_claim, wrong_emotion, contradiction)
FORM_FAULTS: tuple[Fault, ...] = (repeated_sentence, early_conclusion, shuffled_words)


def _other(label: str, labels: Sequence[str], rng: random.Random) -> str:
    return rng.choice([other for other in labels if other != label])


def _capped(plan: Plan, *, interpretation: int) -> Mapping[str, int]:
    return {**plan.grades, "interpretation": min(plan.grades["interpretation"], interpretation)}


def _repeat(sentences: list[str], rng: random.Random) -> list[str]:
    index = rng.randrange(max(1, len(sentences) - 1))
    return [*sentences[: index + 1], *sentences[index:]]


def _conclude_first(sentences: list[str], rng: random.Random) -> list[str]:
    return [sentences[-1], *sentences[:-1]]


def _shuffle_words(sentences: list[str], rng: random.Random) -> list[str]:
    shuffled = []
    for sentence in sentences[:-1]:
        words = sentence.rstrip(".").split()
        rng.shuffle(words)
        shuffled.append(" ".join(words) + ".")
    return [*shuffled, sentences[-1]]
