"""A reward for reasoning that says what was measured. Rules only: no model, no GPU, microseconds a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from emotion_task.evaluation.claims import read_claims
from emotion_task.evaluation.faithfulness import Tally, check_claims, check_response, total
from rlcore.errors import ConfigError
from rlcore.rewards.base import Reward
from rlcore.rewards.steps import last_tokens
from rlcore.types import Completion, Group, RewardContext, Score

_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")


class FaithfulnessReward(Reward):
    """Right claims less wrong ones, per fact that was measured: (right - wrong_cost * wrong) / facts.

    1 states every measured fact and nothing wrong, 0 says nothing that can be checked, -`wrong_cost` or less
    is wrong throughout. With the default a blind guess among three levels is worth nothing on average
    (1/3 - 0.5 * 2/3), so guessing does not pay and neither does silence. A quotation or a stressed word that
    was never spoken is a wrong claim; a right quotation earns nothing, since quoting more is not seeing more.
    Nothing costs more than 1, or `wrong_cost` where that is more.

    With `tokenizer` each sentence answers for its own claims: what it adds to the value is due at its last
    token (`Score.token_values`), and the completion as a whole is worth nothing beside. The sum is the value.

    Parts: `precision`, `recall` and `contradictions` (a count), as in
    `emotion_task.evaluation.faithfulness.Tally`, over all claim types.

    Args:
        wrong_cost: at least 0; what a wrong claim costs, where a right one earns 1.
        tokenizer: the policy's checkpoint, to judge sentences; null judges completions.
    """

    def __init__(self, wrong_cost: float = 0.5, tokenizer: str | None = None):
        if not wrong_cost >= 0:
            raise ConfigError(f"wrong_cost: got {wrong_cost}; allowed is 0 or more")
        self._wrong_cost = wrong_cost
        self._lowest = -max(1.0, wrong_cost)
        self._tokenizer: Any = None
        if tokenizer is not None:
            from rlcore.engines.hf_model import load_processor, tokenizer_of

            self._tokenizer = tokenizer_of(load_processor(tokenizer))

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [self._score(completion, group.prompt.reference) for completion in group.completions]

    def _score(self, completion: Completion, reference: Mapping[str, Any]) -> Score:
        tally = total(check_response(completion.text, reference))
        by_sentence = self._tokenizer is not None
        return Score(
            value=0.0 if by_sentence else self._value(tally),
            parts={
                "precision": tally.precision,
                "recall": tally.recall,
                "contradictions": float(tally.num_contradictions),
            },
            token_values=self._sentences(completion, reference) if by_sentence else {},
        )

    def _sentences(self, completion: Completion, reference: Mapping[str, Any]) -> dict[int, float]:
        """What the reasoning up to the end of each sentence is worth, less what it was worth before; of
        sentences that change it."""
        reasoning = completion.text.partition("</think>")[0]
        ends = [match.end() for match in _SENTENCE_END.finditer(reasoning)]
        if not ends or ends[-1] < len(reasoning.rstrip()):
            ends.append(len(reasoning))
        values = [0.0]
        values += [self._value(total(check_claims(read_claims(reasoning[:end]), reference))) for end in ends]
        due: dict[int, float] = {}
        places = last_tokens(completion.token_ids, ends, self._tokenizer)
        for at, (before, after) in zip(places, pairwise(values), strict=True):
            if after != before:
                due[at] = due.get(at, 0.0) + after - before
        return due

    def _value(self, tally: Tally) -> float:
        wrong = tally.num_checked - tally.num_right
        return max(self._lowest, (tally.num_right - self._wrong_cost * wrong) / max(1, tally.num_facts))
