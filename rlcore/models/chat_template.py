"""Renders a conversation by the chat template of the model's own processor.

This module knows no model, and imports no transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rlcore.errors import ConfigError

Messages = Sequence[Mapping[str, Any]]
"""A conversation: turns with `role` and `content`, the content a text or a list of its parts."""


class ChatProcessor(Protocol):
    """A Hugging Face processor that knows its model's chat template."""

    def apply_chat_template(
        self, conversation: Messages, /, *, add_generation_prompt: bool, tokenize: bool
    ) -> str:
        """Returns the conversation as the model reads it."""
        ...


def format_prompt(processor: ChatProcessor, messages: Messages) -> str:
    """Renders messages with the chat template of a Hugging Face processor, up to the assistant's turn.

    Returns:
        Text with one media placeholder (for instance `<|audio_bos|><|AUDIO|><|audio_eos|>`), to be
        tokenised as is.

    Raises:
        ConfigError: the processor has no chat template, or one that refuses the messages or loses a text of
            theirs.
    """
    if getattr(processor, "chat_template", None) is None:
        raise ConfigError(
            f"{type(processor).__name__} has no chat template: save one with the model "
            "(chat_template.jinja), as instruction-tuned checkpoints do."
        )
    template = f"the chat template of {type(processor).__name__}"
    advice = "change chat_template.jinja beside the model"
    try:
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # the boundary to the model's own template
        roles = ", ".join(str(turn["role"]) for turn in messages)
        raise ConfigError(f"{template} refuses a conversation of {roles}: {error}; {advice}") from error
    for turn in messages:
        parts = [turn["content"]] if isinstance(turn["content"], str) else turn["content"]
        for text in (part if isinstance(part, str) else part.get("text", "") for part in parts):
            if text.strip() not in prompt:
                raise ConfigError(
                    f"{template} loses a text of the {turn['role']} turn: of {text!r} it made {prompt!r}; "
                    f"{advice}. (Some templates cut what stands before </think>, in every turn.)"
                )
    return prompt
