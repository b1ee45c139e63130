"""Decides by rules whether a written trace may be learnt from. Each rule gives its reason, so that rejected
traces can be counted and read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from emotion_task.claims.check import check_claims, total
from emotion_task.claims.finder import LEVEL_TYPES, Claim, read_claims
from emotion_task.claims.quotes import clean_words
from emotion_task.facts import reference_of
from emotion_task.labels import ALL_LABELS
from emotion_task.parsing import QUOTE, named_emotions, normalise_label, parse_response
from emotion_task.records import Utterance, is_utf8

KINDS = ("schema", "label", "length", "quotation", "opening", "source", "contradiction", "unmeasured")
"""Kinds of rejection; each reason begins with one of them."""

_FIRST_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|$)", re.DOTALL)
_SOURCE = re.compile(
    r"\b(?:annotat\w+|metadata|ground[- ]truth|transcript\w*|dataset|"
    r"(?:given|provided|assigned|gold|true|correct|supplied|its|corpus) labels?|labell?ed(?: as| with)?|"
    r"labels? (?:is|are|was|says?|tells?|gives?|states?|given|provided|indicates?|confirms?))\b",
    re.I,
)


def check_trace(text: str, utterance: Utterance, *, min_words: int, max_words: int) -> list[str]:
    """Returns the reasons to reject a trace; none where the trace may be kept.

    Args:
        text: `<think>...</think><answer>...</answer>`.
        utterance: what the trace was written from.
        min_words, max_words: allowed length of the reasoning.

    Returns:
        Texts `kind: detail`; each kind is one of `KINDS`.
    """
    parsed = parse_response(text)
    if parsed is None or not is_utf8(text):
        return ["schema: not <think>...</think><answer>...</answer>"]
    reasons = []
    emotion = str(utterance.emotion)  # which may be none of ours
    if normalise_label(parsed.answer, (*ALL_LABELS, emotion)) != emotion:
        reasons.append(f"label: answers {parsed.answer[:40]!r}, due is {utterance.emotion}")
    num_words = len(parsed.think.split())
    if not min_words <= num_words <= max_words:
        reasons.append(f"length: {num_words} words, due are {min_words} to {max_words}")
    if utterance.text and not quotes(parsed.think, utterance.text):
        reasons.append("quotation: nothing of what was said is quoted")
    first = _FIRST_SENTENCE.match(parsed.think)
    if first and emotion in named_emotions(first[0], (emotion,)):
        reasons.append(f"opening: the first sentence names {utterance.emotion}")
    if source := _SOURCE.search(QUOTE.sub(" ", parsed.think)):
        reasons.append(f"source: speaks of {source[0]!r}")
    return [*reasons, *_claims(parsed.think, utterance)]


def quotes(think: str, text: str) -> bool:
    """Returns whether some quotation in `think` holds nothing but words that follow each other in `text`."""
    spoken = f" {clean_words(text)} "
    inner = (clean_words(match[1] or match[2] or "") for match in QUOTE.finditer(think))
    return any(words and f" {words} " in spoken for words in inner)


def _claims(think: str, utterance: Utterance) -> Iterator[str]:
    """Yields a reason for each wrong claim, and for each claim of what was not measured."""
    reference = reference_of(utterance)
    for claim in read_claims(think):
        tally = total(check_claims([claim], reference))
        if tally.num_wrong:
            yield f"contradiction: {claim.type} said {claim.value!r}, {_known(claim, reference)}"
        elif claim.type in (*LEVEL_TYPES, "stressed_words") and reference.get(claim.type) is None:
            yield f"unmeasured: {claim.type} said {claim.value!r}"


def _known(claim: Claim, reference: dict[str, object]) -> str:
    if claim.type == "quoted_words":
        return "not among the words"
    return f"measured {reference.get(claim.type)!r}"
