"""Keys and tokens of services: read from the environment of the reward's own process, never part of a
configuration, a record or an error."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rlcore.errors import ConfigError


def read_secret(variable: str) -> str:
    """The value of an environment variable.

    Raises:
        ConfigError: it is not set in this process.
    """
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigError(
            f"the environment variable {variable} is not set in this process; set it where the command runs, "
            "for a reward where Ray starts, on every node that may run it"
        )
    return value


def redact(text: str, secrets: Iterable[str | None]) -> str:
    """`text` without the secrets: services repeat keys in their error messages."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "[secret]")
    return text
