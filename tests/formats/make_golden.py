"""Builds the golden repository of format 1; run it only when the format gets a new version.

    python -m tests.formats.make_golden

Clock, randomness and source are fixed, so that every run gives the same objects, as long as zstd packs alike.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import zstandard

from backstay.codec.digest import sha256
from backstay.core.ids import Random, new_ulid
from backstay.operations.backup import run as backup
from backstay.operations.backup.run import BackupKind, BackupOptions, run_backup
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Environment, Repository
from backstay.repository.sessions.session import Process, Session
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret
from backstay.trust.slots import Argon2Cost
from tests.formats.golden_source import BORN, MemorySource, Thing, described

HERE: Final = Path(__file__).parent
ARCHIVE: Final = HERE / "v1" / "golden.tar.gz"
EXPECTED: Final = HERE / "v1" / "golden.json"
PASSPHRASE: Final = "a passphrase for everybody to read"
KEY_FILE: Final = Secret("keyfile", bytes(range(32)))
RECOVERY: Final = Secret("recovery", bytes(range(32, 64)))
COST: Final = Argon2Cost(64, 1, 1)
HOUR: Final = 3600.0
PROCESS: Final = Process("golden/0123", "boot", "pid:[1]", 1, "1")
S_FILE, S_DIR, S_LINK, S_FIFO = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO


def seeded(seed: int) -> Random:
    """Bytes that look random and are the same every time."""
    return random.Random(seed).randbytes


@dataclass(slots=True)
class Golden:
    """A repository's objects, what its snapshots hold, and with what it was made."""

    objects: dict[str, bytes]
    expected: dict[str, Any] = field(default_factory=dict)


class Tree:
    """Makes things with inode numbers in order."""

    def __init__(self) -> None:
        self.inodes = 1
        self.root = self.make(S_DIR | 0o755)

    def make(self, mode: int, data: bytes = b"", **facts: Any) -> Thing:
        self.inodes += 1
        return Thing(mode, self.inodes, data, **facts)

    def put(self, path: bytes, thing: Thing) -> Thing:
        *parents, name = path.split(b"/")
        at = self.root
        for parent in parents:
            at = at.children.setdefault(parent, self.make(S_DIR | 0o755))
        return at.children.setdefault(name, thing)


def first_tree() -> Tree:
    tree, noise = Tree(), seeded(1)
    for name in (
        b"hello.txt",
        b"caf\xe9",
        "café".encode(),
        b"cafe\xcc\x81",
        b"new\nline",
        b"back\\slash",
        b"*",
        b" ",
        b"-rf",
        b"\x01\x1b[31m\x7f\xff",
        b".hidden",
        b"...",
        b'con:nul|?"<>',
        "\u202etxt.exe".encode(),
        b"n" * 255,
    ):
        tree.put(b"data/names/" + name, tree.make(S_FILE | 0o644, b"named " + name))
    for number in range(100):
        tree.put(b"data/many/%03d" % number, tree.make(S_FILE | 0o640, b"small file %d\n" % number * number))
    tree.put(b"data/empty", tree.make(S_FILE | 0o600))
    tree.put(b"data/empty directory", tree.make(S_DIR | 0o1777))
    tree.put(b"data/noise", tree.make(S_FILE | 0o644, noise(20_000)))
    tree.put(b"data/large", tree.make(S_FILE | 0o644, b"".join(noise(96) * 700 for _ in range(180))))
    tree.put(b"data/medium", tree.make(S_FILE | 0o644, b"".join(noise(64) * 4000 for _ in range(8))))
    _put_holes(tree)
    _put_others(tree)
    tree.put(b"data/deep/er/and/deeper/end", tree.make(S_FILE | 0o644, b"here it ends", mtime_ns=-1))
    return tree


def _put_holes(tree: Tree) -> None:
    spotted = bytearray(3 << 20)
    spotted[1 << 20 : (1 << 20) + 4096] = b"x" * 4096
    spotted[-10:] = b"at the end"
    extents = ((1 << 20, 4096), (len(spotted) - 10, 10))
    tree.put(b"data/holes/spotted", tree.make(S_FILE | 0o644, bytes(spotted), extents=extents))
    tree.put(b"data/holes/nothing but a hole", tree.make(S_FILE | 0o644, bytes(1 << 20), extents=()))
    tree.put(b"data/holes/at the end", tree.make(S_FILE | 0o644, b"begin" + bytes(1 << 20), extents=((0, 5),)))
    large = bytearray(9 << 20)
    large[:70_000] = bytes(range(250)) * 280
    tree.put(b"data/holes/large", tree.make(S_FILE | 0o644, bytes(large), extents=((0, 70_000),)))


def _put_others(tree: Tree) -> None:
    twin = tree.make(S_FILE | 0o644, b"one inode, three names", links=bytes(range(16)))
    for name in (b"data/links/first", b"data/links/second", b"data/many/the third name"):
        tree.put(name, twin)
    for name, target in (
        (b"dangling", b"no/where"),
        (b"absolute", b"/etc/passwd"),
        (b"odd", b"\xff\n"),
        (b"up", b"../.."),
    ):
        tree.put(b"data/links/" + name, tree.make(S_LINK | 0o777, target=target))
    tree.put(b"data/special/fifo", tree.make(S_FIFO | 0o622))
    tree.put(b"data/special/socket", tree.make(stat.S_IFSOCK | 0o755))
    tree.put(b"data/special/null", tree.make(stat.S_IFCHR | 0o666, device=0x103))
    xattrs = ((b"user.binary", b"\x00\xff\n"), (b"user.comment", "grüß dich".encode()))
    tree.put(b"data/attributes/extended", tree.make(S_FILE | 0o644, b"with attributes", xattrs=xattrs))
    tree.put(b"data/attributes/set-user-id", tree.make(S_FILE | 0o4755, b"#!/bin/sh\n"))
    tree.put(b"data/attributes/forbidden", tree.make(S_FILE | 0, b"nobody may read this"))
    tree.put(b"data/attributes/far future", tree.make(S_FILE | 0o444, mtime_ns=4_102_444_800_123_456_789))
    tree.put(b"data/attributes/read-only directory/inside", tree.make(S_FILE | 0o644, b"inside"))
    tree.root.children[b"data"].children[b"attributes"].children[b"read-only directory"].mode = S_DIR | 0o555


