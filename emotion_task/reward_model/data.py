"""Makes the reward model's training data: recordings to hear, and graded responses to read.

    listening: (recording, row of digits)            `listening.listen_target`
    grading:   (recording, response, heard, grades)  `graded_examples`, `graded_samples`, `read_graded`

Grades are known by construction, by rules, or from a file.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TypeVar

from emotion_task.claims.support import ClaimTable
from emotion_task.cot.template import TemplateWriter
from emotion_task.facts import PROSODY, stated_facts
from emotion_task.records import Utterance
from emotion_task.reward_model.error_rates import ErrorRates, measured_rates
from emotion_task.reward_model.faults import (
    CONTENT_FAULTS,
    FORM_FAULTS,
    SPREAD_FAULTS,
    Plan,
    contradiction,
    hedge,
    missing_claim,
    misstate,
    nothing_claimed,
    omit,
    wrong_emotion,
    wrong_quotation,
)
from emotion_task.reward_model.foreign import foreign
from emotion_task.reward_model.grades import DIMENSIONS, MAX_GRADE, grade_response, judge_messages
from emotion_task.reward_model.listening import (
    ASPECTS,
    UNKNOWN,
    Aspects,
    aspects_of,
    claimed_aspects,
    drawn_support,
    known_aspects,
    listen_messages,
    listen_target,
)
from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import Messages
from rlcore.records.files import numbered_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningExample:
    """Holds one recording and what is to be heard in it."""

    id: str
    audio: str
    target: str
    """A digit per aspect, `-` for an unknown one."""

    @property
    def messages(self) -> Messages:
        return listen_messages()


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedExample:
    """Holds one response with known grades."""

    id: str
    """Utterance id, then what made the response: `0001#2`, `0001#sample0`, `0001#file3`."""
    audio: str
    response: str
    heard: str
    """Support of the response's claims, as the judge is told that it heard them (`listening.support`)."""
    grades: tuple[int, ...]
    """Grades of 1 to 5, in the order of `DIMENSIONS`; the target has one score token for each."""

    @property
    def messages(self) -> Messages:
        """Returns the judge's conversation, to be formatted by the reward model's processor."""
        return judge_messages(self.response, self.heard)

    @property
    def target(self) -> str:
        """Returns the grades as digits, without spaces."""
        return "".join(map(str, self.grades))


def training_examples(
    utterances: Sequence[Utterance],
    writer: TemplateWriter,
    num_examples: int,
    *,
    seed: int,
    table: ClaimTable,
    listening: float,
    per_utterance: int,
    imported: Sequence[GradedExample] = (),
) -> list[ListeningExample | GradedExample]:
    """Returns `num_examples` examples in a random order, some to be heard, the others to be graded.

    Graded ones are the imported examples, then template responses, half of them with a policy's errors as
    often as it makes them (`measured_rates`). Where examples are too few, they are used
    again.

    Args:
        seed: decides the order and the responses.
        table: tells what claims support; its labels are the judge's emotions.
        listening: share of examples to be heard, 0 to 1.
        per_utterance: template responses to one recording.
        imported: examples that others graded (`read_graded`, `graded_samples`).

    Raises:
        ConfigError: There are fewer than two emotions (`graded_examples`).
        DataError: Nothing is known of `utterances` that could be heard or graded.
    """
    rng = random.Random(seed)
    shuffled = rng.sample(list(utterances), len(utterances))
    num_heard = round(listening * num_examples)
    num_graded = num_examples - num_heard
    made = graded_examples(
        shuffled,
        writer,
        seed=seed,
        table=table,
        per_utterance=per_utterance,
        rates=measured_rates(),
    )
    heard = _cycled(listening_examples(shuffled, aspects_of(table.labels)), num_heard)
    graded = _cycled(chain(imported, made), num_graded)
    if len(heard) < num_heard or len(graded) < num_graded:
        raise DataError(
            f"reward model data: {len(utterances)} utterances, none with an emotion and prosody: were they "
            "annotated?"
        )
    return rng.sample([*heard, *graded], num_examples)


_Example = TypeVar("_Example")


def _cycled(examples: Iterable[_Example], count: int) -> list[_Example]:
    """Returns the first `count` examples, from the start again where there are fewer."""
    first = list(islice(examples, count))
    return list(islice(cycle(first), count))


def listening_examples(
    utterances: Iterable[Utterance], aspects: Aspects = ASPECTS
) -> Iterator[ListeningExample]:
    """Yields one example for each recording of which anything is known."""
    for utterance in utterances:
        target = listen_target(utterance, aspects)
        if set(target) != {UNKNOWN}:
            yield ListeningExample(id=f"{utterance.id}#heard", audio=utterance.audio, target=target)


