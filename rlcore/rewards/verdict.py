"""Rewards by a model that was trained to tell good answers from bad ones (`rlcore prefer`, losses
`bradley_terry` and `pointwise`): it hears the prompt, reads the answer, is asked whether the answer is good,
and writes 1 or 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlcore.config.targets import build_target
from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import ChatProcessor, format_prompt
from rlcore.models.tokens import left_to_write
from rlcore.records.files import read_json, write_json
from rlcore.rewards.generative import GenerativeRewardModel
from rlcore.types import Group, Prompt, RewardContext, Score

VERDICTS = ("0", "1")
"""Tokens of the verdict: bad, good."""
QUESTION = "verdict.json"
"""File beside the model's weights that holds the question."""
_ANSWER = "ANSWER"


class Verdict(GenerativeRewardModel):
    """Scores by the probability that the model's verdict is 1 and not 0, in (0, 1): the sigmoid of the reward
    that was trained.

    Args:
        model_path: folder that `rlcore prefer` wrote.
        task: the task that loads the prompts' media (`${task.target}`); null for text alone.
        task_args: arguments of the task (`${task.args}`).
        settings: `engine`, `dtype` and `media_cache` of the base class.

    Raises:
        DataError: the folder holds no question: the model was trained for something else.
    """

    def __init__(
        self,
        model_path: str,
        *,
        task: str | None = None,
        task_args: Mapping[str, Any] | None = None,
        **settings: Any,
    ):
        path = Path(model_path) / QUESTION
        if not path.is_file():
            raise DataError(f"{path}: no such file; args.model_path is a folder that `rlcore prefer` wrote")
        self._task = None if task is None else build_target(task, task_args or {}, where="args.task")
        super().__init__(model_path, dimensions={"good": 1.0}, score_tokens=VERDICTS, **settings)
        self._asking = asked_after(self.processor, read_json(path)["question"])

    def judge_prompt(self, prompt: Prompt, response: str, observed: Sequence[Sequence[float]]) -> str:
        return prompt.text + left_to_write(prompt.text, response) + self._asking

    def load_media(self, prompt: Prompt) -> Mapping[str, object]:
        if self._task is None:
            raise ConfigError("args.task: got null, and a prompt has media; write ${task.target}")
        media: Mapping[str, object] = self._task.load_media(prompt)
        return media

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        """Returns scores with `value` in (0, 1)."""
        rows = super().score_batch(groups, context)
        return [[score if score.error else _as_probability(score) for score in row] for row in rows]


def _as_probability(score: Score) -> Score:
    """Returns the probability of 1 in the place of an expected score between 1 and 2."""
    return replace(score, value=score.parts["good"] - 1.0, parts={})


def asked_after(processor: ChatProcessor, question: str) -> str:
    """Returns the text between an answer and the verdict, by the model's chat template: the end of the
    answer's turn, a turn that asks, and the begin of the model's."""
    turns = [("user", "?"), ("assistant", _ANSWER), ("user", question)]
    text = format_prompt(processor, [{"role": role, "content": content} for role, content in turns])
    return text.rpartition(_ANSWER)[2]


def write_question(folder: str | Path, question: str) -> None:
    """Writes the question beside the model's weights."""
    write_json(Path(folder) / QUESTION, {"question": question})
