"""Stores that freeze what they keep: objects are asked for in batches, and can be read hours later, for some days."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, TypeAlias

ThawState: TypeAlias = Literal["hot", "cold", "thawing", "ready"]  # hot: never frozen; ready: thawed for some days


class Archive(ABC):
    """What an archive can do besides storing. All of it may be called from several threads at once.

    The state lies in the store alone, so that a program that was stopped finds it again by asking.
    """

    @property
    @abstractmethod
    def usual_s(self) -> float:
        """After how many seconds an object can usually be read that was asked for now; for people."""

    @abstractmethod
    def thaw(self, names: Iterable[str], days: int) -> None:
        """Ask for these objects, to be readable for so many days. One that is under way or ready is fine."""

    @abstractmethod
    def thaw_state(self, name: str) -> ThawState:
        """Where an object is on its way. Raises ObjectNotFound."""

    @abstractmethod
    def holds(self, name: str, data: bytes) -> bool:
        """Whether the store has exactly these bytes, by a checksum that it computed itself from what it received."""
