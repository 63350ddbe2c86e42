"""Typed events of a running operation, for progress displays, logs and programs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, TypeAlias

from backstay.errors import Interrupted


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


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSnapshotCreated:
    """A graph was stored; `state` is `pending` where validators have to attest it first."""

    topic: ClassVar[str] = "backup.snapshot.created"

    time: datetime
    snapshot: str
    graph: str
    state: str
    nodes: int
    values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSnapshotRestored:
    """A restore came to its end; `ok` says whether every node is good, the numbers what was done with them."""

    topic: ClassVar[str] = "backup.snapshot.restored"

    time: datetime
    snapshot: str
    graph: str
    ok: bool
    reused: int
    restored: int
    recomputed: int
    failed: int
    blocked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageCollected:
    """Values that no snapshot names any more were removed, and the snapshots that had named them."""

    topic: ClassVar[str] = "backup.garbage.collected"

    time: datetime
    snapshots: tuple[str, ...]
    values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationFailed:
    """Something was found not to be what it should; `node` is empty where it is not one node. Texts are for people."""

    topic: ClassVar[str] = "backup.validation.failed"

    time: datetime
    snapshot: str
    graph: str
    node: str
    reason: str


GraphEvent: TypeAlias = GraphSnapshotCreated | GraphSnapshotRestored | GarbageCollected | ValidationFailed
Event: TypeAlias = Started | Progress | Warned | Finished | GraphEvent
EventSink: TypeAlias = Callable[[Event], None]


def name_of(event: Event) -> str:
    """How programs tell events apart: the topic of those that have one, else what happened, as `started`."""
    return getattr(type(event), "topic", type(event).__name__.lower())


def too_late_to_stop(events: EventSink) -> EventSink:
    """The same sink for what comes after a commit: if it asks to stop, the work is done all the same, and is told."""

    def tell(event: Event) -> None:
        with suppress(Interrupted):
            events(event)

    return tell


def finished(events: EventSink, operation: str) -> None:
    """Tell that an operation came to its end; a sink that asks to stop at that comes too late for it."""
    too_late_to_stop(events)(Finished(operation=operation))


def ignore(event: Event) -> None:
    """The sink of callers that do not watch."""
    del event
