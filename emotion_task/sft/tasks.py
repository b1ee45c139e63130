"""Makes prosody SFT data (EmotionThinker, stage 2): from annotated utterances to (question, target) pairs."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion_task.cot.writer import TraceWriter
from emotion_task.facts import PROSODY, known_facts, stated_facts
from emotion_task.labels import labels_among
from emotion_task.prompt import (
    ORDER_LEVELS,
    PROFILE_KEYWORDS,
    attribute_messages,
    caption_messages,
    emotion_messages,
    melody_messages,
    order_messages,
    profile_messages,
    stress_messages,
    transcript_messages,
)
from emotion_task.records import Utterance
from emotion_task.sft.stressed_word import stress_words
from emotion_task.sft.texts import Conversation, read_conversations
from emotion_task.sft.variants import Order, joined_seconds
from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTExample:
    """Holds one supervised example, before a model's processor has formatted it."""

    id: str
    """Utterance id and task, such as `0001/reasoning`."""
    task: str
    """One of `ALL_TASKS`."""
    messages: Messages
    """The question, to be formatted by the model's processor (`format_prompt`)."""
    target: str
    """The assistant's answer, without the end-of-turn token."""
    audio: str | None
    """Absolute path of the recording; None for text alone."""
    complete: bool = True
    """True where the end-of-turn token follows the target. False means that the target is only the beginning
    of an answer (reasoning whose label is withheld), and nothing may be learnt of what comes after it."""
    emphasis: str | None = None
    """The word of the target that matters most: the emotion that a trace arrives at."""
    order: Order | None = None
    """Recipe of `audio`, where that is not a recording (`emotion_task.sft.variants.render_all`)."""


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Configures what the SFT data consists of."""

    weights: Mapping[str, float]
    """Weight of each task, in proportion to its share of an epoch. The keys are among `ALL_TASKS`."""
    label_fraction: float = 1.0
    """Share of the utterances whose emotion may be revealed. The choice depends on the seed, not on the
    file's order, and a larger fraction reveals a superset."""
    seed: int = 0
    text_data: str | None = None
    """File of chat messages for the task `text` (`emotion_task.sft.texts`)."""
    audio_folder: str | None = None
    """Folder for the recordings of the task `order`."""
    max_seconds: float = 30.0
    """Most seconds that three versions of one utterance may take together."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(ALL_TASKS))
        if unknown:
            raise ConfigError(f"sft.weights: unknown tasks {unknown}; allowed are {sorted(ALL_TASKS)}")
        if min(self.weights.values(), default=0) < 0 or not sum(self.weights.values()) > 0:
            raise ConfigError(f"sft.weights: got {dict(self.weights)}; weights are >= 0 and one is > 0")
        for task, need in (("text", "text_data"), ("order", "audio_folder")):
            if self.weights.get(task) and getattr(self, need) is None:
                raise ConfigError(f"sft.weights: {task} is {self.weights[task]}, but there is no {need}")
        if not 0 <= self.label_fraction <= 1:
            raise ConfigError(f"sft.label_fraction: got {self.label_fraction}; allowed is 0 to 1")


@dataclass(frozen=True, slots=True)
class _Source:
    """Holds what an example is made from."""

    utterance: Utterance
    labels: Sequence[str]
    writer: TraceWriter
    rng: random.Random
    labelled: bool


_Built = tuple[Messages, str, bool] | None
"""Question, target, and whether the target is complete; None where the utterance does not serve."""


_ATTRIBUTES = {
    "pitch": "pitch_level",
    "energy": "energy_level",
    "rate": "speed_level",
    "intonation": "intonation",
    "age": "age_level",
}
"""The one fact that each of these tasks asks for."""


def _attribute(name: str) -> Callable[[_Source], _Built]:
    def build(source: _Source) -> _Built:
        value = known_facts(source.utterance).get(name)
        return None if value is None else (attribute_messages(name), value, True)

    return build


def _reasoning(source: _Source) -> _Built:
    if not source.labelled:
        return None
    trace = source.utterance.trace or source.writer.write(source.utterance, source.rng)
    return None if trace is None else (emotion_messages(source.labels), trace, True)


def _description(source: _Source) -> _Built:
    """Builds the beginning of an answer to the emotion question: what is heard. The target has no closing
    tag, which right after the description would teach the model to leave the emotion out."""
    if source.labelled:
        return None
    trace = source.writer.write(source.utterance, source.rng, answer=False)
    return None if trace is None else (emotion_messages(source.labels), trace.removesuffix("</think>"), False)


def _profile(source: _Source) -> _Built:
    """Builds one question about all known facts: the same classification as the single questions, in fewer
    tokens per fact."""
    facts = stated_facts(source.utterance)
    known = [f"{keyword} {facts[name]}" for name, keyword in PROFILE_KEYWORDS.items() if name in facts]
    return (profile_messages(), ", ".join(known), True) if known else None


def _melody(source: _Source) -> _Built:
    """Builds a question about the pitch contour as digits: what a listener would hum. Of all tasks this one
    says most about pitch, and a model that has never heard learns pitch fastest from it."""
    contour = (source.utterance.measured or {}).get("f0_contour_hz")
    return (melody_messages(), "".join(map(melody_digit, contour)), True) if contour else None


def melody_digit(hertz: float | None) -> str:
    """Returns a pitch as one digit: quarter octaves above 70 Hz, 0 to 9; `-` for None (unvoiced)."""
    return "-" if hertz is None else str(min(9, max(0, int(4 * math.log2(hertz / 70)))))


def _stress(source: _Source) -> _Built:
    words = stress_words(source.utterance)
    return None if words is None else (stress_messages(words[0]), words[1], True)


def _transcript(source: _Source) -> _Built:
    """Builds a question for the words: these tie a tower's output to the language model's vocabulary
    first."""
    text = source.utterance.text
    return (transcript_messages(), text, True) if text else None


def _caption(source: _Source) -> _Built:
    """Builds a question whose answer is what a trace says of the voice, without tags and emotion."""
    trace = source.writer.write(source.utterance, source.rng, answer=False)
    return None if trace is None else (caption_messages(), re.sub(r"</?think>", "", trace), True)


TASKS: dict[str, Callable[[_Source], _Built]] = {
    **{task: _attribute(name) for task, name in _ATTRIBUTES.items()},
    "stress": _stress,
    "profile": _profile,
    "melody": _melody,
    "transcript": _transcript,
    "caption": _caption,
    "reasoning": _reasoning,
    "description": _description,
}
"""Builder of each task of one recording; a builder gives None where the utterance does not serve. `reasoning`
uses utterances whose label may be revealed, `description` those whose label is withheld."""
ALL_TASKS = (*TASKS, "order", "text")
"""All tasks: those of one recording, `order` (three versions of one) and `text` (text alone)."""


def build_examples(
    utterances: Sequence[Utterance],
    writer: TraceWriter,
    mixture: MixtureConfig,
    *,
    epoch: int = 0,
    num_examples: int | None = None,
    labels: Sequence[str] | None = None,
) -> list[SFTExample]:
    """Returns the examples of one epoch, shuffled, with tasks in the mixture's proportions.

    Everything is a function of the mixture's seed and `epoch`; traces are written anew each epoch. An example
    whose builder gives None is left out.

    Args:
        utterances: annotated utterances.
        writer: writes the traces of utterances that have none.
        num_examples: by default as many as there are utterances. A task with fewer utterances than its
            share uses them again.
        labels: options of the emotion question; by default the emotions of `utterances`, in the order of
            `ALL_LABELS`.

    Raises:
        DataError: No utterance serves for a task with a weight above 0 (the message names the task).
    """
    options = labels or labels_among(u.emotion for u in utterances)
    rng = random.Random(f"{mixture.seed}/{epoch}")
    total = len(utterances) if num_examples is None else num_examples
    examples: list[SFTExample] = []
    for task, count in _counts(mixture.weights, total).items():
        pool = _pool(task, utterances, mixture)
        if not pool:
            raise DataError(
                f"sft task {task!r}: none of {len(utterances)} utterances serves (annotated? label_fraction "
                f"is {mixture.label_fraction}, max_seconds {mixture.max_seconds:g}); give it the weight 0"
            )
        for number in range(count):
            if number % len(pool) == 0:
                rng.shuffle(pool)
            item = pool[number % len(pool)]
            own = random.Random(f"{mixture.seed}/{epoch}/{task}/{item.id}/{number // len(pool)}")
            if isinstance(item, Conversation):
                example: SFTExample | None = _text(item)
            elif task == "order":
                example = _order(item, own, mixture)
            else:
                example = _one(
                    task,
                    _Source(
                        item, options, writer, own, may_reveal(item, mixture.label_fraction, mixture.seed)
                    ),
                )
            if example is not None:
                examples.append(example)
    rng.shuffle(examples)
    return examples


def served_weights(mixture: MixtureConfig, utterances: Sequence[Utterance]) -> dict[str, float]:
    """Returns the mixture's weights of those tasks for which some of these utterances serve."""
    return {
        task: weight
        for task, weight in mixture.weights.items()
        if weight and _pool(task, utterances, mixture)
    }


