"""The one rule by which a text becomes tokens, wherever a prompt is read: by the rollout, by supervised
fine-tuning, by reward models and by vLLM.

This module knows tokenizers, not models or media.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def special_tokens_argument(tokenizer: PreTrainedTokenizerBase, text: str) -> dict[str, bool]:
    """Returns the argument by which a tokenizer or processor adds no second BOS to `text`.

    Many chat templates write the BOS themselves, and the tokenizer would add another. The rule is that of
    `ProcessorMixin.apply_chat_template` in transformers: a text that begins with the BOS is complete.
    """
    bos = tokenizer.bos_token
    return {"add_special_tokens": False} if bos and text.startswith(bos) else {}


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Returns the tokens of a prompt's text, with one BOS where the tokenizer or the text asks for one."""
    return tokenizer(text, **special_tokens_argument(tokenizer, text))["input_ids"]
