"""Compare what lies in a target with a snapshot, item by item, by reading it."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.names import printable
from backstay.errors import CorruptedBackup, RestoreConflict, RestoreFailed
from backstay.operations.restore.plan import existing_child, existing_root, wanted
from backstay.operations.restore.request import RestoreOptions
from backstay.operations.restore.tally import FailedItem
from backstay.operations.snapshots.walk import Enter, Item, Leave
from backstay.repository.blobs.contents import sha256_of
from backstay.repository.nodes import EMPTY, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.existing import existing_equals
from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory


@dataclass(slots=True)
class Comparison:
    """How many items are as the snapshot holds them, and those that are not."""

    equal: int = 0
    differing: list[FailedItem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differing


def compare_with_target(
    repository: Repository, manifest: Manifest, target: Path, options: RestoreOptions, *, events: EventSink = ignore
) -> Comparison:
    """Compare a directory with what a restore into it would write; nothing is changed. Raises NotFound."""
    events(Started(operation="compare", total_files=manifest.stats.files))
    comparing = Comparing(
        repository, manifest, FilesTarget(target, allow_root=options.in_place), options, events=events
    )
    found = comparing.run()
    finished(events, "compare")
    return found


class Comparing:
    """One comparison."""

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        target: FilesTarget,
        options: RestoreOptions,
        *,
        events: EventSink = ignore,
    ) -> None:
        self._repository, self._manifest, self._target, self._options = repository, manifest, target, options
        self._events = events
        self._found = Comparison()

    def run(self) -> Comparison:
        root = existing_root(self._target)
        stack: list[TargetDirectory | None] = []
        try:
            for visit in wanted(self._repository, self._manifest, self._options, self._damaged):
                if isinstance(visit, Enter):
                    stack.append(self._present_child(stack[-1], visit) if stack else root)
                elif isinstance(visit, Leave):
                    _close(stack.pop())
                else:
                    self._item(stack[-1], visit)
        finally:
            for directory in stack:
                _close(directory)
        return self._found

    def _damaged(self, path: bytes, error: CorruptedBackup) -> None:
        self._found.differing.append(FailedItem(printable(path), error.code, str(error)))

    @staticmethod
    def _present_child(above: TargetDirectory | None, visit: Enter) -> TargetDirectory | None:
        """The directory, unless something that was left alone is in its place."""
        try:
            return existing_child(above, visit)
        except (RestoreConflict, RestoreFailed):  # or that others have closed
            return None

    def _item(self, directory: TargetDirectory | None, item: Item) -> None:
        if stat.S_ISSOCK(item.node.mode):
            return
        message = "is not what the snapshot holds after it was restored"
        try:
            is_equal = directory is not None and existing_equals(directory, item.node.name, self._digested(item.node))
        except RestoreFailed as error:
            is_equal, message = False, str(error)
        if is_equal:
            self._found.equal += 1
            self._events(Progress(files=self._found.equal, bytes=0, current=printable(item.path)))
        else:
            self._found.differing.append(FailedItem(printable(item.path), RestoreFailed.code, message))

    def _digested(self, node: Node) -> Node:
        """The node with the digest of its file, which those of base backups do not name."""
        if not node.is_file or node.sha256 is not None:
            return node
        return msgspec.structs.replace(node, sha256=sha256_of(node.content or EMPTY, self._repository.reader))


def _close(directory: TargetDirectory | None) -> None:
    if directory is not None:
        directory.close()
