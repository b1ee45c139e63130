"""Writes traces from templates: measured facts and the transcript in varied order and wording, with the
emotion at the end."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence

from emotion_task.cot.phrases import AGE, CLAUSES, CONCLUSIONS, FRAMES, GENDER, NOUN_PHRASES, QUOTES
from emotion_task.facts import PROSODY, VALUES, known_facts
from emotion_task.labels import ALL_LABELS
from emotion_task.parsing import format_response
from emotion_task.records import Utterance
from rlcore.errors import ConfigError


class TemplateWriter:
    """Writes traces (`TraceWriter`) that state what was measured and nothing else.

    Args:
        quote_rate: chance that a trace quotes the transcript, where there is one.
        style: `short` (about 30 words, for tiny models) or `long`.
        max_quote_words: a longer transcript is cut after this many words.
        fact_rate: chance that a fact is stated; at least one prosodic fact always is. A model that has only
            seen complete traces cannot learn to leave out what it did not hear well.

    Raises:
        ConfigError: `style` is unknown, or a rate is not between 0 and 1.
    """

    def __init__(
        self,
        quote_rate: float = 0.0,
        style: str = "short",
        max_quote_words: int = 12,
        fact_rate: float = 1.0,
    ):
        if style not in FRAMES:
            raise ConfigError(f"style: got {style!r}; allowed are {sorted(FRAMES)}")
        for name, rate in (("quote_rate", quote_rate), ("fact_rate", fact_rate)):
            if not 0 <= rate <= 1:
                raise ConfigError(f"{name}: got {rate}; allowed is 0 to 1")
        self.quote_rate = quote_rate
        self.fact_rate = fact_rate
        self.style = style
        self.max_quote_words = max_quote_words

    def write(self, utterance: Utterance, rng: random.Random, answer: bool = True) -> str | None:
        """Writes one trace, as `TraceWriter.write` says.

        The trace is None where no prosodic fact is known, or where `answer` asks for an emotion that is not
        known."""
        facts = known_facts(utterance)
        if not any(name in facts for name in PROSODY) or (answer and utterance.emotion is None):
            return None
        facts = self._stated(facts, rng)
        quote = utterance.text if rng.random() < self.quote_rate else None
        body = self.describe(facts, quote, rng)
        if not answer:
            return f"<think>{' '.join(body)}</think>"
        assert utterance.emotion is not None
        body.append(self.conclude(facts, utterance.emotion, rng))
        return format_response(" ".join(body), utterance.emotion)

    def _stated(self, facts: dict[str, str], rng: random.Random) -> dict[str, str]:
        if self.fact_rate == 1:
            return facts
        kept = {name for name in facts if rng.random() < self.fact_rate}
        prosodic = [name for name in PROSODY if name in facts]
        if not kept & set(prosodic):
            kept.add(rng.choice(prosodic))
        return {name: value for name, value in facts.items() if name in kept}

    def describe(self, facts: Mapping[str, str], quote: str | None, rng: random.Random) -> list[str]:
        """Returns the sentences that state `facts` and `quote`, without the emotion."""
        names = [name for name in PROSODY if name in facts]
        rng.shuffle(names)
        sentences = [self._sentence(chunk, facts, rng) for chunk in _chunks(names, rng)]
        if quote:
            words = rng.choice(QUOTES).format(words=self._clean(quote))
            sentences.insert(rng.randint(0, len(sentences)), words)
        if "age_level" in facts:
            sentences.insert(rng.randint(0, len(sentences)), rng.choice(AGE[facts["age_level"]]))
        if "gender" in facts:
            # Mostly first, as a listener would say it; sometimes later, so that order is not a cue.
            position = 0 if rng.random() < 0.7 else rng.randint(0, len(sentences))
            sentences.insert(position, rng.choice(GENDER[facts["gender"]]))
        return sentences

    def conclude(self, facts: Mapping[str, str], emotion: str, rng: random.Random) -> str:
        """Returns the sentence that names the emotion; in the long style, two of the prosodic facts lead to
        it."""
        stated = [(name, facts[name]) for name in PROSODY if name in facts]
        style = self.style if len(stated) >= 2 else "short"
        sentence = rng.choice(CONCLUSIONS[style])
        if style == "short":
            return sentence.format(label=emotion)
        first, second = (rng.choice(NOUN_PHRASES[fact]) for fact in rng.sample(stated, 2))
        return sentence.format(label=emotion, first=first, second=second)

    def _sentence(self, names: Sequence[str], facts: Mapping[str, str], rng: random.Random) -> str:
        frame = rng.choice(FRAMES[self.style][len(names)])
        slots = {}
        for index, name in enumerate(names):
            slots[f"c{index}"] = rng.choice(CLAUSES[name, facts[name]])
            slots[f"n{index}"] = rng.choice(NOUN_PHRASES[name, facts[name]])
        sentence = frame.format(**slots)
        return sentence[0].upper() + sentence[1:]

    def _clean(self, text: str) -> str:
        # Quotation marks would end the quote early, angle brackets could spell a tag of the schema.
        words = re.sub(r'["“”<>]', " ", text).split()[: self.max_quote_words]
        return " ".join(words).rstrip(".,;:!?")


def _chunks(names: list[str], rng: random.Random) -> Iterator[list[str]]:
    """Cuts names into runs of one or two."""
    start = 0
    while start < len(names):
        size = rng.choice((1, 2, 2))
        yield names[start : start + size]
        start += size


def all_phrases(labels: Sequence[str] = ALL_LABELS) -> Iterator[str]:
    """Yields the texts that a tokenizer needs to see: every phrase of the short style, and whole descriptions
    in which the phrases stand as in traces. Quoted words are left out: they come from the corpus."""
    for table in (CLAUSES, NOUN_PHRASES):
        for phrases in table.values():
            for phrase in phrases:
                yield from (f" {phrase}", f" {phrase[0].upper()}{phrase[1:]}.")
    for conclusion in CONCLUSIONS["short"]:
        yield from (f" {conclusion.format(label=label)}" for label in labels)
    for sentences in (*GENDER.values(), [quote.format(words="") for quote in QUOTES]):
        yield from (f" {sentence}" for sentence in sentences)
    writer, rng = TemplateWriter(), random.Random(0)
    for _ in range(500):
        facts = {name: rng.choice(values) for name, values in VALUES.items()}
        yield " ".join(writer.describe(facts, None, rng))
