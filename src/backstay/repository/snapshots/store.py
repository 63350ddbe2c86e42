"""Snapshot manifests: sealed, signed, write-once. A snapshot exists while its object does and no drop names it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec

from backstay.codec.digest import sha256
from backstay.core.clock import Clock, datetime_from_ns
from backstay.core.ids import is_ulid
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    NotFound,
    ObjectExists,
    ObjectNotFound,
    ObjectUnreadable,
    SnapshotFenced,
    UnsupportedFormat,
)
from backstay.repository.format import RecordKind, drop_name, snapshot_name
from backstay.repository.keys.keyring import Keyring
from backstay.repository.nodes import Content
from backstay.repository.records import HEADER_BYTES, header_epoch
from backstay.repository.snapshots.graph_deletions import GraphDeletions
from backstay.repository.snapshots.holds import HoldStore
from backstay.repository.tolerance import Tolerance
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import retrieve_valid
from backstay.trust.signing import PUBLIC_BYTES, SIGNATURE_BYTES, is_signed

OnDamage: TypeAlias = Callable[[str, BackstayError], None]
SnapshotKind: TypeAlias = Literal["full", "incremental", "differential"]
REPAIRED_FROM: Final = "repaired_from"  # in `consistency`: the snapshot that this one replaces, less what was lost
VALUES_SOURCE: Final = "cas:"  # `source` of snapshots that keep values
SIGNED_AS: Final = b"application/vnd.backstay.snapshot.v1"
_MEND_HINT: Final = "put the object back from a copy, or give the snapshot up with `backstay repair snapshots`"
_ENVELOPE: Final = PUBLIC_BYTES + SIGNATURE_BYTES
_KIND_AT: Final = 5  # of the record kind in a header


class Stats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a snapshot holds, and what it took to make it; sizes in bytes."""

    files: int
    dirs: int
    bytes: int
    files_new: int
    files_changed: int
    files_unchanged: int
    bytes_read: int
    bytes_added: int
    errors: int
    duration_ns: int


class ChunkerInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which chunker cut the contents, with least, average and greatest chunk length in bytes."""

    name: str
    least: int
    average: int
    greatest: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything about one snapshot; times in nanoseconds since 1970, field order is the format.

    `time_ns` is claimed by whoever made it, `recorded_ns` is that machine's clock at commit. `parent` is the
    snapshot whose stat data was trusted, `previous` the one before it of the same source, with the SHA-256 of its
    stored bytes: a chain in which none can be replaced unnoticed.
    """

    id: str
    kind: SnapshotKind
    source: str
    host: str
    paths: tuple[bytes, ...]
    name: str | None
    tags: tuple[str, ...]
    description: str
    time_ns: int
    recorded_ns: int
    parent: str | None
    previous: str | None
    previous_digest: bytes | None
    root: Content
    stat_stream: Content
    chunkers: dict[str, ChunkerInfo]
    stats: Stats
    packs: tuple[bytes, ...]
    slots: tuple[bytes, ...]
    program: str
    policy: bytes | None = None
    consistency: dict[str, str] = {}

    @property
    def time(self) -> datetime:
        return datetime_from_ns(self.time_ns)


def is_values(manifest: Manifest) -> bool:
    """Whether a snapshot keeps values of the content-addressed store, whose log refers to it (section 24)."""
    return manifest.source == VALUES_SOURCE


class FenceRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lies under a snapshot's name instead of a manifest: this writer was cancelled by collection `collection`.

    0 stands for no collection: who waited for the writer, or the writer itself, which had failed.
    """

    session: str
    collection: int
    fenced_ns: int


class DropRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Says that a snapshot was deleted on purpose; stays for ever, so that the name cannot come back."""

    snapshot: str
    dropped_ns: int
    reason: str


