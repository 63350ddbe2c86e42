"""What damages are made with: the objects of a repository, and one opened with its own key to forge others."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import msgspec
import zstandard

from backstay.codec.compression import RAW, Compressor
from backstay.codec.digest import sha256
from backstay.core.ids import new_ulid
from backstay.repository import format as stored
from backstay.repository.format import BlobKind, RecordKind
from backstay.repository.index.index import IndexedPack, SegmentRecord, read_segment
from backstay.repository.nodes import Content, Node
from backstay.repository.packs.pack import PackBuilder, SealedBlob, StoredPack
from backstay.repository.records import new_header, padded_length, seal_record
from backstay.repository.repository import Environment, Repository
from backstay.repository.snapshots.store import SIGNED_AS, Manifest
from backstay.repository.trees.listings import encode_node
from backstay.repository.trees.stat_stream import Leave, encode_enter, encode_leave
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret
from backstay.trust.signing import Signer
from tests.formats.make_golden import HOUR, PASSPHRASE, PROCESS, seeded

Objects: TypeAlias = dict[str, bytes]
Change: TypeAlias = Callable[[Objects], Objects]
PLAIN: Final = Compressor("none")
HELLO: Final = b"hello"
SEED: Final = bytes(range(32))
MODE: Final = 0o100644
DIR: Final = 0o040755
HUGE: Final = struct.pack("<I", 0xFFFFFFFF)
FIRSTS: Final = {  # kind of object: how the names of such objects begin
    "repo.json": "repo.json",
    "slot": "keys/slots/",
    "slot removal": "keys/removed/",
    "epoch": "keys/epochs/00000001",
    "later epoch": "keys/epochs/00000002",
    "compromise mark": "keys/epochs/00000001.compromised",
    "data pack": "packs/",
    "metadata pack": "meta/",
    "index segment": "index/",
    "snapshot": "snapshots/",
    "drop": "drops/",
    "session": "sessions/",
    "collection": "gc/00000001",
    "waiting list": "gc/00000001.sessions",
    "verdict": "gc/00000001.done",
}


@dataclass(frozen=True, slots=True)
class Damage:
    """One way to break a repository.

    `verifier` and `engine` say whether they must notice: what needs a second copy of the truth, such as that the
    newest snapshot vanished, or is never read, is beyond one of them. `says` is what the verifier must speak of.
    """

    name: str
    change: Change
    verifier: bool = True
    engine: bool = True
    says: str = ""


def storage_of(objects: Objects) -> MemoryStorage:
    """A store that holds these objects."""
    storage = MemoryStorage(clock=FakeClock())
    for name, data in objects.items():
        storage.store(name, data)
    return storage


def objects_of(storage: MemoryStorage) -> Objects:
    return {info.name: storage.retrieve(info.name) for info in storage.list()}


def environment() -> Environment:
    """Time long after the golden repository was made, and randomness of its own."""
    clock = FakeClock()
    clock.advance(1000 * HOUR)
    return Environment(clock=clock, random=seeded(99), process=PROCESS, threads=2)


def names(objects: Objects, kind: str) -> list[str]:
    """The objects of one kind, largest first."""
    first = FIRSTS[kind]
    if first.endswith("/"):
        return sorted((name for name in objects if name.startswith(first)), key=lambda name: -len(objects[name]))
    return [first]


class Forge:
    """A repository opened with its own key, to put objects into it that no honest writer makes."""

    def __init__(self, objects: Objects) -> None:
        self.storage = storage_of(objects)
        self.repository = Repository.open(self.storage, Secret.passphrase(PASSPHRASE), environment=environment())
        self.keyring = self.repository.keyring
        self.random = self.repository.environment.random

    @property
    def newest(self) -> Manifest:
        return self.repository.snapshots.live()[-1]

    @property
    def objects(self) -> Objects:
        return objects_of(self.storage)

    def put(self, name: str, data: bytes) -> None:
        self.storage.store(name, data, overwrite=True)

    def seal(self, kind: RecordKind, body: msgspec.Struct) -> bytes:
        epoch = self.keyring.current
        return seal_record(
            kind,
            body,
            repository=self.keyring.repository,
            epoch=epoch.number,
            key=epoch.key,
            random=self.random,
        )

    def seal_raw(self, kind: RecordKind, raw: bytes, *, codec: int = RAW, raw_length: int | None = None) -> bytes:
        """A record whose body need not be one."""
        epoch = self.keyring.current
        header, cipher = new_header(kind, self.keyring.repository, epoch.number, epoch.key, self.random)
        plain = struct.pack(">BII", codec, len(raw) if raw_length is None else raw_length, len(raw)) + raw
        return header + cipher.seal(b"\x02" + bytes(11), plain.ljust(padded_length(len(plain)), b"\0"), header)

    def sign(self, record: bytes, signer: Signer | None = None) -> bytes:
        signer = signer or self.keyring.current.signer
        return record + signer.public + signer.sign(SIGNED_AS, record)

    def chunks(self, *chunks: bytes, kind: RecordKind = RecordKind.META_PACK) -> bytes:
        """Store chunks in a pack and index it; their ids, joined."""
        epoch = self.keyring.current
        builder = PackBuilder(
            kind, repository=self.keyring.repository, epoch=epoch.number, key=epoch.key, random=self.random
        )
        ids = [self.keyring.chunk_ids.of(chunk) for chunk in chunks]
        for chunk, chunk_id in zip(chunks, ids, strict=True):
            builder.append(builder.seal(builder.reserve(), BlobKind.CHUNK, chunk_id, chunk, (), PLAIN))
        self.pack(builder)
        return b"".join(ids)

    def packed_chunk(self, chunk: bytes, codec: int, packed: bytes, raw_length: int) -> bytes:
        """A chunk with whatever frame, under a valid tag; its id."""
        epoch = self.keyring.current
        builder = PackBuilder(
            RecordKind.DATA_PACK,
            repository=self.keyring.repository,
            epoch=epoch.number,
            key=epoch.key,
            random=self.random,
        )
        chunk_id = self.keyring.chunk_ids.of(chunk)
        ordinal = builder.reserve()
        bound = builder.header + struct.pack(">BBI", BlobKind.CHUNK, codec, raw_length) + chunk_id
        sealed = builder._cipher.seal(b"\x01" + ordinal.to_bytes(11, "big"), packed, bound)
        builder.append(SealedBlob(BlobKind.CHUNK, codec, chunk_id, raw_length, sealed, ()))
        self.pack(builder)
        return chunk_id

    def pack(self, builder: PackBuilder) -> StoredPack:
        pack = builder.finish()
        self.put(stored.pack_name(pack.kind, pack.digest), bytes(builder.data))
        self.segment([IndexedPack(pack.digest, int(pack.kind), pack.size, pack.epoch, pack.table)])
        return pack

    def segment(self, packs: Sequence[IndexedPack]) -> None:
        data = self.seal(RecordKind.INDEX, SegmentRecord((), tuple(packs)))
        self.put(stored.index_name(sha256(data)), data)

    def manifest(self, root: Content, **changes: Any) -> Manifest:
        """A manifest of a new snapshot, right but for what is asked for."""
        before = self.newest
        stats = self.chunks(encode_enter(b"", []) + encode_leave(Leave(root, 0, 0)))
        facts = {
            "id": new_ulid(self.repository.clock.now_ns(), self.random),
            "root": root,
            "stat_stream": Content(0, stats),
            "previous": before.id,
            "previous_digest": self.repository.snapshots.digest(before.id),
            "parent": before.id,
        }
        return msgspec.structs.replace(before, **{**facts, **changes})

    def snapshot(self, root: Content, **changes: Any) -> Objects:
        manifest = self.manifest(root, **changes)
        self.put(stored.snapshot_name(manifest.id), self.sign(self.seal(RecordKind.SNAPSHOT, manifest)))
        return self.objects

    def tree(self, nodes: Iterable[Node]) -> Objects:
        """A snapshot whose root holds these nodes, in this order."""
        return self.stream(b"".join(map(encode_node, nodes)))

    def stream(self, listing: bytes) -> Objects:
        """A snapshot whose root listing is these bytes."""
        return self.snapshot(Content(0, self.chunks(listing)))

    def file(self, name: bytes = b"file", **changes: Any) -> Node:
        """A small file, right but for what is asked for."""
        facts: dict[str, Any] = {"size": len(HELLO), "sha256": sha256(HELLO), **changes}
        if "content" not in facts:
            facts["content"] = Content(0, self.chunks(HELLO))
        size = facts.pop("size")
        mode = facts.pop("mode", MODE)
        return Node(name, mode, 0, 0, "", "", size, 0, **facts)

    def index_record(self) -> tuple[str, SegmentRecord]:
        """The largest index segment."""
        name = names(self.objects, "index segment")[0]
        return name, read_segment(self.storage, self.keyring, bytes.fromhex(name.rpartition("/")[2]))

    def with_table(self, **columns: bytes) -> Objects:
        """The largest segment, its first pack's table lying."""
        name, record = self.index_record()
        first = record.packs[0]
        lying = msgspec.structs.replace(first, table=msgspec.structs.replace(first.table, **columns))
        self.storage.delete(name)
        self.segment([lying, *record.packs[1:]])
        return self.objects


def forged(make: Callable[[Forge], Objects]) -> Change:
    return lambda objects: make(Forge(objects))


_strangers: list[Objects] = []


def stranger() -> Objects:
    """Another repository."""
    from tests.formats.make_golden import build

    if not _strangers:
        _strangers.append(build(seed=5).objects)
    return _strangers[0]


@cache
def zeros(size: int) -> bytes:
    """A frame of that many zeros, made without having them."""
    packer, block = zstandard.ZstdCompressor().compressobj(size=size), bytes(1 << 20)
    return b"".join([packer.compress(block) for _ in range(size >> 20)]) + packer.flush()


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"
