"""Puts known faults into responses: each fault lowers known grades by known amounts.

A response is written from a plan (facts to state, emotion to name, answer to give). Faults of content change
the plan before the response is written, and its grades follow from the plan by the rules of
`grades.grade_response`. Faults of form change the written sentences, and take known amounts off.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from emotion_task.claims.check import are_opposites
from emotion_task.claims.support import ClaimTable
from emotion_task.cot.phrases import CLAUSES
from emotion_task.cot.template import TemplateWriter
from emotion_task.facts import PROSODY, VALUES, stated_facts
from emotion_task.parsing import format_response
from emotion_task.records import Utterance
from emotion_task.reward_model.foreign import WORDS, foreign
from emotion_task.reward_model.grades import DIMENSIONS, MAX_GRADE, clamp, grade_interpretation


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Holds a response before it is written."""

    facts: Mapping[str, str]
    """Facts that the response will state, true or not."""
    truth: Mapping[str, str]
    """Facts that were measured."""
    speaker_emotion: str
    """Emotion of the recording."""
    emotion: str | None
    """Emotion that the reasoning will name; None where it names none."""
    answer: str
    """Emotion that the response will answer."""
    table: ClaimTable
    """Tells which emotions the claims support; its labels are those to choose from."""
    text: str | None = None
    """Words that were spoken."""
    text_emotion: str | None = None
    """Emotion that the words alone suggest."""
    quote: str | None = None
    """Words that the response will quote; None for no quotation."""
    num_untrue: int = 0
    """Untrue things that are said beside `facts`: a quotation or a detail."""
    hedged: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Two values between which a claim is left open, by attribute."""
    details: tuple[str, ...] = ()
    """Sentences about what nothing is known of."""
    is_long: bool = False
    """Whether everything is said at length."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Grades that faults of form take off, by dimension."""
    arrange: tuple[Callable[[list[str], random.Random], list[str]], ...] = ()
    """Faults of form that are applied to the written sentences, in order."""
    finish: tuple[Callable[[str, random.Random], str], ...] = ()
    """Faults of form that are applied to the whole response, in order."""

    @classmethod
    def faultless(cls, utterance: Utterance, table: ClaimTable) -> Plan:
        """Returns the plan that states all that was measured of an utterance, whose emotion is known."""
        assert utterance.emotion is not None
        truth = stated_facts(utterance)
        return cls(
            facts=truth,
            truth=truth,
            speaker_emotion=utterance.emotion,
            emotion=utterance.emotion,
            answer=utterance.emotion,
            table=table,
            text=utterance.text,
            text_emotion=utterance.text_emotion,
        )

    @property
    def grades(self) -> dict[str, int]:
        """The grade of each dimension, 1 to 5."""
        num_wrong = sum(self.truth.get(name, value) != value for name, value in self.facts.items())
        num_wrong += len(self.hedged) + self.num_untrue
        num_missing = sum(n in self.truth and n not in self.facts and n not in self.hedged for n in PROSODY)
        content = {
            "factual": MAX_GRADE - num_wrong if self.facts or self.hedged else 1,
            "interpretation": grade_interpretation(
                self.emotion, self.answer, self.speaker_emotion, self.facts, self.table
            ),
            "completeness": MAX_GRADE - 2 * num_missing,
        }
        return {d.name: clamp(content.get(d.name, MAX_GRADE) - self.lost.get(d.name, 0)) for d in DIMENSIONS}

    def losing(self, **amounts: int) -> dict[str, int]:
        """Returns `lost` with further amounts."""
        return {name: self.lost.get(name, 0) + amounts.get(name, 0) for name in {*self.lost, *amounts}}

    def write(self, writer: TemplateWriter, rng: random.Random) -> str:
        """Writes the response that the plan asks for."""
        if self.is_long:
            writer = TemplateWriter(style="long")
        sentences = writer.describe(self.facts, self.quote, rng)
        for name, (first, second) in self.hedged.items():
            options = [rng.choice(CLAUSES[name, value]) for value in (first, second)]
            sentences.insert(rng.randint(0, len(sentences)), "Perhaps {}, or perhaps {}.".format(*options))
        for detail in self.details:
            sentences.insert(rng.randint(0, len(sentences)), detail)
        if self.emotion is not None:
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
    return misstate(plan, rng.choice(right), rng) if right else plan


def misstate(plan: Plan, name: str, rng: random.Random, opposite: bool | None = None) -> Plan:
    """States another value of one attribute than the measured one: factual -1.

    Args:
        opposite: whether the value is the opposite of the measured one, or one step off, where there is such
            a value; None takes any.
    """
    others = [value for value in VALUES[name] if value != plan.truth[name]]
    fitting = [v for v in others if opposite is None or are_opposites(v, plan.truth[name]) is opposite]
    return replace(plan, facts={**plan.facts, name: rng.choice(fitting or others)})