def _pool(
    task: str, utterances: Sequence[Utterance], mixture: MixtureConfig
) -> list[Utterance] | list[Conversation]:
    """Returns what a task's examples can be made from."""
    if task == "text":
        assert mixture.text_data is not None, "MixtureConfig checks it"
        return read_conversations(mixture.text_data)
    return [u for u in utterances if _serves(task, u, mixture)]


def _one(task: str, source: _Source) -> SFTExample | None:
    """Returns an example of one recording, or None where the utterance does not serve."""
    built = TASKS[task](source)
    if built is None:
        return None
    messages, target, complete = built
    utterance = source.utterance
    return SFTExample(
        id=f"{utterance.id}/{task}",
        task=task,
        messages=messages,
        target=target,
        audio=utterance.audio,
        complete=complete,
        emphasis=utterance.emotion if task == "reasoning" else None,
    )


def _order(utterance: Utterance, rng: random.Random, mixture: MixtureConfig) -> SFTExample:
    """Returns an example with three versions of one utterance, and the order in which they come."""
    attribute = rng.choice(sorted(ORDER_LEVELS))
    steps = rng.sample((-1, 0, 1), 3)
    # The source's path and age are in the name: an id may come back with another recording.
    source = Path(utterance.audio)
    age = source.stat().st_mtime_ns if source.is_file() else 0
    stamp = hashlib.sha256(f"{source}/{age}".encode()).hexdigest()[:8]
    name = f"{utterance.id}-{attribute}{''.join('lnh'[step + 1] for step in steps)}-{stamp}.flac"
    order = Order(
        source=utterance.audio,
        target=str(Path(str(mixture.audio_folder)) / name.replace("/", "_")),
        attribute=attribute,
        steps=(steps[0], steps[1], steps[2]),
    )
    return SFTExample(
        id=f"{utterance.id}/order",
        task="order",
        messages=order_messages(attribute),
        target=", ".join(order.levels),
        audio=order.target,
        order=order,
    )


