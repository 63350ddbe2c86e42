"""Measure this machine and this program: each stage alone, then whole backups and restores of made-up data."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from backstay.codec.chunker import FILES, ContentDefinedChunker
from backstay.codec.cipher import KEY_BYTES, Cipher
from backstay.codec.compression import Compressor
from backstay.codec.digest import ChunkIds, sha256
from backstay.core.clock import Clock, SystemClock
from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.quantities import format_size
from backstay.errors import BackupFailed, InsufficientSpace, InvalidRequest
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.repository import Environment, Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret

SIZE: Final = 256 << 20
FILE_COUNT: Final = 5000
LEAST_SIZE: Final = 1 << 20
STAGE_BYTES: Final = 64 << 20  # at most so much data goes through each stage
BLOCK: Final = 4 << 20
ROOM: Final = 3  # source, repository and restored files lie there together
_FILES_PER_DIRECTORY: Final = 100
_SEED: Final = 1
_SYSTEM_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage on one thread."""

    name: str
    bytes: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.bytes / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class RunTime:
    """One whole operation on all threads."""

    name: str
    files: int
    bytes: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.bytes / max(self.seconds, 1e-9)

    @property
    def files_rate(self) -> float:
        """Files per second."""
        return self.files / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """Stages (read, chunk, blake3, sha256, zstd, aes, write) and runs (backup, unchanged, verify, restore)."""

    stages: tuple[StageTime, ...]
    runs: tuple[RunTime, ...]
    files: int
    bytes: int
    stored_bytes: int
    threads: int


def run_benchmark(
    directory: Path,
    *,
    size: int = SIZE,
    files: int = FILE_COUNT,
    events: EventSink = ignore,
    clock: Clock = _SYSTEM_CLOCK,
) -> BenchmarkResult:
    """Measure in a scratch directory below `directory`, which is removed afterwards.

    Half of the data is text, a quarter does not compress, a quarter lies in small files. Reading is measured as
    the system does it, from its cache. Raises InvalidRequest, InsufficientSpace.
    """
    _check(directory, size, files)
    with tempfile.TemporaryDirectory(prefix="backstay-benchmark-", dir=directory) as scratch:
        benchmark = _Benchmark(Path(scratch), size, files, events, clock)
        return benchmark.run()


def _check(directory: Path, size: int, files: int) -> None:
    if size < LEAST_SIZE or files < 1:
        raise InvalidRequest("there is too little to measure", cause=f"{size} bytes in {files} files")
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise InvalidRequest(f"cannot use {directory}", cause=error.strerror or str(error)) from error
    if free < ROOM * size:
        raise InsufficientSpace(
            f"the benchmark needs {format_size(ROOM * size)} in {directory}",
            cause=f"{format_size(free)} are free",
            hint="choose another directory, or a smaller size",
        )


class _Benchmark:
    """The measurements in order; each leaves behind what the next one needs."""

    def __init__(self, scratch: Path, size: int, files: int, events: EventSink, clock: Clock) -> None:
        self.scratch, self.size, self.files, self.events, self.clock = scratch, size, files, events, clock
        self.source = scratch / "source"
        self.data = SampleTree(size, files)
        self.done = 0

    def run(self) -> BenchmarkResult:
        self.events(Started(operation="make test data", total_bytes=self.size))
        self.data.write(self.source, lambda done: self.events(Progress(files=0, bytes=done)))
        self.events(Started(operation="measure"))
        stages = tuple(self._stages())
        with self._repository() as repository:
            runs = tuple(self._runs(repository))
            stored = sum(info.size for info in repository.backend.list())
            threads = repository.environment.threads
        finished(self.events, "benchmark")
        return BenchmarkResult(
            stages=stages,
            runs=runs,
            files=runs[0].files,
            bytes=runs[0].bytes,
            stored_bytes=stored,
            threads=threads,
        )

    def _timed(self, name: str, work: Callable[[], object]) -> float:
        self.events(Progress(files=self.done, bytes=0, current=name))
        self.done += 1
        start = self.clock.monotonic()
        work()
        return self.clock.monotonic() - start

    # -- stages

    def _stages(self) -> Iterator[StageTime]:
        path = self.source / "text"
        length = min(path.stat().st_size, STAGE_BYTES)
        yield StageTime("read", length, self._timed("read", lambda: _read(path, length)))
        blocks = list(_read(path, length))
        pieces: list[memoryview] = []
        chunker = ContentDefinedChunker(FILES)
        work: dict[str, Callable[[], object]] = {
            "chunk": lambda: pieces.extend(piece for block in blocks for piece in chunker.cut(block, last=True)),
            "blake3": lambda: list(map(ChunkIds(bytes(KEY_BYTES)).of, pieces)),
            "sha256": lambda: list(map(sha256, pieces)),
            "zstd": lambda: list(map(Compressor().compress, pieces)),
            "aes": lambda: _encrypt(pieces),
            "write": lambda: _write(self.scratch / "written", blocks),
        }
        for name, action in work.items():
            yield StageTime(name, length, self._timed(name, action))

    # -- whole operations

    def _repository(self) -> Repository:
        return Repository.create(
            LocalStorage(self.scratch / "repository", create=True),
            Secret.new_keyfile(),
            cache=self.scratch / "cache",
            environment=Environment(clock=self.clock),
        )

    def _runs(self, repository: Repository) -> Iterator[RunTime]:
        options = BackupOptions(host="benchmark")
        first = run_backup(repository, self._source(), options)  # what it measures is in its result
        if first.errors or first.snapshot is None:
            raise BackupFailed("the test data could not be backed up", cause=str(first.errors))
        files, size = first.files, first.bytes_scanned
        yield RunTime("backup", files, size, first.duration_s)
        seconds = self._timed("unchanged", lambda: run_backup(repository, self._source(), options))
        yield RunTime("unchanged", files, size, seconds)
        everything = VerifyOptions(read_data=1.0)
        yield RunTime("verify", files, size, self._timed("verify", lambda: run_verify(repository, None, everything)))
        manifest = repository.snapshots.get(first.snapshot)
        target = self.scratch / "restored"
        seconds = self._timed("restore", lambda: run_restore(repository, manifest, target, RestoreOptions()))
        yield RunTime("restore", files, size, seconds)

    def _source(self) -> FilesystemSource:
        return FilesystemSource([os.fsencode(self.source)], filters=Filters(()), clock=self.clock)


