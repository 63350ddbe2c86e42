"""What a restore that is tried is asked besides, and what was found: the words of a rehearsal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Cell: TypeAlias = str | int | float | bool | None
Rows: TypeAlias = tuple[tuple[Cell, ...], ...]
Status: TypeAlias = Literal["ok", "warning", "failed", "skipped"]

COMMAND_PATIENCE_S: Final = 3600.0
QUESTION_PATIENCE_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A query that must give these rows, compared as text; without rows, one true value.

    `name` is that of the snapshots that are asked, any if None. `database` is one of a restored cluster.
    """

    sql: str
    expect: Rows | None = None
    name: str | None = None
    database: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedCommand:
    """A program that must end well; `{scratch}` in its words stands for where the snapshot was restored to.

    It runs there, and the variables BACKSTAY_SCRATCH and BACKSTAY_SNAPSHOT tell it too.
    """

    words: tuple[str, ...]
    name: str | None = None
    patience_s: float = COMMAND_PATIENCE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`server` is the address of one in which databases may be made and dropped, for dumps.

    `environ` is that of the programs that are called; their callers take secrets out of it.
    """

    questions: Sequence[Question] = ()
    commands: Sequence[TriedCommand] = ()
    server: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One thing that was tried; `details` says what was found, or why it was not tried.

    A warning is about what was backed up, not about the backup, which is faithful. What failed as it `lacks_room` says
    nothing about the backup.
    """

    check: str
    status: Status
    details: str
    duration_s: float
    lacks_room: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """One snapshot, restored in a scratch place; `usable_s` is how long it took until its data could be used."""

    snapshot: str
    outcomes: tuple[Outcome, ...]
    files: int
    bytes: int
    compared: int
    usable_s: float
    duration_s: float

    @property
    def ok(self) -> bool:
        return all(outcome.status != "failed" for outcome in self.outcomes)
