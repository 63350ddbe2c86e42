"""What a medium has deleted for good, in packs of other names: a record of its collections forbids those it had."""

from __future__ import annotations

from collections.abc import Mapping

from backstay.core.pipeline import Workers
from backstay.errors import StorageUnavailable
from backstay.repository.collection.rewriting import wanted_chunks
from backstay.repository.collection.segments import indexed_packs
from backstay.repository.format import RecordKind
from backstay.repository.packs.pack import StoredPack
from backstay.repository.repository import Repository


def send_anew(repository: Repository, there: Repository, packs: Mapping[bytes, int]) -> list[StoredPack]:
    """Store the chunks of our packs (digest: number) that the medium lacks, and index them; what was stored for that.

    A crash leaves chunks that no segment names, which the next collection there removes. Raises CorruptedBackup,
    StorageUnavailable.
    """
    if not packs:
        return []
    left, index = set(packs), there.index
    with Workers(there.environment.threads, "seal") as workers:
        writer = there.writer(workers)
        try:
            for pack in indexed_packs(repository):
                if pack.digest not in left:
                    continue
                left.discard(pack.digest)
                number = packs[pack.digest]
                for chunk, data in wanted_chunks(repository, number, pack.table, lambda c: not index.find_reusable(c)):
                    writer.put(RecordKind(pack.kind), chunk, bytes(data))
            writer.flush()
            if stored := writer.take_packs():
                index.write(stored)
        finally:
            writer.close()
    if left:
        raise rewritten_meanwhile()
    return stored


def rewritten_meanwhile() -> StorageUnavailable:
    """For an export that finds packs in no segment any more that it found in one before."""
    return StorageUnavailable(
        "the export could not be finished",
        cause="a collection rewrote the index meanwhile",
        hint="repeat the command: what was sent stays there",
    )
