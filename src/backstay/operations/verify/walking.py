"""Snapshots, walked: every chunk that one reaches has a place in the index, and none is lost with a bad pack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from backstay.core.events import EventSink, Progress, Started
from backstay.core.names import printable
from backstay.core.quantities import plural
from backstay.errors import CorruptedBackup, ObjectFrozen, ObjectNotFound, TierNotAttached
from backstay.operations.snapshots.lost_chunks import lost_chunks
from backstay.operations.snapshots.rewrite import LOST_SHOWN, DamageSurvey
from backstay.operations.snapshots.walk import directory_content
from backstay.operations.verify.bad_packs import BadPacks, key_of
from backstay.operations.verify.notes import Notes
from backstay.operations.verify.objects import GONE_HINT
from backstay.operations.verify.whole_ids import WholeIds
from backstay.repository.blobs.contents import NeededChunks, read_content, split_ids, summed
from backstay.repository.format import pack_name
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import MAX_DEPTH, MEND_HINT, read_listing
from backstay.repository.trees.stat_stream import StatCursor

_IMPOSSIBLE_HINT: Final = "a restore tells of it and goes on without it; `backstay find` shows who else holds this path"


@dataclass(slots=True)
class Walking:
    """The check of what snapshots hold.

    With `read` the ids of files are compared as a whole, and files that are patches are put together.
    """

    repository: Repository
    notes: Notes
    bad: BadPacks
    read: bool
    _found: list[tuple[str, CorruptedBackup | ObjectNotFound]] = field(default_factory=list)  # of one snapshot
    _impossible: list[tuple[str, CorruptedBackup]] = field(default_factory=list)  # what no restore can make
    _ids: WholeIds = field(init=False)
    _needed: NeededChunks = field(init=False)

    def __post_init__(self) -> None:
        self._ids = WholeIds(self.repository)
        self._needed = NeededChunks(self.repository.reader)

    def completeness(self, manifests: list[Manifest], events: EventSink) -> set[int]:
        """Walk every listing; each chunk must have a place. The packs that are needed are returned."""
        used: set[int] = set()
        seen: set[bytes] = set()

        def look() -> str:
            events(Started(operation="check snapshots", total_files=sum(m.stats.files for m in manifests)))
            files = 0
            for manifest in manifests:
                walked: set[bytes] = set()
                for count in self._walk(manifest, used, seen, walked):
                    files += count
                    events(Progress(files=files, bytes=0, current=manifest.id))
                if self._tell(manifest):
                    seen.update(walked)
            return f"{plural(len(manifests), 'snapshot')}, {plural(files, 'file')}"

        self.notes.check("completeness", look)
        if "integrity" not in self.notes.checks:  # else it has told
            self._need_packs(used)
        return used

    def _tell(self, manifest: Manifest) -> bool:
        """Whether a snapshot lacks nothing; what it lacks is told, unless it was deleted while it was walked.

        What it needed alone may have been collected then. Others may share what was found wrong, and are told as well.
        """
        self._compare_ids()
        found, self._found = self._found, []
        impossible, self._impossible = self._impossible, []
        if (found or impossible) and not self.repository.snapshots.dropped([manifest.id]):
            for subject, error in found:
                self.notes.find("completeness", subject, error, MEND_HINT)
            for subject, wrong in impossible:
                self.notes.find("completeness", subject, wrong, _IMPOSSIBLE_HINT)
        return not found and not impossible

    def hit_by_bad_packs(self, manifests: list[Manifest], events: EventSink) -> None:
        """Which files cannot be read because of packs that are known to be bad; nothing is walked while none is."""

        def look() -> str:
            survey = DamageSurvey(self.repository, lost_chunks(self.repository, self.bad.digests))
            told = {finding.subject for finding in self.notes.findings if finding.check == "completeness"}
            events(Started(operation="find what bad packs hit", total_files=len(manifests)))
            hit = 0
            for done, manifest in enumerate(manifests, 1):
                lost = [f"snapshot {manifest.id}: {printable(path)}" for path in survey.of(manifest).lost]
                if lost and not self.repository.snapshots.dropped([manifest.id]):
                    hit += 1
                    self._tell_hit(f"snapshot {manifest.id}", [subject for subject in lost if subject not in told])
                events(Progress(files=done, bytes=0, current=manifest.id))
            return f"{plural(hit, 'snapshot')} hit by {plural(len(self.bad.digests), 'bad pack')}"

        if self.bad.digests:
            self.notes.check("completeness", look)

    def _tell_hit(self, snapshot: str, paths: list[str]) -> None:
        for subject in paths[:LOST_SHOWN]:
            self.notes.find("completeness", subject, "packs that it needs are missing or damaged", MEND_HINT)
        if (more := len(paths) - LOST_SHOWN) > 0:
            message = f"{plural(more, 'more path')} of it need packs that are missing or damaged"
            self.notes.find("completeness", snapshot, message, MEND_HINT)

    def _need_packs(self, used: set[int]) -> None:
        """A chunk that has a place is not there yet: its pack must be."""
        sizes = {
            info.name: info.size for prefix in ("packs/", "meta/") for info in self.repository.backend.list(prefix)
        }
        packs = [self.repository.index.pack(number) for number in sorted(used)]
        wrong = [pack for pack in packs if sizes.get(pack_name(pack.kind, pack.digest)) != pack.size]
        message = "snapshots need this pack, which is missing or cut"
        self.bad.tell_missing("completeness", map(key_of, wrong), GONE_HINT, message)

    def _walk(self, manifest: Manifest, used: set[int], seen: set[bytes], walked: set[bytes]) -> Iterator[int]:
        """Everything but the listings `seen` to be good in other snapshots; the number of files in each listing."""
        subject = f"snapshot {manifest.id}"
        try:
            self._need(manifest.stat_stream, used)
            self._read_stat_stream(manifest)
        except (CorruptedBackup, ObjectNotFound) as error:
            self._found.append((subject, error))
        waiting = [(b"/", manifest.root, 0)]
        while waiting:
            path, content, depth = waiting.pop()
            key = blake2b(content.ids, digest_size=16).digest()
            if key in seen or key in walked:
                continue
            try:
                if depth > MAX_DEPTH:
                    raise CorruptedBackup("its directories are nested too deeply", cause=f"more than {MAX_DEPTH}")
                yield self._walk_listing(path, content, depth, used, waiting, subject)
                walked.add(key)
            except (CorruptedBackup, ObjectNotFound) as error:
                shown = "/" if path == b"/" else f"{printable(path)}/"
                self._found.append((f"{subject}: {shown}", error))

    def _read_stat_stream(self, manifest: Manifest) -> None:
        cursor = StatCursor(manifest.stat_stream, self.repository.reader)
        if cursor.enter(b"") is None:
            raise CorruptedBackup("the stat stream does not begin at the root")
        if cursor.leave().content != manifest.root:
            raise CorruptedBackup("the stat stream ends at another root than the manifest names")

    def _walk_listing(
        self,
        path: bytes,
        content: Content,
        depth: int,
        used: set[int],
        waiting: list[tuple[bytes, Content, int]],
        subject: str,
    ) -> int:
        """One directory; those in it are added to `waiting`. The number of its files."""
        self._need(content, used)
        files = 0
        for node in read_listing(content, self.repository.reader):
            below = path.rstrip(b"/") + b"/" + node.name
            if node.is_dir:
                waiting.append((below, directory_content(node, below), depth + 1))
            else:
                files += 1
                self._need_file(node, below, used, subject)
                if self._ids.is_full:
                    self._compare_ids()
        return files

    def _compare_ids(self) -> None:
        for subject, chunk in self._ids.wrong():
            cause = "a pack holds one whose id begins alike, and is another"
            self._found.append((subject, CorruptedBackup(f"chunk {chunk.hex()} is missing", cause=cause)))

    def _need_file(self, node: Node, path: bytes, used: set[int], subject: str) -> None:
        content, size = node.content or EMPTY, None
        try:
            size = self._need(content, used, f"{subject}: {printable(path)}" if self.read else "")
            if content.is_patched and self.read and size == node.data_size:
                self._put_together(content)
        except (CorruptedBackup, ObjectNotFound) as error:
            self._found.append((f"{subject}: {printable(path)}", error))
        try:
            node.check_restorable(size)
        except CorruptedBackup as error:
            self._impossible.append((f"{subject}: {printable(path)}", error))

    def _put_together(self, content: Content) -> None:
        """That all chunks are good does not say yet that the changes in them fit. Raises CorruptedBackup."""
        with suppress(TierNotAttached, ObjectFrozen):  # which is told of the packs
            for _ in read_content(content, self.repository.reader):
                pass

    def _need(self, content: Content, used: set[int], subject: str = "") -> int:
        """Every chunk of it has a place; with a subject, one that is there by its whole id. The size of the stream."""
        if content.depth == 0:  # nearly all of them
            return self._look_up(split_ids(content.ids), used, subject)
        # Whose whole ids are wrong is told of every file that needs it.
        needed = NeededChunks(self.repository.reader) if subject else self._needed
        return summed(needed.of(content), lambda ids: self._look_up(ids, used, subject))

    def _look_up(self, ids: list[bytes], used: set[int], subject: str) -> int:
        size = 0
        for chunk in ids:
            place = self.repository.reader.place(chunk)
            used.add(place.pack)
            size += place.length
            if subject:
                self._ids.need(chunk, place, subject)
        return size
