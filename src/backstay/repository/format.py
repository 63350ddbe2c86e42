"""Every object name and stored structure of format 1, with its limits; docs/format.md says the same in words."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from backstay.errors import CorruptedBackup, UnsupportedFormat

FORMAT: Final = 1
FEATURES: Final = frozenset[str]()  # features that a reader must know beyond format 1
SUITE: Final = 1  # AES-256-GCM, HKDF-Expand-SHA512, keyed BLAKE3-256, Ed25519

REPO: Final = "repo.json"
RESERVE: Final = "reserve"
MAX_RECORD: Final = 256 << 20  # bytes of a decoded record
MAX_BLOB: Final = 64 << 20  # bytes of a decoded blob
MAX_PACK: Final = 1 << 30  # bytes of a stored pack
MAX_BLOBS: Final = 1 << 20  # blobs in one pack
MAX_MEMBERS: Final = 1 << 22  # bundle members in one pack


class RecordKind(IntEnum):
    """What an encrypted object is; bound into its key derivation, so that none can pass for another."""

    DATA_PACK = 1
    META_PACK = 2
    INDEX = 3
    SNAPSHOT = 4
    FENCE = 5
    SESSION = 6
    DROP = 7
    COLLECTION = 8
    VERDICT = 9
    WAITING = 10
    EPOCH = 11
    SLOT_REMOVAL = 12
    COMPROMISE = 13
    TIER_RULE = 14
    HOLD = 15
    WAL = 16
    WAL_NAME = 17
    WAL_GAP = 18
    VALUES = 19
    GRAPH_DELETION = 20


class BlobKind(IntEnum):
    """What a blob's raw bytes are."""

    PADDING = 0
    CHUNK = 1
    BUNDLE = 2


class RepoHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """repo.json: what a program must know before it has a key."""

    format: int
    uuid: str
    features: tuple[str, ...]
    suite: int
    created: str

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> RepoHeader:
        """Raises UnsupportedFormat for a newer or foreign repository, CorruptedBackup for a damaged one."""
        try:
            version = msgspec.json.decode(data[: 64 << 10], type=_AnyHeader)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptedBackup("repo.json cannot be read", cause=str(error)) from error
        if version.format != FORMAT or version.suite != SUITE or set(version.features) - FEATURES:
            raise UnsupportedFormat(
                "this repository needs another version of backstay",
                cause=f"it has format {version.format}, suite {version.suite}, features {list(version.features)}",
            )
        try:
            header = msgspec.json.decode(data, type=cls)
            uuid = bytes.fromhex(header.uuid)
        except (msgspec.DecodeError, ValueError) as error:
            raise CorruptedBackup("repo.json cannot be read", cause=str(error)) from error
        if len(uuid) != 16 or header.encode() != data:
            raise CorruptedBackup("repo.json is not in its canonical form")
        return header


class _AnyHeader(msgspec.Struct):
    format: int
    suite: int = SUITE
    features: tuple[str, ...] = ()


def pack_name(kind: RecordKind, digest: bytes) -> str:
    """`packs/ab/abcd…` or `meta/ab/abcd…`."""
    text = digest.hex()
    return f"{'packs' if kind is RecordKind.DATA_PACK else 'meta'}/{text[:2]}/{text}"


def index_name(digest: bytes) -> str:
    return f"index/{digest.hex()}"


def slot_name(digest: bytes) -> str:
    return f"keys/slots/{digest.hex()}"


def slot_removal_name(digest: bytes) -> str:
    return f"keys/removed/{digest.hex()}"


def epoch_name(number: int) -> str:
    return f"keys/epochs/{number:08d}"


def snapshot_name(ulid: str) -> str:
    return f"snapshots/{ulid}"


def drop_name(ulid: str) -> str:
    return f"drops/{ulid}"


HOLDS: Final = "holds/"


def hold_name(ulid: str, number: int) -> str:
    return f"{HOLDS}{ulid}.{number:06d}"


MEDIUM: Final = "export/medium"  # snapshots were exported to this store; readers ignore the name
ATTESTATIONS: Final = "attestations/"  # in clear: what validators say of snapshots


def attestation_name(ulid: str, key_id: str) -> str:
    return f"{ATTESTATIONS}{ulid}/{key_id}"


GRAPHS: Final = "graphs/"


def graph_deletion_name(ulid: str) -> str:
    """Says that a graph snapshot waits to be collected."""
    return f"{GRAPHS}{ulid}.deleted"


SESSIONS: Final = "sessions/"  # writers at work
LEASES: Final = "lease/"  # the one writer of a store that cannot decide between several
READERS: Final = "readers/"  # restores at work that need WAL


def session_name(ulid: str, beat: int = 0, *, place: str = SESSIONS) -> str:
    return f"{place}{ulid}.{beat:06d}"


def collection_name(number: int) -> str:
    return f"gc/{number:08d}"


def verdict_name(number: int) -> str:
    return f"gc/{number:08d}.done"


def waiting_name(number: int) -> str:
    return f"gc/{number:08d}.sessions"


def tier_name(number: int) -> str:
    return f"tiers/{number:08d}"


WAL: Final = "wal/"  # what PostgreSQL logs, by cluster: docs/format.md, "WAL"


def wal_name(system: int, file: str, part: tuple[int, int] | None = None) -> str:
    """`wal/<system identifier>/<file>`; of a part of a segment with its first byte and the one behind its last."""
    ends = "" if part is None else f".{part[0]:08x}-{part[1]:08x}"
    return f"{WAL}{system:016x}/{file}{ends}"


def wal_binding_name(digest: bytes) -> str:
    """Which cluster has a name; the digest is a keyed one of the name."""
    return f"{WAL}names/{digest.hex()}"


def wal_gap_name(system: int, first: int, end: int) -> str:
    """What is known of WAL that is missing, from one position of a cluster to another."""
    return f"{WAL}gaps/{system:016x}.{first:016x}-{end:016x}"


VALUES: Final = "values/"  # the log of content-addressed values: docs/format.md, "Values"


def values_name(number: int) -> str:
    """`values/00000001`: an entry of that log."""
    return f"{VALUES}{number:08d}"
