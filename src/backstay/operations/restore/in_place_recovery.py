"""Finish or undo a restore in place that was cut short, or undo one whose old state was kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from backstay.core.names import printable
from backstay.errors import BackstayError, RestoreConflict, RestoreFailed
from backstay.operations.restore.journal import Journal
from backstay.operations.restore.switched_databases import logs_left, settle_databases
from backstay.operations.restore.switching import Switching
from backstay.sources.source import Problem
from backstay.sources.switch_calls import SwitchCalls

_SHOWN: Final = 20

Recovered: TypeAlias = Literal["finished", "undone", "cleared", "kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What became of a restore that was cut short, or was undone later.

    `snapshot` is empty if nothing but an empty directory was left, before its beginning or after its end.
    """

    snapshot: str
    did: Recovered
    problems: tuple[Problem, ...] = ()

    @property
    def rolled_back(self) -> bool:
        return self.did in ("undone", "cleared")


def resume_in_place(directory: Path, *, calls: SwitchCalls | None = None) -> Recovery:
    """Bring a restore that was cut short to its end: to the new state if it had begun to switch, else to the old one.

    Raises RestoreConflict, RestoreFailed.
    """
    return recover(_absolute(directory), calls or SwitchCalls(), back=False)


def roll_back_in_place(directory: Path, *, calls: SwitchCalls | None = None) -> Recovery:
    """Put everything back as it was before the restore that keeps this directory.

    Raises RestoreConflict, RestoreFailed.
    """
    return recover(_absolute(directory), calls or SwitchCalls(), back=True)


def switch(journal: Journal, switching: Switching) -> None:
    """Put everything new in its place, once that is decided. Raises OSError, RestoreConflict."""
    settle_databases(journal, back=False)
    switching.set_aside(logs_left(journal, back=False))
    switching.forward(journal.rows())
    journal.set_state("done")


def undo(journal: Journal, calls: SwitchCalls) -> tuple[Problem, ...]:
    """Put everything back and remove what was staged.

    Raises RestoreFailed when that does not work, RestoreConflict while a restored database is in use.
    """
    switching = Switching(journal.header.areas, calls)
    try:
        settle_databases(journal, back=True)
        journal.set_state("undoing")
        switching.set_aside(logs_left(journal, back=True))
        switching.back(journal.rows())
        journal.set_state("undone")
    except OSError as error:
        raise RestoreFailed(
            "the old state cannot be put back as a whole",
            cause="; ".join((told(error), *_shown(switching.problems))),
            hint=f"mend the cause, then run `backstay restore --rollback {printable(journal.path)}`, "
            "or take what is not back out of `items` there, and remove that directory",
        ) from error
    return (*switching.problems, *removed(journal))


def _shown(problems: list[Problem]) -> list[str]:
    """What was done all the same, and will not be told again."""
    shown = [f"{printable(problem.path)}: {problem.message}" for problem in problems[:_SHOWN]]
    return shown if len(problems) <= _SHOWN else [*shown, f"and {len(problems) - _SHOWN} more"]


def removed(journal: Journal) -> tuple[Problem, ...]:
    """Remove what is not needed any more. Where that does not work, the next restore tries again."""
    try:
        journal.remove()
    except (OSError, BackstayError) as error:
        return (_not_removed(journal, error),)
    return ()


def cleared(journal: Journal, switching: Switching) -> tuple[Problem, ...]:
    """After a switch: the same, but old items that were written to meanwhile stay; all that is to be told."""
    try:
        if journal.header.state == "done":
            switching.spare_old(journal.rows())
            journal.set_state("clearing")  # or what is left of a directory would look like one that was written to
    except (OSError, BackstayError) as error:
        return (*switching.problems, _not_removed(journal, error))
    return (*switching.problems, *removed(journal))


def _not_removed(journal: Journal, error: OSError | BackstayError) -> Problem:
    why = told(error) if isinstance(error, OSError) else str(error)
    return Problem(journal.path, f"it could not be removed: {why}")


def recover(path: bytes, calls: SwitchCalls, *, back: bool) -> Recovery:
    """Bring what lies in a directory to an end, in the direction that its state says or that is asked for."""
    try:
        journal = Journal.open(path, calls)
    except OSError as error:
        raise RestoreFailed(
            f"the journal in {printable(path)} cannot be read",
            cause=told(error),
            hint="mend the cause, then run the same command again",
        ) from error
    try:
        state = journal.header.state
        if state in ("staging", "undone"):
            did: Recovered = "cleared" if state == "staging" else "undone"
            return Recovery(snapshot=journal.header.snapshot, did=did, problems=removed(journal))
        if back and (state == "clearing" or (state == "done" and not journal.header.keep_old)):
            cleared(journal, Switching(journal.header.areas, calls))
            raise RestoreConflict(
                "the restore had come to its end, and the old state is not kept any more",
                cause="it was begun without --keep-old",
                hint="an older snapshot may hold what is wanted: `backstay list`",
            )
        if back or state == "undoing":
            return Recovery(snapshot=journal.header.snapshot, did="undone", problems=undo(journal, calls))
        return _finish(journal, calls)
    finally:
        journal.close()


def _finish(journal: Journal, calls: SwitchCalls) -> Recovery:
    header = journal.header
    if header.state == "done" and header.keep_old:
        return Recovery(snapshot=header.snapshot, did="kept")
    switching = Switching(header.areas, calls)
    if header.state == "switching":
        try:
            switch(journal, switching)
        except OSError as error:
            raise RestoreFailed(
                "an earlier restore in place was cut short, and cannot be brought to its end",
                cause=told(error),
                hint=f"`backstay restore --rollback {printable(journal.path)}` puts the old state back",
            ) from error
    problems = tuple(switching.problems) if header.keep_old else cleared(journal, switching)
    return Recovery(snapshot=header.snapshot, did="finished", problems=problems)


def told(error: OSError) -> str:
    """The system's own words, and the path that they are about."""
    text = (error.strerror or str(error)).lower()
    if not error.filename:
        return text
    return f"{printable(os.fsencode(error.filename))}: {text}"


def _absolute(directory: Path) -> bytes:
    return os.fsencode(os.path.realpath(directory))
