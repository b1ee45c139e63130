"""One error carries the reason why a request is not answered, from whichever part refuses it."""

from __future__ import annotations

MALFORMED = 400
TOO_LARGE = 413
NOT_AUDIO = 415
UNUSABLE = 422
"""The recording is audio, but too long, silent or broken."""


class Refused(Exception):
    """A request that cannot be answered, with the HTTP status and a sentence for whoever sent it."""

    def __init__(self, status: int, reason: str):
        super().__init__(status, reason)
        self.status, self.reason = status, reason
