"""Repositories in memory with some snapshots, of which copies are made and damaged."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from backstay.core.clock import SystemClock
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.copies.result import CopyResult
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Environment, Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.backend import StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.trust.secrets import Secret
from backstay.trust.validators import Validator

SECRET = Secret.new_keyfile()
SPARE = Secret.new_keyfile()  # of the third key slot
SMALL_PACKS = Environment(pack_target=256 << 10, threads=2)


class Store(MemoryStorage):
    """A store with an address of its own that can be filled and looked through."""

    def __init__(self, place: str, objects: Mapping[str, bytes] | None = None) -> None:
        super().__init__()
        self.place = place
        for name, data in (objects or {}).items():
            self.store(name, data)

    @property
    def url(self) -> str:
        return f"memory:{self.place}"

    def objects(self) -> dict[str, bytes]:
        return {info.name: self.retrieve(info.name) for info in self.list()}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The same with one bit the other way round."""
    changed = bytearray(data)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def make_source(place: Path, seed: int = 1, files: int = 40) -> Path:
    """Files of many sizes; some large ones, some small ones that share a bundle."""
    rng = random.Random(seed)
    (place / "deep/er").mkdir(parents=True)
    for number in range(files):
        where = place / ("deep/er" if number % 3 else ".") / f"file-{number:02}"
        where.write_bytes(rng.randbytes(rng.choice([0, 10, 3000, 60_000, 600_000])))
    (place / "link").symlink_to("deep")
    return place


def back_up(repository: Repository, source: Path, **options: object) -> str:
    """One more snapshot; its id."""
    read = FilesystemSource([bytes(source)], filters=Filters([]), clock=SystemClock())
    made = run_backup(repository, read, BackupOptions(host="host", **options)).snapshot  # type: ignore[arg-type]
    assert made is not None
    return made


def make_repository(store: StorageBackend, source: Path) -> None:
    """Three snapshots, one of them deleted, a second key slot, a mark and a collection: an object of every kind."""
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, source)
        (source / "file-00").write_bytes(b"changed")
        (source / "new").write_bytes(random.Random(5).randbytes(400_000))
        first = back_up(repository, source)
        repository.keyring.begin_epoch(repository.clock)
        repository.keyring.mark_compromised(1, repository.clock)
        created = repository.clock.now().isoformat()
        second = repository.slots.add(Secret.new_keyfile(), repository.header_digest, note="second", created=created)
        repository.slots.add(SPARE, repository.header_digest, note="third", created=created)
        repository.slots.remove(second, repository.clock)
        (source / "deep/newest").write_bytes(b"newest" * 1000)
        newest = back_up(repository, source)
        digest = repository.snapshots.digest(newest)
        repository.attestations.attest(newest, digest, Validator.generate("anna"), repository.clock)
        repository.snapshots.drop(first, "for a test", repository.clock)
        repository.wal.bind("main", 7, repository.clock)
        repository.wal.store(7, f"{1:024X}", b"a segment" * 1000)
        repository.wal.store_part(7, f"{2:024X}", 0, b"a part" * 100)
        collector = Collector(repository)
        collector.execute(collector.plan())


def open_mirrored(*stores: StorageBackend, secret: Secret = SECRET) -> Repository:
    return Repository.open(Mirrored(stores, quorum=1), secret, environment=SMALL_PACKS)


def open_alone(store: StorageBackend, secret: Secret = SECRET) -> Repository:
    return Repository.open(store, secret, environment=SMALL_PACKS)


def contents(place: Path) -> dict[str, bytes | str]:
    """Every file and symlink below a directory."""
    found: dict[str, bytes | str] = {}
    for path in sorted(place.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(place))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(place))] = path.read_bytes()
    return found


def restored(repository: Repository, snapshot: str, to: Path, source: Path) -> tuple[dict[str, bytes | str], list[str]]:
    """(what a restore gives, the paths that it could not)."""
    result = run_restore(repository, repository.snapshots.get(snapshot), to, RestoreOptions(verify=True))
    return contents(to / str(source).lstrip("/")), [item.path for item in result.errors]


def kinds(names: Iterable[str]) -> set[str]:
    return {name.partition("/")[0] for name in names}


def mirror_to(ours: Store, target: StorageBackend) -> CopyResult:
    with open_alone(ours) as repository:
        return copy_objects(repository, target)


def drop_first(repository: Repository) -> None:
    """Delete the oldest snapshot, and free what it alone needs."""
    repository.snapshots.drop(repository.snapshots.live()[0].id, "for a test", repository.clock)
    collector = Collector(repository)
    collector.execute(collector.plan())
