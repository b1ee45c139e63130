"""Makes the examples of one SFT stage, training and validation apart, with the sound that some are made
of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from emotion_task.cot.writer import TraceWriter
from emotion_task.labels import labels_among
from emotion_task.records import Utterance, choose
from emotion_task.sft.tasks import MixtureConfig, SFTExample, build_examples, served_weights
from emotion_task.sft.variants import render_all
from rlcore.errors import DataError

HELD_BACK = 10
"""Not more than one training utterance in this many is held back for validation."""
_VALIDATION_EPOCH = -1


def hold_back(utterances: Sequence[Utterance], wanted: int) -> list[Utterance]:
    """Chooses about `wanted` utterances for validation, at most a tenth, by a hash of the speakers' names.

    Speakers are held back with all that they say: only strangers' voices tell a model that hears from one
    that knows its training voices by heart. Where every speaker says more than a tenth, utterances of any
    speaker are chosen.
    """
    most = max(1, len(utterances) // HELD_BACK)
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(utterance.speaker or utterance.id, []).append(utterance)
    held_back: list[Utterance] = []
    for name in sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if len(held_back) < wanted and len(held_back) + len(groups[name]) <= most:
            held_back += groups[name]
    return held_back or choose(utterances, min(wanted, most))


def mix(
    utterances: Sequence[Utterance],
    mixture: MixtureConfig,
    writer: TraceWriter,
    *,
    num_examples: int,
    num_validation: int = 0,
    labels: Sequence[str] | None = None,
    num_workers: int = 1,
) -> tuple[list[SFTExample], list[SFTExample]]:
    """Returns training and validation examples of the same mixture, made from different utterances
    (`hold_back`).

    Everything is a function of the mixture's seed. Validation leaves out tasks for which none of its few
    utterances serves.

    Args:
        utterances: the training split.
        writer: writes the traces.
        num_examples, num_validation: number of examples for training and for validation.
        labels: options of the emotion question; by default the emotions of `utterances`.
        num_workers: number of processes that make the recordings of the task `order`.

    Raises:
        DataError: No training utterance serves for a task, or no held-back utterance serves for any task.
    """
    labels = labels or labels_among(u.emotion for u in utterances)
    validation: list[SFTExample] = []
    if num_validation:
        held_back = hold_back(utterances, num_validation)
        kept = {utterance.id for utterance in held_back}
        utterances = [utterance for utterance in utterances if utterance.id not in kept]
        weights = served_weights(mixture, held_back)
        if not weights:
            raise DataError(
                f"sft.num_validation {num_validation}: none of the {len(held_back)} utterances held back "
                f"serves for a task of {list(mixture.weights)}; ask for more, or for 0"
            )
        validation = build_examples(
            held_back,
            writer,
            replace(mixture, weights=weights),
            epoch=_VALIDATION_EPOCH,
            num_examples=num_validation,
            labels=labels,
        )
    training = build_examples(utterances, writer, mixture, num_examples=num_examples, labels=labels)
    orders = [example.order for example in (*training, *validation) if example.order is not None]
    render_all(orders, num_workers=num_workers)
    return training, validation
