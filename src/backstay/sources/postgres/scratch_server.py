"""A server that is started from a restored data directory to see whether it recovers, and stopped again.

It listens on a socket in a directory of its own and on no network, archives nothing, and runs nothing by itself: it
must never be taken for the server that it is a copy of, nor do the work of that one.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from backstay.core.clock import LOOK_S, Clock
from backstay.errors import SourceUnreachable
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.local_server import LocalServer

_LETS_IN_S: Final = 30.0
_PORT: Final = 5432  # of the name of the socket only
_CONFIGURATION: Final = "postgresql.conf"
_EVENT_TRIGGERS_FROM: Final = 17  # the first version that can switch them off


class ScratchServer:
    """One server over a data directory; `programs` is where its binaries are. It is stopped at the end."""

    def __init__(self, data: Path, programs: Path, *, superuser: str, clock: Clock) -> None:
        self._clock = clock
        """Raises RecoveryFailed when a server cannot run there."""
        self._superuser = superuser
        # Its name must be short, because it becomes part of the name of a socket.
        self._place = Path(tempfile.mkdtemp(prefix="backstay-"))
        self._data = data
        try:
            self._server = LocalServer(data, programs, self._place, clock=clock)
            self._server.own(self._place)
            for path, text in (
                (self._place / "pg_hba.conf", "local all all trust\n"),
                (self._place / "pg_ident.conf", ""),
                (data / _CONFIGURATION, ""),  # it may lie elsewhere on the server, and is not in the backup then
            ):
                if not path.exists():
                    path.write_text(text)
                    self._server.own(path)
        except BaseException:
            shutil.rmtree(self._place, ignore_errors=True)
            raise

    def start(self, *, patience_s: float, tick: Callable[[], None]) -> None:
        """Start it and wait until it has recovered and is promoted; `tick`, called meanwhile, may raise what ends that.

        Raises RecoveryFailed with the end of its log.
        """
        self._server.start(patience_s=patience_s, tick=tick, settings=self._settings())

    def _settings(self) -> dict[str, str]:
        return {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(self._place),
            "hba_file": str(self._place / "pg_hba.conf"),
            "ident_file": str(self._place / "pg_ident.conf"),
            "archive_mode": "off",
            "archive_command": "",
            "ssl": "off",
            "logging_collector": "off",
            "log_destination": "stderr",
            "hot_standby": "off",  # which wants as large limits as the server had
            "primary_conninfo": "",
            "synchronous_standby_names": "",
            # A subscription would be served from the slot of the server itself, which then has lost what came.
            "max_logical_replication_workers": "0",
            # Libraries are loaded, as tables may need them, but start nothing, such as the jobs of pg_cron.
            "max_worker_processes": "0",
            # Those at login may reach other servers, and others may keep pg_amcheck from installing what it needs.
            **({"event_triggers": "off"} if self._version() >= _EVENT_TRIGGERS_FROM else {}),
        }

    def _version(self) -> int:
        return int((self._data / "PG_VERSION").read_text().partition(".")[0])

    def connect(self, database: str = "postgres") -> Connection:
        """A session. A server that has just recovered lets nobody in for a moment. Raises as Connection does."""
        host, user, name = (quote(text, safe="") for text in (str(self._place), self._superuser, database))
        until = self._clock.monotonic() + _LETS_IN_S
        while True:
            try:
                return Connection(f"postgresql://{user}@/{name}?host={host}&port={_PORT}")
            except SourceUnreachable:
                if self._clock.monotonic() > until:
                    raise
                self._clock.sleep(LOOK_S)

    def run(self, program: str, *arguments: str, tick: Callable[[], None]) -> subprocess.CompletedProcess[str]:
        """A client program of the same version, pointed at this server; what it printed is its `stdout`.

        What `tick`, called meanwhile, raises ends it.
        """
        where = ("-h", str(self._place), "-p", str(_PORT), "-U", self._superuser)
        return self._server.call(program, *where, *arguments, tick=tick)

    def has(self, program: str) -> bool:
        return self._server.has(program)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        shutil.rmtree(self._place, ignore_errors=True)
