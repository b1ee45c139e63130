"""Tools that a policy calls by name: `<tool>NAME ARGUMENT ...</tool>`, answered by `<result>...</result>`.

A call is read strictly. One that cannot be read, or that a tool refuses by BadCallError, is the policy's
mistake, and answered by an error. What else a tool raises is the tool's, and costs the sample
(`rollout.environment.on_error`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from rlcore.environments.protocol import Episode
from rlcore.errors import ConfigError

_CALL = re.compile(r"<tool>\s*([a-z_][a-z0-9_]*)((?:\s+[^\s<>]+)*)\s*</tool>\Z")
_KINDS: dict[object, Callable[[str], object]] = {
    **{kind: kind for kind in (int, float, str)},
    **{kind.__name__: kind for kind in (int, float, str)},  # of a module with postponed annotations
    inspect.Parameter.empty: str,
}
"""Annotations of arguments, and what makes one of a word."""


class BadCallError(ValueError):
    """A tool raises this where a call makes no sense: the policy reads `error: ` and the message."""


class Tools:
    """An environment of tools. A subclass names its methods that are tools.

        class Arithmetic(Tools):
            tools = ("add",)

            def add(self, prompt, a: float, b: float):
                return a + b

    Each gets the prompt, then the call's arguments, converted to `int`, `float` or `str` as annotated, and
    may have defaults. `str` of what it returns is the result.
    """

    tools: Sequence[str] = ()
    """Names of the methods that a policy may call."""
    stop: Sequence[str] = ("</tool>",)

    def __init_subclass__(cls, **kwargs: Any):
        """Raises ConfigError where a tool is no method, or has an argument of another type."""
        super().__init_subclass__(**kwargs)
        for name in cls.tools:
            if not callable(getattr(cls, name, None)):
                raise ConfigError(f"{cls.__name__}.tools: there is no method {name!r}")
            for parameter in list(inspect.signature(getattr(cls, name)).parameters.values())[2:]:
                if parameter.annotation not in _KINDS:
                    raise ConfigError(
                        f"{cls.__name__}.{name}: {parameter.name} is {parameter.annotation!r}; a tool's "
                        "argument is an int, float or str"
                    )

    def step(self, episode: Episode) -> str:
        """Runs the call that the latest turn ends with."""
        return f"<result>{self._answer(episode)}</result>"

    def _answer(self, episode: Episode) -> object:
        call = _CALL.search(episode.turns[-1])
        if call is None:
            return "error: write <tool>NAME ARGUMENTS</tool>"
        if call[1] not in self.tools:
            return f"error: tools are {', '.join(self.tools)}"
        tool = getattr(self, call[1])
        try:
            arguments = _arguments(tool, call[2].split())
        except ValueError:
            return f"error: {call[1]} takes {_form(tool)}"
        try:
            return tool(episode.prompt, *arguments)
        except BadCallError as error:
            return f"error: {error}"


def _arguments(tool: Callable[..., object], words: Sequence[str]) -> list[object]:
    """Converts the words of a call. Raises ValueError where they do not fit."""
    parameters = _parameters(tool)
    num_needed = sum(parameter.default is parameter.empty for parameter in parameters)
    if not num_needed <= len(words) <= len(parameters):
        raise ValueError(len(words))
    return [_KINDS[p.annotation](word) for p, word in zip(parameters, words, strict=False)]


def _parameters(tool: Callable[..., object]) -> list[inspect.Parameter]:
    return list(inspect.signature(tool).parameters.values())[1:]  # the first is the prompt


def _form(tool: Callable[..., object]) -> str:
    names = [p.name if p.default is p.empty else f"[{p.name}]" for p in _parameters(tool)]
    return " ".join(names) or "no arguments"
