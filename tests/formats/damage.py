"""Ways in which a repository can be broken, each applied to the golden one; other tests may use them too.

`DAMAGES` is the table. Every damage takes the objects of a repository and returns others. Those that need keys forge
whole objects, as a bug, or somebody who has the passphrase, could.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import msgspec
import zstandard

from backstay.codec.compression import GZIP, RAW, ZSTD, Compressor
from backstay.codec.digest import sha256
from backstay.core.ids import new_ulid
from backstay.repository import format as stored
from backstay.repository.collection_log import CollectionRecord, VerdictRecord
from backstay.repository.contents import frame
from backstay.repository.format import BlobKind, RecordKind
from backstay.repository.index import IndexedPack, SegmentRecord, read_segment
from backstay.repository.keyring import CompromiseRecord, EpochRecord
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.pack import BlobInfo, PackBuilder, SealedBlob, StoredPack, column, numbers
from backstay.repository.records import new_header, padded_length, seal_record
from backstay.repository.repository import Environment, Repository
from backstay.repository.snapshots import SIGNED_AS, DropRecord, FenceRecord, Manifest
from backstay.repository.stat_stream import Leave, encode_enter, encode_leave
from backstay.repository.trees import encode_node
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


# -- without keys


def flipped(kind: str) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        data = bytearray(objects[name])
        data[len(data) // 2] ^= 0x10
        return {**objects, name: bytes(data)}

    return change


def flipped_at(kind: str, at: int) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        data = bytearray(objects[name])
        data[at] ^= 0x02
        return {**objects, name: bytes(data)}

    return change


def cut(kind: str, keep: float) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        data = objects[name]
        return {**objects, name: data[: min(len(data) - 1, int(len(data) * keep))]}

    return change


def longer(kind: str) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        return {**objects, name: objects[name] + b"\0"}

    return change


def lost(kind: str) -> Change:
    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        return {other: data for other, data in objects.items() if other != name}

    return change


def _lost_oldest(objects: Objects) -> Objects:
    """The newest snapshot may vanish unseen, since nothing names it yet; not one that another follows."""
    oldest = min(names(objects, "snapshot"))
    return {name: data for name, data in objects.items() if name != oldest}


def all_lost(kind: str) -> Change:
    def change(objects: Objects) -> Objects:
        return {name: data for name, data in objects.items() if not name.startswith(FIRSTS[kind])}

    return change


def swapped(kind: str, other: str | None = None) -> Change:
    """Two objects of one kind, each under the other's name."""

    def change(objects: Objects) -> Objects:
        one = names(objects, kind)[0]
        two = names(objects, other)[0] if other else names(objects, kind)[1]
        return {**objects, one: objects[two], two: objects[one]}

    return change


def foreign(kind: str) -> Change:
    """The same object of a repository made by the same program, with other random numbers and the same passphrase."""

    def change(objects: Objects) -> Objects:
        name = names(objects, kind)[0]
        strangers = stranger()
        return {**objects, name: strangers[names(strangers, kind)[0]]}

    return change


def added_foreign(kind: str) -> Change:
    """A foreign object beside ours, under its own name."""

    def change(objects: Objects) -> Objects:
        strangers = stranger()
        name = names(strangers, kind)[0]
        return {**objects, name: strangers[name]}

    return change


def named(name: str, data: bytes = b"") -> Change:
    return lambda objects: {**objects, name: data}


_strangers: list[Objects] = []


def stranger() -> Objects:
    """Another repository."""
    from tests.formats.make_golden import build

    if not _strangers:
        _strangers.append(build(seed=5).objects)
    return _strangers[0]


def header_of_repository(**changes: Any) -> Change:
    def change(objects: Objects) -> Objects:
        header = {**json.loads(objects["repo.json"]), **changes}
        return {**objects, "repo.json": json.dumps(header, separators=(",", ":")).encode()}

    return change


def _reformatted(**style: Any) -> Change:
    def change(objects: Objects) -> Objects:
        return {**objects, "repo.json": json.dumps(json.loads(objects["repo.json"]), **style).encode()}

    return change


def slot(only: str, **changes: Any) -> Change:
    """The slot of a kind with other members, under a name that fits."""

    def change(objects: Objects) -> Objects:
        left = dict(objects)
        for name in names(objects, "slot"):
            content = json.loads(objects[name])
            if content["kind"] == only:
                del left[name]
                data = json.dumps({**content, **changes}, separators=(",", ":")).encode()
                left[f"keys/slots/{sha256(data).hex()}"] = data
        return left

    return change


def added_slot(text: bytes) -> Change:
    return lambda objects: {**objects, f"keys/slots/{sha256(text).hex()}": text}


