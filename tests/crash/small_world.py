"""A small repository, a source in memory, and the question whether everything promised is still there."""

from __future__ import annotations

import random
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from backstay.errors import NoRepository, StorageMissing, WrongKey
from backstay.operations.backup.run import BackupOptions, BackupResult, run_backup
from backstay.operations.snapshots.walk import Item, walk
from backstay.operations.verify.run import VerifyOptions, VerifyReport, run_verify
from backstay.repository.blobs.contents import read_content
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.plan import CollectionResult
from backstay.repository.nodes import Node
from backstay.repository.repository import Environment, Repository
from backstay.repository.sessions.session import Process
from backstay.repository.snapshots.store import Manifest
from backstay.sources.source import Capture, Directory, Problem, Stat
from backstay.storage.backend import StorageBackend
from backstay.storage.filesystem_seam import Filesystem
from backstay.storage.local import LocalStorage
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret

Tree: TypeAlias = dict[bytes, bytes]  # absolute path -> content

SECRET: Final = Secret("keyfile", bytes(range(32)))
PACK_TARGET: Final = 96 << 10
_FILE: Final = stat.S_IFREG | 0o644
_DIRECTORY: Final = stat.S_IFDIR | 0o755


def content(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def small_tree() -> Tree:
    """About twenty files in four directories, one of them larger than a bundle takes."""
    tree = {b"/d%d/f%02d" % (at % 3, at): content(at, 300 * at) for at in range(18)}
    return tree | {b"/d0/inner/large": content(100, 150_000), b"/top": b"", b"/top2": b"text" * 50}


class MemoryDirectory:
    """One directory of a tree; a file's times follow from its bytes."""

    def __init__(self, source: MemorySource, path: bytes) -> None:
        self.path = path
        self._source = source

    def pages(self) -> Iterator[Sequence[Stat]]:
        prefix = self.path.rstrip(b"/") + b"/"
        names = {path.removeprefix(prefix).split(b"/")[0] for path in self._source.tree if path.startswith(prefix)}
        yield [self._row(name) for name in sorted(names)]

    def _row(self, name: bytes) -> Stat:
        path = self._below(name)
        data = self._source.tree.get(path)
        if data is None:
            return name, _DIRECTORY, 0, 1, 1, zlib.crc32(path)
        stamp = zlib.crc32(data)
        return name, _FILE, len(data), stamp, stamp, zlib.crc32(path)

    def _below(self, name: bytes) -> bytes:
        return self.path.rstrip(b"/") + b"/" + name

    def capture(self, entry: Stat, *, small: int) -> Capture:
        self._source.on_capture(self._below(entry[0]))
        data = self._source.tree.get(self._below(entry[0]))
        size = 0 if data is None else len(data)
        return Capture(entry, Node(entry[0], entry[1], 0, 0, "", "", size, entry[3]), data)

    def lend(self) -> None:
        return None

    def unlike(self, entry: Stat) -> None:
        return None

    def enter(self, entry: Stat) -> Directory:
        return MemoryDirectory(self._source, self._below(entry[0]))

    def close(self) -> None:
        pass


class MemorySource:
    """A tree as a source; `on_capture` is called with every path that is about to be read."""

    kind = "memory"

    def __init__(self, tree: Tree, on_capture: Callable[[bytes], object] = len) -> None:
        self.paths: Sequence[bytes] = (b"/",)
        self.problems: list[Problem] = []
        self.tree = tree
        self.on_capture = on_capture

    def root(self) -> Directory:
        return MemoryDirectory(self, b"/")


def read_back(repository: Repository, manifest: Manifest) -> Tree:
    """Every file of a snapshot."""
    return {
        visit.path: b"".join(read_content(visit.node.content, repository.reader)) if visit.node.content else b""
        for visit in walk(manifest.root, repository.reader)
        if isinstance(visit, Item)
    }


class Unsynced(Filesystem):
    """No waiting for a disk: where no power is cut, a process that ends loses nothing that the kernel has."""

    def fsync(self, descriptor: int) -> None:
        pass


@dataclass(slots=True)
class World:
    """A repository directory and what was promised about it.

    Every `open` is another life: another process, after the machine was started anew.
    """

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    promised: dict[str, Tree] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)  # acknowledged
    perhaps: Tree | None = None  # what an unacknowledged snapshot may hold
    perhaps_dropped: set[str] = field(default_factory=set)
    created: bool = False
    secret: Secret = SECRET
    opens_too: set[Secret] = field(default_factory=set)  # were added, acknowledged
    opens_no_more: set[Secret] = field(default_factory=set)  # were removed, acknowledged
    lives: int = 0
    cache: Path | None = None

    def copy(self, directory: Path) -> World:
        """The same world somewhere else."""
        shutil.copytree(self.directory, directory)
        return World(
            directory,
            self.clock,
            dict(self.promised),
            set(self.dropped),
            self.perhaps,
            set(self.perhaps_dropped),
            self.created,
            self.secret,
            set(self.opens_too),
            set(self.opens_no_more),
            self.lives,
        )

    def environment(self) -> Environment:
        self.lives += 1
        self.clock.advance(1)
        process = Process("host/machine", f"boot-{self.lives}", "", 1, "", booted_ns=self.clock.now_ns())
        return Environment(
            clock=self.clock,
            random=random.Random(self.lives).randbytes,
            process=process,
            threads=1,
            pack_target=PACK_TARGET,
        )

    def storage(self, filesystem: Filesystem | None = None) -> StorageBackend:
        return LocalStorage(self.directory, create=True, filesystem=filesystem or Unsynced())

    def create(self, filesystem: Filesystem | None = None) -> Repository:
        environment = self.environment()
        made = Repository.create(self.storage(filesystem), self.secret, environment=environment, cache=self.cache)
        self.created = True
        return made

    def open(self, filesystem: Filesystem | None = None, *, secret: Secret | None = None) -> Repository:
        environment = self.environment()
        secret = secret or self.secret
        return Repository.open(self.storage(filesystem), secret, environment=environment, cache=self.cache)

    # -- operations that keep the books

    def backup(self, repository: Repository, tree: Tree, source: MemorySource | None = None) -> BackupResult:
        self.perhaps = tree
        result = run_backup(repository, source or MemorySource(tree), BackupOptions(host="host"))
        assert result.snapshot is not None
        self.promised[result.snapshot] = tree
        self.perhaps = None
        return result

    def drop(self, repository: Repository, ulid: str) -> None:
        self.perhaps_dropped.add(ulid)
        repository.snapshots.drop(ulid, "by a test", self.clock)
        self.dropped.add(ulid)
        self.perhaps_dropped.discard(ulid)

    # -- the question

    def assert_kept(self, repository: Repository) -> None:
        """Every acknowledged snapshot is there and right; none that was dropped came back; verify is content."""
        live = {manifest.id: manifest for manifest in repository.snapshots.live()}
        expected = self.promised.keys() - self.dropped
        assert expected - self.perhaps_dropped <= live.keys(), "an acknowledged snapshot is gone"
        assert not live.keys() & self.dropped, "a dropped snapshot came back"
        for ulid, manifest in live.items():
            wanted = self.promised.get(ulid, self.perhaps)
            assert read_back(repository, manifest) == wanted, "a snapshot holds something else"
        wrong = [finding for finding in verified(repository).findings if finding.severity == "error"]
        if not self.opens_no_more:  # the removal of a key was not acknowledged: it may have to be repeated
            wrong = [finding for finding in wrong if "slot was removed" not in finding.message]
        assert not wrong

    def assert_opens(self) -> None:
        """With every secret that was added and none that was removed; what is not there yet can be created."""
        try:
            self.open().close()
        except (NoRepository, StorageMissing):
            assert not self.created, "an acknowledged repository is gone"
            self.create().close()
        for secret in self.opens_too:
            self.open(secret=secret).close()
        for secret in self.opens_no_more:
            with pytest.raises(WrongKey):
                self.open(secret=secret)

    def assert_sound(self) -> None:
        """As promised; and the next backup works, a collection removes all that is not needed, and so after it."""
        self.assert_opens()
        with self.open() as repository:
            self.assert_kept(repository)
        for ulid in self.perhaps_dropped:
            self.promised.pop(ulid, None)  # either is right; the books must not guess any more
        self.perhaps_dropped.clear()
        with self.open() as repository:
            self._adopt(repository)
            passing = self.backup(repository, small_tree() | {b"/next": content(self.lives, 5000)})
            self.assert_kept(repository)
        with self.open() as repository:
            assert passing.snapshot is not None
            self.drop(repository, passing.snapshot)  # so that there is something to collect
            result = collect(repository)
            assert not result.waiting_for
        with self.open() as repository:
            self.assert_kept(repository)
            self.assert_clean(repository)

    def _adopt(self, repository: Repository) -> None:
        """A snapshot that appeared without an answer is one from here on, if it is right."""
        for manifest in repository.snapshots.live():
            if manifest.id not in self.promised:
                self.promised[manifest.id] = read_back(repository, manifest)

    def assert_clean(self, repository: Repository) -> None:
        """Nothing is left that nobody needs."""
        stored = {info.name.rpartition("/")[2] for at in ("packs/", "meta/") for info in repository.backend.list(at)}
        assert stored == {info.digest.hex() for _, info in repository.index.packs()}, "packs that no segment names"
        assert not list(repository.backend.list("sessions/")), "sessions of dead writers"
        plan = Collector(repository).plan()
        assert not plan.dead
        assert not plan.unfinished


def verified(repository: Repository) -> VerifyReport:
    """A verification that reads everything."""
    return run_verify(repository, options=VerifyOptions(read_data=1.0))


def collect(repository: Repository) -> CollectionResult:
    """One whole collection; writers of this machine are known to be dead."""
    collector = Collector(repository, lease=timedelta(0))
    return collector.execute(collector.plan(allow_empty=True))
