"""Measures which errors a policy makes, so that training data hold the same ones as often.

samples.jsonl, manifest -> claims of each answer against the facts -> rates by attribute and kind
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from emotion_task.claims.check import are_opposites
from emotion_task.claims.finder import CONTRADICTORY, find_claims, read_claims, read_denials
from emotion_task.claims.support import ClaimTable
from emotion_task.facts import VALUES, stated_facts
from emotion_task.parsing import named_emotions, normalise_label, parse_response
from emotion_task.records import Utterance
from emotion_task.reward_model.grades import QUOTED, concluded_emotion, is_early, num_misquoted, sentences_of
from emotion_task.reward_model.listening import reasoning_of
from rlcore.errors import DataError
from rlcore.records.files import JsonObject, read_json

LONG = 60
"""Words from which a reasoning is long."""
CLAIM_ERRORS = ("one_step", "opposite", "hedged", "missing")
"""What can be wrong about a known fact: a neighbouring value, the opposite value, two values at once,
nothing said."""
EMOTION_ERRORS = ("wrong_emotion", "bent_claims", "text_only", "contradiction", "unnamed_emotion")
"""Faults of the emotion; an answer has at most one."""
FORM_ERRORS = (
    "nothing_claimed",
    "wrong_quotation",
    "invented_detail",
    "long_prose",
    "early_label",
    "repeated_sentence",
    "broken_schema",
)
"""Further faults, each as in `faults`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRates:
    """Holds how often a policy makes each error: shares of its answers, 0 to 1."""

    num_answers: int
    claims: Mapping[str, Mapping[str, float]]
    """Share of each of `CLAIM_ERRORS` among the answers whose fact is known, by attribute."""
    emotion: Mapping[str, float]
    """Share of each of `EMOTION_ERRORS`."""
    form: Mapping[str, float]
    """Share of each of `FORM_ERRORS`."""
    beside: Mapping[str, float]
    """Shares that follow from the others, to be read: a wrong emotion with every claim right
    (`wrong_emotion_right_claims`), the right emotion that its claims do not support
    (`unsupported_emotion`)."""


def measured_rates() -> ErrorRates:
    """Returns the rates of the quickstart's policy, over all rollouts of its run: what
    `emotion policy-errors` wrote to `measured_errors.json`."""
    return read_rates(Path(str(files("emotion_task.reward_model") / "measured_errors.json")))


def read_rates(path: str | Path) -> ErrorRates:
    """Reads the file of `emotion policy-errors`.

    Raises:
        DataError: The file holds anything else.
    """
    row: JsonObject = read_json(path)
    try:
        rates = ErrorRates(**row)
        kinds = [*rates.claims.values(), rates.emotion, rates.form]
        names = [*[CLAIM_ERRORS] * len(rates.claims), EMOTION_ERRORS, FORM_ERRORS]
        if set(rates.claims) != set(VALUES) or any(
            set(k) != set(n) for k, n in zip(kinds, names, strict=True)
        ):
            raise ValueError(f"attributes are {list(VALUES)}, each with {list(CLAIM_ERRORS)}")
        if not all(0 <= share <= 1 for each in kinds for share in each.values()):
            raise ValueError("a share is not between 0 and 1")
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a file of `emotion policy-errors`: {error}") from error
    return rates


def measure_errors(answers: Iterable[tuple[Utterance, str]], table: ClaimTable) -> ErrorRates:
    """Measures the errors of a policy's answers.

    Args:
        answers: pairs of an annotated utterance and a response to it.
        table: tells what claims support, as the training rows teach it; an answer outside its labels is none.

    Raises:
        DataError: There are no answers.
    """
    claims = {name: Counter[str]() for name in VALUES}
    others, num_answers = Counter[str](), 0
    for utterance, response in answers:
        num_answers += 1
        outcomes = claim_errors(response, utterance)
        for name, outcome in outcomes.items():
            claims[name][outcome] += 1
        others.update(_emotion_errors(response, utterance, table, outcomes))
        others.update(_form_errors(response, utterance, table.labels))
    if not num_answers:
        raise DataError("no answers, so no errors can be measured")

    def shares(names: Iterable[str]) -> dict[str, float]:
        return {name: round(others[name] / num_answers, 4) for name in names}

    return ErrorRates(
        num_answers=num_answers,
        claims={
            name: {kind: round(c[kind] / max(1, c.total()), 4) for kind in CLAIM_ERRORS}
            for name, c in claims.items()
        },
        emotion=shares(EMOTION_ERRORS),
        form=shares(FORM_ERRORS),
        beside=shares(("wrong_emotion_right_claims", "unsupported_emotion")),
    )