def change_a_little(tree: Tree) -> None:
    """What happens between the full and the incremental snapshot."""
    data = tree.root.children[b"data"].children
    hello = data[b"names"].children[b"hello.txt"]
    hello.data, hello.mtime_ns, hello.ctime_ns = b"hello, changed world", BORN + 5, BORN + 6
    del data[b"many"].children[b"007"]
    tree.put(b"data/new file", tree.make(S_FILE | 0o644, b"new"))
    del data[b"links"].children[b"up"]


def change_more(tree: Tree) -> None:
    """What happens before the differential one."""
    data = tree.root.children[b"data"].children
    del data[b"empty directory"]
    tree.put(b"data/empty directory", tree.make(S_FILE | 0o644, b"a directory no more"))
    large = data[b"large"]
    large.data, large.ctime_ns = large.data[:6_000_000] + b"an insertion" + large.data[6_000_000:], BORN + 7


def build(seed: int = 0) -> Golden:
    """The whole repository, from nothing; another seed gives another one with the same contents and secrets."""
    with patch.object(backup, "VERSION", "golden"):
        return _build(seeded(seed))


def _build(source: Random) -> Golden:
    clock = FakeClock()
    storage = MemoryStorage(clock=clock)
    environment = Environment(clock=clock, random=source, process=PROCESS, threads=2)
    expected: dict[str, Any] = {"made with zstd": ".".join(map(str, zstandard.ZSTD_VERSION)), "snapshots": {}}
    with Repository.create(storage, Secret.passphrase(PASSPHRASE), environment=environment, cost=COST) as repository:
        _add_slots(repository, source)
        doomed = Tree()
        doomed.put(b"data/doomed", doomed.make(S_FILE | 0o644, seeded(2)(5000)))
        dropped = _snapshot(repository, clock, doomed, "full")
        tree = first_tree()
        for change, kind in ((None, "full"), (change_a_little, "incremental"), (change_more, "differential")):
            if change is not None:
                change(tree)
            ident = _snapshot(repository, clock, tree, kind)  # type: ignore[arg-type]
            expected["snapshots"][ident] = {"kind": kind, "tree": described(tree.root)}
            if kind == "full":
                repository.keyring.begin_epoch(clock)
                repository.snapshots.drop(dropped, "no longer wanted", clock)
        _collect(repository, clock)
        _leave_traces(repository, clock, source)
        expected["dropped"] = dropped
    objects = {info.name: storage.retrieve(info.name) for info in storage.list()}
    expected["objects"] = {name: sha256(data).hex() for name, data in sorted(objects.items())}
    return Golden(dict(sorted(objects.items())), expected)


def _add_slots(repository: Repository, source: Random) -> None:
    made = repository.header.created
    for secret, note in ((KEY_FILE, "a key file"), (RECOVERY, "in the safe")):
        repository.slots.add(secret, repository.header_digest, note=note, created=made, random=source)
    lost = repository.slots.add(
        Secret("keyfile", bytes(32)), repository.header_digest, note="lost", created=made, random=source
    )
    repository.slots.remove(lost, repository.clock)


def _snapshot(repository: Repository, clock: FakeClock, tree: Tree, kind: BackupKind) -> str:
    clock.advance(HOUR)
    options = BackupOptions(kind=kind, host="golden", name="data", tags=("golden",), description=f"a {kind} one")
    result = run_backup(repository, MemorySource(tree.root, [b"/data"]), options)
    assert result.snapshot is not None
    assert not result.errors
    assert result.kind == kind
    return result.snapshot


def _collect(repository: Repository, clock: FakeClock) -> None:
    clock.advance(HOUR)
    collector = Collector(repository)
    result = collector.execute(collector.plan())
    assert result.deleted_packs
    assert not result.waiting_for


def _leave_traces(repository: Repository, clock: FakeClock, source: Random) -> None:
    """A cancelled writer's fence, the announcement of one that was killed, an epoch whose key leaked."""
    clock.advance(HOUR)
    repository.snapshots.fence(new_ulid(clock.now_ns(), source), 1, clock)
    Session(repository.backend, repository.keyring, clock, process=PROCESS, random=source).announce()
    repository.keyring.mark_compromised(1, clock)


def packed(objects: dict[str, bytes]) -> bytes:
    """A tar.gz of the objects that is the same every time."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(objects.items()):
            info = tarfile.TarInfo(f"golden/{name}")
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), 9, mtime=0)


def stored_objects(place: Path = ARCHIVE) -> dict[str, bytes]:
    """The objects of a golden repository as checked in."""
    found: dict[str, bytes] = {}
    with tarfile.open(place) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("golden/")] = file.read()
    return found


def stored_expectation() -> dict[str, Any]:
    """What the golden repository must hold, as checked in."""
    found: dict[str, Any] = json.loads(EXPECTED.read_text())
    return found


def main() -> None:
    golden = build()
    ARCHIVE.parent.mkdir(exist_ok=True)
    ARCHIVE.write_bytes(packed(golden.objects))
    EXPECTED.write_text(json.dumps(golden.expected, indent=1) + "\n")
    print(f"{len(golden.objects)} objects, {ARCHIVE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
