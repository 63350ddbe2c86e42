"""How PostgreSQL is connected to: a connection that died without a word is given up, and no statement waits for ever.

The kernel gives up a connection whose other end does not answer. A proxy or a server that hangs does answer it: so each
statement has an end that we set, and the one that asks whether a kept connection still lives a near one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from backstay.core.clock import SystemClock

ALIVE_S: Final = 5.0  # for a kept connection to say that it lives
LONGEST_S: Final = 120.0  # of a statement, and of a transaction between two of them
# As libpq counts: seconds, but for the last, which are milliseconds. What an address says itself goes before.
_DEFAULTS: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# What a server does with a client that is gone: else its locks last until the server's kernel notices, which is hours.
_LET_GO: Final = (
    "SELECT set_config('idle_in_transaction_session_timeout', %s, false)"
    " WHERE current_setting('idle_in_transaction_session_timeout') = '0'"
)


class _Ends:
    """How often an engine was disposed of: statements that were under way then are given up."""

    count = 0


class _Connection(psycopg.Connection[Any]):
    """A connection whose statements end. `patience_s` is for each; None for as long as it takes."""

    patience_s: float | None = LONGEST_S
    ends: _Ends = _Ends()
    _clock = SystemClock()

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **more: Any) -> Any:  # noqa: ANN401 - as of psycopg
        return super().wait(self._in_time(gen), *args, **more)

    def _in_time(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The same, ended by an error when its time is over; the driver looks in every tenth of a second."""
        until = None if self.patience_s is None else self._clock.monotonic() + self.patience_s
        ends = self.ends.count
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready:
                    self._look(until, ends)
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value

    def _look(self, until: float | None, ends: int) -> None:
        if until is not None and self._clock.monotonic() >= until:
            cause = f"the server did not answer within {self.patience_s:g} seconds"
        elif ends != self.ends.count:
            cause = "this program ends"
        else:
            return
        self.pgconn.finish()  # what comes later would be taken for the answer to something else
        raise psycopg.OperationalError(f"the connection was given up: {cause}")


def postgresql_engine(url: str, **options: Any) -> Engine:  # noqa: ANN401 - as of create_engine
    """An engine for `postgresql://…`. Its `dispose` also ends the statements that are under way.

    Raises ArgumentError, ValueError for an address that cannot be read.
    """
    address = make_url("postgresql+psycopg:" + url.partition(":")[2])
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in address.query}
    engine = create_engine(address, pool_pre_ping=True, connect_args=defaults, **options)
    ends = _Ends()

    @event.listens_for(engine, "do_connect")
    def connect(dialect: object, record: object, given: Any, named: Any) -> DBAPIConnection:  # noqa: ANN401
        del dialect, record
        connection = _Connection.connect(*given, **named)
        connection.ends = ends
        return connection  # type: ignore[return-value]  # it has all of that

    @event.listens_for(engine, "engine_disposed")
    def end(engine: Engine) -> None:
        del engine
        ends.count += 1

    event.listen(engine, "connect", _prepare)
    event.listen(engine, "checkin", _kept)
    event.listen(engine, "checkout", _taken)
    return engine


def without_end(connection: DBAPIConnection | None) -> None:
    """Let the statements of a connection take as long as they do, until it is given back: they change tables."""
    assert isinstance(connection, _Connection)
    connection.patience_s = None


def _prepare(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    del record
    assert isinstance(connection, _Connection)
    connection.autocommit = True
    connection.execute(_LET_GO, (f"{LONGEST_S:.0f}s",))
    connection.autocommit = False


def _kept(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    del record
    if isinstance(connection, _Connection):  # none if it was given up
        connection.patience_s = ALIVE_S  # the next that it is asked is whether it lives


def _taken(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:
    del record, proxy
    assert isinstance(connection, _Connection)
    connection.patience_s = LONGEST_S
