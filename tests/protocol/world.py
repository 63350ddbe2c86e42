"""A small world on one store: backups, drops, collections and time itself, their calls ordered by a seed."""

from __future__ import annotations

import random
import stat
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, TypeAlias
from unittest.mock import patch

from backstay.errors import BackstayError, NotFound, SnapshotFenced
from backstay.operations.backup import checkpoints
from backstay.operations.backup import run as backup_module
from backstay.operations.backup.run import BackupKind, BackupOptions, run_backup
from backstay.repository.blobs.contents import read_content
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.marking import mark
from backstay.repository.index.chunk_filter import ChunkFilter
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import LEASE, Session
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import read_listing
from backstay.sources.source import Capture, Directory, Problem, Stat
from backstay.storage.backend import StorageBackend
from backstay.testing import Interleaving, Outcome
from tests.protocol.scheduling import SECRET, START, InlineWorkers, Profile, ScheduledWorld, Unreliable, in_small

Tree: TypeAlias = dict[bytes, dict[bytes, bytes]]  # directory -> file -> content

DIRECTORIES: Final = (b"a", b"b", b"c")
FILES: Final = (b"x", b"y")
HOSTS: Final = ("one", "two")
_DIR_MODE: Final = stat.S_IFDIR | 0o755
_FILE_MODE: Final = stat.S_IFREG | 0o644


def _contents() -> list[bytes]:
    rng = random.Random(0)
    return [rng.randbytes(rng.choice((60, 90, 300, 500, 700))) for _ in range(14)]


CONTENTS: Final = _contents()


# -- a source in memory


@dataclass
class TreeDirectory:
    """One directory of a tree; the root holds directories, those hold files."""

    path: bytes
    tree: Tree
    files: dict[bytes, bytes] | None
    on_list: Callable[[], None]

    def pages(self) -> Iterator[Sequence[Stat]]:
        self.on_list()
        if self.files is None:
            yield [(name, _DIR_MODE, 0, 0, 0, 1) for name in sorted(self.tree)]
        elif self.files:
            yield [(name, _FILE_MODE, len(data), zlib.crc32(data), 0, 1) for name, data in sorted(self.files.items())]

    def capture(self, entry: Stat, *, small: int) -> Capture:
        data = None if self.files is None else self.files[entry[0]]
        return Capture(entry, Node(entry[0], entry[1], 0, 0, "", "", entry[2], entry[3]), data)

    def lend(self) -> None:
        return None

    def unlike(self, entry: Stat) -> None:
        return None

    def enter(self, entry: Stat) -> Directory:
        return TreeDirectory(b"/" + entry[0], self.tree, self.tree[entry[0]], self.on_list)

    def close(self) -> None:
        """Nothing is open."""


class TreeSource:
    """Backs up a tree; `on_list` is called whenever a directory is listed."""

    kind = "tree"
    paths: Sequence[bytes] = (b"/",)

    def __init__(self, tree: Tree, on_list: Callable[[], None] = lambda: None) -> None:
        self.problems: list[Problem] = []
        self._tree, self._on_list = tree, on_list

    def root(self) -> Directory:
        return TreeDirectory(b"/", self._tree, None, self._on_list)


def restored(manifest: Manifest, reader: BlobReader) -> Tree:
    """What a snapshot holds, every byte read; what it needs besides contents is read as well."""
    for _ in read_content(manifest.stat_stream, reader):
        pass
    return {
        node.name: {file.name: _bytes(file.content, reader) for file in _listing(node.content, reader)}
        for node in _listing(manifest.root, reader)
    }


def _listing(content: Content | None, reader: BlobReader) -> list[Node]:
    assert content is not None
    return [*read_listing(content, reader)]


def _bytes(content: Content | None, reader: BlobReader) -> bytes:
    assert content is not None
    return b"".join(bytes(piece) for piece in read_content(content, reader))


# -- the world


@dataclass
class Seen:
    """What the actors of a schedule were told, by snapshot id."""

    trees: dict[str, Tree] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    dropping: set[str] = field(default_factory=set)
    fenced: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Template:
    """A repository to begin with."""

    objects: dict[str, tuple[bytes, int]]
    trees: dict[str, Tree]
    dropped: frozenset[str]
    latest: dict[str, Tree]
    now: datetime


