"""The examples of one SFT stage, training and validation apart, with the sound that some are made of."""

from __future__ import annotations

from collections.abc import Sequence

from emotion_task.cot.writer import TraceWriter
from emotion_task.labels import ALL_LABELS
from emotion_task.records import Utterance, choose
from emotion_task.sft.tasks import MixtureConfig, SFTExample, build_examples
from emotion_task.sft.variants import render_all

HELD_BACK = 10
"""At most one training utterance in so many is held back for validation."""
_VALIDATION_EPOCH = -1


def mix(
    utterances: Sequence[Utterance],
    mixture: MixtureConfig,
    writer: TraceWriter,
    *,
    num_examples: int,
    num_validation: int = 0,
    num_workers: int = 1,
) -> tuple[list[SFTExample], list[SFTExample]]:
    """Training and validation examples, of the same mixture and of different utterances; all a function of
    the mixture's seed.

    Args:
        utterances: the training split.
        num_workers: processes that make the versions of the task `order`.
    """
    labels = [label for label in ALL_LABELS if label in {u.emotion for u in utterances}]
    validation: list[SFTExample] = []
    if num_validation:
        size = max(1, min(num_validation, len(utterances) // HELD_BACK))
        held_back = choose(utterances, size)
        kept = {utterance.id for utterance in held_back}
        utterances = [utterance for utterance in utterances if utterance.id not in kept]
        validation = build_examples(
            held_back, writer, mixture, epoch=_VALIDATION_EPOCH, num_examples=num_validation, labels=labels
        )
    training = build_examples(utterances, writer, mixture, num_examples=num_examples, labels=labels)
    orders = [example.order for example in (*training, *validation) if example.order is not None]
    render_all(orders, num_workers=num_workers)
    return training, validation
