"""A server that is started from a restored data directory to see whether it recovers, and stopped again.

It listens on a socket in a directory of its own and on no network, and archives nothing: it must never be taken for the
server that it is a copy of.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from backstay.core.clock import Clock
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.local_server import LocalServer
from backstay.sources.postgres.recovery import SETTINGS

_PORT: Final = 5432  # of the name of the socket only
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
    """One server over a data directory; `programs` is where its binaries are. It is stopped at the end."""

    def __init__(self, data: Path, programs: Path, *, superuser: str, clock: Clock) -> None:
        """Raises RecoveryFailed when a server cannot run there."""
        self._superuser = superuser
        # Its name must be short, because it becomes part of the name of a socket.
        self._place = Path(tempfile.mkdtemp(prefix="backstay-"))
        try:
            self._server = LocalServer(data, programs, self._place, clock=clock)
            hba = self._place / "pg_hba.conf"
            hba.write_text("local all all trust\n")
            self._server.own(self._place)
            self._server.own(hba)
            with (data / SETTINGS).open("a") as settings:
                settings.write(_SETTINGS.format(sockets=self._place, hba=hba))
        except BaseException:
            shutil.rmtree(self._place, ignore_errors=True)
            raise

    def start(self, *, patience_s: float) -> None:
        """Start it and wait until it has recovered and is promoted. Raises RecoveryFailed with the end of its log."""
        self._server.start(patience_s=patience_s)

    def connect(self, database: str = "postgres") -> Connection:
        host, user, name = (quote(text, safe="") for text in (str(self._place), self._superuser, database))
        return Connection(f"postgresql://{user}@/{name}?host={host}&port={_PORT}")

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A client program of the same version, pointed at this server; what it printed is its `stdout`."""
        where = ("-h", str(self._place), "-p", str(_PORT), "-U", self._superuser)
        return self._server.call(program, *where, *arguments)

    def has(self, program: str) -> bool:
        return self._server.has(program)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        shutil.rmtree(self._place, ignore_errors=True)
