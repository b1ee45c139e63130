"""What a rollout engine is asked: records of our own, so that its callers need not import vLLM."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlcore.models.media import EncodedPrompt


def sampling_seed(*parts: int | str) -> int:
    """A 63-bit seed, a function of its parts alone (Python's `hash` differs from process to process)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample."""

    n: int = 1
    """Completions a request."""
    max_tokens: int = 256
    temperature: float = 1.0
    """0 is greedy. Log-probabilities do not know of it: a policy's temperature is the engine's."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    """Where not empty, only these are sampled."""
    banned_token_ids: tuple[int, ...] = ()
    """Never sampled, beside the model's media placeholders, which are always banned."""
    num_logprobs: int = 0
    """Most likely tokens whose log-probabilities `Completion.top_logprobs` holds, beside the sampled one."""
    logprob_token_ids: tuple[int, ...] = ()
    """Instead of the most likely: these tokens' log-probabilities."""
    structured: Mapping[str, Any] = field(default_factory=dict)
    """As `rollout.structured`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One prompt to complete."""

    id: str
    """For errors."""
    text: str
    encoded: EncodedPrompt
    """Of `MediaEncoder` with the engine's `media` mode."""
    seed: int | None = None
    """Sample k is drawn with seed + k; `None` draws from the engine's own stream."""
