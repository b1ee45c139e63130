from __future__ import annotations

import errno
import socket

import pytest

from rlcore.engines.rendezvous import listen


def test_a_port_is_taken_from_when_it_is_told() -> None:
    with listen("127.0.0.1") as listener:
        address = listener.getsockname()
        with pytest.raises(OSError) as told:
            listen(*address)
        assert told.value.errno == errno.EADDRINUSE
        with socket.create_connection(address, 10):
            pass


def test_behind_address_translation_all_addresses_are_listened_at() -> None:
    with listen("192.0.2.1") as listener:  # for documentation: no machine has it (RFC 5737)
        assert listener.getsockname()[0] == "0.0.0.0"
