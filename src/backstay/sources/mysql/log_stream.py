"""A binary log on its way from the server: its own program writes the files, byte by byte as the server has them.

They lie in a directory of this process until they are stored. A crash leaves that directory, with nothing in it that
the server has not.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from backstay.errors import BackstayError, InsufficientSpace, SourceRefused, SourceUnreachable
from backstay.sources.mysql.binlog import EventReader
from backstay.sources.mysql.programs import log_reader
from backstay.sources.mysql.server import Server
from backstay.sources.program import Program, tied

GONE: Final = "1236"  # the state of a refusal: the server has not got the file that was asked for
TORN: Final = "torn"  # likewise: a file ends within an event, as a server leaves it that was killed while it wrote
_RIGHTS: Final = "GRANT REPLICATION SLAVE, BINLOG MONITOR (MySQL: REPLICATION CLIENT) ON *.* TO the user"
_FIRST: Final = 1 << 16  # bytes; more than the first event has
_UNWRITABLE: Final = re.compile(r"No space left|Could not (?:write|create)|Can't create/write")
_DENIED: Final = re.compile(r"[Aa]ccess denied|privilege")


class LogStream:
    """The files from one on, each as it grows; with `follow` also what is not written yet."""

    def __init__(self, server: Server, file: str, place: Path, *, follow: int | None = None) -> None:
        """Start the program. `follow` is the server id by which the server tells receivers apart, None to end at the
        end. Raises VersionUnsupported.
        """
        self._server, self.place = server, place
        command = [log_reader(server.environ, mariadb=server.is_mariadb), *server.address.arguments]
        command += ["--read-from-remote-server", "--raw", f"--result-file={place}/"]
        if follow is not None:
            option = "stop-never-slave-server-id" if server.is_mariadb else "connection-server-id"
            command += ["--stop-never", f"--{option}={follow}"]
        self._program = Program(
            tied([*command, file]), server.environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def files(self) -> list[Path]:
        """Those that came so far, oldest first: all but the last one are complete."""
        return sorted(self.place.iterdir(), key=lambda path: (len(path.name), path.name))

    def failure(self) -> BackstayError | None:
        """Why no more comes; None while more may come."""
        status = self._program.wait(0)
        return None if status is None else self._explained(status)

    def wait(self, seconds: float) -> None:
        """Until it ends, at most so long."""
        self._program.wait(seconds)

    def close(self) -> None:
        """End it; what it has written stays."""
        self._program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _explained(self, status: int) -> BackstayError:
        said, place = self._program.said(), self._server.place
        if "Could not find first log file" in said or "impossible position" in said:
            return SourceRefused(f"{place} has not got the binary log that is needed", cause=said, state=GONE)
        if "truncated in the middle of event" in said:
            return SourceRefused(
                f"a binary log of {place} ends within an event",
                cause=said,
                hint="`FLUSH BINARY LOGS` on that server begins a new one; look whether its disk is full",
                state=TORN,
            )
        if _DENIED.search(said):
            return SourceRefused(f"{place} does not let its binary log be read", cause=said, hint=_RIGHTS)
        if _UNWRITABLE.search(said):
            return InsufficientSpace(
                f"the binary log cannot be written to {self.place}",
                cause=said,
                hint="make room in the cache directory for twice max_binlog_size",
            )
        return SourceUnreachable(f"{place} sends no more of its binary log", cause=said or f"status {status}")


def first_event(server: Server, file: str, place: Path, *, patience_s: float = 20.0) -> bytes:
    """The first event of a file, which no other server has the same: it tells the server, its version and when.

    `place` is an empty directory. Raises SourceRefused, SourceUnreachable, VersionUnsupported, CorruptedSource.
    """
    with LogStream(server, file, place) as stream:
        waited = 0.0
        while True:
            ended = stream.failure()
            found = _first_of(place / file)
            if found is not None:
                return found
            if ended is not None:
                raise ended
            if waited >= patience_s:
                raise SourceUnreachable(f"{server.place} does not send its binary log", cause=f"{file} does not come")
            stream.wait(0.05)
            waited += 0.05


def _first_of(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            head = file.read(_FIRST)
    except FileNotFoundError:
        return None
    for event in EventReader(path.name).feed(head):
        return head[event.start : event.end]
    return None
