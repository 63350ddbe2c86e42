"""Blobs are opened by their packs' ciphers, of which the last few are kept."""

from __future__ import annotations

import random

import pytest

from backstay.codec.cipher import Cipher
from backstay.codec.compression import Compressor
from backstay.codec.digest import sha256
from backstay.errors import CorruptedBackup
from backstay.repository.format import BlobKind, RecordKind
from backstay.repository.packs import blobs
from backstay.repository.packs.blobs import BlobOpener, StoredBlob
from backstay.repository.packs.pack import BlobInfo, PackBuilder
from backstay.repository.records import open_header

EPOCHS = {1: b"1" * 32, 2: b"2" * 32}
REPOSITORY = b"r" * 16


def pack_of(number: int, *, blobs: int = 3) -> list[tuple[StoredBlob, bytes, bytes]]:
    """The blobs of a pack: how they are stored, their stored bytes, and their raw ones."""
    epoch = 1 + number % 2
    builder = PackBuilder(RecordKind.DATA_PACK, repository=REPOSITORY, epoch=epoch, key=EPOCHS[epoch])
    made = []
    for ordinal in range(blobs):
        raw = b"blob %d of pack %d" % (ordinal, number)
        sealed = builder.seal(builder.reserve(), BlobKind.CHUNK, sha256(raw), raw, (), Compressor("none"))
        info = BlobInfo(ordinal, BlobKind.CHUNK, sealed.codec, sealed.id, 0, len(sealed.stored), len(raw))
        made.append((StoredBlob(builder.header, epoch, info), sealed.stored, raw))
    return made


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The headers of packs whose key is derived."""
    headers: list[bytes] = []

    def noted(header: bytes, key: bytes) -> Cipher:
        headers.append(header)
        return open_header(header, key)

    monkeypatch.setattr(blobs, "open_header", noted)
    return headers


def test_blobs_of_any_packs_are_opened_in_any_order() -> None:
    stored = [blob for number in range(10) for blob in pack_of(number)]
    random.Random(5).shuffle(stored)
    opener = BlobOpener(EPOCHS)
    assert [bytes(opener.open(blob, data)) for blob, data, _ in stored] == [raw for _, _, raw in stored]


def test_packs_that_take_turns_get_their_key_once(derived: list[bytes]) -> None:
    first, second = pack_of(1, blobs=20), pack_of(2, blobs=20)
    opener = BlobOpener(EPOCHS)
    for (one, one_data, _), (other, other_data, _) in zip(first, second, strict=True):
        opener.open(one, one_data)
        opener.open(other, other_data)
    assert derived == [first[0][0].header, second[0][0].header]


def test_only_few_ciphers_are_kept(derived: list[bytes]) -> None:
    packs = [pack_of(number, blobs=1)[0] for number in range(50)]
    opener = BlobOpener(EPOCHS)
    for blob, data, _ in packs:
        opener.open(blob, data)
    derived.clear()
    blob, data, raw = packs[0]
    assert bytes(opener.open(blob, data)) == raw
    assert derived == [blob.header]


def test_what_belongs_to_another_pack_is_not_opened_with_a_cipher_that_is_kept() -> None:
    (one, one_data, _), (other, other_data, raw) = pack_of(1)[0], pack_of(3)[0]
    opener = BlobOpener(EPOCHS)
    opener.open(one, one_data)
    with pytest.raises(CorruptedBackup):
        opener.open(one, other_data)
    assert bytes(opener.open(other, other_data)) == raw


def test_an_epoch_without_a_key_is_named() -> None:
    blob, data, _ = pack_of(1)[0]
    with pytest.raises(CorruptedBackup, match="no key for epoch 2"):
        BlobOpener({1: EPOCHS[1]}).open(blob, data)
