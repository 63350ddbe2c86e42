"""A connection to PostgreSQL that speaks the replication protocol, which psycopg's own cursors do not.

PostgreSQL documentation, "Streaming Replication Protocol" and libpq, "Functions Associated with the COPY Command".
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from backstay.core.bell import Bell
from backstay.errors import (
    BackstayError,
    InvalidRequest,
    ReplicationDenied,
    SlotInUse,
    SourceRefused,
    SourceUnreachable,
    WalLevelTooLow,
)
from backstay.sources.postgres.access import remedy

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

CONNECT_TIMEOUT_S: Final = 20
NOTICES: Final = 20
_TICK_S: Final = 0.2
_DENIED: Final = (
    "no pg_hba.conf entry for replication",
    "pg_hba.conf rejects replication",
    "permission denied to start wal sender",
    "replication role",
)
_TOO_LOW: Final = ("wal_level", "max_wal_senders", "max_replication_slots", "all replication slots are in use")
_SHUTDOWN: Final = ("57P01", "57P02", "57P03", "53300")  # shut down, crashed, starting up, too many connections
_NOT_NOW: Final = (
    "system is starting up",
    "system is shutting down",
    "recovery mode",
    "not yet accepting",
    "not accepting",
    "too many",
)
_IN_USE: Final = "55006"
_NO_DRIVER: Final = "install it with `pip install 'backstay[postgres]'`"


class _Talking:
    """Turns what libpq raises into SourceUnreachable. It is entered for each message, and so keeps nothing."""

    __slots__ = ("_kind", "_place")

    def __init__(self, place: str, kind: type[Exception]) -> None:
        self._place, self._kind = place, kind

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, self._kind):
            raise _lost(f"the connection to {self._place} is lost", error) from error


class Connection:
    """One session of a server, for plain queries or, with `replication`, for the commands of that protocol.

    Not for several threads. Passwords come by libpq's own ways: ~/.pgpass, PGPASSWORD, a service file.
    """

    def __init__(self, url: str, *, replication: bool = False, application: str = "backstay") -> None:
        """Connect. Raises SourceUnreachable, SourceRefused, ReplicationDenied, InvalidRequest."""
        try:
            from psycopg import conninfo, errors, pq
        except ImportError as error:
            raise InvalidRequest("PostgreSQL needs psycopg", cause=str(error), hint=_NO_DRIVER) from error
        self._pq = pq
        more: dict[str, str | int | None] = {"application_name": application, "connect_timeout": CONNECT_TIMEOUT_S}
        try:
            given = conninfo.conninfo_to_dict(url)
        except errors.Error as error:
            raise _unreadable(error) from None
        settings: dict[str, str | int | None] = {**more, **given, "client_encoding": "UTF8"}
        if replication:
            settings["replication"] = "true"
        self.place = _place(given)
        self._told = _Talking(self.place, errors.Error)
        self.notices: deque[str] = deque(maxlen=NOTICES)  # what the server said beside its answers, the last of it
        self._settings = conninfo.make_conninfo("", **settings).encode()
        self._connect()

    def _connect(self) -> None:
        self._connection: PGconn = self._pq.PGconn.connect(self._settings)
        self._connection.notice_handler = self._noted
        if self._connection.status != self._pq.ConnStatus.OK:
            message, user = self._message(), self._user()
            self._connection.finish()
            raise _failure(f"cannot connect to {self.place}", message, "", user)

    # -- commands

    def query(self, sql: str) -> list[list[str | None]]:
        """The rows of a command, of several the last one, as text.

        Raises SourceRefused, SourceUnreachable and their kin.
        """
        result = self._connection.exec_(sql.encode())
        self._require(result, sql, self._pq.ExecStatus.TUPLES_OK, self._pq.ExecStatus.COMMAND_OK)
        return _rows(result)

    def watched_query(self, sql: str, tick: Callable[[], None]) -> list[list[str | None]]:
        """The same of what may take long: what `tick`, called meanwhile, raises cancels it.

        Raises as `query` does.
        """
        with self._talking():
            self._connection.send_query(sql.encode())
        rows: list[list[str | None]] = []
        while (result := self._watched_result(tick)) is not None:
            self._require(result, sql, self._pq.ExecStatus.TUPLES_OK, self._pq.ExecStatus.COMMAND_OK)
            rows = _rows(result)
        return rows

    def _watched_result(self, tick: Callable[[], None]) -> PGresult | None:
        """The next result, None at the end."""
        try:
            while self._is_busy():
                self.wait(_TICK_S)
                tick()
        except BaseException:
            self._connection.get_cancel().cancel()
            raise
        return self._connection.get_result()

    def _is_busy(self) -> bool:
        with self._talking():
            self._connection.flush()
            return bool(self._connection.is_busy())

    def value(self, sql: str) -> str:
        """The one value of one row. Raises as `query` does."""
        value = self.query(sql)[0][0]
        return "" if value is None else value

    @property
    def version(self) -> int:
        """The major version of the server."""
        return self._connection.server_version // 10_000

    @property
    def process(self) -> int:
        """The process id of the session on the server, as its views show it."""
        return self._connection.backend_pid

    def parameter(self, name: str) -> str:
        """A setting that the server reports by itself, such as `server_version`."""
        return (self._connection.parameter_status(name.encode()) or b"").decode()

    # -- COPY

    def begin_copy(self, sql: str) -> list[list[str | None]]:
        """Start a command that sends data, such as BASE_BACKUP or START_REPLICATION; the rows that come before it.

        Raises as `query` does.
        """
        with self._talking():
            self._connection.send_query(sql.encode())
        rows: list[list[str | None]] = []
        while (result := self._connection.get_result()) is not None:
            status = self._pq.ExecStatus
            self._require(result, sql, status.TUPLES_OK, status.COMMAND_OK, status.COPY_OUT, status.COPY_BOTH)
            if result.status in (status.COPY_OUT, status.COPY_BOTH):
                return rows
            rows += _rows(result)
        raise SourceRefused(f"{self.place} sends no data", cause=f"it was asked to {sql.split()[0]}")

    def copied(self) -> Iterator[memoryview]:
        """The messages of a COPY, until it ends. Raises SourceUnreachable, SourceRefused."""
        with self._talking():
            while (received := self._connection.get_copy_data(1))[0] != -1:
                if received[0]:
                    yield received[1]
                else:  # libpq would wait with the interpreter lock, and all other threads with it
                    select.select([self._connection.socket], [], [])
                    self._connection.consume_input()

    def message(self) -> bytes | None:
        """The next message of a COPY if it has come, else an empty one; None at the end."""
        with self._talking():
            length, data = self._connection.get_copy_data(1)
        if length == -1:
            return None
        return bytes(data) if length > 0 else b""

    def wait(self, seconds: float, bell: Bell | None = None) -> bool:
        """Wait for something to come, and take it in; false if nothing came, or the bell rang.

        Raises SourceUnreachable.
        """
        socket = self._connection.socket
        ready, _, _ = select.select([socket] if bell is None else [socket, bell.fileno()], [], [], seconds)
        if socket not in ready:
            return False
        with self._talking():
            self._connection.consume_input()
        return True

    def send(self, message: bytes) -> None:
        """Send a message within COPY BOTH. Raises SourceUnreachable."""
        with self._talking():
            self._connection.put_copy_data(message)
            while self._connection.flush():
                select.select([], [self._connection.socket], [], CONNECT_TIMEOUT_S)

    def end_copy(self) -> list[list[str | None]]:
        """End a COPY BOTH from this side, if the other one has not; the rows that follow it."""
        with self._talking():
            self._connection.put_copy_end()
            self._connection.flush()
        for _ in self.copied():
            continue
        return self.results()

    def finish_copy(self) -> list[list[str | None]]:
        """End a COPY BOTH that the server has ended; the rows that follow. Raises as `query` does."""
        status, rows = self._pq.ExecStatus, []
        while (result := self._connection.get_result()) is not None:
            if result.status == status.COPY_IN:
                with self._talking():
                    self._connection.put_copy_end()
                    self._connection.flush()
                continue
            self._require(result, "", status.TUPLES_OK, status.COMMAND_OK)
            rows += _rows(result)
        return rows

    def results(self) -> list[list[str | None]]:
        """The rows of all results that are left of a command. Raises as `query` does."""
        return [*self.rows_left()]

    def rows_left(self, sql: str = "") -> Iterator[list[str | None]]:
        """The same one by one: what came before an error is there when it is raised. `sql` is named in it."""
        while (result := self._connection.get_result()) is not None:
            self._require(result, sql, self._pq.ExecStatus.TUPLES_OK, self._pq.ExecStatus.COMMAND_OK)
            yield from _rows(result)

    def upload(self, sql: str, data: bytes) -> None:
        """Run a command that takes data, such as UPLOAD_MANIFEST. Raises as `query` does."""
        result = self._connection.exec_(sql.encode())
        self._require(result, sql, self._pq.ExecStatus.COPY_IN)
        with self._talking():
            for at in range(0, len(data), 1 << 20):
                self._connection.put_copy_data(data[at : at + (1 << 20)])
            self._connection.put_copy_end()
        self.results()

    # -- the end

    def renew(self) -> None:
        """Begin another session in place of this one, whatever the server was doing. Raises as the first one did."""
        self.close()
        self._connect()

    def close(self) -> None:
        self._connection.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require(self, result: PGresult, sql: str, *wanted: int) -> None:
        if result.status in wanted:
            return
        status = self._pq.ExecStatus
        left: PGresult | None = result
        while left is not None and left.status not in (status.COPY_IN, status.COPY_OUT, status.COPY_BOTH):
            left = self._connection.get_result()  # so that the session is ready for another command
        if left is not None:  # which one that copies never is
            self.renew()
        if result is left:
            raise SourceRefused(f"{self.place} copies data", cause="a COPY has no rows", hint="ask by a SELECT")
        state = (result.error_field(self._pq.DiagnosticField.SQLSTATE) or b"").decode()
        primary = result.error_field(self._pq.DiagnosticField.MESSAGE_PRIMARY)
        message = primary.decode(errors="replace") if primary else self._message()
        detail = result.error_field(self._pq.DiagnosticField.MESSAGE_DETAIL)
        if detail:
            message += f" ({detail.decode(errors='replace')})"
        what = sql.split("(")[0].strip()[:60] or "a command"
        raise _failure(f"{self.place} does not do {what}", message, state, self._user())

    def _talking(self) -> _Talking:
        """What libpq raises, as the error that says what to do. Raises SourceUnreachable."""
        return self._told

    def _noted(self, notice: PGresult) -> None:
        primary = notice.error_field(self._pq.DiagnosticField.MESSAGE_PRIMARY)
        if primary:
            self.notices.append(primary.decode(errors="replace"))

    def _user(self) -> str:
        return self._connection.user.decode(errors="replace")

    def _message(self) -> str:
        return self._connection.get_error_message().strip()


def _rows(result: PGresult) -> list[list[str | None]]:
    values = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    return [[None if value is None else value.decode(errors="surrogateescape") for value in row] for row in values]


def _place(given: Mapping[str, object]) -> str:
    """What is connected to, for messages: never with a password."""
    host = str(given.get("host") or given.get("hostaddr") or "the local server")
    port = f":{given['port']}" if given.get("port") else ""
    return f"PostgreSQL at {host}{port}"


def _unreadable(error: Exception) -> InvalidRequest:
    """What libpq says about an address, without what it cites of it: that may be a password."""
    said = str(error).partition('"')[0].strip(" :")
    if said == "missing":  # "=", in what libpq takes for a list of settings
        said = "it begins with no postgresql://, and is no list of name=value"
    return InvalidRequest(
        "the address of the database cannot be read",
        cause=said or "it is not well-formed",
        hint="it looks like postgresql://user@host:port/database; other signs are written as %XX",
    )


def _failure(title: str, message: str, state: str, user: str) -> BackstayError:
    text = " ".join(message.split())
    low = text.lower()
    hint = remedy(text, user)
    if any(sign in low for sign in _DENIED):
        return ReplicationDenied(title, cause=text, hint=hint)
    if any(sign in low for sign in _TOO_LOW):
        return WalLevelTooLow(title, cause=text)
    if state in _SHUTDOWN or (not state and any(sign in low for sign in _NOT_NOW)):
        return SourceUnreachable(title, cause=text)
    if state == _IN_USE:
        return SlotInUse(title, cause=text, state=state)
    if 'database "' in low and "does not exist" in low:
        return SourceRefused(title, cause=text, hint="check the name of the database, or create it first")
    if "no password supplied" in low or "password authentication failed" in low:
        return SourceRefused(title, cause=text, hint="give the password by PGPASSWORD, PGPASSFILE or ~/.pgpass")
    if hint or state or "fatal:" in low:
        return SourceRefused(title, cause=text, hint=hint, state=state)
    return SourceUnreachable(title, cause=text)


def _lost(title: str, error: Exception) -> SourceUnreachable:
    return SourceUnreachable(title, cause=" ".join(str(error).split()))
