"""Earlier snapshots of the same source: what a backup may build on."""

from __future__ import annotations

from collections.abc import Sequence

from backstay.core.events import EventSink, Warned
from backstay.core.quantities import plural
from backstay.errors import BackstayError, CorruptedBackup
from backstay.operations.backup.request import BackupKind
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.stat_stream import StatCursor


def earlier_snapshots(repository: Repository, source: str, host: str, *, events: EventSink) -> list[Manifest]:
    """Those of one source on one host, oldest first."""

    def skip(name: str, error: BackstayError) -> None:
        events(Warned(message=f"{name} cannot be read: {error}"))

    live = repository.snapshots.live(on_damage=skip)
    return [snapshot for snapshot in live if snapshot.source == source and snapshot.host == host]


def usable_base(
    repository: Repository, history: Sequence[Manifest], kind: BackupKind, *, events: EventSink
) -> tuple[Manifest, StatCursor] | None:
    """The snapshot whose stat data is trusted, with that data; None when everything must be read.

    What a snapshot shares with packs that are lost must be read again, so that it is no base.
    """
    lost = _lost_packs(repository, events)
    base = _newest(repository, history, kind)
    if base is None or not lost.isdisjoint(base.packs):
        return None
    try:
        return base, StatCursor(base.stat_stream, repository.reader)
    except CorruptedBackup as error:
        events(Warned(message=f"the previous snapshot cannot be used, everything is read again: {error}"))
        return None


def _lost_packs(repository: Repository, events: EventSink) -> set[bytes]:
    lost = repository.hide_missing_packs()
    if lost:
        told = plural(len(lost), "pack is", "packs are")
        events(
            Warned(
                message=f"{told} missing from the repository: everything is read, and what the source still holds "
                "of them is stored again; run `backstay repair index`, then `repair snapshots`"
            )
        )
    return lost


def _newest(repository: Repository, history: Sequence[Manifest], kind: BackupKind) -> Manifest | None:
    if kind == "full":
        return None
    kinds = ("full",) if kind == "differential" else ("full", "incremental", "differential")
    log = repository.collections  # listed before the history was, on which `may_build_on` relies
    usable = [snapshot for snapshot in history if snapshot.kind in kinds and log.may_build_on(snapshot.id)]
    return max(usable, key=lambda snapshot: (snapshot.time_ns, snapshot.id), default=None)
