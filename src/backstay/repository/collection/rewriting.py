"""Copies of what is in use in packs that are mostly dead: into new packs, which are indexed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backstay.core.events import EventSink, Progress, Started
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup
from backstay.repository.collection.plan import CollectionPlan
from backstay.repository.collection.segments import indexed_packs
from backstay.repository.format import RecordKind
from backstay.repository.packs.pack import PackTable
from backstay.repository.repository import Repository


def rewrite(repository: Repository, plan: CollectionPlan, events: EventSink) -> None:
    """Copy what lives in sparse packs; the sparse packs themselves stay.

    A crash, or an error, leaves copies that no segment names, or chunks in two packs: a later collection removes them.
    """
    assert plan.live is not None
    events(Started(operation="rewrite", total_bytes=plan.rewritten_bytes))
    sources = [pack for pack in indexed_packs(repository) if pack.digest in plan.sparse]
    found = {pack.digest for pack in sources}  # others are in a segment that was superseded meanwhile
    plan.sparse = {digest: entry for digest, entry in plan.sparse.items() if digest in found}
    numbers = {pack.digest: repository.index.number(pack.digest) for pack in sources}
    # A pack that this plan condemns may have been indexed since: nothing may rely on it.
    condemned = repository.collections.condemned() | set(plan.sparse) | set(plan.dead)
    repository.index.load(deleted=repository.collections.deleted(), condemned=condemned)
    with Workers(repository.environment.threads, "seal") as workers:
        writer = repository.writer(workers)
        try:
            done = 0
            for pack in sources:
                number = numbers[pack.digest]
                if number is None:
                    raise CorruptedBackup(f"pack {pack.digest.hex()[:16]} is not usable any more")
                for chunk, data in wanted_chunks(repository, number, pack.table, plan.live.__contains__):
                    writer.put(RecordKind(pack.kind), chunk, bytes(data))
                    done += len(data)
                events(Progress(files=0, bytes=done))
            writer.flush()
            if packs := writer.take_packs():
                repository.index.write(packs)
        finally:
            writer.close()


def wanted_chunks(
    repository: Repository, number: int, table: PackTable, is_wanted: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, memoryview]]:
    """Those chunks of one pack, each checked against its id."""
    reader, ids = repository.reader, repository.keyring.chunk_ids
    decoded: tuple[int, memoryview] | None = None
    for chunk, ordinal, offset, length in table.chunks():
        if not is_wanted(chunk):
            continue
        if decoded is None or decoded[0] != ordinal:
            decoded = (ordinal, memoryview(reader.read_blob(number, ordinal)))
        data = decoded[1][offset : offset + length]
        if ids.of(data) != chunk:
            raise CorruptedBackup(f"chunk {chunk.hex()[:16]} holds other bytes than its id says")
        yield chunk, data
