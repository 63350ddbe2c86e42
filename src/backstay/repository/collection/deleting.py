"""Deleting as far as the store lets: what it refuses to give up stays for the next collection, and is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from backstay.errors import StorageRefused
from backstay.storage.backend import StorageBackend

_NAMED: Final = 3  # objects that an error names


@dataclass(frozen=True, slots=True)
class Refusal:
    """An object that the store did not delete, and why."""

    name: str
    reason: str


class Deletions:
    """The deletions of one collection."""

    def __init__(self, backend: StorageBackend) -> None:
        self._backend = backend
        self._refused: dict[str, StorageRefused] = {}

    @property
    def refused(self) -> tuple[Refusal, ...]:
        return tuple(Refusal(name, _reason(error)) for name, error in self._refused.items())

    def delete(self, name: str) -> bool:
        """Whether it is gone now."""
        return self.attempt(name, lambda: self._backend.delete(name))

    def attempt(self, name: str, act: Callable[[], object]) -> bool:
        """The same by another's way of deleting."""
        try:
            act()
        except StorageRefused as error:
            self._refused[name] = error
            return False
        self._refused.pop(name, None)
        return True

    def require_none_refused(self) -> None:
        """Raises StorageRefused, which names some of what stays."""
        if self._refused:
            raise refusal(self.refused, hint=next(iter(self._refused.values())).hint)


def refusal(refused: Sequence[Refusal], *, hint: str = "") -> StorageRefused:
    """The error for objects that the store did not delete."""
    told = "; ".join(f"{one.name}: {one.reason}" for one in refused[:_NAMED])
    more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    return StorageRefused(
        f"the store refused to delete {len(refused)} {'object' if len(refused) == 1 else 'objects'}",
        cause=f"{told}{more}",
        hint=f"{hint or 'see what the key may delete, and what is under retention'}; a later gc tries them again",
    )


def _reason(error: StorageRefused) -> str:
    return error.cause or error.title
