"""A process that keeps the repository open, so that archive_command takes milliseconds.

Order: a file's bytes become durable in the repository, then its request is answered with yes, then the server may
remove it. Whatever a crash interrupts was not answered, and the server asks again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backstay.core.clock import LOOK_S
from backstay.core.events import EventSink, Started, ignore
from backstay.core.local_service import LocalService
from backstay.errors import InvalidRequest
from backstay.operations.archiving.ahead import LookAhead
from backstay.operations.archiving.answers import Answering
from backstay.operations.archiving.jobs import ArchiveJobs
from backstay.operations.archiving.wal_file import Archiver
from backstay.operations.wal.streaming import Stopped
from backstay.repository.repository import Repository
from backstay.sources.postgres import archive_client


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveServiceOptions:
    """Who may ask at which socket: `user` is the server's, by number; root and our own user may as well.

    `ahead` segments are stored before they are asked for.
    """

    name: str
    socket: Path
    user: int
    ahead: int = 4

    @property
    def client(self) -> Path:
        """The program that archive_command runs."""
        return self.socket.with_name(f"{self.socket.name}.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveServiceResult:
    """What was acknowledged until the service was stopped; `found` files were under way before they were asked for."""

    name: str
    files: int
    bytes: int
    found: int
    refused: int


def archive_command(client: Path, python: str) -> str:
    """The line of postgresql.conf. Statuses above 125 would end the server's archiver, and be counted nowhere."""
    words = shlex.join([python, "-I", "-S", str(client)]).replace("%", "%%").replace("'", "''")
    return f"archive_command = '{words} %p || exit 1'"


def run_archive_service(
    repository: Repository,
    options: ArchiveServiceOptions,
    stopped: Stopped,
    *,
    events: EventSink = ignore,
    ready: Callable[[], None] = lambda: None,
) -> ArchiveServiceResult:
    """Answer until `stopped` says so; `ready` is called when the first request may come.

    Raises StorageUnfit, StorageUnavailable, InvalidRequest for a socket that cannot be, ServiceRunning.
    """
    jobs = ArchiveJobs(Archiver(repository, options.name))
    with LocalService(options.socket, open_to_all=options.user != os.geteuid()) as service:
        _install_client(options.client)
        ahead = LookAhead(jobs, options.ahead, events)
        users = frozenset({0, os.geteuid(), options.user})
        answering = Answering(jobs, ahead, users=users, clock=repository.clock, events=events)
        events(Started(operation="archive WAL"))
        ready()
        try:
            while not stopped():
                answering.check()
                if (connection := service.accept(LOOK_S)) is not None:
                    answering.begin(connection)
        finally:
            ahead.close()
    answering.drain()
    return ArchiveServiceResult(
        name=options.name,
        files=answering.files,
        bytes=answering.bytes,
        found=jobs.found,
        refused=answering.refused,
    )


def _install_client(path: Path) -> None:
    """Put the client beside the socket, where the server's user can read it; one that runs keeps the old one."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_bytes(Path(archive_client.__file__).read_bytes())
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        raise InvalidRequest(
            f"cannot write {path}",
            cause=(error.strerror or str(error)).lower(),
            hint="name a place that you may write to with --socket",
        ) from error
