"""The backup_manifest of a restored cluster: what pg_verifybackup compares its files with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backstay.core.pipeline import Workers
from backstay.errors import BackupFailed, CorruptedBackup, NotFound
from backstay.operations.clusters.configuration import MAIN, Configuration
from backstay.operations.clusters.files import DATA, TABLESPACES
from backstay.operations.clusters.plan import RecoveryPlan
from backstay.operations.snapshots.walk import Item, walk
from backstay.operations.wal.bases import server_manifest
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import find_node
from backstay.sources.postgres.manifest import Checksum, ManifestFile, Sent, read_manifest, write_manifest
from backstay.sources.postgres.owned_files import OwnedFiles
from backstay.sources.postgres.recovery import SIGNAL, STANDBY

MANIFEST: Final = "backup_manifest"
LINKS: Final = b"pg_tblspc"
MAP: Final = b"tablespace_map"
_COMPLETED: Final = MAIN.encode()  # has other places than in the backup, if it names any
_READ: Final = 1 << 20
_DIGESTED: Final = 64  # files at once


class WrittenManifest:
    """Checksums of the server, or of what was written where it sent none."""

    def __init__(
        self,
        repository: Repository,
        plan: RecoveryPlan,
        owned: OwnedFiles,
        target: Path,
        places: dict[bytes, Path],
        *,
        configuration: Configuration | None,
        threads: int | None,
    ) -> None:
        self._repository, self._plan, self._owned = repository, plan, owned
        self._target, self._places, self._configuration = target, places, configuration
        self._threads = threads or repository.environment.threads
        self._sent: dict[bytes, Sent] = {}

    def write(self) -> None:
        """Write it, once all files are there. Raises OSError."""
        base = self._plan.base
        self._sent = self._read_sent()
        data = write_manifest(
            [*self._manifest_files(), *self._own_manifest_files()],
            version=int(base.version.partition(".")[0]),
            system=base.system,
            timeline=base.timeline,
            start=base.start_lsn,
            stop=base.stop_lsn,
        )
        self._owned.write(self._target / MANIFEST, data)

    def _read_sent(self) -> dict[bytes, Sent]:
        """The files that came whole with this very backup, as the server read them."""
        try:
            return read_manifest(server_manifest(self._plan.manifest, self._repository.reader))
        except (NotFound, CorruptedBackup, BackupFailed):
            return {}  # the files themselves are whole: they only are hashed here then

    def _manifest_files(self) -> Iterator[ManifestFile]:
        files = (found for found in self.files() if found[1].is_file)
        with Workers(self._threads, "digest") as workers:
            yield from workers.ordered(
                self._manifest_file,
                files,
                weigh=lambda _: 1,
                limit=_DIGESTED,
                inline=lambda found: self._checksum(*found) is not None,
            )

    def _own_manifest_files(self) -> Iterator[ManifestFile]:
        """Those that are not in the backup, and are no files that a server always has."""
        for name in self._configuration.files if self._configuration is not None else ():
            info = (self._target / name).stat()
            checksum = _sha256(os.fsencode(self._target / name))
            yield ManifestFile(os.fsencode(name), info.st_size, info.st_mtime, checksum)

    def _manifest_file(self, found: tuple[bytes, Node]) -> ManifestFile:
        path, node = found
        checksum = self._checksum(path, node) or _sha256(os.fsencode(self._target) + b"/" + path)
        size = (self._target / MAIN).stat().st_size if path == _COMPLETED else node.size
        return ManifestFile(path, size, node.mtime_ns / 1e9, checksum)

    def _checksum(self, path: bytes, node: Node) -> Checksum | None:
        if path == _COMPLETED:
            return None
        if node.sha256 is not None:
            return Checksum("SHA256", node.sha256)
        sent = self._sent.get(path)
        return sent.checksum if sent is not None and sent.size == node.size else None

    def files(self) -> Iterator[tuple[bytes, Node]]:
        """The files by their paths below the data directory, with those of tablespaces where their links lead."""
        reader, places = self._repository.reader, {DATA: b""}
        places |= {TABLESPACES + b"/" + oid: LINKS + b"/" + oid + b"/" for oid in self._places}
        for within, prefix in places.items():
            top = find_node(self._plan.manifest.root, b"/" + within, reader)
            for visit in walk(top.content, reader) if top is not None and top.content is not None else ():
                path = prefix + visit.path.lstrip(b"/")
                if isinstance(visit, Item) and path not in (MAP, STANDBY.encode(), SIGNAL.encode()):
                    yield path, visit.node


def _sha256(path: bytes) -> Checksum:
    digest = hashlib.sha256()
    with Path(os.fsdecode(path)).open("rb") as file:
        while data := file.read(_READ):
            digest.update(data)
    return Checksum("SHA256", digest.digest())
