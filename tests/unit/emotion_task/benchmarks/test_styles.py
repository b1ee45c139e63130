"""In which words models are asked, and how their answers are read."""

from __future__ import annotations

import pytest

from emotion_task.benchmarks import find_benchmark
from emotion_task.benchmarks.asking.styles import (
    STYLES,
    can_be_right,
    find_style,
    question_messages,
    read_answer,
)
from emotion_task.benchmarks.reading.questions import Question
from emotion_task.prompt import emotion_messages
from rlcore.errors import ConfigError

EMOTIONS = ("neutral", "sad", "angry", "disgust", "calm")
VOICE = Question(id="v", audio="/v.wav", choices=EMOTIONS, answer="disgust")
SOUND = Question(
    id="s", audio="/s.wav", text="Whose {voice}?", choices=("Man", "Woman"), answer="Man", row={"id": "s"}
)
MMAU, MMSU, DAILY, SAVEE = (find_benchmark(name) for name in ("mmau", "mmsu", "daily_omni", "savee"))


def user_text(style: str, benchmark, question) -> str:
    *system, user = question_messages(STYLES[style], benchmark, question)
    assert [part["type"] for part in user["content"]] == ["audio", "text"]
    assert [turn["content"][0]["text"] for turn in system] == (
        [] if STYLES[style].system is None else [STYLES[style].system]
    )
    return user["content"][1]["text"]


def test_the_emotion_is_asked_as_in_training() -> None:
    assert question_messages(STYLES["think"], SAVEE, VOICE) == emotion_messages(EMOTIONS)


def test_the_published_checkpoint_is_asked_in_its_authors_words() -> None:
    style = STYLES["emotionthinker"]
    assert user_text("emotionthinker", SAVEE, VOICE) == (
        "<audio>What is the emotion expressed in this audio clip? Please choose one from the following "
        "options: neutral, happy, sad, angry, contempt or disgust, confused, whisper, surprise, fear."
    )
    assert style.system.startswith(
        "A conversation between User and Assistant. The user asks a question, and "
    )
    assert style.system.endswith(
        "i.e., <think> reasoning process here </think><answer> answer here </answer>."
    )
    assert style.max_tokens == 2048 and not style.trims_silence
    # RAVDESS has calm recordings, which the nine options cannot answer.
    calm = Question(id="c", audio="/c.wav", choices=EMOTIONS, answer="calm")
    assert can_be_right(style, SAVEE, VOICE) and not can_be_right(style, SAVEE, calm)
    assert can_be_right(STYLES["think"], SAVEE, calm)
    assert can_be_right(style, MMAU, SOUND)


def test_multiple_choice_is_asked_in_the_owners_words_where_the_owner_has_some() -> None:
    assert user_text("plain", MMAU, SOUND) == (
        "Whose {voice}?\nChoose one of:\nA. Man\nB. Woman\n"
        "Answer with the letter of the right choice and nothing else."
    )
    assert user_text("plain", MMSU, SOUND).endswith("\n\nQuestion: Whose {voice}?\n\nA. Man\nB. Woman")
    assert "based on the given audio.\nSelect" in user_text("plain", DAILY, SOUND)
    for benchmark in (MMAU, MMSU, DAILY):  # a model that reasons is not told to write a letter alone
        assert user_text("think", benchmark, SOUND) == "Whose {voice}?\nChoose one of:\nA. Man\nB. Woman"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>It sounds sad.</think><answer>disgust</answer>", "disgust"),
        ("<think>It sounds sad.</think><answer>Contempt or disgust.</answer>", "disgust"),
        ("<think>It sounds sad</think> The speaker is angry.", "angry"),
        ("Anger!", "angry"),
        ("The speaker sounds sad or angry.", None),
        ("<think>The speaker is sad.", None),
        ("C. angry", "angry"),
        ("happy", None),  # no class of the set, and no option of the prompt
        ("I cannot tell.", None),
    ],
)
def test_an_emotion_is_read_from_the_part_that_answers(text: str, said: str | None) -> None:
    assert read_answer(STYLES["think"], SAVEE, VOICE, text) == said


def test_what_the_prompt_offers_is_read_though_the_set_has_it_not() -> None:
    assert read_answer(STYLES["emotionthinker"], SAVEE, VOICE, "<answer>happy</answer>") == "happy"
    bored = Question(id="b", audio="/b.wav", choices=("bored", "neutral"), answer="bored")
    assert read_answer(STYLES["plain"], SAVEE, bored, "The speaker is bored.") == "bored"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The speaker is bored rather than happy.", None),  # two emotions
        ("Bored, I would say, not neutral", None),
        ("It sounds non-neutral.", "non-neutral"),
        ("A bored voice.", "bored"),
        ("Joy", "joy"),  # a class of its own here, another word for happy elsewhere
        ("There is much joy in it.", "joy"),
    ],
)
def test_classes_of_a_set_are_read_as_ours_are(text: str, said: str | None) -> None:
    choices = ("bored", "neutral", "happy", "non-neutral", "joy")
    question = Question(id="b", audio="/b.wav", choices=choices, answer="bored")
    assert read_answer(STYLES["think"], SAVEE, question, text) == said


def test_a_choice_is_read_from_the_part_that_answers() -> None:
    text = "<think>No man, I think: a woman.</think><answer>B. Woman</answer>"
    assert read_answer(STYLES["think"], MMAU, SOUND, text) == "Woman"
    assert read_answer(STYLES["plain"], MMAU, SOUND, "A") == "Man"
    assert read_answer(STYLES["plain"], MMAU, SOUND, "neither") is None


def test_styles_of_ones_own_are_named() -> None:
    assert find_style("plain") is STYLES["plain"]
    with pytest.raises(ConfigError, match="allowed are think, plain, emotionthinker, and your own"):
        find_style("chat")
    with pytest.raises(ConfigError, match="is no"):
        find_style("emotion_task.prompt:SYSTEM_PROMPT")
