"""Graded responses to train the reward model on: (recording, response, four grades)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from emotion_task.cot.template import TemplateWriter
from emotion_task.facts import PROSODY, VALUES, stated_facts
from emotion_task.records import Utterance
from emotion_task.reward_model.faults import (
    FORM_FAULTS,
    Plan,
    contradiction,
    missing_claim,
    wrong_emotion,
)
from emotion_task.reward_model.grades import DIMENSIONS, grade_response, judge_messages, weighted
from rlcore.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedExample:
    """One triple."""

    id: str
    """Utterance id, then what made the response: `0001#2`, `0001#sample`."""
    audio: str
    response: str
    grades: tuple[int, ...]
    """1 to 5, in the order of `DIMENSIONS`; the target is one score token each."""

    @property
    def messages(self) -> list[dict]:
        """The judge's conversation, to be formatted by the reward model's processor."""
        return judge_messages(self.response)

    @property
    def target(self) -> str:
        """The grades as digits, without spaces."""
        return "".join(map(str, self.grades))

    @property
    def reward(self) -> float:
        """R_t of the known grades."""
        return weighted(self.grades)


def graded_examples(
    utterances: Sequence[Utterance],
    writer: TemplateWriter,
    *,
    seed: int,
    per_utterance: int = 4,
    labels: Sequence[str] | None = None,
) -> Iterator[GradedExample]:
    """Template responses of every quality, from faultless to wrong in all.

    Each prosodic claim is right with a chance that is itself drawn anew for each response, so that grades
    of facts spread over the whole scale instead of huddling at 4; other faults join at fixed rates. A
    response depends on (seed, utterance id, index) alone.

    Args:
        utterances: annotated; those without an emotion or without any prosodic fact are left out.
        labels: what wrong answers are drawn from; by default the emotions of `utterances`.

    Raises:
        ConfigError: fewer than two labels, so nothing can be answered wrongly.
    """
    options = tuple(labels) if labels else tuple(sorted({u.emotion for u in utterances if u.emotion}))
    if len(options) < 2:
        raise ConfigError(f"reward model data needs at least two emotions; got {list(options)}")
    for utterance in utterances:
        truth = stated_facts(utterance)
        if utterance.emotion is None or not any(name in truth for name in PROSODY):
            continue
        for index in range(per_utterance):
            rng = random.Random(f"{seed}/{utterance.id}/{index}")
            quote = utterance.text if rng.random() < writer.quote_rate else None
            plan = Plan(
                facts=truth,
                truth=truth,
                emotion=utterance.emotion,
                answer=utterance.emotion,
                labels=options,
                quote=quote,
            )
            plan = _spoil(plan, rng)
            grades = tuple(plan.grades[d.name] for d in DIMENSIONS)
            response = plan.write(writer, rng)
            yield GradedExample(
                id=f"{utterance.id}#{index}", audio=utterance.audio, response=response, grades=grades
            )


def graded_samples(samples: Iterable[tuple[Utterance, str]]) -> Iterator[GradedExample]:
    """A policy's own responses, graded by `grade_response`: what the reward model will meet in training."""
    for number, (utterance, response) in enumerate(samples):
        grades = grade_response(response, utterance)
        yield GradedExample(
            id=f"{utterance.id}#sample{number}",
            audio=utterance.audio,
            response=response,
            grades=tuple(grades[d.name] for d in DIMENSIONS),
        )


def _spoil(plan: Plan, rng: random.Random) -> Plan:
    plan = _guess_claims(plan, rng)
    while rng.random() < 0.15:
        plan = missing_claim(plan, rng)
    draw = rng.random()
    if draw < 0.35:
        plan = wrong_emotion(plan, rng)
    elif draw < 0.5:
        plan = contradiction(plan, rng)
    if rng.random() < 0.15:
        plan = rng.choice(FORM_FAULTS)(plan, rng)
    return plan


def _guess_claims(plan: Plan, rng: random.Random) -> Plan:
    """Claims as of a listener who is right with a chance between 0.3 and 1."""
    skill = rng.uniform(0.3, 1.0)
    facts = {}
    for name, value in plan.truth.items():
        others = [other for other in VALUES[name] if other != value]
        facts[name] = value if rng.random() < skill else rng.choice(others)
    num_wrong = sum(facts[name] != value for name, value in plan.truth.items())
    return replace(plan, facts=facts, grades=plan.lowered(factual=num_wrong))