def further_slot(**changes: Any) -> Change:
    """A further slot that this program cannot use."""

    def change(objects: Objects) -> Objects:
        content = json.loads(objects[names(objects, "slot")[0]])
        data = json.dumps({**content, **changes}, separators=(",", ":")).encode()
        return added_slot(data)(objects)

    return change


# -- with keys: epochs


def forged(make: Callable[[Forge], Objects]) -> Change:
    return lambda objects: make(Forge(objects))


def epoch(at: int = 2, *, mark: bool = False, **changes: Any) -> Change:
    """The record (or compromise mark) of an epoch, written anew by somebody who has the root key, and changed."""

    def make(forge: Forge) -> Objects:
        old = forge.keyring.epochs[at - 1]
        facts: dict[str, Any] = {"number": at, "created_ns": old.created_ns, "key": old.key}
        facts |= {"signing_seed": SEED, "public": Signer(SEED).public, "features": ()}
        body = CompromiseRecord(changes.get("number", at), 0) if mark else EpochRecord(**{**facts, **changes})
        kind = RecordKind.COMPROMISE if mark else RecordKind.EPOCH
        sealed = forge.keyring._seal(kind, body, at, forge.keyring._wrapping)
        forge.put(stored.epoch_name(at) + ".compromised" * mark, sealed)
        return forge.objects

    return forged(make)


# -- with keys: snapshots


def _snapshot_bytes(forge: Forge, data: Callable[[Forge, Manifest], bytes]) -> Objects:
    manifest = forge.manifest(Content(0, forge.chunks(encode_node(forge.file()))))
    forge.put(stored.snapshot_name(manifest.id), data(forge, manifest))
    return forge.objects


def snapshot_bytes(data: Callable[[Forge, Manifest], bytes]) -> Change:
    return forged(lambda forge: _snapshot_bytes(forge, data))


def _body(change: Callable[[dict[str, Any]], Any]) -> Change:
    """A snapshot, signed, whose body was changed as a map."""

    def data(forge: Forge, manifest: Manifest) -> bytes:
        body = change(msgspec.msgpack.decode(msgspec.msgpack.encode(manifest)))
        raw = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
        return forge.sign(forge.seal_raw(RecordKind.SNAPSHOT, raw))

    return snapshot_bytes(data)


def _renamed(forge: Forge) -> Objects:
    old = forge.repository.snapshots.live()[0]
    name = stored.snapshot_name(new_ulid(forge.repository.clock.now_ns(), forge.random))
    forge.put(name, forge.storage.retrieve(stored.snapshot_name(old.id)))
    return forge.objects


def _replaced(forge: Forge) -> Objects:
    """An old snapshot written anew, with other contents and a good signature."""
    old = forge.repository.snapshots.live()[0]
    other = msgspec.structs.replace(old, description="always was so")
    forge.put(stored.snapshot_name(old.id), forge.sign(forge.seal(RecordKind.SNAPSHOT, other)))
    return forge.objects


def _foreign_epoch(forge: Forge, manifest: Manifest) -> bytes:
    """Sealed with the key of one epoch, and said to be of another."""
    one, two = forge.keyring.epochs
    return forge.sign(
        seal_record(
            RecordKind.SNAPSHOT,
            manifest,
            repository=forge.keyring.repository,
            epoch=two.number,
            key=one.key,
            random=forge.random,
        )
    )


def _unknown_epoch(forge: Forge, manifest: Manifest) -> bytes:
    return forge.sign(
        seal_record(
            RecordKind.SNAPSHOT,
            manifest,
            repository=forge.keyring.repository,
            epoch=0xFFFFFFFF,
            key=forge.keyring.current.key,
            random=forge.random,
        )
    )


def _nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


# -- with keys: packs and index


def _moved_border(forge: Forge) -> Objects:
    _, record = forge.index_record()
    sizes = list(numbers(record.packs[0].table.stored))
    sizes[0], sizes[1] = sizes[0] + 16, sizes[1] - 16
    return forge.with_table(stored=column(sizes))


def _swapped_ids(forge: Forge) -> Objects:
    _, record = forge.index_record()
    pack = next(pack for pack in record.packs if len(pack.table.member_ids) > 64)
    ids = pack.table.member_ids
    table = msgspec.structs.replace(pack.table, member_ids=ids[32:64] + ids[:32] + ids[64:])
    name, _ = forge.index_record()
    forge.storage.delete(name)
    forge.segment([msgspec.structs.replace(p, table=table) if p is pack else p for p in record.packs])
    return forge.objects


def _reversed_packs(forge: Forge) -> Objects:
    """One segment of all packs, in the wrong order."""
    packs: list[IndexedPack] = []
    for name in names(forge.objects, "index segment"):
        packs += read_segment(forge.storage, forge.keyring, bytes.fromhex(name.rpartition("/")[2])).packs
        forge.storage.delete(name)
    forge.segment(sorted({pack.digest: pack for pack in packs}.values(), key=lambda pack: pack.digest, reverse=True))
    return forge.objects


