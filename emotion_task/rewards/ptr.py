"""The three rewards of GRPO-PTR (EmotionThinker, stage 3): format, outcome and reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from emotion_task.audio_window import model_waveform
from emotion_task.claims.finder import find_claims
from emotion_task.claims.support import ClaimTable
from emotion_task.labels import ALL_LABELS, check_set, labels_beside
from emotion_task.parsing import normalise_label, parse_response
from emotion_task.reward_model.grades import DIMENSIONS, MAX_GRADE, judge_messages
from emotion_task.reward_model.listening import (
    DIGITS,
    aspects_of,
    claimed_aspects,
    heard_aspects,
    listen_messages,
    reasoning_of,
    support,
)
from rlcore.errors import ConfigError
from rlcore.models.chat_template import format_prompt
from rlcore.rewards.generative import GenerativeRewardModel, without_tokens
from rlcore.rewards.protocol import Reward, failed_scores
from rlcore.types import Group, Prompt, RewardContext, Score


class FormatReward(Reward):
    """The format reward R_f is 1 where the output is `<think>...</think><answer>...</answer>`, else 0."""

    by_rule = True

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [Score(value=float(parse_response(c.text) is not None)) for c in group.completions]


class OutcomeReward(Reward):
    """The outcome reward R_o is 1 where the answer names the reference's emotion (aliases included), else 0.

    Args:
        labels: the options; an answer outside them is wrong. By default the reference's is an option, too,
            whatever the set of labels.
    """

    by_rule = True

    def __init__(self, labels: Sequence[str] = ()):
        if labels:
            check_set(labels, "labels")
        self._labels = tuple(labels)

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        emotion = group.prompt.reference["emotion"]
        if emotion is None:
            return failed_scores(group, f"prompt {group.prompt.id!r}: its reference 'emotion' is null")
        labels = self._labels or (*ALL_LABELS, str(emotion))
        if emotion not in labels:
            return failed_scores(
                group, f"prompt {group.prompt.id!r}: its emotion {emotion!r} is none of args.labels {labels}"
            )
        return [Score(value=float(_answer(c.text, labels) == emotion)) for c in group.completions]


def _answer(text: str, labels: Sequence[str]) -> str | None:
    parsed = parse_response(text)
    return None if parsed is None else normalise_label(parsed.answer, labels)


class ReasoningReward(GenerativeRewardModel):
    """The reasoning reward R_t is the grade of a generative reward model.

    The model listens to the recording, once for all of its responses, and grades each response in five
    dimensions (`emotion_task.reward_model.grades`). It is not asked about a response that has no answer and
    claims nothing of the voice: each dimension's grade is 1.

    Args:
        model_path: the reward model's checkpoint; it has its own audio tower. With a
            `ClaimTable` in its folder it is told whether claims support the emotion.
        weights: dimension to its weight, where other than those of `DIMENSIONS`; normalised to sum to 1. A
            dimension that is not named gets 0: it is graded and shown, and does not count.
        engine: further vLLM engine arguments.
        media_cache: folder that keeps what the tower makes of recordings, from run to run.
        labels: emotions that the model was trained to hear; by default those of its table, those in the
            file beside it (`emotion_task.labels.LABELS_FILE`), or ours.
    """

    def __init__(
        self,
        model_path: str,
        weights: Mapping[str, float] | None = None,
        engine: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        media_cache: str | None = None,
        labels: Sequence[str] | None = None,
    ):
        self._table = ClaimTable.read(model_path)
        beside = self._table.labels if self._table else labels_beside(model_path)
        self._aspects = aspects_of(labels or beside or ALL_LABELS)
        super().__init__(
            model_path,
            dimensions=dimension_weights(weights),
            score_tokens=tuple(str(grade) for grade in range(1, MAX_GRADE + 1)),
            observation_tokens=DIGITS,
            num_observed=len(self._aspects),
            engine=engine,
            dtype=dtype,
            media_cache=media_cache,
        )

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        nothing = Score(value=1 / MAX_GRADE, parts={dimension.name: 1.0 for dimension in DIMENSIONS})
        asked = [
            replace(group, completions=tuple(c for c in group.completions if self._says_something(c.text)))
            for group in groups
        ]
        rows = map(iter, super().score_batch(asked, context))
        return [
            [next(row) if self._says_something(c.text) else nothing for c in group.completions]
            for group, row in zip(groups, rows, strict=True)
        ]

    def _says_something(self, response: str) -> bool:
        text = without_tokens(response, self._reserved)  # as the judge would read it
        return parse_response(text) is not None or bool(find_claims(reasoning_of(text)))

    def observe_prompt(self, prompt: Prompt) -> str:
        return format_prompt(self.processor, listen_messages())

    def judge_prompt(self, prompt: Prompt, response: str, observed: Sequence[Sequence[float]]) -> str:
        claims, hearing = claimed_aspects(response, self._aspects), heard_aspects(observed, self._aspects)
        heard = support(claims, hearing, self._table, self._aspects)
        return format_prompt(self.processor, judge_messages(response, heard))

    def load_media(self, prompt: Prompt) -> dict[str, Any]:
        extractor = self.processor.feature_extractor
        waveform = model_waveform(prompt.media["audio"], extractor)
        return {"audio": [waveform], "sampling_rate": int(extractor.sampling_rate)}


def dimension_weights(weights: Mapping[str, float] | None) -> dict[str, float]:
    """Returns every dimension's weight, in the order in which the reward model writes its grades.

    Raises:
        ConfigError: a name that is no dimension.
    """
    if weights is None:
        return {dimension.name: dimension.weight for dimension in DIMENSIONS}
    names = [dimension.name for dimension in DIMENSIONS]
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ConfigError(f"weights: {unknown} are no dimensions of the reward model; it grades {names}")
    return {name: float(weights.get(name, 0.0)) for name in names}