def omit(plan: Plan, name: str) -> Plan:
    """Leaves out one fact: completeness -2 where it is prosodic."""
    return replace(plan, facts={other: value for other, value in plan.facts.items() if other != name})


def hedge(plan: Plan, name: str, rng: random.Random) -> Plan:
    """Leaves a level open between the right value and a neighbour: factual -1, as for a claim that denies
    itself. What is no level (`HEDGEABLE`) stays as it is."""
    if name not in HEDGEABLE or plan.truth[name] not in HEDGEABLE[name]:
        return plan
    right = plan.truth[name]
    others = [v for v in HEDGEABLE[name] if v != right and not are_opposites(v, right)]
    pair = rng.sample([right, rng.choice(others)], 2)
    return replace(omit(plan, name), hedged={**plan.hedged, name: (pair[0], pair[1])})


HEDGEABLE = {
    name: tuple(v for v in VALUES[name] if v != "none")
    for name in ("pitch_level", "energy_level", "speed_level")
}
"""Levels that a claim can be left open between."""


def missing_claim(plan: Plan, rng: random.Random) -> Plan:
    """Leaves out one right prosodic fact: completeness -2. The last prosodic fact stays, or there would be
    nothing to reason from."""
    right = [name for name in PROSODY if plan.facts.get(name) == plan.truth.get(name, "")]
    if len([name for name in PROSODY if name in plan.facts]) < 2 or not right:
        return plan
    return omit(plan, rng.choice(right))


def nothing_claimed(plan: Plan, rng: random.Random) -> Plan:
    """Names an emotion without any reason: factual 1, completeness -2 per fact, nothing supports the
    emotion."""
    return replace(plan, facts={}, hedged={}, quote=None, num_untrue=len(plan.details))


def wrong_emotion(plan: Plan, rng: random.Random) -> Plan:
    """Makes reasoning and answer agree on another emotion than the speaker's, with the claims as they are:
    interpretation -2, and -2 where they do not support it."""
    emotion = _other(plan.speaker_emotion, plan.table.labels, rng)
    return replace(plan, emotion=emotion, answer=emotion)


def bent_claims(plan: Plan, rng: random.Random) -> Plan:
    """Changes claims until they support a wrong emotion: interpretation -2, factual -1 per changed claim."""
    plan = wrong_emotion(plan, rng)
    return replace(plan, facts=plan.table.bend(plan.facts, plan.answer))


def text_only(plan: Plan, rng: random.Random) -> Plan:
    """Infers the emotion that the words suggest, from the words alone: factual 1, completeness -2 per fact,
    nothing heard supports the emotion. Where nothing is known of the words, the plan stays as it is."""
    emotion = plan.text_emotion
    if plan.text is None or emotion is None or emotion not in plan.table.labels:
        return plan
    plan = nothing_claimed(plan, rng)
    return replace(plan, quote=plan.text, emotion=emotion, answer=emotion)


def contradiction(plan: Plan, rng: random.Random) -> Plan:
    """Makes the answer another emotion than the reasoning names: interpretation 1."""
    return replace(plan, answer=_other(plan.emotion or plan.answer, plan.table.labels, rng))


def unnamed_emotion(plan: Plan, rng: random.Random) -> Plan:
    """Leaves the emotion out of the reasoning: interpretation 2."""
    return replace(plan, emotion=None)


def wrong_quotation(plan: Plan, rng: random.Random) -> Plan:
    """Quotes words that were not spoken: factual -1. A plan without a quotation stays as it is."""
    if plan.quote is None:
        return plan
    # The first word changes, since a writer cuts long quotations at their end.
    _, *rest = plan.quote.split()
    changed = [rng.choice(WORDS), *rest]
    return replace(plan, quote=" ".join(changed), num_untrue=plan.num_untrue + 1)


def invented_detail(plan: Plan, rng: random.Random) -> Plan:
    """Tells something that no recording of a voice tells: factual -1. Only the maker knows of it, no rule
    finds it."""
    left = [detail for detail in _DETAILS if detail not in plan.details]
    return replace(plan, details=(*plan.details, rng.choice(left)), num_untrue=plan.num_untrue + 1)


def long_prose(plan: Plan, rng: random.Random) -> Plan:
    """Says everything at length, with sentences that add nothing. No grade is lost: length is neither good
    nor bad."""
    return replace(plan, is_long=True, arrange=(*plan.arrange, _pad))


def early_label(plan: Plan, rng: random.Random) -> Plan:
    """Names the emotion first, then the reasons: structure -2. A plan without reasons or a named emotion
    stays as it is."""
    if not _has_reasons(plan) or plan.emotion is None:
        return plan
    return replace(plan, arrange=(*plan.arrange, _conclusion_first), lost=plan.losing(structure=2))


