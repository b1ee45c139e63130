"""Pushes weights in tests: the learner's end in a thread, each engine's in another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

from rlcore.weight_sync.base import Push
from rlcore.weight_sync.receiver import Receiver
from rlcore.weight_sync.sender import BucketSender

if TYPE_CHECKING:
    from rlcore.weight_sync.base import WeightSender
    from rlcore.weight_sync.messages import SenderTalk

T = TypeVar("T")


def push_to(
    sender: WeightSender,
    version: int,
    tensors: Iterable[tuple[str, torch.Tensor]],
    engines: Sequence[Callable[[Push], T]],
) -> list[T]:
    """Pushes tensors and returns what each engine (a function that takes part) returned.

    The last engine runs in the caller's thread. An error of an engine is raised, else that of the sender.
    """
    push = sender.announce(version, range(len(engines)))
    with ThreadPoolExecutor(len(engines)) as threads:
        sending = threads.submit(sender.push, push, tensors)
        taking = [threads.submit(take, push) for take in engines[:-1]]
        try:
            last = engines[-1](push)
            return [*(future.result() for future in taking), last]
        finally:
            if sending.exception() is None:
                sending.result()


def collect(push: Push, rank: int = 0) -> dict[str, torch.Tensor]:
    """Takes part in a push without an engine, and returns the tensors that came."""
    tensors: dict[str, torch.Tensor] = {}
    receiver = Receiver(push.backend)
    receiver.take(
        push,
        engine=rank,
        accept=lambda shapes: None,
        load=lambda layout, payloads: tensors.update(layout.tensors(payloads)),
    )
    receiver.close()
    return tensors


def flip_a_byte(sender: BucketSender, bucket: int) -> None:
    """Makes a bucket differ from the learner's by one bit when it leaves, from now on (until `heal`)."""
    post = sender.post_bucket

    def flipped(talk: SenderTalk, index: int, slot: int, checksum: str) -> None:
        if index == bucket:
            sender.medium.slots[slot][1] ^= 1
        post(talk, index, slot, checksum)

    sender.post_bucket = flipped  # type: ignore[method-assign]


def drop(sender: BucketSender, bucket: int) -> None:
    """Makes a bucket never leave, from now on (until `heal`)."""
    post = sender.post_bucket

    def dropped(talk: SenderTalk, index: int, slot: int, checksum: str) -> None:
        if index != bucket:
            post(talk, index, slot, checksum)

    sender.post_bucket = dropped  # type: ignore[method-assign]


def heal(sender: BucketSender) -> None:
    """Undoes `flip_a_byte` and `drop`."""
    del sender.post_bucket  # type: ignore[method-assign]
