"""Requests to a rollout engine, in records of rlcore's own: whoever asks need not import vLLM."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlcore.models.media import EncodedPrompt


def sampling_seed(*parts: int | str) -> int:
    """Returns a 63-bit seed, a function of its parts alone (Python's `hash` differs from process to
    process)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The way in which an engine samples the completions of a request."""

    n: int = 1
    """Number of completions per request."""
    max_tokens: int = 256
    """Longest completion, in tokens."""
    temperature: float = 1.0
    """Temperature of this request; 0 is greedy. Log-probabilities leave it out: a policy's temperature is the
    engine's."""
    top_p: float = 1.0
    """Probability mass that is sampled from, most likely tokens first."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion, which keeps them."""
    allowed_token_ids: tuple[int, ...] = ()
    """The only tokens that may be sampled; empty: all may."""
    banned_token_ids: tuple[int, ...] = ()
    """Tokens that are never sampled, beside the model's media placeholders, which are always banned."""
    num_logprobs: int = 0
    """Number of most likely tokens whose log-probabilities `Completion.top_logprobs` holds, beside the
    sampled one's."""
    logprob_token_ids: tuple[int, ...] = ()
    """Tokens whose log-probabilities `Completion.top_logprobs` holds instead of those of the most likely."""
    structured: Mapping[str, object] = field(default_factory=dict)
    """Form that every completion has, as `rollout.structured`."""
    scores_prompt: bool = False
    """Asks for the log-probabilities of the prompt's own tokens (`Completion.prompt_logprobs`): how likely an
    answer is that the prompt's text ends with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One prompt to complete."""

    id: str
    """Name of the prompt in errors."""
    text: str
    """Chat-formatted prompt, before media placeholders are expanded."""
    encoded: EncodedPrompt
    """The prompt as `MediaEncoder` encodes it in the engine's `media` mode."""
    begun: tuple[int, ...] = ()
    """Tokens of an answer that has begun. They are read behind the prompt as they were sampled, not tokenised
    anew, and are no part of what is completed."""
    seed: int | None = None
    """Seed: sample k is drawn with seed + k. `None` draws from the engine's own stream."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All tokens that the engine reads."""
        return self.encoded.prompt_token_ids + self.begun
