"""MariaDB servers of the tests: those of the distribution, on loopback, never as root.

As root the servers run as `nobody`. Accounts on 127.0.0.1 have a password or none; nothing goes through a socket.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.ports import free_port
from tests.postgres.servers import AS_ROOT, as_nobody

_NEEDED: Final = ("mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump", "mariadb-binlog")
_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
_SYSTEM: Final = "('information_schema', 'mysql', 'performance_schema', 'sys')"


@cache
def program(name: str) -> str:
    """The path of a program of MariaDB; where there is none the test is skipped, and fails where CI is set."""
    missing = [needed for needed in _NEEDED if shutil.which(needed, path=_PATH) is None]
    if missing:
        pytest.skip(  # a failure where CI is set
            f"{', '.join(missing)} missing: apt-get install --no-install-recommends mariadb-server-core mariadb-client"
        )
    found = shutil.which(name, path=_PATH)
    assert found is not None
    return found


class Server:
    """One server with a directory of its own; `root` has no password."""

    def __init__(self, place: Path, number: int = 7) -> None:
        """`number` is its server id: logs that begin in the same second are told apart by it."""
        self.place, self.data, self.port, self.number = place, place / "data", 0, number
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/"

    def create(self) -> Server:
        """Make its directory."""
        self.place.mkdir(parents=True)
        if AS_ROOT:
            shutil.chown(self.place, "nobody")
        where = (
            f"--datadir={self.data}",
            f"--tmpdir={self.place}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        command = as_nobody([program("mariadb-install-db"), "--no-defaults", *where, "--skip-name-resolve", *_SMALL])
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return self

    def start(self, *settings: str, port: int = 0) -> Server:
        """Start it, with a binary log unless `settings` say otherwise, and wait until it answers.

        On a free port, or on one that it had before.
        """
        settings = settings or ("--log-bin=binlog", "--binlog-format=ROW", f"--server-id={self.number}")
        if not any(self._answers(settings, port) for _ in range(3)):
            pytest.fail(f"no server: {self.log()}")
        return self

    def _answers(self, settings: tuple[str, ...], port: int) -> bool:
        """Start it; false if it ends, as when somebody took the port a moment before."""
        self.port = port or free_port()
        # A server that starts removes what looks like forgotten tables from its directory for them, whose ever it is.
        places = (f"--datadir={self.data}", f"--tmpdir={self.place}", f"--socket={self.place / 'socket'}")
        where = (*places, f"--port={self.port}", "--bind-address=127.0.0.1")
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(
                as_nobody([program("mariadbd"), "--no-defaults", *where, *_SMALL, *settings]),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        until = time.monotonic() + 60
        while self._client("select 1").returncode:
            if self._process.poll() is not None:
                return False
            assert time.monotonic() < until, self.log()
            time.sleep(0.05)
        return self._process.poll() is None  # else another server has answered

    def stop(self, *, gently: bool = True) -> None:
        """End it by its process id."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if gently else signal.SIGKILL)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process = None

    def log(self) -> str:
        return (self.place / "log").read_text(errors="replace")[-2000:]

    def sql(self, commands: str, database: str = "") -> str:
        """What commands print, bare."""
        done = self._client(commands, database)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def _client(self, commands: str, database: str = "") -> subprocess.CompletedProcess[str]:
        where = ("--host=127.0.0.1", f"--port={self.port}", "--user=root", f"--database={database}")
        command = [program("mariadb"), "--no-defaults", *where, "--batch", "--skip-column-names", "--raw"]
        return subprocess.run(
            [*command, "--default-character-set=utf8mb4"], input=commands, capture_output=True, text=True
        )

    def kill_others(self) -> None:
        """End all sessions but the one that does it."""
        others = "SELECT id FROM information_schema.processlist WHERE command <> 'Daemon' AND id <> connection_id()"
        for ident in self.sql(others).splitlines():
            self.sql(f"KILL {ident}")

    def clear(self) -> None:
        """Drop all databases and accounts that a test made."""
        names = self.sql(f"select schema_name from information_schema.schemata where schema_name not in {_SYSTEM}")
        accounts = self.sql("select concat(quote(user), '@', quote(host)) from mysql.user where user like 'test%'")
        drops = ["DROP DATABASE `{}`".format(name.replace("`", "``")) for name in names.splitlines()]
        self.sql(";\n".join([*drops, *(f"DROP USER {account}" for account in accounts.splitlines()), "SELECT 1"]))

    def binlog(self, start: int, file: str = "binlog.000001") -> str:
        """What the binary log holds from a position on, as SQL."""
        where = ("--host=127.0.0.1", f"--port={self.port}", "--user=root", "--read-from-remote-server")
        command = [program("mariadb-binlog"), "--no-defaults", *where, f"--start-position={start}", file]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


_SMALL: Final = (
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--performance-schema=off",
)