class SnapshotStore:
    """Commits, finds and drops snapshots."""

    def __init__(self, backend: StorageBackend, keyring: Keyring, tolerance: Tolerance | None = None) -> None:
        self._backend, self._keyring, self._tolerance = backend, keyring, tolerance or Tolerance()
        self.holds = HoldStore(backend, keyring)
        self.graph_deletions = GraphDeletions(backend, keyring)
        self._known: dict[str, Manifest | FenceRecord] = {}
        self._digests: dict[str, bytes] = {}
        self._pack_digests: dict[bytes, bytes] = {}
        self._dropped: set[str] = set()

    def commit(self, manifest: Manifest) -> None:
        """Make a snapshot exist: everything that it names must be durable. Raises SnapshotFenced.

        The one atomic create decides between this writer and a collector's fence. A crash before it leaves
        unreferenced packs, one after it a whole snapshot.
        """
        body = self._keyring.seal(RecordKind.SNAPSHOT, manifest)
        signer = self._keyring.current.signer
        data = body + signer.public + signer.sign(SIGNED_AS, body)
        try:
            self._backend.store(snapshot_name(manifest.id), data)
        except ObjectExists:
            self._explain_taken_name(manifest, data)
        self._known[manifest.id] = self._sharing(manifest)
        self._digests[manifest.id] = sha256(data)

    def _explain_taken_name(self, manifest: Manifest, data: bytes) -> None:
        if self._backend.retrieve(snapshot_name(manifest.id)) == data:
            return  # our own commit, whose answer was lost
        raise SnapshotFenced(
            "this backup was cancelled by a collector",
            cause="its session showed no sign of life for longer than the lease",
        )

    def fence(self, session: str, collection: int, clock: Clock) -> bool:
        """Cancel a writer unless it has committed; True when it never can commit from now on."""
        record = FenceRecord(session, collection, clock.now_ns())
        data = self._keyring.seal(RecordKind.FENCE, record)
        try:
            self._backend.store(snapshot_name(session), data)
        except ObjectExists:
            return isinstance(self._read(session), FenceRecord)
        return True

    def drop(self, ulid: str, reason: str, clock: Clock) -> None:
        """Delete a snapshot: the record first, so that a crash leaves either the snapshot or a complete drop.

        The object itself is removed by the next collection. One that was dropped already is done: an earlier try may
        have failed just before it was durable. Raises NotFound, HoldViolation.
        """
        if ulid not in self.dropped([ulid]):
            self._committed(ulid)
        self._record_drop(ulid, reason, clock)

    def accept_loss(self, ulid: str, reason: str, clock: Clock) -> None:
        """Say that a snapshot which is gone or cannot be read will not come back; what it left is then collected.

        Raises HoldViolation.
        """
        if not is_ulid(ulid):
            raise _no_snapshot(ulid, "no id looks like this")
        self._record_drop(ulid, reason, clock)

    def _record_drop(self, ulid: str, reason: str, clock: Clock) -> None:
        self.holds.require_free([ulid])
        record = DropRecord(ulid, clock.now_ns(), reason)
        data = self._keyring.seal(RecordKind.DROP, record)
        try:
            self._backend.store(drop_name(ulid), data)
        except ObjectExists:
            try:
                self._read_drop(ulid)
            except CorruptedBackup:  # it deletes nothing as it is
                self._backend.store(drop_name(ulid), data, overwrite=True)

    def hold(self, ulid: str, reason: str, clock: Clock) -> bool:
        """Let nobody drop a snapshot; False if it was held before, for this reason or with no other given now.

        Raises NotFound, also when somebody else drops it at the same time.
        """
        self.get(ulid)
        changed = self.holds.set(ulid, held=True, reason=reason, clock=clock)
        if changed and (
            self.graph_deletions.is_marked(ulid) or (self._has_drop(ulid) and self._is_dropped(ulid, None))
        ):
            self.holds.set(ulid, held=False, reason="it was deleted at the same time", clock=clock)
            raise _no_snapshot(ulid, "it was deleted at the same time")
        return changed or (bool(reason) and self.holds.explain(ulid, reason))

    def release(self, ulid: str, reason: str, clock: Clock) -> bool:
        """Let a snapshot be dropped again; False if nothing held it."""
        return self.holds.set(ulid, held=False, reason=reason, clock=clock)

    def _has_drop(self, ulid: str) -> bool:
        return drop_name(ulid) in {info.name for info in self._backend.list(drop_name(ulid))}

    def dropped(self, among: Iterable[str] | None = None, on_damage: OnDamage | None = None) -> set[str]:
        """Ids of deleted snapshots, all of them or those among some.

        Each drop record is authenticated: one that is forged, damaged or unreadable deletes nothing, and goes to
        `on_damage`. One of a snapshot that is held counts for nothing as long as it is.
        """
        named = set(self._ids("drops/"))
        wanted = named if among is None else named & set(among)
        dropped = {ulid for ulid in wanted if self._is_dropped(ulid, on_damage)}
        return dropped - self.holds.held(dropped).keys() if dropped else dropped

    def dropped_with(self, beginning: str) -> set[str]:
        """Ids of deleted snapshots that begin so."""
        return self.dropped({ulid for ulid in self._ids("drops/") if ulid.startswith(beginning)})

    def _is_dropped(self, ulid: str, on_damage: OnDamage | None) -> bool:
        if ulid in self._dropped:
            return True
        try:
            self._read_drop(ulid)
        except (CorruptedBackup, UnsupportedFormat, ObjectUnreadable) as error:
            if on_damage is not None:
                on_damage(drop_name(ulid), error)
            return False
        self._dropped.add(ulid)
        return True

    def _read_drop(self, ulid: str) -> DropRecord:
        return retrieve_valid(self._backend, drop_name(ulid), lambda data: self.decode_drop(ulid, data))

    def decode_drop(self, ulid: str, data: bytes) -> DropRecord:
        """The drop record of a snapshot. Raises CorruptedBackup, UnsupportedFormat."""
        record = self._keyring.open(data, RecordKind.DROP, DropRecord)
        if record.snapshot != ulid:
            raise CorruptedBackup(f"{drop_name(ulid)} names another snapshot")
        return record

    def taken(self) -> list[str]:
        """Ids of all committed or fenced sessions, dropped ones included."""
        return sorted(self._ids("snapshots/"))

    def live(self, on_damage: OnDamage | None = None) -> list[Manifest]:
        """All snapshots that exist, oldest first.

        One that cannot be read is passed to `on_damage`; without that, it raises CorruptedBackup.
        """
        # Drops are listed after the snapshots: the other order could show one that was dropped in between.
        taken = self.taken()
        dropped = self.dropped(taken, on_damage)
        found = []
        for ulid in taken:
            if ulid in dropped:
                continue
            try:
                record = self._read(ulid)
            except ObjectNotFound:
                continue  # dropped and collected since the listing
            except (CorruptedBackup, UnsupportedFormat) as error:
                if on_damage is None:
                    raise
                on_damage(snapshot_name(ulid), error)
                continue
            if isinstance(record, Manifest):
                found.append(record)
        return found

    def get(self, ulid: str) -> Manifest:
        """One snapshot by its whole id. Raises NotFound, CorruptedBackup."""
        if ulid in self.dropped([ulid]):
            raise _no_snapshot(ulid, "it was deleted")
        return self._committed(ulid)

    def _committed(self, ulid: str) -> Manifest:
        """One snapshot, dropped or not."""
        if not is_ulid(ulid):
            raise _no_snapshot(ulid, "no id looks like this")
        try:
            record = self._read(ulid)
        except ObjectNotFound as error:
            raise _no_snapshot(ulid, "none with this id was ever made, or it is lost") from error
        if isinstance(record, FenceRecord):
            raise _no_snapshot(ulid, "its backup was cancelled by a collector")
        return record

    def outcome(self, session: str) -> Manifest | FenceRecord | None:
        """What became of a session: its snapshot, dropped or not, or its fence; None as long as it may become either.

        Raises CorruptedBackup.
        """
        try:
            return self._read(session)
        except ObjectNotFound:
            return None

    def shown(self, on_damage: OnDamage | None = None) -> list[Manifest]:
        """All snapshots that people made, as `live` has them: without those that only keep values (`is_values`)."""
        return [manifest for manifest in self.live(on_damage) if not is_values(manifest)]

    def digest(self, ulid: str) -> bytes:
        """SHA-256 of a snapshot's stored bytes."""
        self._read(ulid)
        return self._digests[ulid]

    def remove_object(self, ulid: str) -> None:
        """Remove the object of a dropped snapshot; its drop record stays."""
        self._backend.delete(snapshot_name(ulid))
        self._known.pop(ulid, None)

    def _ids(self, prefix: str) -> Iterator[str]:
        for info in self._backend.list(prefix):
            ulid = info.name.removeprefix(prefix)
            if not is_ulid(ulid):
                raise CorruptedBackup(
                    "a foreign object lies in the repository",
                    cause=f"{info.name} is not the name of a snapshot",
                    hint="find out what put it there, and remove it",
                )
            yield ulid

    def _read(self, ulid: str) -> Manifest | FenceRecord:
        if ulid not in self._known:
            try:
                record, self._digests[ulid] = retrieve_valid(
                    self._backend, snapshot_name(ulid), lambda data: (self.decode(ulid, data), sha256(data))
                )
            except ObjectUnreadable as error:
                self._tolerance.judge(error)
                raise
            self._known[ulid] = self._sharing(record) if isinstance(record, Manifest) else record
        return self._known[ulid]

    def _sharing(self, manifest: Manifest) -> Manifest:
        """As it is, with one object in memory for each pack: snapshots name mostly the same ones, and a great many."""
        packs = manifest.packs
        return msgspec.structs.replace(manifest, packs=tuple(map(self._pack_digests.setdefault, packs, packs)))

    def decode(self, ulid: str, data: bytes) -> Manifest | FenceRecord:
        """What lies under a snapshot's name. Raises CorruptedBackup, UnsupportedFormat."""
        try:
            if data[_KIND_AT : _KIND_AT + 1] == bytes([RecordKind.FENCE]):
                fence = self._keyring.open(data, RecordKind.FENCE, FenceRecord)
                if fence.session != ulid:
                    raise CorruptedBackup("it fences another session")
                return fence
            return self._decode_manifest(ulid, data)
        except CorruptedBackup as error:
            raise CorruptedBackup(f"{snapshot_name(ulid)} is damaged", cause=str(error), hint=_MEND_HINT) from error

    def _decode_manifest(self, ulid: str, data: bytes) -> Manifest:
        if len(data) < HEADER_BYTES + _ENVELOPE:
            raise CorruptedBackup("it is cut short")
        body, public, signature = data[:-_ENVELOPE], data[-_ENVELOPE:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        epoch = header_epoch(body, RecordKind.SNAPSHOT, self._keyring.repository)
        manifest = self._keyring.open(body, RecordKind.SNAPSHOT, Manifest)
        if public != self._keyring.public(epoch) or not is_signed(public, signature, SIGNED_AS, body):
            raise CorruptedBackup("its signature is not valid")
        if manifest.id != ulid:
            raise CorruptedBackup("it is the manifest of another snapshot", cause=manifest.id)
        return manifest


def _no_snapshot(ulid: str, cause: str) -> NotFound:
    return NotFound(f"there is no snapshot {ulid}", cause=cause)
