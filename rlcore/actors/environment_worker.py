"""The environment actor: episodes in, replies out. A plain class, which `rlcore.actors.environment_pool`
spawns."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rlcore.config import EnvironmentConfig
from rlcore.config.targets import build_target
from rlcore.environments import Environment, Episode, Reply
from rlcore.errors import ConfigError
from rlcore.rewards.protocol import describe_error, plain_text

_CHARACTERS_PER_TOKEN = 32
"""A longer text would be too many tokens in any case, and is not sent."""


class EnvironmentWorker:
    """One environment in one process.

    Raises:
        ConfigError: it cannot be built from `rollout.environment`, or has another form.
    """

    def __init__(self, config: EnvironmentConfig):
        self._config, where = config, "rollout.environment"
        assert config.target is not None
        self._environment: Environment = build_target(config.target, config.args, where=where)
        stop = getattr(self._environment, "stop", None)
        is_texts = not isinstance(stop, str) and all(isinstance(s, str) and s for s in stop or ())
        if stop is None or not is_texts or not callable(getattr(self._environment, "step", None)):
            raise ConfigError(
                f"{where}.target: {config.target} must have `stop`, a list of texts, and a method `step` "
                "(rlcore.environments.Environment)"
            )

    def ready(self) -> tuple[str, ...]:
        """Answers once the environment is built, with the texts that call it."""
        return tuple(self._environment.stop)

    def step(self, episodes: Sequence[Episode]) -> list[Reply]:
        """Has the environment answer episodes, the first and as many more as there is time for: a call has
        its deadline. Nothing that the environment does raises here."""
        until = time.monotonic() + self._config.timeout_s / 2
        replies = [self._reply(episodes[0])]
        for episode in episodes[1:]:
            if time.monotonic() > until:
                break
            replies.append(self._reply(episode))
        return replies

    def _reply(self, episode: Episode) -> Reply:
        try:
            text = self._environment.step(episode)
        except Exception as error:  # the boundary to foreign code
            return Reply(error=plain_text(describe_error(error)))
        if text is None:
            return Reply()
        if not isinstance(text, str):
            return Reply(error=f"step returned {type(text).__name__} where a text or None is due")
        most = self._config.max_observation_tokens
        if len(text) > _CHARACTERS_PER_TOKEN * most:
            limit = f"rollout.environment.max_observation_tokens is {most}"
            return Reply(error=f"the observation has {len(text)} characters, {limit}")
        return Reply(text=text.encode("utf-8", "replace").decode())
