"""What restores of dumps into servers have in common: find the dump, refuse what is in the way, tell how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from backstay.codec.compression import Buffer
from backstay.core.events import EventSink, Progress, Started, Warned, finished
from backstay.core.quantities import plural
from backstay.errors import InvalidRequest, RestoreConflict
from backstay.operations.restore.request import RestoreOptions
from backstay.operations.tiers.cold_packs import ColdPacks, make_readable
from backstay.repository.blobs.contents import read_content
from backstay.repository.nodes import EMPTY, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest

_NAMED: Final = 5  # in a message


class DumpRestore(Protocol):
    """A plan of either kind: `bytes` of dump go into `database`, where `conflicts` lie."""

    @property
    def database(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def conflicts(self) -> tuple[str, ...]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


def require_kind(manifest: Manifest, kind: str, what: str) -> None:
    """Raises InvalidRequest unless a snapshot was made of this kind of source, which `what` names."""
    made_of = manifest.source.partition(":")[0]
    if made_of != kind:
        raise InvalidRequest(
            f"snapshot {manifest.id} holds no dump of {what}",
            cause=f"it was made of {made_of} data",
            hint="restore it with --to DIR",
        )


def thaw(repository: Repository, nodes: Iterable[Node], options: RestoreOptions, events: EventSink) -> None:
    """Make files readable that lie in a cold tier. Raises TierNotAttached, ThawPending."""
    cold = ColdPacks(repository)
    if not cold:
        return
    for node in nodes:
        cold.need_file(node)
    make_readable(repository, cold.needed(), days=options.thaw_days, wait=options.wait, events=events)


def content(repository: Repository, node: Node) -> Iterator[Buffer]:
    """The bytes of a file."""
    return read_content(node.content or EMPTY, repository.reader)


@contextmanager
def restoring(
    plan: DumpRestore, options: RestoreOptions, events: EventSink, *, place: str, overwriting: str
) -> Iterator[Callable[[int], None]]:
    """Within, the dump is restored, and the function is told how many bytes of it have gone.

    Raises RestoreConflict before that if objects exist in `place` and may not be overwritten, `overwriting` says how.
    """
    if plan.conflicts and options.conflict != "overwrite":
        raise RestoreConflict(
            f"{plural(len(plan.conflicts), 'object exists', 'objects exist')} in {place} already, nothing was restored",
            cause=few(plan.conflicts),
            hint=f"restore into an empty database, or give --conflict overwrite, which {overwriting}",
            paths=plan.conflicts,
        )
    for warning in plan.warnings:
        events(Warned(message=warning))
    events(Started(operation="restore", total_bytes=plan.bytes))
    yield lambda done: events(Progress(files=0, bytes=done, current=plan.database))
    finished(events, "restore")


def few(names: Sequence[str]) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
