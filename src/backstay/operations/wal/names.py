"""A name in a repository belongs to one PostgreSQL cluster, from its first base backup or WAL on."""

from __future__ import annotations

from backstay.core.events import EventSink, Warned, ignore
from backstay.errors import BackstayError
from backstay.operations.wal.bases import base_backups
from backstay.repository.repository import Repository
from backstay.repository.wal.store import require_cluster


def bind_name(repository: Repository, name: str, system: int, *, events: EventSink = ignore) -> None:
    """See that base backups and WAL of a name are those of one cluster. Raises IdentityMismatch, CorruptedBackup."""
    bound = repository.wal.bound(name)
    if bound is not None:
        require_cluster(name, bound, system)
        return

    def damaged(snapshot: str, error: BackstayError) -> None:
        events(Warned(message=f"{snapshot} was not looked at: {error}"))

    for base in base_backups(repository, name, on_damage=damaged):
        require_cluster(name, base.system, system)
    repository.wal.bind(name, system, repository.clock)
