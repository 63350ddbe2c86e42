"""Sources of generated files: read whole each time, counted right, and failed as a whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from backstay.codec.chunker import DUMPS, FixedSize
from backstay.core.events import Event, Progress
from backstay.errors import DumpFailed
from backstay.operations.backup.run import BackupKind, BackupOptions, BackupResult, run_backup
from backstay.operations.snapshots.look import list_entries, open_file
from backstay.repository.repository import Environment, Repository
from backstay.sources.generated import PRIVATE_FILE, ByteReader, BytesReader, GeneratedFile, GeneratedSource, made_node
from backstay.storage.memory import MemoryStorage
from backstay.testing.clock import FakeClock
from backstay.trust.secrets import Secret


class Long:
    """More than fits into one read, of a length that nobody knew; may fail at its end."""

    def __init__(self, blocks: int, failure: Exception | None = None, tick: Callable[[], object] = int) -> None:
        self.left, self.failure, self.tick = blocks, failure, tick
        self.is_abandoned = self.is_finished = False

    def read(self, size: int) -> bytes:
        if not self.left:
            return b""
        self.left -= 1
        self.tick()
        return self.left.to_bytes(4, "big") * 250_000

    def finish(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.is_finished = True

    def abandon(self) -> None:
        self.is_abandoned = True


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        yield repository


def source(**readers: ByteReader) -> GeneratedSource:
    def made(name: str, reader: ByteReader) -> GeneratedFile:
        path = b"/generated/x/" + name.encode()
        chunking = FixedSize(4096) if name == "pages" else DUMPS
        return GeneratedFile(path=path, node=made_node(path, PRIVATE_FILE, 5), open=lambda: reader, chunking=chunking)

    return GeneratedSource("generated", [b"/generated/x"], [made(*item) for item in readers.items()])


def backup(repository: Repository, what: GeneratedSource, kind: BackupKind = "incremental") -> BackupResult:
    return run_backup(repository, what, BackupOptions(host="host", kind=kind))


def test_bytes_of_unknown_number_are_counted_and_come_back(repository: Repository) -> None:
    long = Long(7)
    result = backup(repository, source(a=BytesReader(b"few"), b=BytesReader(b""), c=long))
    assert (result.files, result.dirs, result.bytes_scanned, result.bytes_read) == (3, 3, 7_000_003, 7_000_003)
    assert long.is_finished
    manifest = repository.snapshots.live()[-1]
    assert manifest.stats.bytes == 7_000_003
    found = {item.path: item.node.size for item in list_entries(repository, manifest, b"/generated/x")}
    assert found == {b"/generated/x/a": 3, b"/generated/x/b": 0, b"/generated/x/c": 7_000_000}
    again = b"".join(bytes(piece) for piece in open_file(repository, manifest, b"/generated/x/c"))
    assert again == b"".join(number.to_bytes(4, "big") * 250_000 for number in reversed(range(7)))


def test_every_backup_is_a_full_one_and_stores_nothing_twice(repository: Repository) -> None:
    for number in range(2):
        result = backup(repository, source(c=Long(7)))
        assert (result.kind, result.files_new, result.bytes_read, result.parent) == ("full", 1, 7_000_000, None)
        assert number == 0 or result.bytes_added < 20_000


def test_the_manifest_tells_how_files_were_cut(repository: Repository) -> None:
    backup(repository, source(dump=BytesReader(b"x"), pages=BytesReader(b"y" * 10_000)))
    chunkers = repository.snapshots.live()[-1].chunkers
    assert (chunkers["dumps"].name, chunkers["dumps"].average) == ("fastcdc-nc2", 64 << 10)
    assert (chunkers["pages"].name, chunkers["pages"].least, chunkers["pages"].greatest) == ("fixed", 4096, 4096)


def test_a_failure_at_the_very_end_leaves_no_snapshot(repository: Repository) -> None:
    long = Long(3, DumpFailed("it was not whole after all"))
    with pytest.raises(DumpFailed, match="not whole"):
        backup(repository, source(a=BytesReader(b"good"), b=long))
    assert long.is_abandoned
    assert not repository.snapshots.live()
    assert backup(repository, source(a=BytesReader(b"good"))).snapshot is not None


def test_a_dry_run_reads_nothing(repository: Repository) -> None:
    long = Long(3)
    result = run_backup(repository, source(b=long), BackupOptions(host="host", dry_run=True))
    assert (result.files, result.snapshot, long.left) == (1, None, 3)


def test_progress_is_told_while_a_file_is_read() -> None:
    clock, seen = FakeClock(), list[Event]()
    environment = Environment(clock=clock)
    with Repository.create(MemoryStorage(), Secret.new_keyfile(), environment=environment) as repository:
        long = source(c=Long(7, tick=lambda: clock.sleep(1)))
        run_backup(repository, long, BackupOptions(host="host"), events=seen.append)
    assert any(isinstance(event, Progress) and 0 < event.bytes < 7_000_000 for event in seen)


def test_what_a_stream_brought_before_it_broke_off_is_not_stored_again() -> None:
    class Noise(Long):
        def read(self, size: int) -> bytes:
            return random.Random(self.left).randbytes(1_000_000) if super().read(size) else b""

    clock = FakeClock()
    with Repository.create(
        MemoryStorage(), Secret.new_keyfile(), environment=Environment(clock=clock, pack_target=1 << 20)
    ) as repository:
        broken = Noise(40, DumpFailed("it broke off"), tick=lambda: clock.sleep(1))
        with pytest.raises(DumpFailed):
            backup(repository, source(c=broken))
        result = backup(repository, source(c=Noise(40)))
        assert result.bytes_read == 40_000_000
        # Lost is what was read ahead or put since the last checkpoint, and what was not in a pack by then.
        assert result.bytes_added < 20_000_000
