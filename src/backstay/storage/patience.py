"""How long a server is waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for a store.

    `connect` and `silence` are seconds; a transfer may take `silence` and as long as its bytes need at `slowest` bytes
    a second, which is what one of eight parallel uploads has on a line of 2 Mbit/s.
    """

    connect: float = 10.0
    silence: float = 60.0
    slowest: int = 32 << 10

    def for_transfer(self, size: int) -> float:
        """Seconds that a transfer of so many bytes may take."""
        return self.silence + size / self.slowest


REMOTE = Patience(connect=30.0, silence=120.0)  # for servers that may have to wake up disks
