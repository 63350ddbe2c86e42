"""What commands about graphs share: the manager, the quorum policy, and which snapshot is meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from backstay.cli.context import Context
from backstay.cli.options import argument, option
from backstay.core.events import EventSink, ignore
from backstay.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from backstay.graph.manager import GraphBackupManager
    from backstay.graph.snapshots import GraphSnapshot
    from backstay.trust.quorum import QuorumPolicy

GRAPH_SNAPSHOT_HELP = "The beginning of an id, the name of a graph, latest or latest:NAME."
GraphSnapshotId: TypeAlias = Annotated[str, argument("ID", GRAPH_SNAPSHOT_HELP)]
PolicyFile: TypeAlias = Annotated[
    Path | None,
    option("FILE", "Which validators must attest a snapshot, and how many; else BACKSTAY_QUORUM_POLICY."),
]


def quorum_of(context: Context, policy: Path | None) -> QuorumPolicy | None:
    """The reader's quorum policy, if there is one. Raises InvalidQuorum, InvalidRequest."""
    from backstay.trust.quorum import QuorumPolicy

    return QuorumPolicy.of_environment(context.environ) if policy is None else QuorumPolicy.load(policy)


@contextmanager
def managing(
    context: Context, policy: Path | None, *, events: EventSink = ignore, grows: bool = False
) -> Iterator[GraphBackupManager]:
    """The manager of all graphs in the repository."""
    from backstay.graph.manager import GraphBackupManager

    quorum = quorum_of(context, policy)
    with context.open(grows=grows) as repository:
        yield GraphBackupManager(repository, quorum=quorum, events=events)


def one_snapshot(context: Context, manager: GraphBackupManager, text: str) -> GraphSnapshot:
    """The snapshot that `text` means. Raises NotFound, InvalidRequest."""
    from backstay.repository.snapshots.selectors import choose

    known = manager.list_manifests()
    if not known:
        raise no_graphs()
    return manager.get_snapshot(choose(known, text, now=context.clock.now()).id)


def in_force(context: Context, manager: GraphBackupManager, text: str | None) -> str:
    """The id of the snapshot to be restored: without text, or by a graph's name, the newest accepted one.

    Raises NotFound, QuorumNotReached, InvalidRequest when there are several graphs.
    """
    names = sorted({manifest.name or "" for manifest in manager.list_manifests()})
    if not names:
        raise no_graphs()
    if text is None and len(names) > 1:
        raise InvalidRequest(
            "it is not said which graph is meant",
            cause=f"there are {', '.join(names[:8])}",
            hint="name one of them, or a snapshot by its id",
        )
    name = names[0] if text is None else text
    if name not in names:
        return one_snapshot(context, manager, name).id
    return manager.in_force(name).id


def no_graphs() -> NotFound:
    """The error where no graph was ever stored."""
    return NotFound(
        "there is no snapshot of a graph",
        cause="none was made yet, or all were deleted",
        hint="make one with `backstay graph snapshot FILE`",
    )
