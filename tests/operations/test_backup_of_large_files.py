"""A large file that changes, fails or is left in the middle is stored as it was read, or told; nothing stays behind."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest

from backstay.codec.chunker import FILES, ContentDefinedChunker
from backstay.codec.digest import ChunkIds
from backstay.core.clock import SystemClock
from backstay.core.events import Event, EventSink, Progress, ignore
from backstay.errors import Interrupted
from backstay.operations.backup import capture as captures
from backstay.operations.backup import run as backing_up
from backstay.operations.backup.batches import WHOLE
from backstay.operations.backup.capture import Capturing
from backstay.operations.backup.request import BackupResult
from backstay.operations.backup.run import BLOCKS_AHEAD, BackupOptions, run_backup
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.repository import Repository
from backstay.sources.file_stream import FileStream
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret
from tests.sources.filesystem.reading import LateClock

IDS, CHUNKER = ChunkIds(b"k" * 32), ContentDefinedChunker(FILES, 7)
REAL_BLOCK = captures.BLOCK  # before a test makes it smaller
DATA = random.Random(5).randbytes(4 * WHOLE + 1234)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "tree/large"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(LocalStorage(tmp_path / "repository"), Secret.new_keyfile()) as repository:
        yield repository


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few megabytes have as many blocks as any."""
    monkeypatch.setattr(captures, "BLOCK", WHOLE)


@pytest.fixture(autouse=True)
def nothing_stays(large: Path) -> Iterator[None]:
    """No thread that reads or hashes, and no descriptor."""
    yield
    assert not busy()
    assert not is_open(large)


def is_open(path: Path) -> bool:
    return path in [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]


def busy() -> list[str]:
    """Threads of a large file."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("read-ahead", "sha256"))]


def at_block(number: int, happens: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Something happens just before a block is read."""
    read, seen = FileStream.read, iter(range(1000))

    def reading(stream: FileStream, size: int) -> bytes:
        if next(seen) == number:
            happens()
        return read(stream, size)

    monkeypatch.setattr(FileStream, "read", reading)


def backup(repository: Repository, tree: Path, events: EventSink = ignore) -> BackupResult:
    source = FilesystemSource([bytes(tree)], filters=Filters([]), clock=SystemClock())
    return run_backup(repository, source, BackupOptions(host="host"), events=events)


def restored(repository: Repository, large: Path, out: Path) -> Path:
    newest = repository.snapshots.live()[-1]
    run_restore(repository, newest, out, RestoreOptions(path=bytes(large.parent), verify=True))
    return out / large.name


@pytest.mark.parametrize("size", [WHOLE + 1, 2 * WHOLE - 1, 2 * WHOLE, 3 * WHOLE + 1, len(DATA)])
def test_any_number_of_blocks_comes_back(repository: Repository, large: Path, tmp_path: Path, size: int) -> None:
    os.truncate(large, size)
    backup(repository, large.parent)
    assert sha256(restored(repository, large, tmp_path / "out").read_bytes()).digest() == sha256(DATA[:size]).digest()


@pytest.mark.parametrize("block", [0, 1, 3])
@pytest.mark.parametrize("left", [0, 1, WHOLE + 5, 2 * WHOLE])
def test_one_that_is_shortened_is_stored_as_it_was_read(
    repository: Repository, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, left: int
) -> None:
    at_block(block, lambda: os.truncate(large, left), monkeypatch)
    backup(repository, large.parent)
    read = max(left, block * WHOLE)
    assert restored(repository, large, tmp_path / "out").read_bytes() == DATA[:read]
    monkeypatch.undo()
    backup(repository, large.parent)  # looks again at what changed meanwhile
    assert restored(repository, large, tmp_path / "again").read_bytes() == DATA[:left]


