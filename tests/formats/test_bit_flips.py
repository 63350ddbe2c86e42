"""Every bit of one small object of each kind, flipped: nothing is accepted, and only typed errors are raised.

The names of packs, index segments and slots are left out of it: they would hide what lies below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import msgspec
import pytest

from backstay.errors import BackstayError
from backstay.repository.format import RecordKind, RepoHeader
from backstay.repository.index.index import SegmentRecord
from backstay.repository.keys.keyring import CompromiseRecord, EpochRecord, Keyring
from backstay.repository.keys.slots import SlotRemoval
from backstay.repository.logs.collections import CollectionRecord, VerdictRecord, WaitingRecord
from backstay.repository.packs.pack import open_blob, open_table, read_footer_length
from backstay.repository.records import HEADER_BYTES, header_epoch, open_header, open_record
from backstay.repository.sessions.session import SessionRecord
from backstay.repository.snapshots.store import DropRecord, FenceRecord, SnapshotStore
from backstay.trust.secrets import Secret
from backstay.trust.slots import Slot, unwrap
from tests.formats.forge import Forge, Objects, storage_of
from tests.formats.make_golden import KEY_FILE, stored_objects

RECORDS: list[tuple[str, RecordKind, type[msgspec.Struct]]] = [
    ("index/", RecordKind.INDEX, SegmentRecord),
    ("snapshots/", RecordKind.FENCE, FenceRecord),
    ("drops/", RecordKind.DROP, DropRecord),
    ("sessions/", RecordKind.SESSION, SessionRecord),
    ("keys/removed/", RecordKind.SLOT_REMOVAL, SlotRemoval),
    ("gc/00000001.done", RecordKind.VERDICT, VerdictRecord),
    ("gc/00000001.sessions", RecordKind.WAITING, WaitingRecord),
    ("gc/00000001", RecordKind.COLLECTION, CollectionRecord),
]


@pytest.fixture(scope="module")
def golden() -> Objects:
    return stored_objects()


@pytest.fixture(scope="module")
def keyring(golden: Objects) -> Keyring:
    return Forge(golden).keyring


def smallest(objects: Objects, first: str) -> bytes:
    if first in objects:
        return objects[first]
    return min((data for name, data in objects.items() if name.startswith(first)), key=len)


def flips(data: bytes) -> Iterator[bytes]:
    changed = bytearray(data)
    for at in range(len(data)):
        for bit in range(8):
            changed[at] ^= 1 << bit
            yield bytes(changed)
            changed[at] ^= 1 << bit


def accepted(data: bytes, read: Callable[[bytes], object]) -> int:
    """How many flips `read` took for good; it must take the data itself."""
    read(data)
    count = 0
    for changed in flips(data):
        try:
            read(changed)
        except BackstayError:
            continue
        count += 1
    return count


@pytest.mark.parametrize(("first", "kind", "struct"), RECORDS, ids=str)
def test_records(golden: Objects, keyring: Keyring, first: str, kind: RecordKind, struct: type[msgspec.Struct]) -> None:
    def read(data: bytes) -> None:
        open_record(data, key=keyring.key(header_epoch(data, kind, keyring.repository)), type=struct)

    assert accepted(smallest(golden, first), read) == 0


EPOCHS: list[tuple[str, RecordKind, type[msgspec.Struct]]] = [
    ("keys/epochs/00000001", RecordKind.EPOCH, EpochRecord),
    ("keys/epochs/00000001.compromised", RecordKind.COMPROMISE, CompromiseRecord),
]


@pytest.mark.parametrize(("name", "kind", "struct"), EPOCHS, ids=str)
def test_epochs(golden: Objects, keyring: Keyring, name: str, kind: RecordKind, struct: type[msgspec.Struct]) -> None:
    def read(data: bytes) -> None:
        if header_epoch(data, kind, keyring.repository) != 1:
            raise BackstayError("another epoch")
        open_record(data, key=keyring._wrapping, type=struct)

    assert accepted(golden[name], read) == 0


@pytest.mark.parametrize("first", ["packs/", "meta/"])
def test_packs(golden: Objects, keyring: Keyring, first: str) -> None:
    kind = RecordKind.DATA_PACK if first == "packs/" else RecordKind.META_PACK

    def read(data: bytes) -> None:
        key = keyring.key(header_epoch(data, kind, keyring.repository))
        header = data[:HEADER_BYTES]
        length = read_footer_length(data[-8:], len(data))
        table = open_table(header, data[-8 - length : -8], len(data), key)
        cipher = open_header(header, key)
        for blob in table.blobs():
            open_blob(cipher, header, blob, data[blob.offset : blob.offset + blob.stored])

    assert accepted(smallest(golden, first), read) == 0


def test_snapshots(golden: Objects, keyring: Keyring) -> None:
    name = min(
        (name for name in golden if name.startswith("snapshots/") and golden[name][5] == RecordKind.SNAPSHOT),
        key=lambda name: len(golden[name]),
    )
    store = SnapshotStore(storage_of(golden), keyring)
    ident = name.removeprefix("snapshots/")
    assert accepted(golden[name], partial(store.decode, ident)) == 0


def test_the_header_raises_only_typed_errors(golden: Objects) -> None:
    """Nothing authenticates it by itself: the slots are bound to its SHA-256."""
    for changed in flips(golden["repo.json"]):
        try:
            RepoHeader.decode(changed)
        except BackstayError:
            continue


def test_slots_never_give_a_wrong_key(golden: Objects) -> None:
    """What is not authenticated, such as the time, may change: the name of the object speaks for it."""
    data = next(data for data in golden.values() if b'"kind":"keyfile"' in data)
    right = unwrap(Slot.decode(data), KEY_FILE)
    assert right is not None
    for changed in flips(data):
        try:
            assert unwrap(Slot.decode(changed), KEY_FILE) in (None, right)
        except BackstayError:
            continue


def test_slots_of_a_passphrase_raise_only_typed_errors(golden: Objects) -> None:
    """With the passphrase not tried where the flip left the cost alone: that takes its time."""
    data = next(data for data in golden.values() if b'"kind":"passphrase"' in data)
    start = data.index(b'"cost"')
    for changed in flips(data[start:]):
        try:
            slot = Slot.decode(data[:start] + changed)
            if slot.cost is not None:
                slot.cost.check()
                assert slot.cost.memory_kib >= 8 * slot.cost.lanes
            elif unwrap(slot, Secret.passphrase("x")):
                raise AssertionError("opened without a cost")
        except BackstayError:
            continue
