"""Ports for servers of other programs: chosen now, taken a moment later, and by nobody else meanwhile."""

from __future__ import annotations

import os
import socket
from itertools import count
from pathlib import Path
from typing import Final

_FIRST: Final = 11_000
_NUMBERS: Final = count(os.getpid() * 97)  # so that processes rarely ask for the same
_CHOSEN: Final[list[socket.socket]] = []  # open as long as this process lives


def free_port(*, companion: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on, nor on the one that lies `companion` above it.

    None of those that the system gives to whoever connects, and no other process of the tests gets it while this one
    lives: so a server may also end and come back to it.
    """
    for number in _NUMBERS:
        port = _FIRST + number % (_end() - companion - _FIRST)
        wanted = {port, port + companion}
        if all(_is_free(each) for each in wanted) and all(_reserve(each) for each in wanted):
            return port
    raise AssertionError("numbers do not end")


def _end() -> int:
    """The first port that any connection may be given."""
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    """Take a name that one process alone can have, and that goes with it."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0backstay-tests-port-{port}")
    except OSError:
        name.close()
        return False
    _CHOSEN.append(name)
    return True