def _text(conversation: Conversation) -> SFTExample:
    return SFTExample(
        id=f"{conversation.id}/text",
        task="text",
        messages=conversation.messages,
        target=conversation.target,
        audio=None,
    )


def may_reveal(utterance: Utterance, label_fraction: float, seed: int) -> bool:
    """Returns whether training may see this utterance's emotion: whether the emotion is known, and a uniform
    hash of (seed, id) lies under `label_fraction`."""
    if utterance.emotion is None:
        return False
    digest = hashlib.sha256(f"{seed}/{utterance.id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < label_fraction


def _serves(task: str, utterance: Utterance, mixture: MixtureConfig) -> bool:
    facts = stated_facts(utterance)
    attribute = _ATTRIBUTES.get(task)
    if attribute is not None:
        return attribute in known_facts(utterance)
    if task == "profile":
        return bool(facts)
    if task == "stress":
        return stress_words(utterance) is not None
    if task == "order":
        seconds = (utterance.measured or {}).get("duration_s")
        return seconds is not None and joined_seconds(seconds) <= mixture.max_seconds
    if task == "transcript":
        return bool(utterance.text)
    if task == "caption":
        return any(name in facts for name in PROSODY)
    if task == "melody":
        return bool((utterance.measured or {}).get("f0_contour_hz"))
    is_labelled = may_reveal(utterance, mixture.label_fraction, mixture.seed)
    if task == "reasoning" and utterance.trace is not None:
        return is_labelled
    return any(name in facts for name in PROSODY) and is_labelled == (task == "reasoning")


def _counts(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Shares `total` out by weight; what rounding leaves goes to the largest remainders."""
    scale = total / sum(weights.values())
    exact = {task: weight * scale for task, weight in weights.items() if weight > 0}
    counts = {task: int(share) for task, share in exact.items()}
    by_remainder = sorted(exact, key=lambda task: exact[task] - counts[task], reverse=True)
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    return counts