def claim_errors(response: str, utterance: Utterance) -> dict[str, str]:
    """Returns `right` or one of `CLAIM_ERRORS` for each known fact of an utterance."""
    said = find_claims(reasoning_of(response))
    found = {}
    for name, value in stated_facts(utterance).items():
        claim = said.get(name)
        if claim is None:
            found[name] = "missing"
        elif claim == CONTRADICTORY:
            found[name] = "hedged"
        elif claim == value:
            found[name] = "right"
        else:
            found[name] = "opposite" if are_opposites(claim, value) else "one_step"
    return found


def _emotion_errors(
    response: str, utterance: Utterance, table: ClaimTable, outcomes: Mapping[str, str]
) -> list[str]:
    parsed = parse_response(response)
    answer = normalise_label(parsed.answer, table.labels) if parsed else None
    if parsed is None or answer is None:
        return []  # a broken schema
    concluded = concluded_emotion(parsed.think, table.labels)
    if concluded != answer:
        return ["unnamed_emotion" if concluded is None else "contradiction"]
    is_supported = table.supports(find_claims(parsed.think), answer)
    if answer == utterance.emotion or utterance.emotion is None:
        return [] if is_supported else ["unsupported_emotion"]
    if answer == utterance.text_emotion and not is_supported:
        return ["text_only"]
    if is_supported and not table.supports(stated_facts(utterance), answer):
        return ["bent_claims"]
    are_right = not {"one_step", "opposite", "hedged"} & set(outcomes.values())
    return ["wrong_emotion", *(["wrong_emotion_right_claims"] if are_right else [])]


def _form_errors(response: str, utterance: Utterance, labels: Sequence[str]) -> list[str]:
    think, parsed = reasoning_of(response), parse_response(response)
    sentences = sentences_of(think)
    plain = [s.lower() for s in sentences]
    found = {
        "nothing_claimed": not find_claims(think),
        "wrong_quotation": num_misquoted(think, utterance.text) > 0,
        "invented_detail": any(_says_nothing_known(sentence, labels) for sentence in sentences),
        "long_prose": len(think.split()) > LONG,
        "early_label": is_early(think, labels),
        "repeated_sentence": len(set(plain)) < len(plain),
        "broken_schema": parsed is None or normalise_label(parsed.answer, labels) is None,
    }
    return [name for name, is_so in found.items() if is_so]


def _says_nothing_known(sentence: str, labels: Sequence[str]) -> bool:
    """Returns whether a sentence makes no claim and names no emotion: a detail, or padding."""
    is_known = (
        QUOTED in sentence
        or read_claims(sentence)
        or read_denials(sentence)
        or named_emotions(sentence, labels)
    )
    return not is_known and len(sentence.split()) > 2


def as_markdown(rates: ErrorRates) -> str:
    """Returns the rates as tables, in percent."""
    lines = [
        f"{rates.num_answers} answers",
        "",
        "| fact | " + " | ".join(kind.replace("_", " ") for kind in CLAIM_ERRORS) + " |",
        "| --- |" + " ---: |" * len(CLAIM_ERRORS),
    ]
    for name, row in rates.claims.items():
        cells = [f"{100 * row[kind]:.1f}" for kind in CLAIM_ERRORS]
        lines.append(f"| {name.removesuffix('_level')} | " + " | ".join(cells) + " |")
    lines += ["", "| of the answer | % |", "| --- | ---: |"]
    for each in (rates.emotion, rates.form, rates.beside):
        lines += [f"| {name.replace('_', ' ')} | {100 * share:.1f} |" for name, share in each.items()]
    return "\n".join(lines) + "\n"


def as_json(rates: ErrorRates) -> JsonObject:
    """Returns what `read_rates` reads."""
    return asdict(rates)
