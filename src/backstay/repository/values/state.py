"""Which values there are: the tree of the checkpoint, changed by the entries behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from backstay.errors import BackstayError, CorruptedBackup, NotFound, UnsupportedFormat
from backstay.repository.logs.value_entries import ValuesEntry
from backstay.repository.logs.values import MEND_HINT, LogView
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import running_sessions
from backstay.repository.snapshots.store import Manifest
from backstay.repository.values.shard import ValueShard
from backstay.repository.values.stored import StoredValue
from backstay.repository.values.tree import ValueTrees


@dataclass(slots=True)
class _Inline:
    """What entries in a row say of single values: where they are, or None for those removed."""

    values: dict[bytes, StoredValue | None] = field(default_factory=dict)

    def take(self, entry: ValuesEntry) -> None:
        self.values.update(dict.fromkeys(entry.removes))
        self.values.update((value.sha256, StoredValue.inline(value, entry.made_ns)) for value in entry.adds)


class ValuesState:
    """A view of the log, looked up. `pending` are the entries, by number, whose snapshot has not come to be."""

    def __init__(self, repository: Repository, view: LogView, trees: ValueTrees) -> None:
        self.view, self._trees = view, trees
        self.pending: dict[int, str] = {}
        self._unknown: list[BackstayError] = list(view.damaged.values())
        self.base = self._base(repository)
        self.sources: list[Manifest] = [] if self.base is None else [self.base]
        self._steps: list[_Inline | Manifest] = [_Inline()]
        for entry in view.entries:
            self._take(repository, entry)
        if self.pending:
            self._tell_lost(repository)

    def _base(self, repository: Repository) -> Manifest | None:
        checkpoint = self.view.checkpoint
        if checkpoint is None:
            return None
        try:
            outcome = repository.snapshots.outcome(checkpoint.snapshot)
        except (CorruptedBackup, UnsupportedFormat) as error:
            self._unknown.append(error)
            return None
        if isinstance(outcome, Manifest):
            return outcome
        self._unknown.append(CorruptedBackup(f"snapshot {checkpoint.snapshot} of all values is missing"))
        return None

    def _take(self, repository: Repository, entry: ValuesEntry) -> None:
        if entry.snapshot is not None:
            self._take_snapshot(repository, entry.number, entry.snapshot)
        if entry.adds or entry.removes:
            if not isinstance(self._steps[-1], _Inline):
                self._steps.append(_Inline())
            step = self._steps[-1]
            assert isinstance(step, _Inline)
            step.take(entry)

    def _take_snapshot(self, repository: Repository, number: int, ulid: str) -> None:
        try:
            outcome = repository.snapshots.outcome(ulid)
        except (CorruptedBackup, UnsupportedFormat) as error:
            self._unknown.append(error)
            return
        if outcome is None:
            self.pending[number] = ulid
        elif isinstance(outcome, Manifest):
            self._steps.append(outcome)
            self.sources.append(outcome)

    def _tell_lost(self, repository: Repository) -> None:
        """A writer is announced until it has committed or was fenced; a snapshot without either is lost."""
        running = {session.id for session in running_sessions(repository.backend, repository.keyring)}
        for ulid in self.pending.values():
            if ulid not in running and repository.snapshots.outcome(ulid) is None:
                self._unknown.append(CorruptedBackup(f"snapshot {ulid} of values is missing"))

    @cached_property
    def _by_shard(self) -> list[dict[int, list[tuple[bytes, StoredValue | None]]] | Manifest]:
        grouped: list[dict[int, list[tuple[bytes, StoredValue | None]]] | Manifest] = []
        for step in self._steps:
            if isinstance(step, Manifest):
                grouped.append(step)
                continue
            groups: dict[int, list[tuple[bytes, StoredValue | None]]] = {}
            for digest, value in step.values.items():
                groups.setdefault(digest[0], []).append((digest, value))
            grouped.append(groups)
        return grouped

    def find(self, digest: bytes) -> StoredValue | None:
        """One value; None only if it is certain that it is not there. Raises CorruptedBackup."""
        found = self.known(digest)
        if found is None:
            self.require_whole()
        return found

    def holds(self, digest: bytes) -> bool:
        """Whether a value is there; False only if that is certain. Raises CorruptedBackup."""
        if self._place(digest) is not None:
            return True
        self.require_whole()
        return False

    def content(self, digest: bytes) -> Content | None:
        """What names the bytes of a value, none of one that lies in the log itself; None only if it is certain that
        it is not there. Raises CorruptedBackup."""
        place = self._place(digest)
        if place is None:
            self.require_whole()
            return None
        return self._trees.content(place.root, digest) if isinstance(place, Manifest) else place.content

    def known(self, digest: bytes) -> StoredValue | None:
        """One value, if what can be read of the log has it."""
        place = self._place(digest)
        return self._trees.find(place.root, digest) if isinstance(place, Manifest) else place

    def _place(self, digest: bytes) -> StoredValue | Manifest | None:
        """The value, where an entry of the log has the last word on it, or the snapshot that has it."""
        for step in reversed(self._steps):
            if isinstance(step, _Inline):
                if digest in step.values:
                    return step.values[digest]
            elif self._trees.holds(step.root, digest):
                return step
        return self.base if self.base is not None and self._trees.holds(self.base.root, digest) else None

    @property
    def problems(self) -> tuple[BackstayError, ...]:
        """What could not be read, besides entries of the log: snapshots that it names."""
        return tuple(error for error in self._unknown if error not in self.view.damaged.values())

    def require_whole(self) -> None:
        """Raises CorruptedBackup when a part of the log cannot be read, so that more values may have been there."""
        for error in self._unknown:
            raise CorruptedBackup("the log of values is damaged", cause=str(error), hint=MEND_HINT) from error

    def shards_of_base(self) -> dict[int, Content]:
        """The listings of the checkpoint's tree, by the first byte of the values in them."""
        return self._trees.shards(self.base.root) if self.base is not None else {}

    def base_shard(self, shard: int) -> ValueShard:
        """The values of one of these listings."""
        return self._trees.shard(self.base.root, shard) if self.base is not None else ValueShard()

    def changed_shards(self) -> set[int]:
        """First bytes of the values that entries behind the checkpoint speak of."""
        found: set[int] = set()
        for step in self._by_shard:
            found |= self._trees.shards(step.root).keys() if isinstance(step, Manifest) else step.keys()
        return found

    def shard(self, shard: int) -> dict[bytes, StoredValue]:
        """All values that begin with a byte."""
        found = dict(self.base_shard(shard).pairs())
        for step in self._by_shard:
            if isinstance(step, Manifest):
                found.update(self._trees.shard(step.root, shard).pairs())
                continue
            for digest, value in step.get(shard, ()):
                if value is None:
                    found.pop(digest, None)
                else:
                    found[digest] = value
        return found

    def values(self) -> Iterator[StoredValue]:
        """Every value, in the order of their ids. Raises CorruptedBackup."""
        self.require_whole()
        for shard in range(256):
            found = self.shard(shard)
            yield from (found[digest] for digest in sorted(found))


def absent(what: str) -> NotFound:
    """The error for a value that is not there."""
    return NotFound(
        f"there is no value {what}", cause="it was deleted, or never stored", hint="`backstay cas list` shows all"
    )