def _grown_pack(**changes: Any) -> Change:
    def make(forge: Forge) -> Objects:
        name, record = forge.index_record()
        forge.storage.delete(name)
        forge.segment([msgspec.structs.replace(record.packs[0], **changes), *record.packs[1:]])
        return forge.objects

    return forged(make)


def _column(name: str, value: Callable[[bytes], bytes]) -> Change:
    def make(forge: Forge) -> Objects:
        _, record = forge.index_record()
        return forge.with_table(**{name: value(getattr(record.packs[0].table, name))})

    return forged(make)


def _lying_footer(forge: Forge) -> Objects:
    """A pack whose own table names a byte less than there is."""
    epoch = forge.keyring.current
    builder = PackBuilder(
        RecordKind.DATA_PACK,
        repository=forge.keyring.repository,
        epoch=epoch.number,
        key=epoch.key,
        random=forge.random,
    )
    sealed = builder.seal(builder.reserve(), BlobKind.CHUNK, forge.keyring.chunk_ids.of(HELLO), HELLO, (), PLAIN)
    builder.append(SealedBlob(sealed.kind, sealed.codec, sealed.id, sealed.raw, sealed.stored + b"\0", ()))
    table = builder.finish().table
    data = bytes(builder.data)
    info: BlobInfo = next(table.blobs())
    shorter = data[: info.offset + info.stored - 1] + data[info.offset + info.stored :]
    digest = sha256(shorter)
    forge.put(stored.pack_name(RecordKind.DATA_PACK, digest), shorter)
    forge.segment([IndexedPack(digest, int(RecordKind.DATA_PACK), len(shorter), epoch.number, table)])
    return forge.objects


def _bomb(codec: int, packed: bytes, raw_length: int, chunk: bytes = HELLO) -> Change:
    """A file whose one chunk is packed like this."""

    def make(forge: Forge) -> Objects:
        content = Content(0, forge.packed_chunk(chunk, codec, packed, raw_length))
        return forge.tree([forge.file(content=content, size=len(chunk), sha256=sha256(chunk))])

    return forged(make)


