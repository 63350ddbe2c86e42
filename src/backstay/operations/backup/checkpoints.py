"""From time to time during a backup: what is stored becomes findable, so that a crash costs little."""

from __future__ import annotations

from typing import Final, cast

from backstay.core.clock import Clock
from backstay.operations.backup.resume import ResumeJournal, journal_entry
from backstay.operations.backup.scan import Visit
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.index.index import Index
from backstay.repository.nodes import Node
from backstay.sources.source import Stat

LEAST_S: Final = 2.0
PART: Final = 0.1  # of the run so far: at most so much work is lost by a crash
MOST_S: Final = 300.0
MOST_FILES: Final = 50_000


class Checkpoints:
    """Ends generations of chunks, and indexes those that are durable; `packs` are the digests of all of them."""

    def __init__(self, index: Index, clock: Clock, started: float) -> None:
        self._index, self._clock, self._started = index, clock, started
        self._last = started
        self._unindexed: list[bytes] = []  # of files, as the journal will have them
        self.packs: set[bytes] = set()

    def captured(self, visit: Visit, entry: Stat, node: Node) -> None:
        """A file is stored, whose chunks nobody can find yet.

        It is encoded here: until the checkpoint, bytes take a fraction of the memory that nodes do.
        """
        self._unindexed.append(journal_entry(visit.path_of(node.name), entry, node))

    def make_if_due(self, writer: BlobWriter, journal: ResumeJournal | None) -> None:
        """End a generation when the last one ended a while ago, and index those that are durable by now."""
        now = self._clock.monotonic()
        pause = min(MOST_S, max(LEAST_S, (now - self._started) * PART))
        if now - self._last >= pause or len(self._unindexed) >= MOST_FILES:
            writer.turn(self._unindexed)
            self._unindexed = []
            self._last = now
        self._index_settled(writer, journal)

    def make(self, writer: BlobWriter, journal: ResumeJournal | None) -> None:
        """Make all chunks so far durable and findable, before anything else is done."""
        writer.flush(self._unindexed)
        self._unindexed = []
        self._index_settled(writer, journal)

    def _index_settled(self, writer: BlobWriter, journal: ResumeJournal | None) -> None:
        """Make durable chunks findable: an index segment, then the local journal of the files that they complete.

        A crash after the packs leaves orphans, one after the segment a repository that the next run builds upon.
        """
        for packs, files in writer.settled():
            if packs:
                self.packs.update(pack.digest for pack in packs)
                self._index.write(packs)
            if journal is not None:
                journal.record(cast("list[bytes]", files))
