"""Writes a trace anew: the same claims in other words, or the claims that another recording would bear out.

Sentences that claim prosody make room for template sentences; all others stay. Sentences that name an emotion
are taken out, always: what is left to go by is what is said of the voice. Of a conclusion ("So the emotion is
sad.") the words before the emotion stay, so that the model goes on where it would name one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from emotion_task.claims.finder import find_claims
from emotion_task.claims.support import ClaimTable, prosodic
from emotion_task.cot.template import TemplateWriter
from emotion_task.facts import VALUES, stated_facts
from emotion_task.parsing import around_emotion, named_emotions
from emotion_task.records import AGE_LEVELS, Utterance

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SPEAKER: Mapping[str, Collection[str]] = {"gender": VALUES["gender"], "age_level": AGE_LEVELS}
_NUM_TRIES = 8
"""Wordings to try before a trace is given up: between other sentences one may read as another claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """Holds one answer's reasoning, rewritten. Nothing of it names an emotion."""

    own: str
    """Reasoning of the answer, without the sentences that name an emotion."""
    paraphrased: str
    """The same claims in other words."""
    swapped: str
    """Claims that `donor` bears out, about the same attributes, in the words of a template."""
    conclusion: tuple[str, str] | None
    """What the last sentence says before and after it names the emotion; None where it names none, or makes
    claims of its own."""
    donor: Utterance
    """Recording of another emotion, whose measured levels speak for its own emotion."""


def rewrite(
    think: str,
    answer: str,
    heard: Utterance,
    others: Sequence[Utterance],
    table: ClaimTable,
    rng: random.Random,
) -> Traces | str:
    """Returns an answer's traces, or the reason why there are none.

    Args:
        think: the answer's reasoning.
        answer: the label that it gives.
        heard: the recording that it is about.
        others: recordings to take a donor from.
        table: says which emotion levels speak for, and which labels there are.
    """
    claims = prosodic(find_claims(think))
    if not claims:
        return "no claims"
    sentences = _SENTENCE_END.split(think.strip())
    conclusion = around_emotion(sentences[-1], table.labels)
    if prosodic(find_claims(sentences[-1])):
        conclusion = None
    kept = [sentence for sentence in sentences if not named_emotions(sentence, table.labels)]
    own = " ".join(kept)
    if prosodic(find_claims(own)) != claims:
        return "claims in a sentence that names an emotion"
    donor = draw_donor(claims, answer, heard, others, table, rng)
    if donor is None:
        return "no other profile"
    facts = stated_facts(donor)
    paraphrased = _described(kept, claims, rng, unlike=own)
    swapped = _described(kept, {name: facts[name] for name in claims}, rng, unlike=own)
    if paraphrased is None or swapped is None:
        return "cannot be rewritten"
    return Traces(own=own, paraphrased=paraphrased, swapped=swapped, conclusion=conclusion, donor=donor)


def draw_donor(
    claims: Mapping[str, str],
    answer: str,
    heard: Utterance,
    others: Sequence[Utterance],
    table: ClaimTable,
    rng: random.Random,
) -> Utterance | None:
    """Returns a recording of another emotion than `answer` and than that of `heard`, measured in all
    attributes that are claimed, whose levels there differ from the claims and speak most for its own emotion;
    of the same gender, where it is known. Every emotion that has such recordings is as likely."""
    found: dict[str, list[Utterance]] = {}
    for other in others:
        facts = {name: value for name, value in stated_facts(other).items() if name in claims}
        if (
            other.emotion in table.labels
            and other.emotion not in (answer, heard.emotion)
            and heard.gender in (None, other.gender)
            and facts.keys() == claims.keys()
            and facts != claims
            and table.best(facts) == other.emotion
        ):
            found.setdefault(str(other.emotion), []).append(other)
    return rng.choice(found[rng.choice(sorted(found))]) if found else None


def _described(
    sentences: Sequence[str], claims: Mapping[str, str], rng: random.Random, *, unlike: str
) -> str | None:
    """Returns the sentences with these claims in the place of their own; None where no wording is read as
    these claims and nothing else. What a claim's sentence says of the speaker is said again."""
    is_claim = [bool(prosodic(find_claims(sentence))) for sentence in sentences]
    first = is_claim.index(True) if any(is_claim) else 0
    facts = dict(claims)
    for sentence in (s for s, of_voice in zip(sentences, is_claim, strict=True) if of_voice):
        said = find_claims(sentence)
        facts |= {name: said[name] for name, known in _SPEAKER.items() if said.get(name) in known}
    rest = [s for s, of_voice in zip(sentences, is_claim, strict=True) if not of_voice]
    for _ in range(_NUM_TRIES):
        described = TemplateWriter().describe(facts, None, rng)
        text = " ".join([*rest[:first], *described, *rest[first:]])
        if prosodic(find_claims(text)) == claims and text != unlike:
            return text
    return None
