"""Keys and tokens of services: read from the environment of the process that uses them, never part of a
configuration, a record or an error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from rlcore.errors import ConfigError


def read_secret(variable: str) -> str:
    """Returns the value of an environment variable without white space around it.

    Mounted secrets often end in a newline.

    Raises:
        ConfigError: the variable is not set in this process, or no header could carry its value.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(
            f"the environment variable {variable} is not set in this process; set it where the command runs, "
            "for a reward where Ray starts, on every node that may run it"
        )
    if not re.fullmatch(r"[!-~]+", value):
        # Sent all the same, it would stand in the client's error, spelt so that `redact` does not know it.
        raise ConfigError(
            f"the environment variable {variable} holds white space or what is not ASCII inside its value; a "
            "key or token is visible ASCII alone, set the variable to just that"
        )
    return value


def redact(text: str, secrets: Iterable[str | None]) -> str:
    """Returns `text` without the secrets: services repeat keys in their error messages."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "[secret]")
    return text
