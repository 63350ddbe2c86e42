"""Typed events of a running operation, for progress displays, logs and programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An operation began; `total_files` and `total_bytes` are estimates, 0 when unknown."""

    operation: str
    total_files: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an operation is: items and bytes done so far, and what it works on."""

    files: int
    bytes: int
    current: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something the user should know that did not stop the operation."""

    message: str
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An operation came to its end; after a failure this event does not come."""

    operation: str


Event: TypeAlias = Started | Progress | Warned | Finished
EventSink: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The sink of callers that do not watch."""
    del event
