"""Whose a binary log is: the number under which a server's files are stored, and whether a server is the one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from backstay.codec.digest import sha256
from backstay.errors import IdentityMismatch, InsufficientSpace, SourceRefused
from backstay.operations.mysql.binlog_archive import BinlogArchive
from backstay.operations.wal.bases import base_backups
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import slice_of
from backstay.sources.mysql.address import parse_address
from backstay.sources.mysql.log_stream import first_event
from backstay.sources.mysql.server import Server
from backstay.sources.scratch import Scratch, scratch_above


@contextmanager
def scratch(repository: Repository) -> Iterator[Path]:
    """An empty directory for files of a log, gone afterwards. Raises InsufficientSpace when none can be made."""
    above = scratch_above(repository.cache)
    try:
        made = Scratch(above, "backstay-binlog")
    except OSError as error:
        raise InsufficientSpace(
            f"no directory can be made in {above}",
            cause=error.strerror or str(error),
            hint="set BACKSTAY_CACHE_DIR, or TMPDIR where there is no cache, to a place that you may write to",
        ) from error
    with made:
        yield made.path


def is_origin(repository: Repository, system: int, server: Server) -> bool:
    """Whether a server is the one whose log is stored: it has the last of these files, with the same beginning.

    Raises SourceRefused when it does not let its log be read, SourceUnreachable, CorruptedBackup.
    """
    if not server.logs:
        return False
    if (own := server.facts.get("server_uuid")) is not None:
        return _identity(own.encode()) == system
    archive = BinlogArchive.load(repository.wal, system)
    newest = archive.newest
    if newest is None or not newest.is_begun or newest.file not in server.binary_logs():
        return False
    known = archive.read_slice(newest, 0)[newest.start.offset :]
    return known.startswith(_origin(repository, server, newest.file))


def logging_server(url: str, environ: Mapping[str, str]) -> Server:
    """The server at an address. Raises SourceUnreachable, SourceRefused when it writes no binary log."""
    server = Server(parse_address(url), environ)
    if not server.logs:
        raise SourceRefused(
            f"{server.place} writes no binary log",
            cause="log_bin is off",
            hint="set log_bin, server_id and binlog_format = ROW in its option file, and restart it",
        )
    return server


def bind(repository: Repository, name: str, server: Server) -> int:
    """The number under which the log of a server is stored. Raises IdentityMismatch.

    MySQL has a UUID. What MariaDB calls its uid is that of the machine and the port, and another server gets the same:
    so the first event of the first file that is there tells it, with its server id, version and the second. Whether
    a server goes on being the same is seen by comparing what it sends with what is stored.
    """
    uuid = server.facts.get("server_uuid")
    bound = repository.wal.bound(name)
    if uuid is not None:
        system = _identity(uuid.encode())
    elif bound is not None:
        _require_no_cluster(repository, name, bound)
        return bound
    else:
        first = next(iter(server.binary_logs()))
        system = _identity(first.encode() + b"\0" + _origin(repository, server, first))
    repository.wal.bind(name, system, repository.clock)
    return system


def _require_no_cluster(repository: Repository, name: str, bound: int) -> None:
    """See that a name is not that of a PostgreSQL cluster. Raises IdentityMismatch, CorruptedBackup."""
    has_wal = any(slice_of(file) is None for file in repository.wal.files(bound))
    if has_wal or base_backups(repository, name):
        raise IdentityMismatch(
            f"{name} is the name of a PostgreSQL cluster",
            cause="its base backups or its WAL are stored under it",
            hint="choose another --name",
        )


def _identity(seed: bytes) -> int:
    return int.from_bytes(sha256(b"backstay/v1/binlog" + seed)[:8], "big")


def _origin(repository: Repository, server: Server, file: str) -> bytes:
    with scratch(repository) as place:
        return first_event(server, file, place)
