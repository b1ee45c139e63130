"""The port at which the learner's rank 0 is met."""

from __future__ import annotations

import errno
import socket


def listen(host: str, port: int = 0) -> socket.socket:
    """Listens at `host`, whose address others reach this machine by. Port 0: any that is free, and from here
    on taken. Behind address translation, where nothing of this machine has the address, it listens on all."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return socket.create_server(("", port), family=family)
