"""docs/format.md says what the program does: its vectors are computed anew, its tables are compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from backstay.codec.digest import sha256
from backstay.repository import format as stored
from backstay.repository.format import RecordKind
from backstay.repository.keys import keyring, slots
from backstay.repository.logs import collections as collection_log
from backstay.repository.nodes import Node
from backstay.repository.packs.pack import PackTable, open_blob, open_table, read_footer_length
from backstay.repository.records import HEADER_BYTES, open_header
from backstay.repository.sessions import session as sessions
from backstay.repository.snapshots import store as snapshots
from backstay.repository.wal import store as wal
from backstay.trust.slots import Slot
from tests.formats.vectors import DATA_KEY, HELLO, MEMBERS, parsed, vectors

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
DEPENDS_ON_ZSTD = {"pack with chunk and bundle", "name of the pack", "zstd that wrote the footer"}


def test_vectors_are_what_the_program_computes() -> None:
    said, computed = parsed(DOCUMENT), vectors()
    if said["zstd that wrote the footer"] != computed["zstd that wrote the footer"]:
        said = {name: value for name, value in said.items() if name not in DEPENDS_ON_ZSTD}
        computed = {name: value for name, value in computed.items() if name not in DEPENDS_ON_ZSTD}
    assert said == computed


def test_the_pack_vector_can_be_read_whatever_zstd_wrote_it() -> None:
    said = parsed(DOCUMENT)
    data = bytes.fromhex(said["pack with chunk and bundle"])
    assert said["name of the pack"].endswith(sha256(data).hex())
    length = read_footer_length(data[-8:], len(data))
    table = open_table(data[:HEADER_BYTES], data[-8 - length : -8], len(data), DATA_KEY)
    cipher = open_header(data, DATA_KEY)
    raw = [
        bytes(open_blob(cipher, data[:HEADER_BYTES], blob, data[blob.offset : blob.offset + blob.stored]))
        for blob in table.blobs()
    ]
    assert raw[:2] == [HELLO, b"".join(MEMBERS)]
    assert not any(raw[2])


def test_the_document_says_what_is_signed() -> None:
    said = parsed(DOCUMENT)
    record = bytes.fromhex(said["record of the removal"])
    (first,) = re.findall(r'^"(DSSEv1 \d+ \S+snapshot\S+ )" ‖ length of record', DOCUMENT, re.MULTILINE)
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(said["public key of epoch 1"]))
    public.verify(bytes.fromhex(said["signature over that record"]), f"{first}{len(record)} ".encode() + record)
    assert f"({first.split()[1]} is the length of the type)" in DOCUMENT


@pytest.mark.parametrize(
    "struct",
    [
        keyring.EpochRecord,
        keyring.CompromiseRecord,
        slots.SlotRemoval,
        snapshots.FenceRecord,
        snapshots.DropRecord,
        sessions.SessionRecord,
        collection_log.CollectionRecord,
        collection_log.WaitingRecord,
        collection_log.VerdictRecord,
        snapshots.Manifest,
        snapshots.Stats,
        snapshots.ChunkerInfo,
        PackTable,
        Slot,
        Node,
        wal.WalRecord,
        wal.BindingRecord,
        wal.GapRecord,
    ],
)
def test_the_document_names_every_field_in_its_order(struct: type[msgspec.Struct]) -> None:
    at = -1
    for section in DOCUMENT.split("\n## "):
        at = -1
        for name in struct.__struct_fields__:
            at = section.find(f"`{name}`", at + 1)
            if at < 0:
                break
        else:
            return
    pytest.fail(f"no section names the fields of {struct.__name__} in their order")


@pytest.mark.parametrize("kind", list(RecordKind))
def test_the_document_names_every_record_kind(kind: RecordKind) -> None:
    words = {
        RecordKind.DATA_PACK: "data pack",
        RecordKind.META_PACK: "metadata pack",
        RecordKind.INDEX: "index segment",
        RecordKind.WAITING: "waiting list",
        RecordKind.EPOCH: "key epoch",
        RecordKind.COMPROMISE: "compromise mark",
    }
    assert f"{int(kind)} {words.get(kind, kind.name.lower().replace('_', ' '))}" in " ".join(DOCUMENT.split())


def test_the_document_says_which_record_kinds_there_are() -> None:
    assert f"record kinds beyond {max(RecordKind)}," in DOCUMENT


def test_the_document_says_the_limits() -> None:
    assert (stored.MAX_RECORD, stored.MAX_BLOB, stored.MAX_PACK) == (256 << 20, 64 << 20, 1 << 30)
    assert (stored.MAX_BLOBS, stored.MAX_MEMBERS) == (1 << 20, 1 << 22)
    for limit in ("| 256 MiB |", "| 64 MiB |", "| 1 GiB |", "| 2²⁰ |", "| 2²² |"):
        assert limit in DOCUMENT
