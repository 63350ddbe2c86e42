"""Connections to PostgreSQL that die without a word: behind a relay that goes on taking bytes and passes none on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from backstay.catalog import postgresql
from backstay.catalog.database import Catalog
from backstay.catalog.postgresql import postgresql_engine
from backstay.control.jobs.dbos_database import open_database
from backstay.errors import CatalogUnavailable

ONE = text("SELECT 1")


class Relay:
    """Passes on what goes to and from a port, but for connections that were hushed."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[list[socket.socket]] = []
        self._hushed: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def hush(self) -> None:
        """Pass nothing on any more of those that are open now."""
        self._hushed.update(one for pair in self._pairs for one in pair)

    def close(self) -> None:
        for one in (self._listener, *(one for pair in self._pairs for one in pair)):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                pair = [self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._upstream))]
                self._pairs.append(pair)
                for way in (pair, pair[::-1]):
                    threading.Thread(target=self._forward, args=way, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                if source not in self._hushed:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(new_url: Callable[[str], str]) -> Iterator[tuple[Relay, str]]:
    """A relay, and the address of a catalog behind it."""
    url = new_url("postgresql")
    port = psycopg.conninfo.conninfo_to_dict(url)["port"]
    found = Relay(int(str(port)))
    yield found, url.replace(f":{port}/", f":{found.port}/")
    found.close()


def test_kept_connections_that_died_are_replaced_at_once(
    relay: tuple[Relay, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "ALIVE_S", 0.2)
    with Catalog.open(relay[1]) as catalog:
        with catalog.reading() as one, catalog.reading() as other:
            assert (one.scalar(ONE), other.scalar(ONE)) == (1, 1)
        relay[0].hush()
        with catalog.reading() as one, catalog.session() as other:
            assert (one.scalar(ONE), other.scalar(ONE)) == (1, 1)


def test_a_statement_that_is_never_answered_is_told_as_such(
    relay: tuple[Relay, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LONGEST_S", 0.2)

    def hushed(catalog: Catalog) -> None:
        with catalog.session() as session:
            session.execute(ONE)
            relay[0].hush()
            session.execute(ONE)

    with Catalog.open(relay[1]) as catalog:
        with pytest.raises(CatalogUnavailable, match="the server did not answer within"):
            hushed(catalog)
        with catalog.session() as session:
            assert session.scalar(ONE) == 1


def test_what_still_waits_ends_with_the_catalog(relay: tuple[Relay, str]) -> None:
    hushed = threading.Event()
    catalog = Catalog.open(relay[1])

    def ask() -> None:
        with catalog.session() as session:
            session.execute(ONE)
            relay[0].hush()
            hushed.set()
            session.execute(ONE)

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask)
        assert hushed.wait(10)
        while not asked.done():  # it may not have begun to wait
            catalog.close()
            with suppress(TimeoutError):
                asked.exception(0.05)
        assert "this program ends" in str(asked.exception())


def test_a_migration_takes_as_long_as_it_does(new_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "LONGEST_S", 0.1)
    engine = postgresql_engine(new_url("postgresql"))
    with engine.connect() as connection:
        postgresql.without_end(connection.connection.dbapi_connection)
        connection.execute(text("SELECT pg_sleep(0.3)"))
    with engine.connect() as connection, pytest.raises(OperationalError, match="did not answer within"):
        connection.execute(text("SELECT pg_sleep(10)"))
    engine.dispose()


@contextmanager
def parameters(url: str) -> Iterator[dict[str, str]]:
    """What the engine that runs jobs connects with."""
    engine = open_database(url)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        idle = connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
        yield driver.info.get_parameters() | {"idle": idle}
    engine.dispose()


def test_what_an_address_says_of_its_patience_goes_before(new_url: Callable[[str], str]) -> None:
    url = new_url("postgresql")
    with parameters(url) as found:
        assert (found["keepalives_idle"], found["tcp_user_timeout"], found["connect_timeout"]) == ("15", "30000", "10")
        assert found["idle"] == "2min"
    own = "?keepalives_idle=77&connect_timeout=33&options=-c%20idle_in_transaction_session_timeout%3D9s"
    with parameters(url + own) as found:
        assert (found["keepalives_idle"], found["tcp_user_timeout"], found["connect_timeout"]) == ("77", "30000", "33")
        assert found["idle"] == "9s"
