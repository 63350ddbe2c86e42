"""backup_manifest: files and their checksums (PostgreSQL documentation, "Backup Manifest Format")."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from backstay.errors import BackupFailed
from backstay.sources.postgres.lsn import format_lsn

_NAMES_CLUSTER: Final = 17


class Checksum(NamedTuple):
    """Of a whole file; `algorithm` is CRC32C or one of SHA-2, such as SHA256."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A regular file: its path below the data directory, size in bytes, time in seconds since 1970, and checksum."""

    path: bytes
    size: int
    mtime: float
    checksum: Checksum


class Sent(NamedTuple):
    """The size in bytes and the checksum of a file as the server read it."""

    size: int
    checksum: Checksum


def read_manifest(data: bytes) -> dict[bytes, Sent]:
    """What a server says that it sent, by paths below the data directory. Raises BackupFailed."""
    body, mark, _ = data.rpartition(b'"Manifest-Checksum"')
    try:
        document = json.loads(data)
        if not mark or hashlib.sha256(body).hexdigest() != document["Manifest-Checksum"]:
            raise BackupFailed("the server's manifest is not as it was sent", cause="its checksum is another one")
        return dict(map(_sent, document["Files"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BackupFailed("the server's manifest cannot be read", cause=repr(error)) from error


def _sent(file: dict[str, Any]) -> tuple[bytes, Sent]:
    path = bytes.fromhex(file["Encoded-Path"]) if "Encoded-Path" in file else file["Path"].encode()
    return path, Sent(int(file["Size"]), Checksum(file["Checksum-Algorithm"], bytes.fromhex(file["Checksum"])))


def write_manifest(
    files: Iterable[ManifestFile], *, version: int, system: int, timeline: int, start: int, stop: int
) -> bytes:
    """The manifest as a server of this major version makes it; `start` and `stop` are positions.

    Its last line is the checksum of those before it. From 17 on it names the cluster.
    """
    shown = ",\n".join(json.dumps(_file(file)) for file in files)
    wal = {"Timeline": timeline, "Start-LSN": format_lsn(start), "End-LSN": format_lsn(stop)}
    identity = f'2,\n"System-Identifier": {system}' if version >= _NAMES_CLUSTER else "1"
    body = (
        f'{{ "PostgreSQL-Backup-Manifest-Version": {identity},\n'
        f'"Files": [\n{shown}\n],\n'
        f'"WAL-Ranges": [\n{json.dumps(wal)}\n],\n'
    )
    return (body + f'"Manifest-Checksum": "{hashlib.sha256(body.encode()).hexdigest()}"}}\n').encode()


def _file(file: ManifestFile) -> dict[str, object]:
    try:
        name: dict[str, object] = {"Path": file.path.decode("utf-8")}
    except UnicodeDecodeError:
        name = {"Encoded-Path": file.path.hex()}
    moment = datetime.fromtimestamp(file.mtime, UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
    return {
        **name,
        "Size": file.size,
        "Last-Modified": moment,
        "Checksum-Algorithm": file.checksum.algorithm,
        "Checksum": file.checksum.digest.hex(),
    }
