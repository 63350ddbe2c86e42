"""The place that a restore writes into, as the directories in it see it."""

from __future__ import annotations

from typing import Protocol

from backstay.repository.nodes import Node
from backstay.sources.attributes import Attributes
from backstay.sources.guard import Guard
from backstay.sources.pending_file import BeforeNaming


class Target(Protocol):
    """What its directories need to know of the place that a restore writes into."""

    attributes: Attributes
    before_naming: BeforeNaming | None
    guard: Guard

    def writes_to(self, device: int, fd: int, *, is_root: bool) -> None:
        """A directory of this device was opened to be written into; the descriptor is the caller's."""

    def unmade(self, node: Node) -> str | None:
        """Why an item is never made here; None for one that can be."""
        ...

    def place(self, path: bytes) -> bytes:
        """The absolute path of one that is relative to the root."""
        ...

    def report(self, path: bytes, message: str) -> None:
        """Something could not be applied, which makes no restore fail; from any thread."""

    def temporary_name(self) -> bytes:
        """A name that nothing else uses, of the form that `clear_leftovers` knows."""
        ...
