from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from rlcore.rewards.steps import last_tokens

WORDS = ["<eos>", "high", "low", "pitch", "."]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<eos>"))
    inner.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def test_a_step_ends_at_the_token_that_completes_it(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [*tokenizer("high pitch . low pitch .").input_ids, 0]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    ends = [i + 1 for i, character in enumerate(text) if character == "."]
    assert last_tokens(ids, ends, tokenizer) == [2, 5]
    assert last_tokens(ids, [1, 4, 5, len(text) + 9], tokenizer) == [0, 0, 1, 6]
