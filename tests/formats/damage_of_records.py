"""Forged records: epochs, drops, snapshots, collections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from backstay.codec.compression import ZSTD
from backstay.core.ids import new_ulid
from backstay.repository import format as stored
from backstay.repository.format import RecordKind
from backstay.repository.keys.keyring import CompromiseRecord, EpochRecord
from backstay.repository.logs.collections import CollectionRecord, VerdictRecord
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.records import seal_record
from backstay.repository.snapshots.store import DropRecord, FenceRecord, Manifest
from backstay.repository.trees.listings import encode_node
from backstay.trust.signing import Signer
from tests.formats.damage_without_keys import swapped
from tests.formats.forge import (
    DIR,
    SEED,
    Change,
    Damage,
    Forge,
    Objects,
    forged,
    names,
    nested,
    stranger,
    zeros,
)


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


def _twice(body: dict[str, Any]) -> bytes:
    raw = msgspec.msgpack.encode(body)
    assert raw[0] == 0xDE
    count = int.from_bytes(raw[1:3], "big") + 1
    return b"\xde" + count.to_bytes(2, "big") + raw[3:] + msgspec.msgpack.encode("host") + msgspec.msgpack.encode("x")


def _long_number(body: dict[str, Any]) -> bytes:
    marker = 123_456_789_012
    raw = msgspec.msgpack.encode({**body, "time_ns": marker})
    return raw.replace(msgspec.msgpack.encode(marker), b"\xd3" + marker.to_bytes(8, "big"))


def _foreign_fence(forge: Forge) -> Objects:
    """A fence of another session where the newest snapshot was."""
    fence = FenceRecord(new_ulid(0, forge.random), 1, 0)
    forge.put(stored.snapshot_name(forge.newest.id), forge.seal(RecordKind.FENCE, fence))
    return forge.objects


def _snapshots() -> list[Damage]:
    return [
        Damage("snapshot: a fence of another session in its place", forged(_foreign_fence), says="something else"),
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
                lambda f, _: f.sign(f.seal_raw(RecordKind.SNAPSHOT, zeros(300 << 20), codec=ZSTD, raw_length=300 << 20))
            ),
        ),
        Damage("snapshot: nests without end", _body(lambda _: nested(100_000))),
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


OF_RECORDS: Final = [*_epochs(), *_drops(), *_snapshots(), *_collections()]
