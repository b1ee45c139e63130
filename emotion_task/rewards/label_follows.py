"""A reward for labels that the stated claims support, whether the claims are true or not."""

from __future__ import annotations

from collections.abc import Sequence

from emotion_task.claims.finder import find_claims
from emotion_task.claims.support import learn_table, prosodic
from emotion_task.labels import check_set
from emotion_task.parsing import normalise_label, parse_response
from emotion_task.records import iter_manifest
from rlcore.rewards.protocol import Reward
from rlcore.types import Completion, Group, RewardContext, Score


class LabelFollowsClaimsReward(Reward):
    """Scores the probability of the answered emotion given what the reasoning claims of the voice.

    The probability is that of `emotion_task.claims.support`, learned from the measured levels of the training
    split. An answer outside the schema, or with another label, gets 0. No recording is listened to: claims
    that are made up to fit the label get as much as true ones, so `FaithfulnessReward` belongs beside.

    Parts: `is_best` (1 where no other emotion is supported more) and `num_claims`.

    Args:
        manifest: annotated, with a split `train`.
        labels: the emotions; by default those of the training split.
        smoothing: count that every level of every emotion has beforehand, above 0.
        no_claims: value of an answer that claims nothing of the voice; null makes an error of it, which the
            reward's `on_error` decides on.

    Raises:
        ConfigError: an emotion of `labels` has no training recording with measured prosody.
    """

    by_rule = True

    def __init__(
        self,
        manifest: str,
        labels: Sequence[str] = (),
        smoothing: float = 1.0,
        no_claims: float | None = 0.0,
    ):
        if labels:
            check_set(labels, "labels")
        train = (utterance for utterance in iter_manifest(manifest) if utterance.split == "train")
        self._table = learn_table(train, labels, smoothing=smoothing)
        self._no_claims = no_claims

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [self._score(completion) for completion in group.completions]

    def _score(self, completion: Completion) -> Score:
        parsed = parse_response(completion.text)
        label = None if parsed is None else normalise_label(parsed.answer, self._table.labels)
        if parsed is None or label is None:
            return Score(0.0)
        claims = prosodic(find_claims(parsed.think))
        if not claims and self._no_claims is None:
            return Score(0.0, error="the reasoning claims nothing of the voice")
        odds = self._table.posterior(claims)
        is_best = bool(claims) and odds[label] >= max(odds.values())
        value = odds[label] if claims else float(self._no_claims or 0.0)
        return Score(value, parts={"is_best": float(is_best), "num_claims": float(len(claims))})
