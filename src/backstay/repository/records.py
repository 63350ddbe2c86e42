"""Encrypted records: one header, one sealed and padded body (docs/format.md, "Records")."""

from __future__ import annotations

import hmac
import os
import struct
from typing import Final, TypeVar

import msgspec

from backstay.codec.cipher import COMMITMENT_BYTES, KEY_BYTES, TAG_BYTES, Cipher, expand
from backstay.codec.compression import RAW, Compressor, decompress
from backstay.core.ids import Random
from backstay.core.names import unwritable
from backstay.errors import CorruptedBackup
from backstay.repository.decoding import decoded
from backstay.repository.format import MAX_RECORD, SUITE, RecordKind

MAGIC: Final = b"BKSY"
VERSION: Final = 1
_FIELDS: Final = struct.Struct(">4sBBBB16sI32s")  # magic, version, kind, suite, flags, repository, epoch, salt
_KNOWN: Final = struct.calcsize(">4sBBBB16s")  # bytes of them that are the same in all objects of a kind
HEADER_BYTES: Final = _FIELDS.size + COMMITMENT_BYTES  # 92
_BODY: Final = struct.Struct(">BII")  # codec, raw length, stored length
_NONCE: Final = b"\x02" + bytes(11)

Body = TypeVar("Body", bound=msgspec.Struct)
_compressor: Final = Compressor("zstd", 3)


def padded_length(length: int) -> int:
    """The Padmé length (Nikitin et al., PoPETs 2019): at most 12 % more, few distinct values."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return length + mask & ~mask


def new_header(
    kind: RecordKind, repository: bytes, epoch: int, epoch_key: bytes, random: Random
) -> tuple[bytes, Cipher]:
    """The 92 header bytes of a new object, and the cipher that only it uses."""
    fields = _FIELDS.pack(MAGIC, VERSION, kind, SUITE, 0, repository, epoch, random(32))
    key, commitment = _derive(epoch_key, fields)
    return fields + commitment, Cipher(key)


def header_epoch(data: bytes, kind: RecordKind, repository: bytes) -> int:
    """The epoch that a stored object names. Raises CorruptedBackup unless it is of this kind and repository."""
    if len(data) < HEADER_BYTES:
        raise CorruptedBackup("a stored object is too short to be one")
    magic, version, stored_kind, suite, flags, stored_repository, epoch, _ = _FIELDS.unpack_from(data)
    if magic != MAGIC:
        raise CorruptedBackup("a stored object does not begin as it should", cause="its magic number is wrong")
    if version != VERSION or suite != SUITE or flags:
        raise CorruptedBackup(
            "a stored object is damaged, or of a version that this program does not know",
            cause=f"version {version}, suite {suite}, flags {flags}",
        )
    if stored_kind != kind:
        raise CorruptedBackup("a stored object is of another kind", cause=f"kind {stored_kind}, not {int(kind)}")
    if stored_repository != repository:
        raise CorruptedBackup("a stored object belongs to another repository")
    return int(epoch)


def header_start(kind: RecordKind, repository: bytes) -> bytes:
    """What each stored object of a kind begins with, in any epoch."""
    return _FIELDS.pack(MAGIC, VERSION, kind, SUITE, 0, repository, 0, b"")[:_KNOWN]


def names_repository(data: bytes, repository: bytes) -> bool:
    """Whether a stored object says that it belongs to this repository; it may lie."""
    return len(data) >= HEADER_BYTES and _FIELDS.unpack_from(data)[5] == repository


def claimed_epoch(data: bytes, repository: bytes) -> int | None:
    """The epoch that an object of any kind says it was sealed in; None for what is no sealed object. It may lie."""
    if not data.startswith(MAGIC) or not names_repository(data, repository):
        return None
    return int(_FIELDS.unpack_from(data)[6]) or None  # epochs are numbered from 1


def open_header(data: bytes, epoch_key: bytes) -> Cipher:
    """The cipher of a stored object, after its key commitment was checked."""
    key, commitment = _derive(epoch_key, bytes(data[: _FIELDS.size]))
    if not hmac.compare_digest(commitment, bytes(data[_FIELDS.size : HEADER_BYTES])):
        raise CorruptedBackup("a stored object was changed", cause="its key commitment does not match")
    return Cipher(key)


def _derive(epoch_key: bytes, fields: bytes) -> tuple[bytes, bytes]:
    keys = expand(epoch_key, b"backstay/v1/object" + fields, KEY_BYTES + COMMITMENT_BYTES)
    return keys[:KEY_BYTES], keys[KEY_BYTES:]


def seal_body(cipher: Cipher, header: bytes, raw: bytes, *, compress: bool = True) -> bytes:
    """The one sealed body of a record or the footer of a pack."""
    codec, stored = _compressor.compress(raw) if compress else (RAW, raw)
    plain = _BODY.pack(codec, len(raw), len(stored)) + stored
    return cipher.seal(_NONCE, plain.ljust(padded_length(len(plain)), b"\0"), header)


def sealed_length(raw: bytes) -> int:
    """The length of what `seal_body` makes of `raw`."""
    return padded_length(_BODY.size + len(_compressor.compress(raw)[1])) + TAG_BYTES


def open_body(cipher: Cipher, header: bytes, sealed: bytes) -> bytes:
    """The raw bytes of a sealed body. Raises CorruptedBackup."""
    plain = cipher.open(_NONCE, sealed, header)
    if len(plain) < _BODY.size:
        raise CorruptedBackup("a record is too short to be one")
    codec, raw_length, stored_length = _BODY.unpack_from(plain)
    end = _BODY.size + stored_length
    if raw_length > MAX_RECORD or len(plain) != padded_length(end) or any(plain[end:]):
        raise CorruptedBackup("a record declares absurd lengths")
    return bytes(decompress(codec, plain[_BODY.size : end], raw_length))


def seal_record(
    kind: RecordKind,
    body: msgspec.Struct,
    *,
    repository: bytes,
    epoch: int,
    key: bytes,
    random: Random = os.urandom,
    compress: bool = True,
) -> bytes:
    """A whole record object. Raises InvalidRequest for words in it that are no UTF-8."""
    header, cipher = new_header(kind, repository, epoch, key, random)
    try:
        plain = msgspec.msgpack.encode(body)
    except UnicodeEncodeError as error:
        raise unwritable("word") from error
    return header + seal_body(cipher, header, plain, compress=compress)


def open_record(data: bytes, *, key: bytes, type: type[Body]) -> Body:  # noqa: A002 - msgspec's own word
    """The body of a record whose header_epoch was looked up. Raises CorruptedBackup."""
    if len(data) < HEADER_BYTES + TAG_BYTES:
        raise CorruptedBackup("a record is too short to be one")
    cipher = open_header(data, key)
    raw = open_body(cipher, data[:HEADER_BYTES], data[HEADER_BYTES:])
    return decode_strictly(raw, type)


def decode_strictly(raw: bytes, type: type[Body]) -> Body:  # noqa: A002 - msgspec's own word
    """Decode msgpack to a struct and insist that it encodes back to the same bytes: one form, no duplicate keys."""
    body = decoded(msgspec.msgpack.Decoder(type), raw, "a record cannot be read")
    if msgspec.msgpack.encode(body) != raw:
        raise CorruptedBackup("a record is not in its canonical form")
    return body
