"""Snapshots that the log of values counts on: while it does, none of them may be given up."""

from __future__ import annotations

from functools import partial

from backstay.errors import CorruptedBackup
from backstay.repository.format import drop_name, snapshot_name
from backstay.repository.logs.values import MEND_HINT, LogView
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import running_sessions

FOLD_HINT = "`backstay cas fold` makes another snapshot of them, from which they count again"


def refuse_dropped_values(repository: Repository) -> None:
    """Raises CorruptedBackup if a record says of such a snapshot that it was deleted: nobody else looks after it."""
    with repository.values_log.lock:
        repository.values_log.look(partial(_refuse_dropped, repository))


def refuse_lost_values(repository: Repository) -> None:
    """The same, and also if one of them is gone: then what it needs looks like garbage."""
    with repository.values_log.lock:
        repository.values_log.look(partial(_refuse_lost, repository))


def _refuse_dropped(repository: Repository, view: LogView) -> None:
    """A fold lets the log go on without a snapshot before it drops it: `look` then finds another log."""
    for ulid in sorted(repository.snapshots.dropped(view.snapshots)) if view.snapshots else ():
        raise CorruptedBackup(
            "values are in a snapshot that counts as deleted",
            cause=f"{drop_name(ulid)} says so of {snapshot_name(ulid)}, and their log still relies on it",
            hint=FOLD_HINT,
        )


def _refuse_lost(repository: Repository, view: LogView) -> None:
    _refuse_dropped(repository, view)
    absent = set(view.snapshots) - set(repository.snapshots.taken()) if view.snapshots else None
    if not absent:
        return
    absent -= {session.id for session in running_sessions(repository.backend, repository.keyring)}
    for ulid in sorted(absent - set(repository.snapshots.taken())):  # whoever has committed is announced no more
        raise CorruptedBackup(
            "a snapshot of values is missing", cause=f"their log relies on {snapshot_name(ulid)}", hint=MEND_HINT
        )