def repeated_sentence(plan: Plan, rng: random.Random) -> Plan:
    """Says a sentence twice: fluency -2."""
    return replace(plan, arrange=(*plan.arrange, _repeat), lost=plan.losing(fluency=2))


def shuffled_words(plan: Plan, rng: random.Random) -> Plan:
    """Shuffles the words of the description: fluency -3. A plan without a description stays as it is.

    The other grades stay: a patient reader can still put the plan's claims together."""
    if not _has_reasons(plan):
        return plan
    return replace(plan, arrange=(*plan.arrange, _shuffle_words), lost=plan.losing(fluency=3))


def shuffled_sentences(plan: Plan, rng: random.Random) -> Plan:
    """Names the emotion before the reasons: structure -2. A plan without reasons or a named emotion stays as
    it is."""
    if not _has_reasons(plan) or plan.emotion is None:
        return plan
    return replace(plan, arrange=(*plan.arrange, _shuffle_sentences), lost=plan.losing(structure=2))


def broken_schema(plan: Plan, rng: random.Random) -> Plan:
    """Drops a tag, so that no answer can be read: structure -3, interpretation 1."""
    return replace(plan, finish=(*plan.finish, _drop_tag), lost=plan.losing(structure=3, interpretation=4))


def foreign_text(plan: Plan, rng: random.Random) -> Plan:
    """Inserts text that is no description of a voice (orders to the reader, scores, code, noise) into the
    reasoning: fluency and structure 1."""
    return replace(plan, arrange=(*plan.arrange, _insert_foreign), lost=plan.losing(fluency=4, structure=4))


def foreign_ending(plan: Plan, rng: random.Random) -> Plan:
    """Puts foreign text after the answer or before the reasoning: fluency, structure and interpretation 1."""
    lost = plan.losing(fluency=4, structure=4, interpretation=4)
    return replace(plan, finish=(*plan.finish, _surround), lost=lost)


CONTENT_FAULTS: tuple[Fault, ...] = (
    wrong_claim,
    missing_claim,
    nothing_claimed,
    wrong_emotion,
    bent_claims,
    text_only,
    contradiction,
    unnamed_emotion,
    wrong_quotation,
    invented_detail,
)
SPREAD_FAULTS: tuple[Fault, ...] = (
    repeated_sentence,
    shuffled_words,
    shuffled_sentences,
    broken_schema,
    foreign_text,
    foreign_ending,
)
"""Faults of form that evenly spread responses have, each as often."""
FORM_FAULTS: tuple[Fault, ...] = (long_prose, early_label, *SPREAD_FAULTS)


def _has_reasons(plan: Plan) -> bool:
    return bool(plan.facts or plan.hedged or plan.quote)


def _other(label: str, labels: Sequence[str], rng: random.Random) -> str:
    # What is drawn is a matter of the set, not of its order.
    return rng.choice(sorted(other for other in labels if other != label))


def _repeat(sentences: list[str], rng: random.Random) -> list[str]:
    index = rng.randrange(max(1, len(sentences) - 1))
    return [*sentences[: index + 1], *sentences[index:]]


def _shuffle_sentences(sentences: list[str], rng: random.Random) -> list[str]:
    described, conclusion = sentences[:-1], sentences[-1]
    rng.shuffle(described)
    # A reason comes after the conclusion; what only fills or is made up is none.
    reasons = [k for k, sentence in enumerate(described) if sentence not in (*_PADDING, *_DETAILS)]
    place = rng.randrange(max(reasons, default=0) + 1)
    return [*described[:place], conclusion, *described[place:]]


def _conclusion_first(sentences: list[str], rng: random.Random) -> list[str]:
    return [sentences[-1], *sentences[:-1]]


def _pad(sentences: list[str], rng: random.Random) -> list[str]:
    added = rng.sample(_PADDING, rng.randint(1, 3))
    places = [rng.randrange(len(sentences)) for _ in added] if sentences else []
    for place, sentence in zip(places, added, strict=False):
        sentences = [*sentences[:place], sentence, *sentences[place:]]
    return sentences


_DETAILS = (
    "Somebody laughs in the background.",
    "A door closes behind the speaker.",
    "The speaker calls from a car.",
    "Music plays in the next room.",
    "The speaker has come home from work.",
    "Somebody else answers a moment later.",
    "The speaker is a teacher.",
    "There is a sob before the first word.",
    "The speaker has a cold.",
    "Rain falls on the window.",
)
_PADDING = (
    "Every part of the delivery was weighed before this was written.",
    "A voice carries more than its words.",
    "Taken by themselves, the words would leave much open.",
    "All of this was listened to more than once.",
    "What matters here is the manner of speaking.",
)


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