def test_one_that_grows_is_stored_as_long_as_it_was(
    repository: Repository, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_block(2, lambda: os.truncate(large, len(DATA) + WHOLE), monkeypatch)
    backup(repository, large.parent)
    assert restored(repository, large, tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("grows", [False, True])
def test_another_name_of_one_that_changes_while_it_is_read_is_read_itself(
    repository: Repository, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grows: bool
) -> None:
    other = large.parent / "other"
    other.hardlink_to(large)
    late = random.Random(7).randbytes(WHOLE)

    def write() -> None:
        with large.open("ab" if grows else "r+b") as file:
            file.write(late)

    at_block(2, write, monkeypatch)
    backup(repository, large.parent)
    monkeypatch.undo()
    for out in ("out", "again"):
        newest = repository.snapshots.live()[-1]
        run_restore(repository, newest, tmp_path / out, RestoreOptions(path=bytes(other), verify=True))
        found = (tmp_path / out / "other").read_bytes()
        whole = large.read_bytes()
        # It may have been opened before the first name was read, and is then stored as long as it was.
        assert found == whole or (grows and out == "out" and found == whole[: len(DATA)])
        backup(repository, large.parent)
    assert restored(repository, large, tmp_path / "both").read_bytes() == large.read_bytes()


def test_another_name_of_one_that_stands_still_is_not_read(repository: Repository, large: Path, tmp_path: Path) -> None:
    (large.parent / "other").hardlink_to(large)
    source = FilesystemSource([bytes(large.parent)], filters=Filters([]), clock=LateClock())
    result = run_backup(repository, source, BackupOptions(host="host"))
    assert result.bytes_read == len(DATA)
    assert restored(repository, large, tmp_path / "out").samefile(tmp_path / "out/other")


@pytest.mark.parametrize("block", [0, 2, 4, 5])  # the last one asks for what is behind the end
def test_one_that_cannot_be_read_to_its_end_is_told_and_left_out(
    repository: Repository, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    (large.parent / "other").write_bytes(b"other")
    at_block(block, fail, monkeypatch)
    result = backup(repository, large.parent)
    assert [(problem.path, problem.message) for problem in result.errors] == [(bytes(large), "input/output error")]
    assert not restored(repository, large, tmp_path / "out").exists()
    assert (tmp_path / "out/other").read_bytes() == b"other"


def test_holes_between_blocks_stay_holes(repository: Repository, large: Path, tmp_path: Path) -> None:
    with large.open("r+b") as file:
        os.truncate(large, 0)
        for at in (0, 5 * WHOLE, 5 * WHOLE + (1 << 20), 20 * WHOLE):
            os.pwrite(file.fileno(), DATA[: WHOLE // 2 + at % 7], at)
    backup(repository, large.parent)
    found = restored(repository, large, tmp_path / "out")
    assert found.read_bytes() == large.read_bytes()
    assert found.stat().st_blocks <= large.stat().st_blocks


def test_a_backup_that_is_stopped_within_one_leaves_no_thread_and_goes_on_later(
    repository: Repository, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.bytes > WHOLE:
            threading.Event().wait(0.3)  # the reader has read what it may, and waits for room
            raise Interrupted("interrupted", cause="asked to stop")

    monkeypatch.setattr(backing_up, "PROGRESS_EVERY_S", 0.0)
    with pytest.raises(Interrupted) as raised:
        backup(repository, large.parent, events=stop)
    assert raised.traceback  # which keeps all frames of the backup, and so whatever these forgot to end
    assert not busy()
    assert not is_open(large)
    result = backup(repository, large.parent)
    assert result.bytes_added < len(DATA) - WHOLE // 2
    assert restored(repository, large, tmp_path / "out").read_bytes() == DATA


def test_a_slow_store_is_not_read_ahead_of_by_more_than_a_few_blocks(
    repository: Repository, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = most = stored = 0
    read, put = FileStream.read, BlobWriter.put

    def reading(stream: FileStream, size: int) -> bytes:
        nonlocal blocks
        blocks += 1
        return read(stream, size)

    def putting(writer: BlobWriter, kind: object, chunk: bytes, data: memoryview, *, quick: bool = False) -> None:
        nonlocal most, stored
        if stored == 0:
            threading.Event().wait(0.3)  # all that may be read meanwhile is read
        most = max(most, blocks - stored // WHOLE)
        stored += len(data)
        put(writer, kind, chunk, data, quick=quick)  # type: ignore[arg-type]

    monkeypatch.setattr(FileStream, "read", reading)
    monkeypatch.setattr(BlobWriter, "put", putting)
    with large.open("ab") as file:
        file.write(random.Random(6).randbytes(8 * WHOLE))
    backup(repository, large.parent)
    assert stored >= len(DATA) + 8 * WHOLE
    # With the one that is taken apart, and the one that waits for room.
    assert 2 <= most <= BLOCKS_AHEAD + 2
    assert most * REAL_BLOCK <= 24 << 20
    assert not repository.snapshots.live()[-1].stats.errors


def test_all_of_a_file_is_hashed_at_most_a_block_behind(large: Path) -> None:
    digest, hashed, behind = sha256(), 0, 0

    def hash_slowly(block: bytes) -> None:
        nonlocal hashed
        threading.Event().wait(0.05)
        digest.update(block)
        hashed += len(block)

    cut = b""
    with streamed(large, hash_slowly) as (stream, blocks):
        for pieces in blocks:
            cut += b"".join(piece for _, piece in pieces)
            behind = max(behind, stream._offset - hashed)
    assert (cut == DATA, digest.digest()) == (True, sha256(DATA).digest())
    assert behind <= 2 * WHOLE


@pytest.mark.parametrize("number", range(5))
def test_what_goes_wrong_with_the_hashing_of_any_block_is_raised(large: Path, number: int) -> None:
    seen = iter(range(1000))

    def fail(block: bytes) -> None:
        del block
        if next(seen) == number:
            raise MemoryError

    with streamed(large, fail) as (_, blocks), pytest.raises(MemoryError):
        list(blocks)


@contextmanager
def streamed(
    large: Path, digest: Callable[[bytes], None]
) -> Iterator[tuple[FileStream, Iterator[list[tuple[bytes, memoryview]]]]]:
    capturing = Capturing(IDS, CHUNKER, readers=1, lacks=lambda *_: None, warn=lambda _: None)
    with large.open("rb") as file:
        stream = FileStream(os.dup(file.fileno()), os.fstat(file.fileno()), _not_described)
        yield stream, capturing.stream(stream, digest)
        stream.abandon()


def _not_described(*_: object) -> NoReturn:
    raise AssertionError
