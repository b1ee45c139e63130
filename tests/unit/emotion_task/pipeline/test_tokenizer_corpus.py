from __future__ import annotations

from emotion_task.labels import ALL_LABELS
from emotion_task.pipeline.tokenizer_corpus import tokenizer_corpus
from emotion_task.prompt import ATTRIBUTE_QUESTIONS, attribute_messages, emotion_messages


def test_prompts_are_short_and_the_tokenizer_sees_their_words() -> None:
    seen = " ".join(tokenizer_corpus())
    for messages in (emotion_messages(ALL_LABELS), *map(attribute_messages, ATTRIBUTE_QUESTIONS)):
        texts = [part["text"] for turn in messages for part in turn["content"] if part["type"] == "text"]
        assert all(text in seen for text in texts)
        assert len(" ".join(texts).split()) <= 45
    assert all(label in seen for label in ALL_LABELS)