class World(ScheduledWorld):
    """What was acknowledged is remembered here."""

    def __init__(self, seed: int, template: Template | None = None, profile: Profile | None = None) -> None:
        super().__init__(seed, profile or Profile(), template.now if template else START)
        self.seen = Seen()
        self.latest: dict[str, Tree] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._sessions: dict[str, Session] = {}
        self._pending: dict[str, Tree] = {}
        if template is not None:
            self.store._shelf.objects.update(template.objects)
            self.seen.trees.update(template.trees)
            self.seen.acknowledged.update(template.trees)
            self.seen.dropping.update(template.dropped)
            self.latest = dict(template.latest)

    # the pieces

    def collector(self, repository: Repository) -> Collector:
        return Collector(repository, lease=LEASE)

    def next_tree(self, host: str) -> Tree:
        """The host's tree as it is now: a few files changed since the last time anybody looked."""
        tree = {name: dict(files) for name, files in self.latest.get(host, {}).items()}
        for _ in range(self.rng.randint(1, 3) if tree else 4):
            files = tree.setdefault(self.rng.choice(DIRECTORIES), {})
            name = self.rng.choice(FILES)
            if name in files and self.rng.random() < 0.3:
                del files[name]
            else:
                files[name] = self.rng.choice(CONTENTS)
        self.latest[host] = tree
        return tree

    def on_session(self, session: Session) -> None:
        """Called in place of the heartbeat thread."""
        actor = threading.current_thread().name
        self._sessions[actor] = session
        self.seen.trees[session.id] = self._pending[actor]

    def _on_list(self) -> None:
        if self.rng.random() < 0.1:
            self._sessions[threading.current_thread().name].beat()

    def backup(self, repository: Repository, host: str | None = None) -> str | None:
        """A backup of a host as it is now; its snapshot, None when it was fenced."""
        host = host or self.rng.choice(HOSTS)
        kind: BackupKind = "full" if self.rng.random() < 0.25 else "incremental"
        return self.back_up(repository, self.next_tree(host), host=host, kind=kind, on_list=self._on_list)

    def back_up(
        self,
        repository: Repository,
        tree: Tree,
        *,
        host: str = HOSTS[0],
        kind: BackupKind = "incremental",
        on_list: Callable[[], None] = lambda: None,
    ) -> str | None:
        """One real backup; `on_list` is called in the middle, whenever a directory is listed."""
        actor = threading.current_thread().name
        self._pending[actor] = tree
        self.clock.advance(1)
        try:
            result = run_backup(repository, TreeSource(tree, on_list), BackupOptions(kind=kind, host=host))
        except SnapshotFenced:
            self.seen.fenced.add(self._sessions[actor].id)
            return None
        assert result.snapshot is not None
        self.seen.acknowledged.add(result.snapshot)
        return result.snapshot

    def drop(self, repository: Repository) -> None:
        """Drop any snapshot but, mostly, not the last one."""
        live = repository.snapshots.live()
        if not live or (len(live) == 1 and self.rng.random() < 0.9):
            return
        chosen = self.rng.choice(live).id
        self.seen.dropping.add(chosen)
        try:
            repository.snapshots.drop(chosen, "test", self.clock)
        except NotFound:
            return

    def collect(self, repository: Repository, *, allow_empty: bool = True) -> None:
        collector = self.collector(repository)
        collector.execute(collector.plan(allow_empty=allow_empty))

    # the actors

    def _actor(self, act: Callable[[Repository], object]) -> Callable[[StorageBackend], object]:
        rounds = self.rng.randint(*self.profile.rounds)

        def run(scheduled: StorageBackend) -> None:
            backend = Unreliable(scheduled, self.rng, self.profile)
            repository: Repository | None = None
            for _ in range(rounds):
                if repository is None or self.rng.random() < 0.5:
                    repository = self.open(backend)
                try:
                    act(repository)
                except BackstayError as error:
                    self.errors[f"{act.__name__}: {type(error).__name__}: {error}"[:120]] += 1

        return run

    def actors(self) -> dict[str, Callable[[StorageBackend], object]]:
        profile, rng = self.profile, self.rng
        actors: dict[str, Callable[[StorageBackend], object]] = {}
        for kind, count, act in (
            ("writer", profile.writers, self.backup),
            ("dropper", profile.droppers, self.drop),
            ("collector", profile.collectors, self.collect),
        ):
            actors |= {f"{kind}{n}": self._actor(act) for n in range(rng.randint(*count))}
        if rng.random() < profile.late:
            actors["time"] = self.pass_time
        return actors

    def run(self) -> Interleaving:
        schedule = self.interleaving()
        self.outcomes = dict(schedule.run(self.actors()))
        return schedule

    # what must hold

    def check(self, *, garbage: bool = True) -> None:
        """Everything that was promised, at once and after two quiet collections; `garbage`: that it is gone, too."""
        self.check_snapshots()
        self.clock.advance(3 * LEASE / timedelta(seconds=1))
        for _ in range(2):
            self.collect(self.open(self.store))
        self.check_snapshots()
        if garbage:
            self.check_garbage()
        self.check_next_writer()

    def check_next_writer(self) -> None:
        """No index segment leads a new writer to a pack that is gone."""
        repository = self.open(self.store)
        with repository.begin_session():
            stored = {info.name.rpartition("/")[2] for info in self.store.list()}
            ghosts = [info.digest.hex() for _, info in repository.index.packs() if info.digest.hex() not in stored]
        assert not ghosts, f"a new writer would use packs that are gone: {ghosts}"

    def check_snapshots(self) -> None:
        """All that was acknowledged and not dropped is there; all that is there can be read, byte for byte."""
        repository = self.open(self.store)
        live = {manifest.id: manifest for manifest in repository.snapshots.live()}
        missing = self.seen.acknowledged - self.seen.dropping - set(live)
        assert not missing, f"acknowledged snapshots are gone: {missing}"
        assert not self.seen.fenced & set(live), "a fenced writer has a snapshot"
        for ulid, manifest in live.items():
            assert restored(manifest, repository.reader) == self.seen.trees[ulid], f"{ulid} has changed"

    def check_garbage(self) -> None:
        """Nothing is left that nobody needs."""
        repository = self.open(self.store)
        needed = ChunkFilter(1)  # as coarse as the collector's: it may keep a pack by mistake
        mark(repository.snapshots.live(), repository.reader, needed)
        names = {info.name for info in self.store.list()}
        packs = {name.rpartition("/")[2] for name in names if name.startswith(("packs/", "meta/"))}
        used = {
            info.digest.hex()
            for _, info in repository.index.packs()
            if any(chunk in needed for chunk, *_ in info.table.chunks())
        }
        assert packs <= used, f"packs that nobody needs: {packs - used}"
        rest = sorted(name for name in names if name.startswith(("sessions/", "probe/")))
        assert not rest, f"traces of writers that ended: {rest}"
        dropped = {name.removeprefix("drops/") for name in names if name.startswith("drops/")}
        left = [ulid for ulid in dropped if f"snapshots/{ulid}" in names]
        assert not left, f"dropped snapshots whose objects are still there: {left}"
        repository.collections.refresh()
        assert not repository.collections.open_numbers(), "a collection without a verdict"


