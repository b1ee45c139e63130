"""The reward protocol: a reward sees a whole group and returns one `Score` per completion."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Set
from typing import Any, TypeGuard

from rlcore.errors import ConfigError
from rlcore.types import Group, RewardContext, Score

_GIVEN = ("group", "prompt", "completion", "context")
"""Parameters of a reward function that are filled in; all others are its `args`."""
_MAX_TEXT = 10_000
"""Characters of an error that are kept."""


class Reward:
    """A reward scores groups of completions. It is built inside its Ray actor, from `target` and `args`.

    Subclasses override `score`, or `score_batch` where groups are best scored together (a reward model
    batches better).
    """

    by_rule = False
    """True where text and reference decide at no cost, and a perfect answer gets more than 0: a run tries
    such a reward before it starts (`rlcore.rewards.reading`)."""

    def score(self, group: Group, context: RewardContext) -> Sequence[Score]:
        """Returns one score per completion, in the completions' order."""
        raise NotImplementedError(f"{type(self).__name__} must define score or score_batch")

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> Sequence[Sequence[Score]]:
        """Returns the scores of many groups, in the groups' order."""
        return [self.score(group, context) for group in groups]


class FunctionReward(Reward):
    """Makes a reward of a function, which says by the names of its parameters what is given to it.

        def brevity(completion, limit=120): ...     one number or Score; may also take prompt and context
        def spread(group): ...                      a list of them, one per completion; may also take context
        async def judged(prompt, completion): ...   either kind; a call's completions are awaited together

    Args:
        function: plain or async.
        args: values of the function's other parameters.
        retries: further attempts at a completion on which the function raised.

    Raises:
        ConfigError: the function takes neither `group` nor `completion`, or not these args.
    """

    def __init__(
        self, function: Callable[..., object], args: Mapping[str, object] | None = None, retries: int = 0
    ):
        self._function, self._args, self._attempts = function, dict(args or {}), retries + 1
        parameters = inspect.signature(function).parameters
        self._given = [name for name in _GIVEN if name in parameters]
        if ("group" in self._given) == ("completion" in self._given):
            raise ConfigError(
                f"{function.__name__}{inspect.signature(function)}: a reward function takes either `group` "
                "or `completion`, by that name (and `prompt` and `context`, where it wants them)"
            )
        try:
            inspect.signature(function).bind(**self._args, **dict.fromkeys(self._given))
        except TypeError as error:
            raise ConfigError(f"{function.__name__} was given {sorted(self._args)}: {error}") from error

    def score(self, group: Group, context: RewardContext) -> Sequence[Score]:
        return self.score_batch([group], context)[0]

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[Sequence[Score]]:
        return asyncio.run(self._score_all(groups, context))

    async def _score_all(self, groups: Sequence[Group], context: RewardContext) -> list[Sequence[Score]]:
        if "group" in self._given:
            calls = [self._attempt(group=group, prompt=group.prompt, context=context) for group in groups]
            answers = await self._all(calls)
            return [_group_scores(*each) for each in zip(groups, answers, strict=True)]
        calls = [
            self._attempt(prompt=group.prompt, completion=completion, context=context)
            for group in groups
            for completion in group.completions
        ]
        scores = map(_as_score, await self._all(calls))
        return [[next(scores) for _ in group.completions] for group in groups]

    async def _all(self, calls: Sequence[Coroutine[object, object, object]]) -> list[object]:
        if inspect.iscoroutinefunction(self._function):
            return list(await asyncio.gather(*calls))
        return [await call for call in calls]  # nothing is waited for: no task each

    async def _attempt(self, **given: object) -> object:
        """What the function answers; a failed Score once every attempt has raised."""
        failed = Score(0.0)
        for _ in range(self._attempts):
            try:
                answer = self._function(**{name: given[name] for name in self._given}, **self._args)
                return await answer if inspect.isawaitable(answer) else answer
            except Exception as error:  # the boundary to foreign code
                failed = Score(0.0, error=describe_error(error))
        return failed


def failed_scores(group: Group, reason: str) -> list[Score]:
    """Returns this error for every completion of a group."""
    return [Score(0.0, error=plain_text(reason))] * len(group.completions)


def has_order(answer: object) -> TypeGuard[Iterable[object]]:
    """Tells whether an answer is a list, or may be read as one: the values of a mapping, a set or a text
    belong to no completion."""
    return isinstance(answer, Iterable) and not isinstance(answer, (Mapping, Set, str, bytes))


def plain_text(value: object) -> str:
    """Converts what a reward or a service gave for an error or a name to text that fits into a file.

    The text is never long, and has no halves of surrogate pairs, which JSON can name and UTF-8 cannot write.
    """
    text = value if isinstance(value, str) else repr(value)
    return text[:_MAX_TEXT].encode("utf-8", "replace").decode()


def describe_error(error: BaseException) -> str:
    """Returns `Type: message`, and below it the traceback from where the reward's own code begins."""
    frames = traceback.extract_tb(error.__traceback__)
    plumbing = [i for i, frame in enumerate(frames[:-1]) if frame.filename.endswith(_PLUMBING)]
    lines = traceback.format_list(frames[plumbing[-1] + 1 if plumbing else 0 :])
    reason = "".join(traceback.format_exception_only(error)).strip()
    return f"{reason}\nTraceback (most recent call last):\n{''.join(lines)}".rstrip()


_PLUMBING = ("rlcore/rewards/protocol.py", "rlcore/actors/reward_worker.py")


def _group_scores(group: Group, answer: object) -> Sequence[Score]:
    if isinstance(answer, Score) and answer.error is not None:
        return failed_scores(group, answer.error)
    if not has_order(answer):
        return failed_scores(group, f"returned {type(answer).__name__} where one value a completion is due")
    return [_as_score(each) for each in answer]


def _as_score(answer: Any) -> Score:
    """A number is a score; whatever else a function returned is left for the check of scores to name."""
    if isinstance(answer, Score):
        return answer
    try:
        return Score(float(answer))
    except (TypeError, ValueError, OverflowError):
        return Score(answer)
