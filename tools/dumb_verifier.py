#!/usr/bin/env python3
"""Checks and restores a repository of format 1 with nothing but docs/format.md in mind.

It shares no code with the program: if both agree about a repository, the document is right. It is plain and slow, reads
every object and every chunk, and prints one line for each thing that is wrong.

Exit status: 0 all is well, 1 something is wrong, 2 the repository cannot be opened.
"""

# ruff: noqa: ANN401, PTH101, PTH102, PTH108, PTH123 - decoded values have any type, and stored names are bytes, which Path does not take

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import stat
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

(
    DATA,
    META,
    INDEX,
    SNAPSHOT,
    FENCE,
    SESSION,
    DROP,
    COLLECTION,
    VERDICT,
    WAITING,
    EPOCH,
    REMOVAL,
    COMPROMISE,
    TIER,
    HOLD,
    WAL,
    WAL_NAME,
    WAL_GAP,
    VALUES,
    GRAPH_DELETION,
) = range(1, 21)
ATTESTED = "application/vnd.backstay.attestation.v1+json"
BINLOG_FILE = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.[0-9]{6,10}\.(s[0-9]{5}|end)"
WAL_FILE = rf"([0-9A-F]{{24}}(\.[0-9A-F]{{8}}\.backup)?|[0-9A-F]{{8}}\.history|{BINLOG_FILE})"
ID = "[0-7][0-9a-hjkmnp-tv-z]{25}"
NAMES = {  # kind of object: pattern of its name (section 2)
    "repo": r"repo\.json",
    "slot": r"keys/slots/[0-9a-f]{64}",
    "removal": r"keys/removed/[0-9a-f]{64}",
    "epoch": r"keys/epochs/\d{8,10}",
    "compromise": r"keys/epochs/\d{8,10}\.compromised",
    "pack": r"(packs|meta)/([0-9a-f]{2})/\2[0-9a-f]{62}",
    "index": r"index/[0-9a-f]{64}",
    "snapshot": f"snapshots/{ID}",
    "drop": f"drops/{ID}",
    "session": rf"sessions/{ID}\.\d{{6,}}",
    "collection": r"gc/\d{8}",
    "waiting": r"gc/\d{8}\.sessions",
    "verdict": r"gc/\d{8}\.done",
    "probe": r"probe/[0-9a-f]{32}",
    "tier": r"tiers/\d{8}",
    "hold": rf"holds/{ID}\.\d{{6}}",
    "wal": rf"wal/[0-9a-f]{{16}}/{WAL_FILE}(\.[0-9a-f]{{8}}-[0-9a-f]{{8}})?",
    "wal name": r"wal/names/[0-9a-f]{32}",
    "wal gap": r"wal/gaps/[0-9a-f]{16}\.[0-9a-f]{16}-[0-9a-f]{16}",
    "attestation": f"attestations/{ID}/[0-9a-f]{{64}}",
    "graph deletion": rf"graphs/{ID}\.deleted",
    "values": r"values/(\d{8}|[1-9]\d{8,15})",
    "note": r"cold/([0-9a-f]{2})/\1[0-9a-f]{62}\.\d{1,19}",
}
KNOWN = {
    "repo.json",
    "keys",
    "packs",
    "meta",
    "index",
    "snapshots",
    "drops",
    "sessions",
    "gc",
    "probe",
    "tiers",
    "holds",
    "cold",
    "wal",
    "attestations",
    "graphs",
    "values",
}
SHAPES: dict[str, Any] = {"content": ("array", "int", "bytes")}


def fields(text: str) -> dict[str, Any]:
    """Names, each of the type that follows it: `:type name name … :type …`; `[type]` is a list."""
    found: dict[str, Any] = {}
    for part in text.split(":")[1:]:
        kind, *names = part.split()
        shape = [kind[1:-1]] if kind.startswith("[") else SHAPES.get(kind, kind)
        found |= dict.fromkeys(names, shape)
    return found


SHAPES["inline"] = [fields(":bytes32 sha256 :int size flags :bytes? metadata :bytes data")]
SHAPES["checkpoint?"] = ("optional", fields(":text snapshot :int covers :[bytes] nonces :[text] intents"))
SHAPES["chunkers"] = ("map", fields(":text name :int least average greatest"))
SHAPES["labels"] = ("map", "text")
SHAPES["stats"] = fields(
    ":int files dirs bytes files_new files_changed files_unchanged bytes_read bytes_added errors duration_ns"
)
CONTENT, TABLE = SHAPES["content"], ("array", *["bytes"] * 8)
BODIES: dict[int, Any] = {  # record kind: fields (sections 9, 11, 15, 16)
    INDEX: ("array", ["bytes32"], [("array", "bytes32", "int", "int", "int", TABLE)]),
    SNAPSHOT: fields(
        ":text id kind source host :[bytes] paths :text? name :[text] tags :text description :int time_ns recorded_ns"
        ":text? parent previous :bytes? previous_digest :content root stat_stream :chunkers chunkers :stats stats"
        ":[bytes32] packs slots :text program :bytes? policy :labels consistency"
    ),
    FENCE: fields(":text session :int collection fenced_ns"),
    SESSION: fields(":text session host boot namespace :int pid :text process_start :int started_ns"),
    DROP: fields(":text snapshot :int dropped_ns :text reason"),
    COLLECTION: fields(":int number created_ns :[bytes32] condemned :[text] marked"),
    WAITING: fields(":int number :[text] sessions"),
    VERDICT: fields(":int number decided_ns :[bytes32] deleted kept"),
    EPOCH: fields(":int number created_ns :bytes32 key signing_seed public :[text] features"),
    REMOVAL: fields(":bytes32 slot :int removed_ns"),
    COMPROMISE: fields(":int number marked_ns"),
    TIER: fields(":int number :text? cold :int after_s set_ns"),
    HOLD: fields(":text snapshot :int number :text state :int set_ns :text reason"),
    WAL: fields(":int system :text file :int start :bool whole :bytes data"),
    WAL_NAME: fields(":text name :int system bound_ns"),
    GRAPH_DELETION: fields(":text snapshot :int deleted_ns :text reason"),
    WAL_GAP: fields(":int system from_lsn to_lsn known_ns :text who reason"),
    VALUES: fields(
        ":int number :bytes nonce :int made_ns :inline adds :text? snapshot :[bytes32] removes :text? intent"
        ":checkpoint? checkpoint"
    ),
}
NODE = [
    *["bytes", "int", "int", "int", "text", "text", "int", "int", "content?", "bytes32?", "bytes?", "int?", "bytes16?"],
    *["xattrs?", "extents?", "map?"],
]


