"""Copy snapshots into a repository with other keys: chunks are read, named and sealed anew.

Chunk ids and listings differ there, so everything is written again, but only what is not there yet is sent: a chunk
whose new id the target has, and a file that an earlier copied snapshot of the same source holds unchanged, which is
not even read. Files keep the chunks that they were cut into. The logs of databases go with their backups.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, NotFound, ObjectNotFound
from backstay.operations.copies.result import CopyResult
from backstay.operations.copies.value_carriage import carry_values
from backstay.operations.copies.wal_carriage import WalCarriage, kept_meanwhile
from backstay.operations.snapshots.rewrite import Damage, OpenDirectory, Rewritten, SnapshotRewriter
from backstay.operations.tiers.cold_packs import THAW_DAYS, ColdPacks, make_readable
from backstay.repository.blobs.contents import (
    ContentWriter,
    PlainStream,
    all_chunk_ids,
    changes_of,
    chunk_ids,
    patch_of,
)
from backstay.repository.blobs.patches import PatchWriter
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.format import RecordKind
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest, is_values
from backstay.repository.trees.listings import listing_key, read_listing

COPIED_FROM: Final = "copied_from"  # in `consistency`: uuid of a repository / id of the snapshot there
CHECKPOINT: Final = 256 << 20  # bytes read between two index segments: what an interrupted run need not send again
_KNOWN: Final = 1 << 16  # chunks whose new ids are remembered
_UNREADABLE: Final = (CorruptedBackup, ObjectNotFound)


def copy_snapshots(
    source: Repository,
    target: Repository,
    snapshots: Sequence[Manifest],
    *,
    days: int = THAW_DAYS,
    wait: bool = True,
    events: EventSink = ignore,
) -> CopyResult:
    """Give the target these snapshots of the source, but for those that it has already.

    Each is committed by itself, oldest first, with the chunks that it needs before it; an interrupted run is
    continued by the next. Packs that are read from a cold tier of the source are thawed before, all in one batch.

    Logs are sent before the first of them, for those that the target has as well, and looked at once more when they are
    committed: until then an expiry there could take them for needless. What is damaged of them is a finding.

    Raises CorruptedBackup when a snapshot cannot be read whole, before it is committed; TierNotAttached; ThawPending
    without `wait`; IdentityMismatch, WalConflict before anything of another cluster is touched.
    """
    snapshots = [manifest for manifest in snapshots if not is_values(manifest)]  # values go with those that need them
    transfer = _Transfer(source, target, events)
    transfer.make_readable(snapshots, days=days, wait=wait)
    with source.passing_unreadable(), kept_meanwhile(source, snapshots, events):
        return transfer.run(sorted(snapshots, key=lambda manifest: manifest.id))


class _Transfer:
    def __init__(self, source: Repository, target: Repository, events: EventSink) -> None:
        self.source, self.target, self.events = source, target, events
        self.sent = 0
        self.packs: set[bytes] = set()  # stored for the snapshot that is being copied

    def run(self, snapshots: Sequence[Manifest]) -> CopyResult:
        live = self.target.snapshots.live()
        there = {origin: manifest for manifest in live if (origin := self._origin(manifest)) is not None}
        own = {manifest.id: manifest for manifest in live}
        copied: list[tuple[str, str]] = []
        already: list[str] = []
        carriage = WalCarriage(self.source, self.target, events=self.events)
        carriage.carry(snapshots)
        self.events(Started(operation="copy", total_files=sum(manifest.stats.files for manifest in snapshots)))
        for manifest in snapshots:
            if self._is_there(manifest, there, own):
                already.append(manifest.id)
                continue
            there[manifest.id] = self._copy(manifest, there)
            copied.append((manifest.id, there[manifest.id].id))
        finished(self.events, "copy")
        if copied:
            carriage.carry(snapshots)
        return CopyResult(
            kind="snapshots",
            bytes=self.sent + carriage.bytes,
            wal_files=carriage.files,
            copied=tuple(copied),
            already=tuple(already),
            findings=carriage.findings,
        )

    def _is_there(self, manifest: Manifest, there: Mapping[str, Manifest], own: Collection[str]) -> bool:
        """Whether the target has a snapshot: copied from here, once copied from there, or as another store has it."""
        is_own = self.source.header.uuid == self.target.header.uuid and manifest.id in own
        return is_own or manifest.id in there or self._came_from(manifest) in own

    def make_readable(self, snapshots: Sequence[Manifest], *, days: int, wait: bool) -> None:
        """Thaw what will be read: files that the earlier snapshot of the same source does not hold unchanged."""
        cold = ColdPacks(self.source)
        if not cold:
            return
        live = self.target.snapshots.live()
        there = {origin: manifest for manifest in live if (origin := self._origin(manifest)) is not None}
        own = {manifest.id for manifest in live}
        for manifest in sorted(snapshots, key=lambda manifest: manifest.id):
            if self._is_there(manifest, there, own):
                continue
            before = self._before(manifest, there)
            for node in _files_since(self.source, manifest.root, before[0].root if before is not None else None):
                cold.need_file(node)
            there[manifest.id] = manifest  # it will be
        make_readable(self.source, cold.needed(), days=days, wait=wait, events=self.events)

    def _origin(self, manifest: Manifest) -> str | None:
        """The id in the source of a snapshot that was copied from there."""
        uuid, _, ident = manifest.consistency.get(COPIED_FROM, "").partition("/")
        return ident if uuid == self.source.header.uuid else None

    def _came_from(self, manifest: Manifest) -> str | None:
        """The id in the target of a snapshot that was once copied from there."""
        uuid, _, ident = manifest.consistency.get(COPIED_FROM, "").partition("/")
        return ident if uuid == self.target.header.uuid else None

    def _copy(self, old: Manifest, there: dict[str, Manifest]) -> Manifest:
        """Order: values, packs, index, snapshot. A crash before the last leaves what the next run finds."""
        target = self.target
        self.packs = set()
        with target.begin_session() as session, Workers(target.environment.threads, "seal") as workers:
            session.start_heartbeat()
            carry_values(self.source, target, [old], self.events, intent=session.id)
            target.hide_missing_packs()
            writer = target.writer(workers)
            try:
                rewritten = _SnapshotTransfer(self, writer, old, self._before(old, there)).run()
                self.index_settled(writer)
                self.sent += writer.bytes_added
            finally:
                writer.close()
            manifest = self._manifest(old, rewritten, session.id, there)
            target.confirm_lease()
            target.snapshots.commit(manifest)
        return manifest

    def _before(self, old: Manifest, there: dict[str, Manifest]) -> tuple[Manifest, Manifest] | None:
        """The newest snapshot of the same source that both have: (here, there)."""
        for ident in sorted(there, reverse=True):
            found = there[ident]
            if ident < old.id and (found.source, found.host) == (old.source, old.host):
                try:
                    return self.source.snapshots.get(ident), found
                except (CorruptedBackup, NotFound):  # damaged here, or deleted since it was copied
                    continue
        return None

    def index_settled(self, writer: BlobWriter) -> None:
        """Make durable chunks findable."""
        for packs, _ in writer.settled():
            if packs:
                self.packs.update(pack.digest for pack in packs)
                self.target.index.write(packs)

    def _manifest(self, old: Manifest, rewritten: Rewritten, ident: str, there: dict[str, Manifest]) -> Manifest:
        target = self.target
        chain = [m for m in target.snapshots.live() if (m.source, m.host) == (old.source, old.host)]
        previous = chain[-1] if chain else None
        parent = there.get(old.parent) if old.parent is not None else None
        manifest = rewritten.manifest(
            old,
            id=ident,
            recorded_ns=target.clock.now_ns(),
            parent=parent.id if parent is not None else None,
            previous=previous.id if previous is not None else None,
            previous_digest=target.snapshots.digest(previous.id) if previous is not None else None,
            packs=tuple(sorted(self.packs | rewritten.packs)),
            slots=target.slots.digests(),
            consistency={**old.consistency, COPIED_FROM: f"{self.source.header.uuid}/{old.id}"},
        )
        stats = msgspec.structs.replace(old.stats, bytes_added=rewritten.bytes_added)
        return msgspec.structs.replace(manifest, stats=stats)


@dataclass(slots=True, eq=False)
class _Earlier:
    """The entries of a directory in the earlier snapshot, here and there side by side, read once in listing order."""

    pairs: Iterator[tuple[Node, Node]]
    ahead: tuple[Node, Node] | None = None

    def find(self, node: Node) -> tuple[Node, Node] | None:
        """The earlier entry of this name, in both repositories; nodes are asked for in listing order."""
        key = listing_key(node)
        while self.ahead is None or listing_key(self.ahead[0]) < key:
            self.ahead = self._next()
            if self.ahead is None:
                return None
        return self.ahead if listing_key(self.ahead[0]) == key else None

    def _next(self) -> tuple[Node, Node] | None:
        try:
            pair = next(self.pairs, None)
        except (*_UNREADABLE, ValueError):  # damaged, or not the same entries: then everything is read
            return None
        return pair if pair is not None and listing_key(pair[0]) == listing_key(pair[1]) else None


def _files_since(source: Repository, listing: Content, before: Content | None) -> Iterator[Node]:
    """The files whose content a snapshot does not hold under the same path as an earlier one."""
    waiting = [(listing, before)]
    while waiting:
        now, then = waiting.pop()
        if now == then:
            continue
        known = read_listing(then, source.reader) if then is not None else iter(())
        earlier = _Earlier((node, node) for node in known)
        for node in read_listing(now, source.reader):
            pair = earlier.find(node)
            content = pair[0].content if pair is not None else None
            if node.content is None or node.content == content:
                continue
            if node.is_dir:
                waiting.append((node.content, content))
            else:
                yield node


class _SnapshotTransfer(SnapshotRewriter):
    """One walk over the listings here, which writes those there."""

    def __init__(
        self, transfer: _Transfer, writer: BlobWriter, old: Manifest, before: tuple[Manifest, Manifest] | None
    ) -> None:
        super().__init__(transfer.target, writer, old, Damage(), reader=transfer.source.reader)
        self._transfer = transfer
        self._ids = transfer.target.keyring.chunk_ids
        self._known: OrderedDict[bytes, bytes] = OrderedDict()
        self._before = before
        self._earlier: list[_Earlier] = []
        self._read = self._checkpointed = 0

    def _enter(self, path: bytes, node: Node | None, content: Content, *, inside_base: bool) -> OpenDirectory:
        self._earlier.append(self._earlier_of(node))
        return super()._enter(path, node, content, inside_base=inside_base)

    def _leave(self, top: OpenDirectory) -> Content:
        self._earlier.pop()
        return super()._leave(top)

    def _earlier_of(self, node: Node | None) -> _Earlier:
        """The same directory in the earlier snapshot."""
        if node is None:
            if self._before is None:
                return _Earlier(iter(()))
            here, there = self._before[0].root, self._before[1].root
        else:
            pair = self._earlier[-1].find(node)
            if pair is None:
                return _Earlier(iter(()))
            here, there = pair[0].content or EMPTY, pair[1].content or EMPTY
        reader = self._transfer.target.reader
        return _Earlier(zip(read_listing(here, self._reader), read_listing(there, reader), strict=True))

    def _carry(self, node: Node, content: Content) -> Content:
        pair = self._earlier[-1].find(node)
        there = pair[1].content if pair is not None and pair[0].content == content else None
        if there is not None and self._is_there(there):
            return there
        sent = self._send_patched(content) if content.is_patched else self._send_all(content)
        self._checkpoint_if_due()
        return sent

    def _send_all(self, content: Content) -> Content:
        sent = ContentWriter(self._writer, self._ids, self._repository.listing_chunker)
        for chunk in chunk_ids(content, self._reader):
            sent.add(self._send(chunk))
        return sent.finish()

    def _send_patched(self, content: Content) -> Content:
        """The same base with the same changes, whose bytes have other ids there."""
        patch = patch_of(content, self._reader)
        base = PlainStream(patch.base, self._reader)
        there = PatchWriter(self._writer, self._ids, self._repository.listing_chunker)
        for change in changes_of(patch, self._reader):
            data = change.apply_to(base.read(change.base_at, change.base_length), self._reader)
            there.add(msgspec.structs.replace(change, chunk=self._ids.of(data)))
        return there.finish(patch.size, self._send_all(patch.base))

    def _is_there(self, content: Content) -> bool:
        """Whether the target has every chunk of this content; the new snapshot then depends on their packs."""
        try:
            return all(self._writer.has(chunk) for chunk in all_chunk_ids(content, self._transfer.target.reader))
        except _UNREADABLE:
            return False

    def _send(self, chunk: bytes) -> bytes:
        """The id that a chunk has there, where it is from now on."""
        known = self._known.get(chunk)
        if known is not None and self._writer.has(known):
            return known
        data = self._reader.chunk(chunk)
        self._read += len(data)
        new = self._ids.of(data)
        self._writer.put(RecordKind.DATA_PACK, new, data)
        self._known[chunk] = new
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return new

    def _checkpoint_if_due(self) -> None:
        self._transfer.events(Progress(files=self._files, bytes=self._read, current=self._old.id))
        if self._read - self._checkpointed >= CHECKPOINT:
            self._checkpointed = self._read
            self._writer.turn()
        self._transfer.index_settled(self._writer)
