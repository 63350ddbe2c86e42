"""Receivers of a binary log beside the test, and what they have stored."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.mysql.binlog_archive import BinlogArchive
from backstay.operations.mysql.receive import BinlogReceiveOptions, BinlogReceiveResult, run_binlog_receive
from backstay.repository.repository import Repository
from backstay.sources.mysql.dump import mysql_source
from tests.mysql.servers import Server
from tests.postgres.receivers import Archive, OnThread, until

NAME = "shop"
ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


class Receiver(OnThread[BinlogReceiveResult]):
    """A receiver of the binary log."""

    def __init__(self, archive: Archive, server: Server, **options: Any) -> None:
        super().__init__(archive)
        self._options = BinlogReceiveOptions(**{"url": server.url, "name": NAME, "every": 0.1, **options})

    def receive(self, repository: Repository) -> BinlogReceiveResult:
        return run_binlog_receive(repository, self._options, self.stopped, environ=ENVIRON, events=self.noted)


def process(archive: Archive, server: Server, *argv: object) -> subprocess.Popen[bytes]:
    """`mysql receive` as a process; its standard error goes to `log`."""
    with (archive.place / "log").open("ab") as log:
        command = archive.command("mysql", "receive", server.url, "--name", NAME, *argv)
        made = subprocess.Popen(**command, stdout=log, stderr=log)
    archive.processes.append(made)
    return made


def dump(repository: Repository, server: Server, *, name: str = NAME, database: str = "") -> str:
    """Back the server up; the snapshot."""
    source = mysql_source(server.url + database, clock=repository.clock, environ=ENVIRON, warn=lambda _text: None)
    made = run_backup(repository, source, BackupOptions(host="host", name=name)).snapshot
    assert made is not None
    return made


def end(server: Server) -> tuple[str, int]:
    """The file that the server writes, and how long it is."""
    file, size, *_ = server.sql("SHOW BINARY LOGS").splitlines()[-1].split("\t")
    return file, int(size)


def stored(repository: Repository, name: str = NAME) -> BinlogArchive:
    """The log that is stored under a name."""
    system = repository.wal.bound(name)
    assert system is not None
    return BinlogArchive.load(repository.wal, system)


def contents(repository: Repository, name: str = NAME) -> dict[str, bytes]:
    """The bytes of each file that is stored."""
    found = stored(repository, name)
    return {file: b"".join(found.data(log)) for file, log in found.logs.items()}


def until_stored(archive: Archive, server: Server, receiver: Receiver | None = None) -> tuple[str, int]:
    """Until all that the server has logged by now is stored; up to where that is."""
    file, size = end(server)

    def is_stored() -> bool:
        if receiver is not None and receiver.failure is not None:
            raise receiver.failure
        with archive.open() as repository:
            if repository.wal.bound(NAME) is None:
                return False
            found = stored(repository)
            return file in found.logs and sum(map(len, found.data(found.logs[file]))) >= size

    until(is_stored, f"{file} up to {size} stored")
    return file, size
