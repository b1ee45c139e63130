"""Probabilities of labels: kept as the answer is written, or scored afterwards."""

from __future__ import annotations

import math

import pytest
from transformers import PreTrainedTokenizerBase

from emotion_task.models.tiny import train_tokenizer
from emotion_task.parsing import format_response
from emotion_task.serve.label_odds import LabelOdds
from rlcore.types import Completion

PROMPT = "what is the emotion? "
LABELS = ("happy", "sad", "angry")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["<think> the pitch is low </think><answer> happy sad angry"] * 5, 400, [])


def written(tokenizer: PreTrainedTokenizerBase, text: str, kept: dict[int, float]) -> Completion:
    """A completion at whose every token the same log-probabilities were kept."""
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    return Completion(
        token_ids=ids,
        logprobs=(0.0,) * len(ids),
        text=text,
        finish_reason="stop",
        policy_version=0,
        top_logprobs=tuple({**kept, token: kept.get(token, 0.0)} for token in ids),
    )


def test_the_first_tokens_of_the_labels_tell(tokenizer: PreTrainedTokenizerBase) -> None:
    odds = LabelOdds(tokenizer, PROMPT, LABELS)
    assert len(odds.token_ids) == 3
    kept = dict(zip(odds.token_ids, map(math.log, (0.2, 0.1, 0.1)), strict=True))
    found = odds.kept(written(tokenizer, format_response("The pitch is low.", "sad"), kept))
    assert found == pytest.approx({"happy": 0.5, "sad": 0.25, "angry": 0.25})


def test_at_the_place_of_the_label_and_nowhere_else(tokenizer: PreTrainedTokenizerBase) -> None:
    """The reasoning names labels too: their probabilities there are of no interest."""
    odds = LabelOdds(tokenizer, PROMPT, LABELS)
    answer = written(tokenizer, format_response("sad or angry, not happy", "angry"), {})
    rows = [dict.fromkeys(odds.token_ids, -9.0) for _ in answer.token_ids]
    at = max(i for i, token in enumerate(answer.token_ids) if token == odds.token_ids[2])
    rows[at] = dict(zip(odds.token_ids, (-5.0, -5.0, -1.0), strict=True))
    answer = Completion(
        token_ids=answer.token_ids,
        logprobs=answer.logprobs,
        text=answer.text,
        finish_reason="stop",
        policy_version=0,
        top_logprobs=tuple(rows),
    )
    found = odds.kept(answer)
    assert found is not None and max(found, key=found.__getitem__) == "angry" and found["angry"] > 0.95


@pytest.mark.parametrize(
    "answer", ["The pitch is low.", "<think>low</think><answer>", "<answer> joyful</answer>"]
)
def test_what_names_no_label_tells_nothing(tokenizer: PreTrainedTokenizerBase, answer: str) -> None:
    odds = LabelOdds(tokenizer, PROMPT, LABELS)
    assert odds.kept(written(tokenizer, answer, dict.fromkeys(odds.token_ids, 0.0))) is None


def test_labels_that_begin_alike_are_scored_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    odds = LabelOdds(tokenizer, PROMPT, ("sad", "sad happy", "angry"))
    assert odds.token_ids == ()
    texts = odds.texts(PROMPT, "low")
    assert [text for text, _ in texts] == [
        PROMPT + format_response("low", label) for label in ("sad", "sad happy", "angry")
    ]
    scores = []
    for (text, num_own), logprob in zip(texts, (-0.1, -0.2, -0.3), strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False)
        row = [-7.0] * (len(ids) - 1 - num_own) + [logprob] * num_own
        completion = written(tokenizer, "x", {})
        scores.append(
            Completion(
                token_ids=completion.token_ids,
                logprobs=completion.logprobs,
                text="x",
                finish_reason="stop",
                policy_version=0,
                prompt_logprobs=tuple(row),
            )
        )
    owns = [num_own for _, num_own in texts]
    weights = [math.exp(n * p) for n, p in zip(owns, (-0.1, -0.2, -0.3), strict=True)]
    found = odds.scored(scores, owns)
    assert list(found.values()) == pytest.approx([weight / sum(weights) for weight in weights])


def test_one_label_is_certain(tokenizer: PreTrainedTokenizerBase) -> None:
    odds = LabelOdds(tokenizer, PROMPT, ("sad",))
    assert odds.kept(written(tokenizer, format_response("low", "sad"), {})) == {"sad": 1.0}
