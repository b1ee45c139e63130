"""Checks whether reasoning says what was measured: claims against the facts of the utterance, by claim
type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emotion_task.claims.finder import CLAIM_TYPES, CONTRADICTORY, LEVEL_TYPES, Claim, read_claims
from emotion_task.claims.quotes import clean_words
from emotion_task.facts import VALUES
from emotion_task.parsing import parse_response
from emotion_task.records import AGE_LEVELS

Reference = Mapping[str, Any]
"""Reference of a prompt (`emotion_task.facts.reference_of`): what is known of the utterance, by field."""

_ALLOWED: Mapping[str, tuple[str, ...]] = {**VALUES, "age_level": tuple(AGE_LEVELS)}

_OPPOSITES = frozenset(
    frozenset(pair)
    for pair in (
        *(
            ("low", "high"),
            ("slow", "fast"),
            ("male", "female"),
            ("child", "elderly"),
            ("flat", "expressive"),
        ),
        *(("rising", "falling"), ("rising-falling", "falling-rising"), ("none", "high")),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts the claims of one type over one or many answers."""

    num_right: int = 0
    """Claims that are facts."""
    num_checked: int = 0
    """Claims whose fact was measured; other claims can be neither right nor wrong, and count nowhere."""
    num_facts: int = 0
    """Facts that could have been stated. Quoted words have no facts: nobody has to quote."""
    num_contradictions: int = 0
    """Checked claims that say the opposite of the measurement (high of a low voice), two values at once, or
    words that were not spoken. The other wrong claims are off by one step."""
    num_extra: int = 0
    """Right claims without a fact, counted beside `num_right`: quotations, in a tally of all types."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            num_right=self.num_right + other.num_right,
            num_checked=self.num_checked + other.num_checked,
            num_facts=self.num_facts + other.num_facts,
            num_contradictions=self.num_contradictions + other.num_contradictions,
            num_extra=self.num_extra + other.num_extra,
        )

    @property
    def num_wrong(self) -> int:
        return self.num_checked - self.num_right - self.num_extra

    @property
    def precision(self) -> float:
        """Returns the share of the checked claims that are right; 0 where no claim was checked."""
        return 1 - self.num_wrong / self.num_checked if self.num_checked else 0.0

    @property
    def recall(self) -> float:
        """Returns the share of the facts that are stated rightly; 0 where there are no facts."""
        return self.num_right / self.num_facts if self.num_facts else 0.0

    @property
    def contradiction_rate(self) -> float:
        """Returns the share of the checked claims that are contradictions; 0 where no claim was checked."""
        return self.num_contradictions / self.num_checked if self.num_checked else 0.0


def check_response(response: str, reference: Reference) -> dict[str, Tally]:
    """Checks the claims of one response and returns a tally for every type of `CLAIM_TYPES`.

    Args:
        response: text with or without `<think>` and `<answer>` tags; with them, only the reasoning is read.
        reference: a prompt's reference (`emotion_task.facts.reference_of`): the fields of
            `emotion_task.facts.VALUES`, `age_level`, `stressed_words` and `text`, None or absent where
            unknown.
    """
    parsed = parse_response(response)
    return check_claims(read_claims(parsed.think if parsed else response), reference)


def check_claims(claims: Iterable[Claim], reference: Reference) -> dict[str, Tally]:
    """Checks claims against a prompt's reference and returns a tally for every type of `CLAIM_TYPES`.

    `check_response` describes the reference."""
    said: dict[str, list[str]] = {name: [] for name in CLAIM_TYPES}
    for claim in claims:
        said[claim.type].append(claim.value)
    tallies = {name: _check_level(said[name], reference.get(name), _ALLOWED[name]) for name in LEVEL_TYPES}
    tallies["stressed_words"] = _check_stress(said["stressed_words"], reference)
    tallies["quoted_words"] = _check_quotes(said["quoted_words"], reference.get("text"))
    return tallies


def faithfulness_metrics(responses: Sequence[str], references: Sequence[Reference]) -> dict[str, float]:
    """Returns `faithfulness/precision`, `/recall` and `/contradictions` over all claims, pooled over the
    answers.

    The rates of each claim type follow as `faithfulness/<type>/...`. A rate that would divide by zero is left
    out."""
    tallies = dict.fromkeys(CLAIM_TYPES, Tally())
    for response, reference in zip(responses, references, strict=True):
        for name, tally in check_response(response, reference).items():
            tallies[name] += tally
    metrics = _rates("faithfulness", total(tallies))
    for name, tally in tallies.items():
        metrics.update(_rates(f"faithfulness/{name}", tally))
    return metrics


def are_opposites(first: str, second: str) -> bool:
    """Returns whether two values of a claim type contradict each other, not only by one step."""
    return frozenset((first, second)) in _OPPOSITES


def total(tallies: Mapping[str, Tally]) -> Tally:
    """Adds the tallies of all claim types. Right quotations state no fact, so they count for precision but
    not for recall."""
    quotes = tallies["quoted_words"]
    unasked = replace(quotes, num_right=0, num_extra=quotes.num_right)
    return sum((t for name, t in tallies.items() if name != "quoted_words"), unasked)


def _rates(prefix: str, tally: Tally) -> dict[str, float]:
    rates = {}
    if tally.num_checked:
        rates = {
            f"{prefix}/precision": tally.precision,
            f"{prefix}/contradictions": tally.contradiction_rate,
        }
    if tally.num_facts:
        rates[f"{prefix}/recall"] = tally.recall
    return rates


def _check_level(said: Sequence[str], known: object, allowed: Sequence[str]) -> Tally:
    if known not in allowed:
        return Tally()
    opposed = sum(v == CONTRADICTORY or are_opposites(v, str(known)) for v in said)
    return Tally(
        num_right=sum(value == known for value in said),
        num_checked=len(said),
        num_facts=1,
        num_contradictions=opposed,
    )


def _check_stress(said: Sequence[str], reference: Reference) -> Tally:
    """Checks stressed words; a stressed phrase states each of its words. Where no stress was measured, a word
    that was not even spoken is still wrong."""
    words = {word for phrase in said for word in phrase.split()}
    spoken = set(clean_words(reference["text"]).split()) if reference.get("text") else None
    unspoken = words - spoken if spoken is not None else set()
    if reference.get("stressed_words") is None:
        return Tally(num_checked=len(unspoken), num_contradictions=len(unspoken))
    stressed = set(clean_words(" ".join(reference["stressed_words"])).split())
    return Tally(
        num_right=len(words & stressed),
        num_checked=len(words),
        num_facts=len(stressed),
        num_contradictions=len(unspoken - stressed),
    )


def _check_quotes(said: Sequence[str], text: str | None) -> Tally:
    """Checks quotations: one is right where its words follow each other in the transcript."""
    if not text:
        return Tally()
    spoken = f" {clean_words(text)} "
    num_right = sum(f" {quote} " in spoken for quote in said)
    return Tally(num_right=num_right, num_checked=len(said), num_contradictions=len(said) - num_right)
