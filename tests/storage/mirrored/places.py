"""Stores in memory that can be unplugged, and what a process sees of several of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.testing import FakeClock, Fault, FaultyBackend
from backstay.testing.faults import Operation

DATA = b"the bytes of a pack" * 10
PACK = f"packs/ab/{hashlib.sha256(DATA).hexdigest()}"
SNAPSHOT = "snapshots/01arz3ndektsv4rrffq69g5fav"
OPERATIONS: tuple[Operation, ...] = ("store", "retrieve", "delete", "list", "stat")


class Place(FaultyBackend):
    """A store in memory that can be unplugged."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        super().__init__(MemoryStorage(clock=clock))
        self.name = name

    @property
    def url(self) -> str:
        return f"memory:{self.name}"

    def unplug(self) -> None:
        self.script(*(Fault(kind="error_before", operation=each, repeat=True) for each in OPERATIONS))

    def names(self) -> list[str]:
        return sorted(info.name for info in self.inner.list() if not info.name.startswith("mirror/"))

    def marks(self) -> list[str]:
        marks = (info.name.split("/") for info in self.inner.list("mirror/"))
        return sorted(mark[2] for mark in marks if mark[1] != "first")


@dataclass
class World:
    clock: FakeClock = field(default_factory=FakeClock)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = [Place(name, self.clock) for name in "abc"]
        self.a, self.b, self.c = self.places

    def mirror(self, count: int = 2, *, quorum: int | None = None) -> Mirrored:
        """What a new process sees."""
        return Mirrored(self.places[:count], quorum=quorum, warn=self.warnings.append)
