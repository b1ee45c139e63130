"""A reward for reasoning that says what was measured. Rules only: no model, no GPU, microseconds a word."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import chain, pairwise
from typing import Any

from emotion_task.claims.check import Tally, check_claims, check_response, total
from emotion_task.claims.finder import read_claims
from rlcore.errors import ConfigError
from rlcore.models.tokens import answer_text, opened_tag
from rlcore.rewards.protocol import Reward
from rlcore.rewards.steps import last_tokens
from rlcore.types import Completion, Group, Prompt, RewardContext, Score

_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")


class FaithfulnessReward(Reward):
    """Rewards right claims less wrong ones, per measured fact: (right - wrong_cost * wrong) / facts.

    1 states every measured fact and nothing wrong, 0 says nothing that can be checked, -`wrong_cost` or less
    is wrong throughout. With the default a blind guess among three levels is worth nothing on average
    (1/3 - 0.5 * 2/3), so guessing does not pay and neither does silence. A quotation or a stressed word that
    was never spoken is a wrong claim; a right quotation earns nothing, since quoting more is not seeing more.
    Nothing costs more than 1, or `wrong_cost` where that is more.

    With `tokenizer` each sentence answers for its own claims (`Score.token_values`, at its last token), and
    the completion as a whole is worth nothing beside. What an answer earns or loses by what it says of an
    attribute, 0 where it is silent, is compared with the mean of the group's answers for that attribute,
    which no single answer's choice of what to speak of can shift against the others: attributes differ in
    how hard they are to hear, and compared with easier ones a claim about a hard one would be discouraged
    even where it is as good as such claims get. An answer that is silent where others speak has its
    difference at the last sentence, which left it at that. So a claim pays where it is right with a
    probability above wrong_cost / (1 + wrong_cost), and silence does below (Chow's rule, IEEE Trans. Inf.
    Theory 16(1), 1970); a policy finds this out only if it sometimes is silent (`sft.fact_rate`).

    Parts: `precision`, `recall` and `contradictions` (a count), as in
    `emotion_task.claims.check.Tally`, over all claim types.

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
            from rlcore.models.hf_model import load_processor, tokenizer_of

            self._tokenizer = tokenizer_of(load_processor(tokenizer))

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        reference, by_sentence = group.prompt.reference, self._tokenizer is not None
        token_values = self._sentences(group) if by_sentence else [{}] * len(group.completions)
        return [
            self._score(completion, reference, due)
            for completion, due in zip(group.completions, token_values, strict=True)
        ]

    def _score(
        self, completion: Completion, reference: Mapping[str, Any], token_values: dict[int, float]
    ) -> Score:
        tallies = check_response(completion.text, reference)
        tally = total(tallies)
        value = 0.0 if self._tokenizer is not None else sum(self._worth(tallies).values())
        return Score(
            value=max(self._lowest, value),
            parts={
                "precision": tally.precision,
                "recall": tally.recall,
                "contradictions": float(tally.num_contradictions),
            },
            token_values=token_values,
        )

    def _worth(self, tallies: Mapping[str, Tally]) -> dict[str, float]:
        """Returns what the claims of each type add to the value."""
        num_facts = max(1, total(tallies).num_facts)
        right = {name: 0 if name == "quoted_words" else t.num_right for name, t in tallies.items()}
        return {
            name: (right[name] - self._wrong_cost * t.num_wrong) / num_facts for name, t in tallies.items()
        }

    def _sentences(self, group: Group) -> list[dict[int, float]]:
        """Returns, for each of K completions, extra reward by token index."""
        gains = [self._gains(completion, group.prompt) for completion in group.completions]
        total_gain: defaultdict[str, float] = defaultdict(float)
        for _, name, gain in chain.from_iterable(of_answer for of_answer, _ in gains):
            total_gain[name] += gain
        rows: list[dict[int, float]] = []
        for of_answer, last in gains:
            due: defaultdict[int, float] = defaultdict(float)
            first = {name: at for at, name, _ in reversed(of_answer)}
            for at, _, gain in of_answer:
                due[at] += gain
            for name, gain in total_gain.items():
                due[first.get(name, last)] -= gain / len(gains)
            rows.append(dict(due))
        return rows

    def _gains(self, completion: Completion, prompt: Prompt) -> tuple[list[tuple[int, str, float]], int]:
        """Returns the last token, claim type and gain of every sentence and type that changes what the
        reasoning so far is worth; and the last token of all."""
        reasoning = completion.text.partition("</think>")[0]
        ends = [match.end() for match in _SENTENCE_END.finditer(reasoning)]
        if not ends or ends[-1] < len(reasoning.rstrip()):
            ends.append(len(reasoning))
        worth = [
            self._worth(check_claims(read_claims(reasoning[:end]), prompt.reference)) for end in (0, *ends)
        ]
        # The prompt's tokens, not the completion's, hold a tag that the chat template opened.
        opened = len(opened_tag(prompt.text, answer_text(self._tokenizer, completion.token_ids)))
        places = last_tokens(completion.token_ids, [end - opened for end in ends], self._tokenizer)
        gains = [
            (at, name, after[name] - before[name])
            for at, (before, after) in zip(places, pairwise(worth), strict=True)
            for name in after
            if after[name] != before[name]
        ]
        return gains, places[-1]