def _exact_base64(text: str) -> bytes:
    """RFC 4648, section 4, without bits that stand for nothing (section 25)."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("bits are set that stand for nothing")
    return data


class DamageError(Exception):
    """Something is not as the document says."""


class CannotOpenError(Exception):
    """Without this nothing can be said about the repository."""


# -- encodings (section 3)


class Msgpack:
    """Decodes one msgpack value and insists on its shortest form."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def whole(self) -> Any:
        value = self.value(0)
        if self.at != len(self.data):
            raise DamageError("bytes after the end of a structure")
        return value

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise DamageError("a structure is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str, least: int, below: int | None = None) -> int:
        """A number too small (or, below zero, too large) for any shorter form."""
        value: int = struct.unpack(">" + code, self.take(struct.calcsize(">" + code)))[0]
        if value < least if below is None else value >= below:
            raise DamageError("a number or length is not in its shortest form")
        return value

    def value(self, depth: int) -> Any:
        if depth > 64:
            raise DamageError("a structure is nested too deeply")
        tag = self.take(1)[0]
        if tag < 0x80 or tag >= 0xE0:
            return tag if tag < 0x80 else tag - 256
        if tag == 0xC0:
            return None
        if tag in (0xC2, 0xC3):
            return tag == 0xC3
        if 0xCC <= tag <= 0xCF:
            return self.number("BHIQ"[tag - 0xCC], [128, 1 << 8, 1 << 16, 1 << 32][tag - 0xCC])
        if 0xD0 <= tag <= 0xD3:
            return self.number("bhiq"[tag - 0xD0], 0, [-32, -(1 << 7), -(1 << 15), -(1 << 31)][tag - 0xD0])
        if tag & 0xE0 == 0xA0 or 0xD9 <= tag <= 0xDB:
            count = tag & 0x1F if tag < 0xC0 else self.number("BHI"[tag - 0xD9], [32, 1 << 8, 1 << 16][tag - 0xD9])
            return self.text(count)
        if 0xC4 <= tag <= 0xC6:
            return self.take(self.number("BHI"[tag - 0xC4], [0, 1 << 8, 1 << 16][tag - 0xC4]))
        if tag & 0xF0 == 0x90 or tag in (0xDC, 0xDD):
            count = tag & 0x0F if tag < 0xC0 else self.number("HI"[tag - 0xDC], [16, 1 << 16][tag - 0xDC])
            return [self.value(depth + 1) for _ in range(count)]
        if tag & 0xF0 == 0x80 or tag in (0xDE, 0xDF):
            count = tag & 0x0F if tag < 0xC0 else self.number("HI"[tag - 0xDE], [16, 1 << 16][tag - 0xDE])
            return self.map(count, depth)
        raise DamageError(f"a structure holds a value of foreign type 0x{tag:02x}")

    def text(self, count: int) -> str:
        try:
            return self.take(count).decode()
        except UnicodeDecodeError as error:
            raise DamageError("a text is not UTF-8") from error

    def map(self, count: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in found:
                raise DamageError("a map has a key twice, or one that is no text")
            found[key] = self.value(depth + 1)
        return found


def check(value: Any, kind: Any, where: str) -> Any:
    """The value, if it has the type that `kind` describes."""
    if isinstance(kind, dict):
        if not isinstance(value, dict) or list(value) != list(kind):
            raise DamageError(f"{where} has other fields than it should")
        return {name: check(value[name], kind[name], f"{where}.{name}") for name in kind}
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise DamageError(f"{where} is no list")
        return [check(item, kind[0], where) for item in value]
    if isinstance(kind, tuple) and kind[0] == "optional":
        return None if value is None else check(value, kind[1], where)
    if isinstance(kind, tuple) and kind[0] == "map":
        if not isinstance(value, dict):
            raise DamageError(f"{where} is no map")
        return {name: check(item, kind[1], where) for name, item in value.items()}
    if isinstance(kind, tuple):
        if not isinstance(value, list) or len(value) != len(kind) - 1:
            raise DamageError(f"{where} has another number of fields than it should")
        return [check(item, one, where) for item, one in zip(value, kind[1:], strict=True)]
    if value is None and kind.endswith("?"):
        return None
    return check_simple(value, kind.rstrip("?"), where)


def check_simple(value: Any, kind: str, where: str) -> Any:
    if kind == "content":
        return check(value, CONTENT, where)
    if kind == "xattrs":
        return check(value, [("array", "bytes", "bytes")], where)
    if kind == "extents":
        return check(value, [("array", "int", "int")], where)
    wanted: type = {"int": int, "text": str, "map": dict, "bool": bool}.get(kind, bytes)
    length = kind.removeprefix("bytes")
    if (
        not isinstance(value, wanted)
        or isinstance(value, bool) != (kind == "bool")
        or (isinstance(value, bytes) and length and len(value) != int(length))
    ):
        raise DamageError(f"{where} is not of type {kind}")
    return value


def inflate(codec: int, data: bytes, length: int) -> bytes:
    """What a codec packed (section 8)."""
    try:
        if codec == 0:
            raw = data
        elif codec == 1:
            frame = zstandard.get_frame_parameters(data)
            if frame.content_size != length or frame.dict_id or frame.window_size > max(8 << 20, length):
                raise DamageError("a zstd frame declares what it must not")
            raw = zstandard.ZstdDecompressor().decompress(data, read_across_frames=False, allow_extra_data=False)
        elif codec == 2:
            gzip = zlib.decompressobj(31)
            raw = gzip.decompress(data, length + 1)
            if not gzip.eof or gzip.unused_data:
                raise DamageError("a gzip member does not end where it should")
        else:
            raise DamageError(f"unknown codec {codec}")
    except (zstandard.ZstdError, zlib.error) as error:
        raise DamageError(f"cannot decompress: {error}") from error
    if len(raw) != length:
        raise DamageError(f"{len(raw)} bytes where {length} were declared")
    return raw


def undelta(data: bytes, base: bytes, length: int) -> bytes:
    """What a change makes of a part of its base (section 12)."""
    try:
        frame = zstandard.get_frame_parameters(data)
        if frame.content_size != length or frame.dict_id or frame.window_size > max(8 << 20, length):
            raise DamageError("a zstd frame declares what it must not")
        prefix = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        decoder = zstandard.ZstdDecompressor(dict_data=prefix)
        return decoder.decompress(data, read_across_frames=False, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamageError(f"cannot decompress: {error}") from error


# -- keys (sections 5 to 7)


def expand(key: bytes, info: bytes, length: int = 32) -> bytes:
    done, block, count = b"", b"", 0
    while len(done) < length:
        count += 1
        block = hmac.digest(key, block + info + bytes([count]), "sha512")
        done += block
    return done[:length]


def unseal(key: bytes, nonce: bytes, aad: bytes, data: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, data, aad)
    except (InvalidTag, ValueError) as error:
        raise DamageError("the authentication tag does not match") from error


def printed_secret(text: str) -> bytes:
    compact = re.sub(r"[\s-]", "", text).upper().translate(str.maketrans("018", "OIB"))
    try:
        raw = base64.b32decode(compact)
    except ValueError:
        raw = b""
    if len(raw) != 35 or hashlib.sha256(b"backstay-secret" + raw[:32]).digest()[:3] != raw[32:]:
        raise CannotOpenError("the key is not what was printed: its checksum does not match")
    return raw[:32]


def root_key(slot: dict[str, Any], kind: str, secret: bytes, repo_json: bytes) -> bytes | None:
    """The root key, if the secret opens this slot."""
    if slot.get("version") != 1 or slot.get("kind") != kind:
        return None
    try:
        salt, commitment, sealed = (bytes.fromhex(slot[name]) for name in ("salt", "commitment", "sealed"))
        if kind == "passphrase":
            memory, passes, lanes = (int(slot["cost"][name]) for name in ("memory_kib", "iterations", "lanes"))
            if not (8 * lanes <= memory <= 1 << 21 and 1 <= passes <= 64 and 1 <= lanes <= 64):
                raise DamageError("a slot has absurd costs")
            derive = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
            secret = derive.derive(secret)
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError("a slot is malformed") from error
    label = b"backstay/v1/slot/" + kind.encode()
    keys = expand(secret, label + salt, 64)
    if not hmac.compare_digest(keys[32:], commitment):
        return None
    opened = unseal(keys[:32], bytes(12), label, sealed)
    return opened[:32] if opened[32:] == hashlib.sha256(repo_json).digest() else None


def padme(length: int) -> int:
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    step = 1 << max(exponent - exponent.bit_length(), 0)
    return -(-length // step) * step


# -- the repository


class Repository:
    """Everything that is known; `findings` collects what is wrong."""

    def __init__(self, place: Path, kind: str, secret: bytes) -> None:
        self.place = place
        self.findings: list[str] = []
        self.names = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
        self.names = [name for name in self.names if not name.rpartition("/")[2].startswith(".tmp-")]
        self.repository = self._header()
        root = self._unlock(kind, secret)
        self.root = root
        self.wrapping, self.id_key = expand(root, b"backstay/v1/epoch"), expand(root, b"backstay/v1/chunk-id")
        self.epochs: dict[int, dict[str, Any]] = {}
        self.places: dict[bytes, list[tuple[str, int, int, int]]] = {}  # chunk: pack, blob, offset, length
        self.packs: dict[str, tuple[int, list[Any]]] = {}  # name: epoch, blobs
        self.deleted: set[bytes] = set()
        self.gone: set[bytes] = set()  # slots removed on purpose
        self.dropped: set[str] = set()
        self.holds: dict[str, tuple[int, str]] = {}  # snapshot: number and state of its newest hold
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.blobs: dict[tuple[str, int], bytes] = {}
        self.good: set[bytes] = set()  # listings walked already
        self.log: dict[int, dict[str, Any]] = {}  # of values

    def report(self, where: str, problem: object) -> None:
        line = f"{where}: {problem}"
        if line not in self.findings:
            self.findings.append(line)
            print(line)

    def each(self, kind: str, action: Callable[[str, bytes], object]) -> None:
        """Do something with every object of a kind; what is wrong with one is noted, and the rest goes on."""
        for name in self.names:
            if re.fullmatch(NAMES[kind], name):
                try:
                    action(name, self.read(name))
                except (DamageError, OSError, ValueError, RecursionError) as error:
                    self.report(name, error)

    def read(self, name: str) -> bytes:
        return (self.place / name).read_bytes()

    def _header(self) -> bytes:
        try:
            data = self.read("repo.json")
            header = json.loads(data)
            if header["format"] != 1 or header["suite"] != 1 or header["features"]:
                raise CannotOpenError("repo.json: another format, suite or features")
            again = {name: header[name] for name in ("format", "uuid", "features", "suite", "created")}
            if json.dumps(again, separators=(",", ":"), ensure_ascii=False).encode() != data:
                raise ValueError("not in its canonical form")
            identity = bytes.fromhex(header["uuid"])
            if len(identity) != 16:
                raise ValueError("malformed uuid")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CannotOpenError(f"repo.json: {error!r}") from error
        return identity

    def _unlock(self, kind: str, secret: bytes) -> bytes:
        found: list[bytes] = []

        def attempt(name: str, data: bytes) -> None:
            if not name.endswith(hashlib.sha256(data).hexdigest()) or len(data) > 64 << 10:
                raise DamageError("its bytes do not match its name")
            root = root_key(json.loads(data), kind, secret, self.read("repo.json"))
            if root is not None:
                found.append(root)

        self.each("slot", attempt)
        if not found:
            raise CannotOpenError("no key slot of this repo.json opens with this secret")
        return found[0]

    def check(self) -> None:
        """Everything but the trees."""
        for name in self.names:
            if name.split("/")[0] in KNOWN and not any(re.fullmatch(pattern, name) for pattern in NAMES.values()):
                self.report(name, "a foreign object")
        self.each("epoch", self._epoch)
        if not self.epochs:
            raise CannotOpenError("no key epoch can be read")
        self.each("compromise", self._compromise)
        self.each("removal", self._removal)
        self.each("session", lambda name, data: self._named(self.record(data, SESSION), "session", name))
        self._collections()
        self.each("index", self._segment)
        self.each("pack", self._pack)
        self.each("tier", lambda name, data: self._named(self.record(data, TIER), "number", name))
        noted = {f"packs/{name[5:].partition('.')[0]}" for name in self.names if re.fullmatch(NAMES["note"], name)}
        for name in set(self.packs) - set(self.names):
            where = "it lies in the cold tier" if name in noted else "it is not there"
            self.report(name, f"the index names it, but {where}")
        self.each("drop", self._drop)
        self.each("hold", self._hold)
        self.dropped -= {ident for ident, (_, state) in self.holds.items() if state != "cleared"}
        self.each("snapshot", self._snapshot)
        self._chains()
        self.each("wal", self._wal)
        self.each("wal name", self._wal_name)
        self.each("wal gap", self._wal_gap)
        self.each("attestation", self._attestation)
        self.each("graph deletion", lambda name, data: self._named(self.record(data, GRAPH_DELETION), "snapshot", name))
        self.each("values", self._values_entry)

    # records

    def key(self, data: bytes, kind: int) -> tuple[bytes, int]:
        """The key of an object and its epoch (section 7)."""
        if len(data) < 92:
            raise DamageError("too short")
        if data[:8] != b"BKSY\x01" + bytes([kind, 1, 0]) or data[8:24] != self.repository:
            raise DamageError("its header is of another kind, version or repository")
        epoch = int.from_bytes(data[24:28], "big")
        under_root = kind in (EPOCH, COMPROMISE)
        if not under_root and epoch not in self.epochs:
            raise DamageError(f"the key of epoch {epoch} is missing")
        master = self.wrapping if under_root else self.epochs[epoch]["key"]
        keys = expand(master, b"backstay/v1/object" + data[:60], 64)
        if keys[32:] != data[60:92]:
            raise DamageError("its key commitment does not match")
        return keys[:32], epoch

    def body(self, key: bytes, header: bytes, sealed: bytes) -> Any:
        """What a record or a footer holds (section 8)."""
        plain = unseal(key, b"\x02" + bytes(11), header, sealed)
        if len(plain) < 9:
            raise DamageError("too short")
        codec, raw, stored = struct.unpack(">BII", plain[:9])
        if raw > 256 << 20 or len(plain) != padme(9 + stored) or plain[9 + stored :].strip(b"\0"):
            raise DamageError("absurd lengths")
        return Msgpack(inflate(codec, plain[9 : 9 + stored], raw)).whole()

    def record(self, data: bytes, kind: int) -> Any:
        key, _ = self.key(data, kind)
        return check(self.body(key, data[:92], data[92:]), BODIES[kind], "record")

    def _named(self, body: dict[str, Any], field: str, name: str) -> dict[str, Any]:
        """The body, if it belongs under this name."""
        text = name.rpartition("/")[2].partition(".")[0]
        if body[field] != (int(text) if isinstance(body[field], int) else text):
            raise DamageError("it is the record of something else")
        return body

    def _epoch(self, name: str, data: bytes) -> None:
        if len(data) < 92 or data[8:24] != self.repository:
            return  # of a repository that never came to be
        body = self._named(self.record(data, EPOCH), "number", name)
        if body["features"]:
            raise CannotOpenError(f"{name}: another format, with features {body['features']}")
        public = Ed25519PrivateKey.from_private_bytes(body["signing_seed"]).public_key().public_bytes_raw()
        if public != body["public"] or self.key(data, EPOCH)[1] != body["number"]:
            raise DamageError("it contradicts itself")
        self.epochs[body["number"]] = body

    def _compromise(self, name: str, data: bytes) -> None:
        body = self._named(self.record(data, COMPROMISE), "number", name)
        if self.key(data, COMPROMISE)[1] != body["number"]:
            raise DamageError("it contradicts itself")

    def _removal(self, name: str, data: bytes) -> None:
        body = self.record(data, REMOVAL)
        if not name.endswith(body["slot"].hex()):
            raise DamageError("it is the record of another slot")
        self.gone.add(body["slot"])

    def _drop(self, name: str, data: bytes) -> None:
        self.dropped.add(self._named(self.record(data, DROP), "snapshot", name)["snapshot"])

    def _hold(self, name: str, data: bytes) -> None:
        ident, number = name[6:32], int(name[33:])
        self.holds[ident] = max(self.holds.get(ident, (0, "")), (number, "not to be read"))
        body = self._named(self.record(data, HOLD), "snapshot", name)
        if body["number"] != number or body["state"] not in ("held", "cleared"):
            raise DamageError("it is the record of something else")
        if self.holds[ident][0] == number:
            self.holds[ident] = (number, body["state"])

    def _attestation(self, name: str, data: bytes) -> None:
        """What a validator says, in an envelope of DSSE (section 25); no key of the repository is needed."""
        _, ident, key_id = name.split("/")
        if ident in self.dropped:
            return
        try:
            envelope = json.loads(data) if len(data) <= 16 << 10 else {}
            (signature,) = envelope["signatures"]
            payload = _exact_base64(envelope["payload"])
            said = json.loads(payload)
            public = bytes.fromhex(said["public_key"])
            kind = envelope["payloadType"].encode()
            signed = b"DSSEv1 %d %s %d " % (len(kind), kind, len(payload)) + payload
            sealed = _exact_base64(signature["sig"])
            Ed25519PublicKey.from_public_bytes(public).verify(sealed, signed)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidSignature) as error:
            raise DamageError(f"it is no attestation: {error!r}") from error
        about = (kind.decode(), said.get("repository"), said.get("snapshot"), hashlib.sha256(public).hexdigest())
        if about != (ATTESTED, self.repository.hex(), ident, key_id) or signature["keyid"] != key_id:
            raise DamageError("it attests something else")
        stored = f"snapshots/{ident}"
        if stored not in self.names or hashlib.sha256(self.read(stored)).hexdigest() != said.get("digest"):
            raise DamageError("it attests other bytes than the snapshot has")

    def _wal(self, name: str, data: bytes) -> None:
        """A file of a database's log, or a part of one (section 22)."""
        body = self.record(data, WAL)
        first, end = body["start"], body["start"] + len(body["data"])
        part = "" if body["whole"] else f".{first:08x}-{end:08x}"
        if name != f"wal/{body['system']:016x}/{body['file']}{part}" or (body["whole"] and first):
            raise DamageError("it is the record of something else")
        if len(body["data"]) > 64 << 20:
            raise DamageError("it is larger than a segment can be")

    def _wal_name(self, name: str, data: bytes) -> None:
        body = self.record(data, WAL_NAME)
        if name != f"wal/names/{expand(self.root, b'backstay/v1/wal-name' + body['name'].encode(), 16).hex()}":
            raise DamageError("it is the record of something else")

    def _wal_gap(self, name: str, data: bytes) -> None:
        body = self.record(data, WAL_GAP)
        if name != f"wal/gaps/{body['system']:016x}.{body['from_lsn']:016x}-{body['to_lsn']:016x}":
            raise DamageError("it is the record of something else")

    def _values_entry(self, name: str, data: bytes) -> None:
        """An entry of the log of values (section 24)."""
        body = self._named(self.record(data, VALUES), "number", name)
        checkpoint = body["checkpoint"]
        if len(body["nonce"]) != 16 or not 0 < body["number"] < 1 << 53 or len(body["removes"]) > 1 << 20:
            raise DamageError("it has an impossible nonce or number")
        if checkpoint is not None and not 0 < checkpoint["covers"] < body["number"]:
            raise DamageError("its checkpoint covers what it cannot")
        nonces = checkpoint["nonces"] if checkpoint is not None else []
        named = [body["snapshot"], body["intent"]]
        named += [checkpoint["snapshot"], *checkpoint["intents"]] if checkpoint is not None else []
        if any(len(nonce) != 16 for nonce in nonces) or any(one and not re.fullmatch(ID, one) for one in named):
            raise DamageError("it names an impossible snapshot or nonce")
        for value in body["adds"]:
            if (
                value["size"] != len(value["data"])
                or value["size"] > 128 << 10
                or len(value["metadata"] or b"") > 64 << 10
            ):
                raise DamageError("it holds a value of an absurd size")
            if hashlib.sha256(value["data"]).digest() != value["sha256"]:
                raise DamageError("it holds a value whose bytes do not match its id")
        if sum(value["size"] for value in body["adds"]) > 64 << 20:
            raise DamageError("it holds too much")
        self.log[body["number"]] = body

    def values(self) -> dict[bytes, bytes | dict[str, Any]]:
        """Every value by its SHA-256: its bytes, or the node that names them (section 24)."""
        numbers = [int(name[7:]) for name in self.names if re.fullmatch(NAMES["values"], name)]
        checkpoints = [body for body in self.log.values() if body["checkpoint"] is not None]
        chosen = min(checkpoints, key=lambda body: (-body["checkpoint"]["covers"], body["number"]), default=None)
        covers = chosen["checkpoint"]["covers"] if chosen is not None else 0
        found: dict[bytes, bytes | dict[str, Any]] = {}
        if chosen is not None:
            found |= self._tree_of_values(chosen["number"], chosen["checkpoint"]["snapshot"], must=True)
        for number in range(covers + 1, max([covers, *numbers]) + 1):
            if number not in numbers:
                self.report(f"values/{number:08d}", "it is missing")
            if number not in self.log:
                continue
            body = self.log[number]
            for digest in body["removes"]:
                found.pop(digest, None)
            found |= {value["sha256"]: value["data"] for value in body["adds"]}
            if body["snapshot"] is not None:
                found |= self._tree_of_values(number, body["snapshot"], must=False)
        return found

    def _tree_of_values(self, number: int, ident: str, *, must: bool) -> dict[bytes, Any]:
        announced = any(name.startswith(f"sessions/{ident}.") for name in self.names)
        if ident not in self.snapshots:
            if must or not (announced or f"snapshots/{ident}" in self.names):
                self.report(f"values/{number:08d}", f"its snapshot {ident} is missing or damaged")
            return {}
        found = {}
        try:
            for shard in self.listing(self.snapshots[ident]["root"]):
                for node in self.listing(shard["content"]):
                    if node["name"] != (node["sha256"] or b"").hex().encode() or node["name"][:2] != shard["name"]:
                        raise DamageError("a tree of values holds something else")
                    found[node["sha256"]] = node
        except DamageError as error:
            self.report(f"snapshots/{ident}", error)
        return found

    def _references(self, there: set[bytes]) -> None:
        for ident, snapshot in self.snapshots.items():
            if not snapshot["source"].startswith("graph:"):
                continue
            try:
                node = next((n for n in self.listing(snapshot["root"]) if n["name"] == b"values.txt"), None)
                if node is None:
                    raise DamageError("it has no values.txt")
                text = b"".join(self.data(node["content"]))
                if text and (not text.endswith(b"\n") or any(len(line) != 64 for line in text.split(b"\n")[:-1])):
                    raise DamageError("its values.txt is malformed")
                for line in text.split():
                    if bytes.fromhex(line.decode()) not in there:
                        self.report(f"snapshots/{ident}", f"it refers to the value {line.decode()}, which is not there")
            except (DamageError, ValueError) as error:
                self.report(f"snapshots/{ident}", error)

    def restore_values(self, target: Path | None) -> None:
        """Read every value; with a target, write each under its SHA-256."""
        found = self.values()
        for digest, where in sorted(found.items()):
            try:
                data = where if isinstance(where, bytes) else b"".join(self.data(where["content"]))
                if hashlib.sha256(data).digest() != digest:
                    raise DamageError("its bytes do not match its id")
                if target is not None:
                    target.mkdir(parents=True, exist_ok=True)
                    (target / digest.hex()).write_bytes(data)
            except DamageError as error:
                self.report(f"value {digest.hex()}", error)
        self._references(set(found))

    def _collections(self) -> None:
        condemned: dict[int, list[bytes]] = {}

        def collection(name: str, data: bytes) -> None:
            body = self._named(self.record(data, COLLECTION), "number", name)
            condemned[body["number"]] = body["condemned"]

        def verdict(name: str, data: bytes) -> None:
            body = self._named(self.record(data, VERDICT), "number", name)
            self.deleted.update(body["deleted"])
            if sorted(body["deleted"] + body["kept"]) != condemned.get(body["number"]):
                raise DamageError("it does not decide about exactly what was condemned")

        self.each("collection", collection)
        self.each("waiting", lambda name, data: self._named(self.record(data, WAITING), "number", name))
        self.each("verdict", verdict)

    # packs

    def _segment(self, name: str, data: bytes) -> None:
        if not name.endswith(hashlib.sha256(data).hexdigest()):
            raise DamageError("its bytes do not match its name")
        packs = self.record(data, INDEX)[1]
        if any(one[0] >= two[0] for one, two in pairwise(packs)):
            self.report(name, "its packs are out of order")
        for digest, kind, size, epoch, table in packs:
            if kind not in (DATA, META) or not 0 < size <= 1 << 30:
                raise DamageError("it names an impossible pack")
            blobs = read_table(table)
            text = digest.hex()
            pack = f"{'packs' if kind == DATA else 'meta'}/{text[:2]}/{text}"
            if digest not in self.deleted and pack not in self.packs:
                self.packs[pack] = epoch, blobs
                for ordinal, blob in enumerate(blobs):
                    for chunk, offset, length in blob["chunks"]:
                        self.places.setdefault(chunk, []).append((pack, ordinal, offset, length))

    def _pack(self, name: str, data: bytes) -> None:
        if not name.endswith(hashlib.sha256(data).hexdigest()):
            raise DamageError("its bytes do not match its name")
        key, epoch = self.key(data, DATA if name.startswith("packs/") else META)
        length = int.from_bytes(data[-8:-4], "big")
        if data[-4:] != b"BKSE" or not 16 <= length <= len(data) - 100 or len(data) > 1 << 30:
            raise DamageError("it does not end as it should")
        blobs = read_table(check(self.body(key, data[:92], data[-8 - length : -8]), TABLE, "table"))
        if 92 + sum(blob["stored"] for blob in blobs) + length + 8 != len(data):
            raise DamageError("it holds bytes that its table does not name")
        if name in self.packs and self.packs[name] != (epoch, blobs):
            raise DamageError("the index says other things about it than its footer")
        for ordinal, blob in enumerate(blobs):
            raw = open_blob(key, data, ordinal, blob)
            for chunk, offset, size in blob["chunks"]:
                if blake3(raw[offset : offset + size], key=self.id_key).digest() != chunk:
                    self.report(name, f"chunk {chunk.hex()[:16]} is not what its id says")

    def chunk(self, chunk: bytes) -> bytes:
        """A chunk from the first place that holds it."""
        problem = DamageError(f"chunk {chunk.hex()[:16]} is in no pack of the index")
        for name, ordinal, offset, length in self.places.get(chunk, ()):
            try:
                data = self._blob(name, ordinal)[offset : offset + length]
            except (DamageError, OSError) as error:
                problem = DamageError(f"chunk {chunk.hex()[:16]} in {name}: {error}")
                continue
            if blake3(data, key=self.id_key).digest() == chunk:
                if not data:
                    raise DamageError("an empty chunk is listed")
                return data
        raise problem

    def _blob(self, name: str, ordinal: int) -> bytes:
        if (name, ordinal) not in self.blobs:
            data, (epoch, blobs) = self.read(name), self.packs[name]
            key, stored_epoch = self.key(data, DATA if name.startswith("packs/") else META)
            if stored_epoch != epoch:
                raise DamageError("it belongs to another epoch than the index says")
            if sum(map(len, self.blobs.values())) > 128 << 20:
                self.blobs.clear()
            self.blobs[name, ordinal] = open_blob(key, data, ordinal, blobs[ordinal])
        return self.blobs[name, ordinal]

    # snapshots

    def _snapshot(self, name: str, data: bytes) -> None:
        ident = name.rpartition("/")[2]
        if data[5:6] == bytes([FENCE]):
            self._named(self.record(data, FENCE), "session", name)
            return
        if ident in self.dropped:
            return
        record, public, signature = data[:-96], data[-96:-64], data[-64:]
        body = self._named(self.record(record, SNAPSHOT), "id", name)
        kind = b"application/vnd.backstay.snapshot.v1"
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(record), record)
        try:
            if public != self.epochs[self.key(record, SNAPSHOT)[1]]["public"]:
                raise DamageError("it is signed with a foreign key")
            Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
        except (InvalidSignature, ValueError) as error:
            raise DamageError("its signature is not valid") from error
        self.snapshots[ident] = {**body, "digest": hashlib.sha256(data).digest()}

    def _chains(self) -> None:
        slots = {bytes.fromhex(name.rpartition("/")[2]) for name in self.names if re.fullmatch(NAMES["slot"], name)}
        for ident, snapshot in self.snapshots.items():
            where, previous = f"snapshots/{ident}", snapshot["previous"]
            if previous in self.snapshots:
                if self.snapshots[previous]["digest"] != snapshot["previous_digest"]:
                    self.report(where, f"the snapshot before it, {previous}, was replaced")
            elif previous is not None and previous not in self.dropped:
                self.report(where, f"the snapshot before it, {previous}, is missing or damaged")
            for slot in set(snapshot["slots"]) - slots - self.gone:
                self.report(f"keys/slots/{slot.hex()}", "a key slot is missing, and no record says that it was removed")

    # trees (sections 12 to 14)

    def ids(self, content: list[Any]) -> Iterator[bytes]:
        depth, ids = content
        if not 0 <= depth <= 4:
            raise DamageError("content is nested too deeply")
        if depth:
            ids = b"".join(map(self.chunk, self.ids([depth - 1, ids])))
        if len(ids) % 32:
            raise DamageError("a list of chunk ids is cut short")
        for at in range(0, len(ids), 32):
            yield ids[at : at + 32]

    def data(self, content: list[Any]) -> Iterator[bytes]:
        """The bytes of a stream, which may be another one with changes."""
        if content[0] < 16:
            yield from map(self.chunk, self.ids(content))
            return
        frames = [*self.frames([content[0] - 16, content[1]])]
        if [kind for kind, _ in frames] != [5]:
            raise DamageError("a patch is not one frame")
        size, named, changes = check(frames[0][1], ("array", "int", CONTENT, CONTENT), "a patch")
        base = b"".join(map(self.chunk, self.ids(named)))
        end = 0
        for kind, body in self.frames(changes):
            shape = ("array", "int", "int", "int", "int", "bytes32", "bytes")
            at, length, base_at, base_length, name, delta = check(body, shape, "a change")
            if kind != 6 or not end <= at < at + length <= size or max(length, base_length) > 8 << 20:
                raise DamageError("a change is out of place")
            if not 0 <= base_at <= base_at + base_length <= len(base) or at > max(end, len(base)):
                raise DamageError("a change refers to what is not there")
            yield base[end:at]
            new = undelta(delta, base[base_at : base_at + base_length], length)
            if blake3(new, key=self.id_key).digest() != name:
                raise DamageError("a change holds other bytes than its id says")
            yield new
            end = at + length
        if size > max(end, len(base)):
            raise DamageError("a patch ends before its stream does")
        yield base[end:size]

    def frames(self, content: list[Any]) -> Iterator[tuple[int, Any]]:
        rest = b""
        for chunk in self.ids(content):
            rest += self.chunk(chunk)
            while len(rest) >= 5:
                kind, length = struct.unpack("<BI", rest[:5])
                if length > 64 << 20:
                    raise DamageError("a frame has an absurd length")
                if len(rest) < 5 + length:
                    break
                yield kind, Msgpack(rest[5 : 5 + length]).whole()
                rest = rest[5 + length :]
        if rest:
            raise DamageError("a stream ends in the middle of a frame")

    def listing(self, content: list[Any]) -> Iterator[dict[str, Any]]:
        last, others = (False, b""), set()
        for kind, body in self.frames(content):
            if kind != 0 or not isinstance(body, list):
                raise DamageError("a listing holds a foreign frame")
            node = read_node(body)
            key = stat.S_ISDIR(node["mode"]), node["name"]
            if key <= last or node["name"] in others:
                raise DamageError("a listing is out of order, or has a name twice")
            others.add(node["name"])
            last = key
            yield node

    def walk(self, content: list[Any], path: bytes, target: Target | None, depth: int = 0) -> None:
        """Check (and restore) a directory and all below it."""
        key = b"%d:%b" % (content[0], content[1])
        if target is None and key in self.good:
            return
        if depth > 8192:
            raise DamageError("directories are nested too deeply")
        below = []
        try:
            for node in self.listing(content):
                node["path"] = path + b"/" + node["name"]
                if stat.S_ISDIR(node["mode"]):
                    below.append(node)
                else:
                    self._item(node, target)
        except (DamageError, OSError) as error:
            self.report(shown(path or b"/"), error)
        for node in below:
            if target is not None:
                target.directory(node)
            self.walk(node["content"], node["path"], target, depth + 1)
            if target is not None:
                target.attributes(node)
        self.good.add(key)

    def _item(self, node: dict[str, Any], target: Target | None) -> None:
        try:
            if not stat.S_ISREG(node["mode"]):
                if target is not None:
                    target.other(node)
                return
            size = 0
            digest = hashlib.sha256()
            pieces = self.data(node["content"] or [0, b""])
            if target is not None:
                pieces = target.file(node, pieces)
            for piece in pieces:
                size += len(piece)
                digest.update(piece)
            extents = node["extents"]
            if size != (node["size"] if extents is None else sum(length for _, length in extents)):
                raise DamageError("its data has another length than it should")
            if node["sha256"] is not None and digest.digest() != node["sha256"]:
                raise DamageError("its data has another SHA-256 than it should")
        except (DamageError, OSError) as error:
            if target is not None:
                target.remove(node)
            self.report(shown(node["path"]), error)

    def stat_stream(self, snapshot: dict[str, Any]) -> None:
        row = ("array", "bytes", "int", "int", "int", "int", "int")
        open_names: list[list[bytes]] = []
        root = None
        for kind, body in self.frames(snapshot["stat_stream"]):
            if root is not None or (kind in (2, 3) and not open_names) or kind not in (1, 2, 3):
                raise DamageError("the stat stream has a frame out of place")
            if kind == 3:
                left = check(body, ("array", CONTENT, "int", "int"), "LEAVE")
                open_names.pop()
                root = None if open_names else left[0]
                continue
            name, rows = check(body if kind == 1 else [b"", body], ("array", "bytes", [row]), "a page")
            if kind == 1:
                if name != b"" if not open_names else name not in open_names[-1]:
                    raise DamageError("the stat stream enters a directory that it did not name")
                open_names.append([])
            names = open_names[-1] + [item[0] for item in rows]
            if any(one >= two for one, two in pairwise(names)):
                raise DamageError("the stat stream is out of order")
            open_names[-1] = names
        if root != snapshot["root"]:
            raise DamageError("the stat stream ends too early, or with another root")


def shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace").encode("unicode_escape").decode()


def read_table(table: list[bytes]) -> list[dict[str, Any]]:
    """The blobs of a pack (section 10)."""
    kinds, codecs, ids, stored, raw, members, member_ids, member_lengths = table
    count = len(kinds)
    if len(member_lengths) % 4 or len(member_ids) != 8 * len(member_lengths) or count > 1 << 20:
        raise DamageError("a table has columns of the wrong length")
    if len(codecs) != count or len(ids) != 32 * count or not len(stored) == len(raw) == len(members) == 4 * count:
        raise DamageError("a table has columns of the wrong length")
    numbers = [struct.unpack(f"<{len(column) // 4}I", column) for column in (stored, raw, members, member_lengths)]
    if sum(numbers[2]) != len(numbers[3]) or sum(numbers[2]) > 1 << 22:
        raise DamageError("a table has the wrong number of members")
    blobs: list[dict[str, Any]] = []
    start, member = 92, 0
    for at in range(count):
        blob: dict[str, Any] = {"kind": kinds[at], "codec": codecs[at], "id": ids[32 * at : 32 * at + 32]}
        blob |= {"start": start, "stored": numbers[0][at], "raw": numbers[1][at], "chunks": []}
        if blob["kind"] == 1:
            blob["chunks"] = [(blob["id"], 0, blob["raw"])]
        offset = 0
        for one in range(member, member + numbers[2][at]):
            blob["chunks"].append((member_ids[32 * one : 32 * one + 32], offset, numbers[3][one]))
            offset += numbers[3][one]
        if blob["raw"] > 64 << 20 or (offset != blob["raw"] if blob["kind"] == 2 else numbers[2][at]):
            raise DamageError("a table has a blob of impossible size")
        start, member = start + blob["stored"], member + numbers[2][at]
        blobs.append(blob)
    return blobs


def open_blob(key: bytes, pack: bytes, ordinal: int, blob: dict[str, Any]) -> bytes:
    aad = pack[:92] + struct.pack(">BBI", blob["kind"], blob["codec"], blob["raw"]) + blob["id"]
    sealed = pack[blob["start"] : blob["start"] + blob["stored"]]
    return inflate(blob["codec"], unseal(key, b"\x01" + ordinal.to_bytes(11, "big"), aad, sealed), blob["raw"])


def read_node(body: list[Any]) -> dict[str, Any]:
    """One node (section 13)."""
    body = (body + [None] * len(NODE))[: len(NODE)]
    names = "name mode uid gid user group size mtime_ns content sha256 target device links xattrs extents extra"
    node = {name: check(value, kind, name) for name, value, kind in zip(names.split(), body, NODE, strict=True)}
    name, end = node["name"], 0
    if not 1 <= len(name) <= 4096 or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise DamageError(f"an entry has the impossible name {shown(name[:80])!r}")
    if not 0 <= node["size"] < 1 << 63 or any(not 0 <= node[field] < 1 << 32 for field in ("mode", "uid", "gid")):
        raise DamageError(f"the entry {shown(name)!r} is impossible")
    if stat.S_ISDIR(node["mode"]) and node["content"] is None:
        raise DamageError(f"the directory {shown(name)!r} has an impossible listing: none")
    if stat.S_ISLNK(node["mode"]) and (not node["target"] or b"\0" in node["target"]):
        raise DamageError(f"the symlink {shown(name)!r} has no target, or one with a zero byte")
    for offset, length in node["extents"] or ():
        if offset < end or length <= 0 or offset + length > node["size"]:
            raise DamageError(f"the extents of {shown(name)!r} are impossible")
        end = offset + length
    return node


class Target:
    """A new directory that a snapshot is written into. Nothing in it existed before, and listings name everything
    once, so that no path leads through a symlink."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.links: dict[tuple[bytes, bytes | None], bytes] = {}
        os.mkdir(root, 0o700)

    def directory(self, node: dict[str, Any]) -> None:
        os.mkdir(self.root + node["path"], 0o700)

    def remove(self, node: dict[str, Any]) -> None:
        if os.path.lexists(self.root + node["path"]):
            os.unlink(self.root + node["path"])

    def _linked(self, node: dict[str, Any]) -> bool:
        path = self.root + node["path"]
        group = node["links"], node["sha256"]
        if node["links"] is None or self.links.setdefault(group, path) == path:
            return False
        os.link(self.links[group], path, follow_symlinks=False)
        return True

    def file(self, node: dict[str, Any], pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Write a file while its data passes through."""
        if self._linked(node):
            yield from pieces
            return
        with open(self.root + node["path"], "xb") as file:
            file.truncate(node["size"])
            spans = iter([[0, node["size"]]] if node["extents"] is None else node["extents"])
            at = left = 0
            for piece in pieces:
                done = 0
                while done < len(piece):
                    while not left:
                        at, left = next(spans, (0, -1))
                    part = piece[done : done + left] if left > 0 else piece[done:]
                    if left > 0:  # data beyond the last extent is noticed by its length
                        os.pwrite(file.fileno(), part, at)
                        at, left = at + len(part), left - len(part)
                    done += len(part)
                yield piece
        self.attributes(node)

    def other(self, node: dict[str, Any]) -> None:
        path, mode = self.root + node["path"], node["mode"]
        if self._linked(node):
            return
        if stat.S_ISLNK(mode):
            os.symlink(node["target"], path)
        elif stat.S_ISSOCK(mode) or (os.geteuid() != 0 and not stat.S_ISFIFO(mode)):
            return
        else:
            os.mknod(path, stat.S_IFMT(mode) | 0o600, node["device"] or 0)
        self.attributes(node)

    def attributes(self, node: dict[str, Any]) -> None:
        """Owner (as far as allowed), attributes, mode, time."""
        path, is_link = self.root + node["path"], stat.S_ISLNK(node["mode"])
        for name, value in node["xattrs"] or ():
            self._try(os.setxattr, path, name, value, follow_symlinks=False)
        if os.geteuid() == 0:
            self._try(os.chown, path, node["uid"], node["gid"], follow_symlinks=False)
        if not is_link:
            os.chmod(path, stat.S_IMODE(node["mode"]))
        os.utime(path, ns=(node["mtime_ns"], node["mtime_ns"]), follow_symlinks=False)

    @staticmethod
    def _try(call: Callable[..., None], path: bytes, *arguments: Any, **options: Any) -> None:
        try:
            call(path, *arguments, **options)
        except OSError as error:
            print(f"{shown(path)}: {error.strerror}", file=sys.stderr)


def secret_of(arguments: argparse.Namespace) -> tuple[str, bytes]:
    if arguments.password_file:
        text = arguments.password_file.read_bytes().decode("utf-8", "surrogateescape").rstrip("\r\n")
        return "passphrase", unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape")
    if arguments.recovery_file:
        return "recovery", printed_secret(arguments.recovery_file.read_text())
    text = arguments.key_file.read_text().strip()
    return "keyfile", printed_secret(text.removeprefix("backstay-key-1:"))


def verify(arguments: argparse.Namespace) -> list[str]:
    repository = Repository(arguments.repository, *secret_of(arguments))
    repository.check()
    chosen = [ident for ident in repository.snapshots if ident.startswith(arguments.snapshot)]
    if arguments.restore is not None:
        chosen = chosen[-1:]
    if not chosen and (arguments.snapshot or arguments.restore is not None):
        raise CannotOpenError(f"there is no snapshot {arguments.snapshot}")
    for ident in chosen:
        target = Target(os.fsencode(arguments.restore)) if arguments.restore is not None else None
        try:
            repository.walk(repository.snapshots[ident]["root"], b"", target)
            repository.stat_stream(repository.snapshots[ident])
        except DamageError as error:
            repository.report(f"snapshots/{ident}", error)
    if arguments.values is not None or not arguments.snapshot:
        repository.restore_values(arguments.values)
    return repository.findings


def main(argv: list[str] | None = None) -> int:
    sys.setrecursionlimit(40_000)  # directories below each other
    parser = argparse.ArgumentParser(description="Check, and restore from, a repository of format 1.")
    parser.add_argument("repository", type=Path, help="the directory with repo.json")
    secret = parser.add_mutually_exclusive_group(required=True)
    for name in ("--password-file", "--key-file", "--recovery-file"):
        secret.add_argument(name, type=Path)
    parser.add_argument("--restore", type=Path, metavar="DIR", help="write the snapshot (the newest, if none is named)")
    parser.add_argument("--values", type=Path, metavar="DIR", help="write every value, under its SHA-256")
    parser.add_argument("snapshot", nargs="?", default="", help="only this one; the beginning of its id is enough")
    try:
        return 1 if verify(parser.parse_intermixed_args(argv)) else 0
    except (CannotOpenError, OSError) as error:
        print(f"cannot open: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