@dataclass(frozen=True, slots=True)
class SampleTree:
    """A tree that is the same each time: one large text, one large file that does not compress, many small ones."""

    size: int
    files: int

    def write(self, directory: Path, progress: Callable[[int], object]) -> None:
        """Make the tree; `progress` is told the bytes written so far."""
        rng = random.Random(_SEED)  # noqa: S311 - repeatable, not secret
        directory.mkdir()
        half, quarter = self.size // 2, self.size // 4
        done = 0
        for name, length, blocks in (("text", half, texts(rng)), ("random", quarter, randoms(rng))):
            with (directory / name).open("wb") as file:
                for block in cut_to(blocks, length):
                    file.write(block)
                    done += len(block)
                    progress(done)
        self._write_small(directory / "small", self.size - half - quarter, next(texts(rng)), rng)
        progress(self.size)

    def _write_small(self, directory: Path, size: int, text: bytes, rng: random.Random) -> None:
        average = min(size // self.files, BLOCK // 2)
        for number in range(self.files):
            place = directory / str(number // _FILES_PER_DIRECTORY)
            if number % _FILES_PER_DIRECTORY == 0:
                place.mkdir(parents=True)
            length = rng.randint(average // 2, average + average // 2)
            start = rng.randrange(max(1, len(text) - length))
            (place / f"{number}.txt").write_bytes(text[start : start + length])


def texts(rng: random.Random) -> Iterator[bytes]:
    """Blocks of words in sentences, which compress as text does; no block repeats."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(rng.choices(letters, range(26, 0, -1), k=rng.randint(2, 11))) for _ in range(4000)]
    cumulated = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    lines = [" ".join(rng.choices(words, cum_weights=cumulated, k=14)) for _ in range(BLOCK // 64)]
    while True:
        rng.shuffle(lines)
        yield "\n".join(lines).encode()[:BLOCK]


def randoms(rng: random.Random) -> Iterator[bytes]:
    """Blocks that do not compress."""
    while True:
        yield rng.randbytes(BLOCK)


def cut_to(blocks: Iterator[bytes], length: int) -> Iterator[bytes]:
    """As many of the blocks as make `length` bytes."""
    while length > 0:
        block = next(blocks)[:length]
        length -= len(block)
        yield block


def _read(path: Path, length: int) -> list[bytes]:
    blocks = []
    with path.open("rb", buffering=0) as file:
        while length > 0 and (block := file.read(min(8 << 20, length))):
            blocks.append(block)
            length -= len(block)
    return blocks


def _encrypt(pieces: list[memoryview]) -> None:
    cipher = Cipher(bytes(KEY_BYTES))
    for number, piece in enumerate(pieces):
        cipher.seal(number.to_bytes(12, "big"), piece, b"")


def _write(path: Path, blocks: list[bytes]) -> None:
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            file.write(block)
        os.fsync(file.fileno())
