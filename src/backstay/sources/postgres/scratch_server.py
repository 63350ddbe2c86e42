"""A server that is started from a restored data directory to see whether it recovers, and stopped again.

It listens on a socket in a directory of its own and on no network, and archives nothing: it must never be taken for the
server that it is a copy of.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from backstay.core.clock import Clock
from backstay.errors import RecoveryFailed, SourceRefused, SourceUnreachable
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.recovery import SETTINGS

_POLL_S: Final = 0.1
_STOP_S: Final = 60
_PORT: Final = 5432  # of the name of the socket only
_LOG_TAIL: Final = 1500  # characters
_SETTINGS: Final = """
# a rehearsal, written by backstay
listen_addresses = ''
port = 5432
unix_socket_directories = '{sockets}'
archive_mode = 'off'
ssl = 'off'
hba_file = '{hba}'
logging_collector = 'off'
primary_conninfo = ''
"""


class ScratchServer:
    """One server over a data directory, run as the owner of that directory; `programs` is where its binaries are."""

    def __init__(self, data: Path, programs: Path, *, superuser: str, clock: Clock) -> None:
        """Raises RecoveryFailed when a server cannot run there."""
        self._data, self._programs, self._clock = data, programs, clock
        self._superuser = superuser
        owner = data.stat()
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            if owner.st_uid == 0:
                raise RecoveryFailed(
                    f"a server cannot run in {data}",
                    cause="the files belong to root, and PostgreSQL does not run as root",
                    hint="rehearse as the user that the server is to run as",
                )
            self._user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        # Its name must be short, because it becomes part of the name of a socket.
        self._place = Path(tempfile.mkdtemp(prefix="backstay-"))
        self.log_file = self._place / "log"
        hba = self._place / "pg_hba.conf"
        hba.write_text("local all all trust\n")
        if os.geteuid() == 0:
            for path in (self._place, hba):
                os.chown(path, owner.st_uid, owner.st_gid)
        with (data / SETTINGS).open("a") as settings:
            settings.write(_SETTINGS.format(sockets=self._place, hba=hba))

    def start(self, *, patience_s: float) -> None:
        """Start it and wait until it has recovered and is promoted. Raises RecoveryFailed with the end of its log."""
        started = self._pg_ctl("-l", str(self.log_file), "-t", str(round(patience_s)), "-w", "start")
        if started.returncode != 0:
            raise self._failed("the server did not start")
        until = self._clock.monotonic() + patience_s
        while not self._is_promoted():
            if not (self._data / "postmaster.pid").exists():
                raise self._failed("the server ended before it came to its target")
            if self._clock.monotonic() > until:
                raise self._failed(f"the server has not recovered within {patience_s:.0f} s")
            self._clock.sleep(_POLL_S)

    def connect(self, database: str = "postgres") -> Connection:
        host, user, name = (quote(text, safe="") for text in (str(self._place), self._superuser, database))
        return Connection(f"postgresql://{user}@/{name}?host={host}&port={_PORT}")

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A client program of the same version, pointed at this server; what it printed is its `stdout`."""
        where = ("-h", str(self._place), "-p", str(_PORT), "-U", self._superuser)
        return self._call(program, *where, *arguments)

    def has(self, program: str) -> bool:
        return (self._programs / program).exists()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def stop(self) -> None:
        """Stop it, at once and by its process id; what it wrote is of no use to anybody."""
        if (self._data / "postmaster.pid").exists():
            self._pg_ctl("-m", "immediate", "-t", str(_STOP_S), "-w", "stop")
        shutil.rmtree(self._place, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _is_promoted(self) -> bool:
        try:
            with self.connect() as session:
                return session.value("select pg_is_in_recovery()") == "f"
        except (SourceUnreachable, SourceRefused):
            return False  # not yet, or not any more: whoever asks looks which

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._call("pg_ctl", "-D", str(self._data), *arguments)

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        command = [str(self._programs / program), *arguments]
        try:
            # Into files: pg_ctl's server would keep a pipe open for as long as it runs.
            with (self._place / "out").open("w+") as out:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    cwd="/",
                    env=environment,
                    check=False,
                    **self._user,
                )
                out.seek(0)
                return subprocess.CompletedProcess(command, done.returncode, out.read(), "")
        except OSError as error:
            raise RecoveryFailed(
                f"cannot run {self._programs / program}",
                cause=error.strerror or str(error),
                hint="name the directory of the server's programs with --programs",
            ) from error

    def _failed(self, title: str) -> RecoveryFailed:
        tail = self.log()[-_LOG_TAIL:].strip()
        return RecoveryFailed(title, cause=tail.splitlines()[-1] if tail else "", hint=f"its log: {tail}")
