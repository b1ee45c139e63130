"""The one rule by which a text becomes tokens, wherever a prompt is read: by the rollout, by supervised
fine-tuning, by reward models and by vLLM. And the one rule by which sampled tokens become an answer's text.

This module knows tokenizers, not models or media.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_OPENED = re.compile(r"<(\w+)>\s*\Z")
"""A tag at a prompt's end, with the white space after."""


def special_tokens_argument(tokenizer: PreTrainedTokenizerBase, text: str) -> dict[str, bool]:
    """Returns the argument by which a tokenizer or processor adds no second BOS to `text`.

    Many chat templates write the BOS themselves, and the tokenizer would add another. The rule is that of
    `ProcessorMixin.apply_chat_template` in transformers: a text that begins with the BOS is complete. So is
    one that begins with all that the tokenizer puts in front: GLM's `[gMASK]<sop>`, which is no BOS.
    """
    starts = tuple(filter(None, (tokenizer.bos_token, _put_in_front(tokenizer))))
    return {"add_special_tokens": False} if text.startswith(starts) else {}


@lru_cache(maxsize=8)
def _put_in_front(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the special tokens that a tokenizer writes before any text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    num_in_front = sum(1 for _ in takewhile(bool, encoded["special_tokens_mask"]))
    return "".join(tokenizer.convert_ids_to_tokens(encoded["input_ids"][:num_in_front]))


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Returns the tokens of a prompt's text, with one BOS where the tokenizer or the text asks for one."""
    return tokenizer(text, **special_tokens_argument(tokenizer, text))["input_ids"]


@lru_cache(maxsize=8)
def markup_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Returns the special tokens that belong to an answer's text: pairs as `<think>` and `</think>`.

    Some checkpoints, and some who fine-tune them, make such tags special. The tokens of a role (`<s>` and
    `</s>`) are no tags, nor is one that nothing closes (`<start_of_turn>`).
    """
    roles = {getattr(tokenizer, f"{role}_token") for role in _ROLES}
    special = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    opening = [match[1] for name in special if (match := re.fullmatch(r"<(\w+)>", name))]
    pairs = [(f"<{tag}>", f"</{tag}>") for tag in opening if f"</{tag}>" in special]
    return frozenset(special[name] for pair in pairs if roles.isdisjoint(pair) for name in pair)


def answer_text(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Decodes sampled tokens, without special tokens except those of `markup_ids`."""
    markup = markup_ids(tokenizer)
    if markup.isdisjoint(token_ids):
        return tokenizer.decode(token_ids, skip_special_tokens=True)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - markup
    kept = [token for token in token_ids if token not in special]
    return tokenizer.decode(kept, skip_special_tokens=False, spaces_between_special_tokens=False)


def until_stop(text: str, stop: Sequence[str]) -> str:
    """Cuts a text after the stop text that ends first."""
    ends = [text.index(one) + len(one) for one in stop if one in text]
    return text[: min(ends, default=len(text))]


def opened_tag(prompt: str, answer: str) -> str:
    """Returns the tag that a prompt's chat template has opened and the answer closes (`<think>` and a line
    break), which belongs in front of the answer; empty where there is none.

    Args:
        prompt: the prompt's text, up to the assistant's turn.
        answer: what the model wrote. One that opens the tag itself is whole.
    """
    opened = _OPENED.search(prompt)
    if opened is None:
        return ""
    first = re.search(rf"</?{opened[1]}>", answer)
    return opened[0] if first is not None and first[0] == f"</{opened[1]}>" else ""


def left_to_write(prompt: str, answer: str) -> str:
    """Returns what a model has to write of an answer after a prompt: all, except the tag that the prompt's
    chat template has opened."""
    opened = _OPENED.search(prompt)
    return answer if opened is None else answer.removeprefix(f"<{opened[1]}>")


def read_back(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> str:
    """Returns what rewards read where a model writes `answer` after `prompt`: tokenized, decoded, and put
    together with the tag that the chat template has opened."""
    written = tokenizer(left_to_write(prompt, answer), add_special_tokens=False)["input_ids"]
    text = answer_text(tokenizer, written)
    return opened_tag(prompt, text) + text
