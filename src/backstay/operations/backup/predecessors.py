"""Earlier snapshots of the same source: what a backup may build on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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

    What lies in packs that are lost, or that the index does not name, must be read again: who needs it is no base.
    """
    lost = repository.hide_missing_packs()
    base = _newest(repository, history, kind)
    is_whole = base is None or bool(repository.findable([base]))
    then = "what is read of it" if is_whole else "everything is read, and what the source still holds"
    for what, mend in _losses(repository, lost, is_whole=is_whole):
        events(Warned(message=f"{what}: {then} is stored again; run {mend}"))
    if base is None or not is_whole:
        return None
    try:
        return base, StatCursor(base.stat_stream, repository.reader)
    except CorruptedBackup as error:
        events(Warned(message=f"the previous snapshot cannot be used, everything is read again: {error}"))
        return None


def _losses(repository: Repository, lost: set[bytes], *, is_whole: bool) -> Iterator[tuple[str, str]]:
    """What the repository lacks of what it should have, and what mends it."""
    unread = repository.index.unread
    if lost:
        told = plural(len(lost), "pack is", "packs are")
        yield (
            f"{told} missing from the repository, or cut short",
            "`backstay repair index`, then `repair packs` and `repair snapshots`",
        )
    if unread:
        more = f" and {plural(len(unread) - 1, 'more segment')}" if len(unread) > 1 else ""
        yield f"{unread[0]}{more} of the index cannot be read", "`backstay repair index`"
    if not is_whole and not lost and not unread:
        yield (
            "the index does not name all packs of the previous snapshot",
            "`backstay repair index`, and if that finds nothing, `repair packs --from-copy` or `repair snapshots`",
        )


def _newest(repository: Repository, history: Sequence[Manifest], kind: BackupKind) -> Manifest | None:
    if kind == "full":
        return None
    kinds = ("full",) if kind == "differential" else ("full", "incremental", "differential")
    log = repository.collections  # listed before the history was, on which `may_build_on` relies
    usable = [snapshot for snapshot in history if snapshot.kind in kinds and log.may_build_on(snapshot.id)]
    return max(usable, key=lambda snapshot: (snapshot.time_ns, snapshot.id), default=None)