def graded_examples(
    utterances: Sequence[Utterance],
    writer: TemplateWriter,
    *,
    seed: int,
    table: ClaimTable,
    per_utterance: int = 4,
    rates: ErrorRates | None = None,
) -> Iterator[GradedExample]:
    """Yields template responses of every quality, from faultless to wrong in all, with their grades.

    Evenly spread, none to four of a response's claims are wrong, each number as often, so that grades of
    facts cover the whole scale. Other faults join at fixed rates; 8 % of these are no reasoning at all.
    With `rates`, every second response to a recording has the errors of a policy instead, as often as it
    makes them, and none more seldom than in one of a hundred: another policy makes it, or this one once it
    pays. The random choices of a response depend on (seed, utterance id, index) alone.

    Args:
        utterances: annotated; those without an emotion of the table or without any prosodic fact are left
            out.
        table: tells what claims support; its labels are the judge's emotions, from which wrong answers are
            drawn.
        per_utterance: responses to one recording.
        rates: how often a policy makes each error (`measured_rates`); None spreads all evenly.

    Raises:
        ConfigError: There are fewer than two labels, so that nothing can be answered wrongly.
    """
    if len(table.labels) < 2:
        raise ConfigError(f"reward model data needs at least two emotions; got {list(table.labels)}")
    for utterance in utterances:
        truth = stated_facts(utterance)
        if utterance.emotion not in table.labels or not any(name in truth for name in PROSODY):
            continue
        for index in range(per_utterance):
            rng = random.Random(f"{seed}/{utterance.id}/{index}")
            is_frequent = rates is not None and index % 2 == 1
            if not is_frequent and rng.random() < 0.08:
                response, grades = rng.choice(("", foreign(rng), foreign(rng))), (1,) * len(DIMENSIONS)
            else:
                plan = Plan.faultless(utterance, table)
                if rng.random() < writer.quote_rate:
                    plan = replace(plan, quote=plan.text)
                plan = _with_errors(plan, rates, rng) if rates and is_frequent else _spoil(plan, rng)
                response, grades = plan.write(writer, rng), tuple(plan.grades[d.name] for d in DIMENSIONS)
            yield _graded(f"{utterance.id}#{index}", utterance, response, grades, table, rng)


def graded_samples(
    samples: Iterable[tuple[Utterance, str]], table: ClaimTable, *, seed: int = 0
) -> Iterator[GradedExample]:
    """Yields a policy's own responses, graded by `grade_response`; the reward model will meet such responses
    when it scores a policy."""
    for number, (utterance, response) in enumerate(samples):
        grades = grade_response(response, utterance, table)
        name = f"{utterance.id}#sample{number}"
        ordered = tuple(grades[d.name] for d in DIMENSIONS)
        yield _graded(name, utterance, response, ordered, table, random.Random(f"{seed}/{name}"))


def read_graded(
    path: str | Path, utterances: Sequence[Utterance], table: ClaimTable, *, seed: int = 0
) -> list[GradedExample]:
    """Reads responses that others graded, a language model or people.

    The file has JSON lines of `id` (an utterance's), `response` and `grades` (an integer from 1 to 5 for each
    of `DIMENSIONS`, by name).

    Raises:
        DataError: A line is anything else, or names an utterance that `utterances` lack; the message names
            the line.
    """
    by_id = {utterance.id: utterance for utterance in utterances}
    examples = []
    for number, row in numbered_rows(path, "a graded response"):
        try:
            utterance, response = by_id[row["id"]], str(row["response"])
            grades = tuple(row["grades"][d.name] for d in DIMENSIONS)
            if not all(type(grade) is int and 1 <= grade <= MAX_GRADE for grade in grades):
                raise ValueError(f"grades are integers from 1 to {MAX_GRADE}, got {row['grades']}")
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}:{number}: not a graded response: {error!r}") from error
        name = f"{utterance.id}#file{number}"
        rng = random.Random(f"{seed}/{name}")
        examples.append(_graded(name, utterance, response, grades, table, rng))
    return examples


def _graded(
    name: str,
    utterance: Utterance,
    response: str,
    grades: tuple[int, ...],
    table: ClaimTable,
    rng: random.Random,
) -> GradedExample:
    aspects = aspects_of(table.labels)
    claims, truth = claimed_aspects(response, aspects), known_aspects(utterance, aspects)
    heard = drawn_support(claims, truth, table, rng, aspects)
    return GradedExample(id=name, audio=utterance.audio, response=response, heard=heard, grades=grades)


def _spoil(plan: Plan, rng: random.Random) -> Plan:
    """Spreads faults evenly over a plan, so that each dimension has every grade."""
    wrong = rng.sample(sorted(plan.truth), rng.randint(0, min(MAX_GRADE - 1, len(plan.truth))))
    for name in wrong:
        plan = misstate(plan, name, rng)
    while rng.random() < 0.2:
        plan = missing_claim(plan, rng)
    if rng.random() < 0.25:
        plan = wrong_quotation(plan, rng)
    if rng.random() < 0.05:
        plan = nothing_claimed(plan, rng)
    draw = rng.random()
    if draw < 0.35:
        plan = wrong_emotion(plan, rng)
    elif draw < 0.5:
        plan = contradiction(plan, rng)
    if rng.random() < 0.4:
        plan = rng.choice(SPREAD_FAULTS)(plan, rng)
    return plan


_LEAST = 0.01
"""Share of the policy-like responses in which a fault is put that the policy makes more seldom."""


def _with_errors(plan: Plan, rates: ErrorRates, rng: random.Random) -> Plan:
    """Puts each error into a plan with the probability that a policy makes it."""
    for name in plan.truth:
        error = _drawn(rates.claims[name], rng)
        if error == "missing" and len(plan.facts) > 1:
            plan = omit(plan, name)
        elif error == "hedged":
            plan = hedge(plan, name, rng)
        elif error in ("one_step", "opposite"):
            plan = misstate(plan, name, rng, opposite=error == "opposite")
    drawn = [_drawn(rates.emotion, rng), *(_drawn({name: rate}, rng) for name, rate in rates.form.items())]
    for fault in (*CONTENT_FAULTS, *FORM_FAULTS):
        if fault.__name__ in drawn:
            plan = fault(plan, rng)
    return plan


def _drawn(rates: Mapping[str, float], rng: random.Random) -> str | None:
    """Draws at most one error."""
    shares = [max(rate, _LEAST) for rate in rates.values()]
    (error,) = rng.choices([None, *rates], [max(0.0, 1 - sum(shares)), *shares])
    return error