# -- how schedules are run


@contextmanager
def patched(world: Callable[[], World | None]) -> Iterator[None]:
    """Small sizes, no threads, chance from the world's seed."""

    def started(session: Session, every_s: float = 0.0) -> None:
        current = world()
        assert current is not None
        current.on_session(session)

    with (
        in_small(world),
        patch.object(backup_module, "Workers", InlineWorkers),
        patch.object(checkpoints, "MOST_FILES", 3),
        patch.object(Session, "start_heartbeat", started),
    ):
        yield


class Runner:
    """Runs worlds one after the other; `current` is the one whose seed decides now."""

    def __init__(self, profile: Profile | None = None, *, garbage: bool = True) -> None:
        self.profile, self.garbage = profile, garbage
        self.current: World | None = None
        self.errors: Counter[str] = Counter()
        self.steps = 0

    def run(self, seed: int) -> None:
        """One schedule and everything that must hold after it; an AssertionError or BackstayError names the seed."""
        world = self.current = World(seed, template(seed % TEMPLATES), self.profile)
        try:
            self.steps += len(world.run().schedule)
            world.check(garbage=self.garbage)
        except (AssertionError, BackstayError) as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            self.errors += world.errors


TEMPLATES: Final = 6


@lru_cache
def template(number: int) -> Template:
    """A repository with some history: snapshots, one dropped, perhaps an interrupted collection."""
    world = World(-1 - number)
    with patched(lambda: world):
        Repository.create(world.store, SECRET, environment=world.environment()).close()
        if number:
            repository = world.open(world.store)
            made = [world.backup(repository, host) for host in ("one", "one", "two", "one")[: number + 1]]
            chosen = made[number % len(made)]
            assert chosen is not None
            repository.snapshots.drop(chosen, "test", world.clock)
            world.seen.dropping.add(chosen)
            if number % 2:
                world.collect(repository)
    return Template(
        dict(world.store._shelf.objects),
        world.seen.trees,
        frozenset(world.seen.dropping),
        world.latest,
        world.clock.now(),
    )