def _zstd(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


@cache
def _zeros(size: int) -> bytes:
    """A frame of that many zeros, made without having them."""
    packer, block = zstandard.ZstdCompressor().compressobj(size=size), bytes(1 << 20)
    return b"".join([packer.compress(block) for _ in range(size >> 20)]) + packer.flush()


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _wide_window() -> bytes:
    """A frame that declares its size and a window of 128 MiB (RFC 8878 section 3.1.1.1)."""
    head = b"\x28\xb5\x2f\xfd\x80" + bytes([17 << 3]) + len(HELLO).to_bytes(4, "little")
    return head + (len(HELLO) << 3 | 1).to_bytes(3, "little") + HELLO


def _sizeless() -> bytes:
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return packer.compress(HELLO) + packer.flush()


# -- with keys: trees


def _nodes(make: Callable[[Forge], list[Node]]) -> Change:
    return forged(lambda forge: forge.tree(make(forge)))


def _file(**changes: Any) -> Change:
    return _nodes(lambda forge: [forge.file(**changes)])


def _directory(forge: Forge, name: bytes, content: Content | None = EMPTY) -> Node:
    return forge.file(name, mode=DIR, size=0, content=content, sha256=None)


def _symlink(forge: Forge, name: bytes, target: bytes | None) -> Node:
    return forge.file(name, mode=0o120777, size=0, content=None, sha256=None, target=target)


def _escape(forge: Forge) -> list[Node]:
    """A symlink that leads out, and a directory of the same name with a file in it."""
    inner = Content(0, forge.chunks(encode_node(forge.file(b"escaped"))))
    return [_symlink(forge, b"x", b".."), _directory(forge, b"x", inner)]


def _listing(make: Callable[[bytes], bytes]) -> Change:
    """A root listing made of the encoding of a good one."""
    return forged(lambda forge: forge.stream(make(encode_node(forge.file(b"a")) + encode_node(forge.file(b"b")))))


def _raw_node(change: Callable[[list[Any]], Any]) -> Change:
    def make(forge: Forge) -> Objects:
        node = change(msgspec.msgpack.decode(msgspec.msgpack.encode(forge.file())))
        return forge.stream(frame(0, node if isinstance(node, bytes) else msgspec.msgpack.encode(node)))

    return forged(make)


def _with(at: int, value: Any) -> Callable[[list[Any]], Any]:
    def change(node: list[Any]) -> list[Any]:
        return [*node[:at], value, *node[at + 1 :]]

    return change


def _root(make: Callable[[Forge], Content]) -> Change:
    return forged(lambda forge: forge.snapshot(make(forge)))


def _deep(forge: Forge) -> Objects:
    """More directories below each other than anybody has."""
    content, listings = EMPTY, []
    for _ in range(9000):
        listings.append(encode_node(Node(b"d", DIR, 0, 0, "", "", 0, 0, content)))
        content = Content(0, forge.keyring.chunk_ids.of(listings[-1]))
    forge.chunks(*listings)
    return forge.snapshot(content)


# -- with keys: collections


def _condemn(forge: Forge, *, verdict: bool) -> Objects:
    """A collection that condemns packs which snapshots need."""
    name = names(forge.objects, "data pack")[0]
    pack = bytes.fromhex(name.rpartition("/")[2])
    number = 2
    forge.put(
        stored.collection_name(number), forge.seal(RecordKind.COLLECTION, CollectionRecord(number, 0, (pack,), ()))
    )
    if verdict:
        record = VerdictRecord(number, 0, (pack,), ())
        forge.put(stored.verdict_name(number), forge.seal(RecordKind.VERDICT, record))
    return forge.objects


def _overreaching(forge: Forge) -> Objects:
    """A verdict that deletes what was never condemned."""
    pack = bytes.fromhex(names(forge.objects, "data pack")[0].rpartition("/")[2])
    forge.put(stored.verdict_name(1), forge.seal(RecordKind.VERDICT, VerdictRecord(1, 0, (pack,), ())))
    return forge.objects


def _wrong_number(forge: Forge) -> Objects:
    forge.put(stored.collection_name(3), forge.storage.retrieve(stored.collection_name(1)))
    return forge.objects


_SIZE: Final = struct.Struct("<I")
_HUGE: Final = _SIZE.pack(0xFFFFFFFF)
_KINDS_WITH_SIBLINGS: Final = {"slot", "data pack", "metadata pack", "index segment", "snapshot"}
# What vanishes without a trace, because nothing else names it, or because it says only what was.
_UNSEEN_WHEN_LOST: Final = {"slot removal", "compromise mark", "session", "waiting list", "verdict"}
# What a restore does not look at; the snapshot of the golden drop is gone already.
_NOT_FOR_READING: Final = {"slot removal", "compromise mark", "session", "collection", "waiting list", "slot", "drop"}


def _generic() -> list[Damage]:
    found = []
    for kind in FIRSTS:
        read = kind not in _NOT_FOR_READING
        found += [
            Damage(f"{kind}: a bit flipped", flipped(kind), engine=read),
            Damage(
                f"{kind}: last byte gone", cut(kind, 1.0), engine=read and kind not in ("data pack", "metadata pack")
            ),
            Damage(f"{kind}: second half gone", cut(kind, 0.5), engine=read),
            Damage(f"{kind}: empty", cut(kind, 0.0), engine=read),
            Damage(f"{kind}: a byte too many", longer(kind), engine=read and not kind.endswith(" pack")),
            Damage(
                f"{kind}: lost",
                _lost_oldest if kind == "snapshot" else lost(kind),
                verifier=kind not in _UNSEEN_WHEN_LOST,
                engine=read and kind not in ("snapshot", "verdict"),
            ),
            Damage(f"{kind}: of a foreign repository", foreign(kind), engine=read),
        ]
        if kind in _KINDS_WITH_SIBLINGS:
            found.append(Damage(f"{kind}: swapped with another", swapped(kind), engine=read))
    return found


def _without_keys() -> list[Damage]:
    return [
        Damage("epochs swapped", swapped("epoch", "later epoch")),
        Damage("all slots lost", all_lost("slot")),
        Damage("all index segments lost", all_lost("index segment")),
        Damage("all data packs lost", all_lost("data pack")),
        Damage("all metadata packs lost", all_lost("metadata pack")),
        Damage("all epochs lost", all_lost("epoch")),
        Damage("a foreign snapshot added", added_foreign("snapshot")),
        Damage("a foreign index segment added", added_foreign("index segment"), engine=False),
        Damage("a foreign pack added", added_foreign("data pack"), engine=False),
        Damage("a foreign slot added", added_foreign("slot"), engine=False, verifier=False),
        *(
            Damage(f"snapshot header: {what}", flipped_at("snapshot", at))
            for what, at in (("magic", 0), ("version", 4), ("kind", 5), ("suite", 6), ("flags", 7), ("repository", 9))
        ),
        *(
            Damage(f"snapshot header: {what}", flipped_at("snapshot", at))
            for what, at in (("epoch", 27), ("salt", 30), ("commitment", 61), ("public key", -90), ("signature", -1))
        ),
        Damage("a newer format", header_of_repository(format=2), says="another format"),
        Damage("an unknown feature", header_of_repository(features=["filters"]), says="another format"),
        Damage("an unknown suite", header_of_repository(suite=255), says="another format"),
        Damage("repo.json says another uuid", header_of_repository(uuid="00" * 16)),
        Damage("repo.json says a uuid that is none", header_of_repository(uuid="zz")),
        Damage("repo.json nests without end", named("repo.json", b"[" * 100_000)),
        Damage("repo.json is huge", named("repo.json", b" " * 200_000), says="repo.json"),
        Damage("repo.json: white space", _reformatted(indent=1), says="canonical"),
        Damage("repo.json: members in another order", _reformatted(sort_keys=True), says="canonical"),
        Damage("repo.json: a member too many", header_of_repository(more=1), says="canonical"),
        *(Damage(f"a foreign object {name}", named(name), engine=False, says="foreign") for name in _FOREIGN_NAMES),
        Damage("slot: absurd memory", slot("passphrase", cost={"memory_kib": 1 << 40, "iterations": 1, "lanes": 1})),
        Damage(
            "slot: more memory than 2 GiB",
            slot("passphrase", cost={"memory_kib": (2 << 20) + 1, "iterations": 1, "lanes": 1}),
            says="absurd",
        ),
        Damage("slot: absurd passes", slot("passphrase", cost={"memory_kib": 64, "iterations": 1 << 31, "lanes": 1})),
        Damage(
            "slot: less memory than its lanes need",
            slot("passphrase", cost={"memory_kib": 8, "iterations": 1, "lanes": 64}),
        ),
        Damage("slot: no cost", slot("passphrase", cost=None)),
        Damage("slot: another salt", slot("passphrase", salt="00" * 32)),
        Damage("slot: a salt that is none", slot("passphrase", salt="zz")),
        Damage("slot: another sealed key", slot("passphrase", sealed="00" * 80)),
        Damage("slot: claims to be a key file's", slot("passphrase", kind="keyfile")),
        Damage("slot beside ours: nests without end", added_slot(b"[" * 60_000), engine=False),
        Damage("slot beside ours: too large", added_slot(b" " * 70_000), engine=False),
        Damage("slot beside ours: of another kind", further_slot(kind="age"), verifier=False, engine=False),
        Damage("slot beside ours: of a newer version", further_slot(version=2), verifier=False, engine=False),
        Damage("slot beside ours: with a new member", further_slot(recipient="x"), verifier=False, engine=False),
    ]


def _epochs() -> list[Damage]:
    return [
        Damage("epoch: needs an unknown feature", epoch(features=("filters",)), says="another format"),
        Damage("epoch: of another number", epoch(number=1), says="something else"),
        Damage("epoch: a public key of another seed", epoch(public=bytes(32)), says="contradicts"),
        Damage("epoch: a key of one byte", epoch(key=b"x"), says="type"),
        Damage("epoch: a seed of one byte", epoch(signing_seed=b"x"), says="type"),
        Damage(
            "compromise mark: about another epoch", epoch(1, mark=True, number=2), says="something else", engine=False
        ),
        Damage("compromise mark: in an epoch record's place", swapped("epoch", "compromise mark"), says="kind"),
    ]


def _drop_of_live(forge: Forge, data: Callable[[str], bytes]) -> Objects:
    newest = forge.newest.id
    forge.put(stored.drop_name(newest), data(newest))
    return forge.objects


def _drops() -> list[Damage]:
    """Drop records that delete nothing, each of the newest snapshot."""

    def elsewhere(forge: Forge) -> bytes:
        return forge.seal(RecordKind.DROP, DropRecord(new_ulid(0, forge.random), 0, ""))

    return [
        Damage("drop of a live snapshot: empty", forged(lambda f: _drop_of_live(f, lambda _: b"")), says="short"),
        Damage(
            "drop of a live snapshot: sealed by a stranger",
            forged(lambda f: _drop_of_live(f, lambda _: stranger()[names(stranger(), "drop")[0]])),
            says="repository",
        ),
        Damage(
            "drop of a live snapshot: about another",
            forged(lambda f: _drop_of_live(f, lambda _: elsewhere(f))),
            says="something else",
        ),
        Damage(
            "drop of a live snapshot: another kind of record",
            forged(lambda f: _drop_of_live(f, lambda i: f.seal(RecordKind.FENCE, FenceRecord(i, 1, 0)))),
            says="kind",
        ),
    ]


_FOREIGN_NAMES: Final = (
    "snapshots/README",
    "index/notes.txt",
    "packs/00/short",
    "drops/x",
    "gc/1",
    "keys/epochs/1",
    "sessions/x",
    "keys/slots/x",
)


def _snapshots() -> list[Damage]:
    return [
        Damage("snapshot: not signed", snapshot_bytes(lambda f, m: f.seal(RecordKind.SNAPSHOT, m))),
        Damage(
            "snapshot: signed by a stranger",
            snapshot_bytes(lambda f, m: f.sign(f.seal(RecordKind.SNAPSHOT, m), Signer(bytes(32)))),
            says="foreign key",
        ),
        Damage(
            "snapshot: signature of another one",
            snapshot_bytes(lambda f, m: f.sign(f.seal(RecordKind.SNAPSHOT, m))[:-64] + bytes(64)),
            says="signature",
        ),
        Damage("snapshot: sealed with another epoch's key", snapshot_bytes(_foreign_epoch), says="commitment"),
        Damage("snapshot: of an epoch that never was", snapshot_bytes(_unknown_epoch), says="epoch"),
        Damage("snapshot: an old one under a new name", forged(_renamed), says="something else"),
        Damage("snapshot: replaced by another, well signed", forged(_replaced), engine=False, says="replaced"),
        Damage(
            "snapshot: absurd raw length",
            snapshot_bytes(lambda f, _: f.sign(f.seal_raw(RecordKind.SNAPSHOT, b"", raw_length=0xFFFFFFFF))),
        ),
        Damage(
            "snapshot: zip bomb",
            snapshot_bytes(
                lambda f, _: f.sign(
                    f.seal_raw(RecordKind.SNAPSHOT, _zeros(300 << 20), codec=ZSTD, raw_length=300 << 20)
                )
            ),
        ),
        Damage("snapshot: nests without end", _body(lambda _: _nested(100_000))),
        Damage("snapshot: a list of 2³² items", _body(lambda _: b"\xdd\xff\xff\xff\xff")),
        Damage("snapshot: a text of 2³² bytes", _body(lambda _: b"\xdb\xff\xff\xff\xff")),
        Damage("snapshot: empty body", _body(lambda _: b"")),
        Damage("snapshot: a field twice", _body(_twice), says="twice"),
        Damage("snapshot: a field too many", _body(lambda body: {**body, "more": 1}), says="other fields"),
        Damage("snapshot: a field too few", _body(lambda body: {k: v for k, v in body.items() if k != "policy"})),
        Damage("snapshot: fields in another order", _body(lambda body: dict(reversed(body.items())))),
        Damage("snapshot: a number instead of a text", _body(lambda body: {**body, "host": 1}), says="type"),
        Damage("snapshot: another kind", _body(lambda body: {**body, "kind": "partial"}), verifier=False),
        Damage("snapshot: a number in a longer form", _body(_long_number), says="shortest"),
        Damage("snapshot: bytes after the end", _body(lambda body: msgspec.msgpack.encode(body) + b"\0")),
        Damage("snapshot: no listing behind its root", _root(lambda _: Content(0, bytes(32))), says="in no pack"),
        Damage("snapshot: its root nests too deeply", _root(lambda _: Content(5, bytes(32))), says="nested"),
        Damage("snapshot: its root has a negative depth", _root(lambda _: Content(-1, bytes(32))), says="nested"),
        Damage("snapshot: its root is half an id", _root(lambda _: Content(0, bytes(31))), says="cut short"),
        Damage(
            "snapshot: its root lists half an id", _root(lambda f: Content(1, f.chunks(bytes(33)))), says="cut short"
        ),
        Damage("snapshot: directories without end", forged(_deep), says="nested"),
    ]


def _twice(body: dict[str, Any]) -> bytes:
    raw = msgspec.msgpack.encode(body)
    assert raw[0] == 0xDE
    count = int.from_bytes(raw[1:3], "big") + 1
    return b"\xde" + count.to_bytes(2, "big") + raw[3:] + msgspec.msgpack.encode("host") + msgspec.msgpack.encode("x")


def _long_number(body: dict[str, Any]) -> bytes:
    marker = 123_456_789_012
    raw = msgspec.msgpack.encode({**body, "time_ns": marker})
    return raw.replace(msgspec.msgpack.encode(marker), b"\xd3" + marker.to_bytes(8, "big"))


def _packs() -> list[Damage]:
    bomb = _zeros(1 << 30)
    return [
        Damage("index: a border between blobs moved", forged(_moved_border), says="footer"),
        Damage("index: two members swapped", forged(_swapped_ids), says="footer"),
        Damage("index: a blob of 4 GiB", _column("stored", lambda c: _HUGE + c[4:]), says="footer"),
        Damage("index: raw bytes of 4 GiB", _column("raw", lambda c: _HUGE + c[4:]), says="impossible"),
        Damage("index: a column cut", _column("codecs", lambda c: c[:-1]), says="column"),
        Damage("index: half a number", _column("raw", lambda c: c[:-1]), says="column"),
        Damage("index: another codec", _column("codecs", lambda c: b"\x09" * len(c)), says="footer"),
        Damage("index: members without end", _column("members", lambda c: _HUGE + c[4:]), says="members"),
        Damage("index: half a member", _column("member_lengths", lambda c: c + b"\0"), says="column"),
        Damage("index: another epoch", _grown_pack(epoch=2), says="footer"),
        Damage("index: an epoch that never was", _grown_pack(epoch=77), says="footer"),
        Damage("index: an epoch below zero", _grown_pack(epoch=-1), says="footer"),
        Damage("index: an epoch beyond counting", _grown_pack(epoch=1 << 60), says="footer"),
        Damage("index: a pack of no size", _grown_pack(size=0), says="impossible"),
        Damage("index: a pack of absurd size", _grown_pack(size=1 << 40), says="impossible"),
        Damage("index: a pack of another kind", _grown_pack(kind=4), says="impossible"),
        Damage("index: packs out of order", forged(_reversed_packs), says="order", engine=False),
        Damage("index: a pack that never was", _grown_pack(digest=bytes(32))),
        Damage("pack: its table names a byte too many", forged(_lying_footer), engine=False, says="does not name"),
        Damage("blob: zip bomb that tells its size", _bomb(ZSTD, bomb, len(HELLO)), says="zstd"),
        Damage("blob: zip bomb that lies about its size", _bomb(ZSTD, _lying(bomb), len(HELLO))),
        Damage("blob: zstd without a size", _bomb(ZSTD, _sizeless(), len(HELLO)), says="zstd"),
        Damage("blob: zstd with a huge window", _bomb(ZSTD, _wide_window(), len(HELLO)), says="zstd"),
        Damage("blob: two zstd frames", _bomb(ZSTD, _zstd(HELLO) + _zstd(HELLO), len(HELLO))),
        Damage("blob: zstd and something after it", _bomb(ZSTD, _zstd(HELLO) + b"\0", len(HELLO))),
        Damage("blob: zstd cut short", _bomb(ZSTD, _zstd(HELLO)[:-1], len(HELLO))),
        Damage("blob: zstd that is none", _bomb(ZSTD, b"\x28\xb5\x2f\xfd" + bytes(9), len(HELLO))),
        Damage("blob: gzip bomb", _bomb(GZIP, _gzip(bytes(64 << 20)), len(HELLO)), says="gzip"),
        Damage("blob: two gzip members", _bomb(GZIP, _gzip(HELLO) + _gzip(HELLO), len(HELLO)), says="gzip"),
        Damage("blob: gzip cut short", _bomb(GZIP, _gzip(HELLO)[:-1], len(HELLO)), says="gzip"),
        Damage("blob: unknown codec", _bomb(9, HELLO, len(HELLO)), says="codec"),
        Damage("blob: other bytes than its id says", _bomb(RAW, b"HELLO", len(HELLO)), says="id"),
        Damage("blob: raw bytes of another length", _bomb(RAW, HELLO, 6), says="declared"),
    ]


def _lying(bomb: bytes) -> bytes:
    """The frame with another content size in its header (RFC 8878 section 3.1.1)."""
    size = (1 << 30).to_bytes(4, "little")
    assert size in bomb[:18]
    return bomb.replace(size, len(HELLO).to_bytes(4, "little"), 1)


def _trees() -> list[Damage]:
    bad_names = (b"..", b".", b"", b"a/b", b"/etc/x", b"a\0b", b"../x", b"n" * 5000)
    return [
        *(Damage(f"listing: the name {name[:9]!r}", _file(name=name), says="impossible name") for name in bad_names),
        Damage("listing: out of order", _nodes(lambda f: [f.file(b"b"), f.file(b"a")]), says="order"),
        Damage("listing: a name twice", _nodes(lambda f: [f.file(b"a"), f.file(b"a")]), says="order"),
        Damage("listing: directories first", _nodes(lambda f: [_directory(f, b"a"), f.file(b"b")]), says="order"),
        Damage(
            "listing: file and directory of one name",
            _nodes(lambda f: [f.file(b"a"), _directory(f, b"a")]),
            says="twice",
        ),
        Damage("listing: a symlink out and a directory of its name", _nodes(_escape), says="twice"),
        Damage("listing: cut", _listing(lambda data: data[:-1]), says="middle"),
        Damage("listing: half a frame head", _listing(lambda data: data + b"\0\0"), says="middle"),
        Damage("listing: foreign frame", _listing(lambda data: frame(7, b"\xc0") + data), says="foreign"),
        Damage("listing: a frame of 4 GiB", _listing(lambda data: b"\0" + _HUGE + data), says="absurd"),
        Damage("listing: an empty frame", _listing(lambda data: frame(0, b"") + data)),
        Damage("node: nests without end", _raw_node(lambda _: _nested(100_000))),
        Damage(
            "node: `extra` nests without end",
            _raw_node(_with(15, {"x": _nest_list(200)})),
            says="deep",
            engine=False,
        ),
        Damage("node: a list of 2³² items", _raw_node(lambda _: b"\xdd\xff\xff\xff\xff")),
        Damage("node: too short", _raw_node(lambda node: node[:5])),
        Damage("node: no list", _raw_node(lambda _: 7)),
        Damage("node: size below zero", _raw_node(_with(6, -1)), says="impossible"),
        Damage("node: size of 2⁶³", _raw_node(_with(6, 1 << 63)), says="impossible"),
        Damage("node: size of nearly 2⁶³", _raw_node(_with(6, (1 << 63) - 1)), says="length"),
        Damage("node: larger than its data", _file(size=6), says="length"),
        Damage("node: smaller than its data", _file(size=4), says="length"),
        Damage("node: much larger than its data", _file(size=20 << 20), says="length"),
        Damage("node: large without data", _file(size=20 << 20, content=EMPTY), says="length"),
        Damage("node: large without content", _file(size=20 << 20, content=None), says="length"),
        Damage("node: wrong SHA-256", _file(sha256=bytes(32)), says="SHA-256", engine=False),
        Damage("node: SHA-256 of one byte", _raw_node(_with(9, b"x")), says="type"),
        Damage("node: missing chunk", _file(content=Content(0, bytes(32))), says="in no pack"),
        Damage("node: half an id", _file(content=Content(0, bytes(31))), says="cut short"),
        Damage("node: content nested too deeply", _file(content=Content(9, b"")), says="nested"),
        Damage("node: extents beyond its size", _file(size=10, extents=((8, 5),)), says="extents"),
        Damage("node: extents that overlap", _file(size=100, extents=((0, 3), (2, 2))), says="extents"),
        Damage("node: extents in disorder", _file(size=100, extents=((50, 3), (0, 2))), says="extents"),
        Damage("node: an extent of no length", _file(size=100, extents=((0, 5), (9, 0))), says="extents"),
        Damage("node: extents below zero", _file(size=100, extents=((-3, 5),)), says="extents"),
        Damage("node: extents of 8 EiB", _file(size=(1 << 63) - 1, extents=((0, (1 << 63) - 1),)), says="length"),
        Damage("node: extents larger than its data", _file(size=100, extents=((0, 50),)), says="length"),
        Damage("node: extents smaller than its data", _file(size=100, extents=((0, 2),)), says="length"),
        Damage("node: directory without listing", _nodes(lambda f: [_directory(f, b"d", None)]), says="impossible"),
        Damage(
            "node: directory whose listing is missing", _nodes(lambda f: [_directory(f, b"d", Content(0, bytes(32)))])
        ),
        Damage("node: symlink to nowhere at all", _nodes(lambda f: [_symlink(f, b"l", None)]), says="target"),
        Damage("node: symlink with a zero byte", _nodes(lambda f: [_symlink(f, b"l", b"a\0b")]), says="target"),
        Damage("node: time beyond all times", _raw_node(_with(7, (1 << 64) - 1)), says="impossible"),
        Damage("node: owner beyond all numbers", _raw_node(_with(2, 1 << 60)), says="impossible"),
        Damage("node: owner below zero", _raw_node(_with(2, -1)), says="impossible"),
        Damage("node: group beyond all numbers", _raw_node(_with(3, 1 << 32)), says="impossible"),
        Damage("node: link group of one byte", _raw_node(_with(12, b"x")), says="type"),
        Damage("node: mode beyond all bits", _raw_node(_with(1, 1 << 60)), says="impossible"),
        Damage("node: mode below zero", _raw_node(_with(1, -1)), says="impossible"),
        Damage("node: text that is no UTF-8", _raw_node(_bad_text), says="UTF-8"),
    ]


def _nest_list(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def _bad_text(node: list[Any]) -> bytes:
    marker = "USER-NAME"
    raw = msgspec.msgpack.encode(_with(4, marker)(node))
    return raw.replace(marker.encode(), b"\xff" * len(marker))


def _collections() -> list[Damage]:
    return [
        Damage(
            "collection: a verdict deletes a pack in use",
            forged(lambda f: _condemn(f, verdict=True)),
            says="in no pack",
        ),
        Damage(
            "collection: a pack in use condemned",
            forged(lambda f: _condemn(f, verdict=False)),
            verifier=False,
            engine=False,
        ),
        Damage("collection: verdict about what was not condemned", forged(_overreaching), says="condemned"),
        Damage("collection: under another number", forged(_wrong_number), says="something else"),
    ]


DAMAGES: Final = [
    *_generic(),
    *_without_keys(),
    *_epochs(),
    *_drops(),
    *_snapshots(),
    *_packs(),
    *_trees(),
    *_collections(),
]
