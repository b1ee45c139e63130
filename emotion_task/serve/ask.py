"""One request, as it goes from the front to a replica. Imports nothing large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlcore.models.chat_template import Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Holds one request, as the front has read it."""

    recording: bytes
    text: str | None = None
    """Transcript, where the client knows it."""
    gender: str | None = None
    """`male` or `female`, where the client knows it."""
    messages: Messages | None = None
    """A client's own conversation, with one audio part; None asks the question of the model's training."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Sampling` that the client sets."""
    seed: int | None = None
    curves: bool = False
    """Asks for what the page draws."""
