"""Make a store a copy of a repository, object by object, bit for bit; or bring such a copy up to date.

What refers to something is sent after it, so that the target is a repository at any moment, if an old one, and an
interrupted run is continued by the next. Snapshots are listed first and sent last: all that a listed one needs was
stored before it. Should a collector delete something while it is being copied, the listing begins anew before any
snapshot is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.pipeline import Workers
from backstay.errors import InvalidRequest, ObjectNotFound, ObjectUnreadable, StorageUnavailable
from backstay.operations.copies.medium import refuse_medium
from backstay.operations.copies.result import CopyResult
from backstay.operations.repair.result import Findings
from backstay.operations.tiers.cold_packs import THAW_DAYS, make_packs_readable
from backstay.repository.checking.genuine import Genuine, Gone, header_of
from backstay.repository.common_history import require_common_history
from backstay.repository.format import REPO, snapshot_name
from backstay.repository.logs.value_entries import values_number
from backstay.repository.logs.values import LogView
from backstay.repository.repository import Repository
from backstay.storage.assembly import is_same_place
from backstay.storage.backend import StorageBackend
from backstay.storage.crash_order import in_crash_order
from backstay.storage.holdings import held_sizes
from backstay.storage.mirror_log import MirrorLog, unmark_as_first

READ_AHEAD: Final = 48 << 20  # bytes of objects that are read before they are sent
_TRIES: Final = 4  # listings, when a collector deletes meanwhile
_SNAPSHOTS: Final = "snapshots/"
_COLLECTIONS: Final = "gc/"


def can_be_mirror(repository: Repository, target: StorageBackend) -> bool:
    """Whether the target is empty, a copy of this repository, or one that was begun; another repository is neither."""
    refuse_medium(target)
    header = header_of(target)
    if header is not None:
        return header == repository.header.encode()
    genuine = Genuine(repository)  # what is sent before repo.json are a few keys
    begun = held_sizes(target)
    return all(name.startswith("keys/") for name in begun) and all(
        genuine.is_whole(name, target.retrieve(name)) and repository.backend.exists(name) for name in begun
    )


def copy_objects(
    repository: Repository,
    target: StorageBackend,
    *,
    days: int = THAW_DAYS,
    wait: bool = True,
    events: EventSink = ignore,
) -> CopyResult:
    """Send what the target lacks, and remove from it what records of the repository say to be deleted.

    Every object is checked before it is sent; one that is damaged stays away and is a finding. What the target has
    already is compared by name and size, and but for its key epochs not read: `verify` of the target does that.

    Packs that the target needs from a cold tier are thawed before anything is sent.

    Raises InvalidRequest when another repository lies there or a copy that has other keys, TierNotAttached,
    ThawPending without `wait`, StorageUnavailable when collections do not let it come to an end.
    """
    return _MirrorCopy(repository, target, events, days, wait).run()


@dataclass(slots=True)
class _MirrorCopy:
    repository: Repository
    target: StorageBackend
    events: EventSink
    days: int
    wait: bool
    objects: int = 0
    sent_bytes: int = 0
    removed: int = 0
    damaged: set[str] = field(default_factory=set)

    def run(self) -> CopyResult:
        self._require_target()
        log = MirrorLog(self.repository.backend.copies()[0], self.target.url)
        noted = log.deleted()
        for _ in range(_TRIES):
            snapshots = {info.name for info in self.repository.backend.list(_SNAPSHOTS)}
            # A verdict that comes later may rely on a segment that the listing of everything had already passed.
            collections = {info.name for info in self.repository.backend.list(_COLLECTIONS)}
            # Values are listed after the snapshots that may refer to them, and before what their own log refers to.
            values = self.repository.values_log.refresh()
            everything = held_sizes(self.repository.backend)
            snapshots |= everything.keys() & set(map(snapshot_name, values.snapshots))
            listed_before = (_SNAPSHOTS, _COLLECTIONS)
            rest = {name for name in everything if not name.startswith(listed_before) and not _is_newer(name, values)}
            rest |= collections
            if self._send(rest) and self._send(snapshots):
                break
        else:
            raise StorageUnavailable(
                f"the copy at {self.target.url} could not be finished",
                cause="objects were deleted while they were being copied, again and again",
                hint="repeat the command when no collection runs; what was sent stays there",
            )
        self._remove_deleted(rest | snapshots)
        for name in noted:
            log.forget_deleted(name)
        unmark_as_first(self.target)
        findings = Findings(self.events)
        for name in sorted(self.damaged):
            hint = "mend it with `backstay repair packs`, from a copy if there is one; then copy again"
            findings.add("integrity", name, "this object is damaged and was not copied", hint)
        finished(self.events, "copy")
        return CopyResult(
            kind="mirror",
            objects=self.objects,
            bytes=self.sent_bytes,
            removed=self.removed,
            findings=tuple(findings.found),
        )

    def _require_target(self) -> None:
        if is_same_place(self.repository.backend.copies()[0], self.target):
            raise InvalidRequest(
                "a repository cannot be copied onto itself",
                cause=f"{self.target.url} is where it lies",
                hint="name another place",
            )
        if not can_be_mirror(self.repository, self.target):
            raise InvalidRequest(
                f"{self.target.url} cannot become a copy of this repository",
                cause=f"it holds other objects, or another {REPO}",
                hint="name an empty store",
            )
        if header_of(self.target) is not None:
            require_common_history(self.repository.keyring, self.repository.backend.copies()[0], self.target)

    def _send(self, names: set[str]) -> bool:
        """Send those that the target lacks; False when one was deleted since they were listed."""
        sizes, there = held_sizes(self.repository.backend), held_sizes(self.target)
        wanted = names - self.damaged
        if not wanted <= sizes.keys():  # what took its place, or the record that it is gone, is not among the names
            return False
        missing = in_crash_order(name for name in wanted if there.get(name) != sizes[name])
        make_packs_readable(self.repository, missing, days=self.days, wait=self.wait, events=self.events)
        total = sum(sizes[name] for name in missing)
        self.events(Started(operation="copy", total_files=len(missing), total_bytes=total))
        genuine, sent, size = Genuine(self.repository), 0, 0
        with Workers(self.repository.environment.threads, "copy") as workers:
            found = workers.ordered(self._read, missing, weigh=sizes.__getitem__, limit=READ_AHEAD)
            for name, data in zip(missing, found, strict=True):
                if data is None:
                    return False
                if name in self.damaged:
                    continue
                if genuine.is_whole(name, data) is False:
                    data = self._read(name)  # noqa: PLW2901 - what was damaged on its way is whole the next time
                    if data is None:
                        return False
                    if genuine.is_whole(name, data) is False:
                        self.damaged.add(name)
                        continue
                self.target.store(name, data, overwrite=True)  # it is not there, or was torn: its size differs
                sent, size = sent + 1, size + len(data)
                self.objects, self.sent_bytes = self.objects + 1, self.sent_bytes + len(data)
                self.events(Progress(files=sent, bytes=size, current=name))
        return True

    def _read(self, name: str) -> bytes | None:
        """None for what is gone, nothing and a note for what the disk does not give."""
        try:
            return self.repository.backend.retrieve(name)
        except ObjectNotFound:
            return None
        except ObjectUnreadable:
            self.damaged.add(name)
            return b""

    def _remove_deleted(self, ours: set[str]) -> None:
        """What a record says to be deleted; a target with snapshots of its own may still need it."""
        theirs = set(held_sizes(self.target)) - ours
        self.repository.reload_index()
        gone = Gone(self.repository, [name for name in ours if name.startswith("index/")])
        if any(name.startswith(_SNAPSHOTS) and not gone.is_gone(name) for name in theirs):
            return
        # The other way round than they were sent: what refers to something goes before it.
        for name in reversed(in_crash_order(theirs)):
            if self._may_go(name, gone):
                self.target.delete(name)
                self.removed += 1

    def _may_go(self, name: str, gone: Gone) -> bool:
        if name.startswith("index/"):
            return self._is_superseded(name, gone)
        return gone.is_gone(name)

    def _is_superseded(self, name: str, gone: Gone) -> bool:
        """Whether our segments hold all that one of the target's says."""
        try:
            data = self.target.retrieve(name)
        except ObjectNotFound:
            return False
        return gone.is_superseded(name, data)


def _is_newer(name: str, values: LogView) -> bool:
    """Whether an object is an entry of the values log that came later than the log was looked at."""
    number = values_number(name)
    return number is not None and number > values.last
