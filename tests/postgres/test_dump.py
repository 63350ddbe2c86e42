"""Logical dumps: small when little changed, whole or not at all, and silent about passwords."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.errors import BackstayError, ClientTooOld, DumpFailed, NotFound, SourceRefused, SourceUnreachable
from backstay.operations.snapshots.look import open_file
from backstay.repository.repository import Repository
from backstay.sources.postgres import programs
from backstay.sources.postgres.connection import Connection
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret
from tests.ports import free_port
from tests.postgres.conftest import StartServer
from tests.postgres.dumps import SHOP, children, dump, new_database, restore, state
from tests.postgres.servers import Server, installation, running_server

SECRET = "never-to-be-seen"


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        yield repository


@pytest.fixture(scope="module")
def shop() -> Iterator[Server]:
    """A server of the newest version with a database `shop`, which tests only read."""
    with running_server() as server:
        new_database(server, "shop", SHOP)
        yield server


def at(server: Server, database: str, user: str = "postgres") -> str:
    return f"postgresql://{user}@127.0.0.1:{server.port}/{database}"


def stored(repository: Repository, name: str) -> bytes:
    manifest = repository.snapshots.live()[-1]
    pieces = open_file(repository, manifest, manifest.paths[0] + b"/" + name.encode())
    return b"".join(bytes(piece) for piece in pieces)


@pytest.mark.parametrize("version", [18, 16])
def test_a_second_dump_stores_what_changed_and_restores_everything(
    repository: Repository, start_server: StartServer, version: int
) -> None:
    server = start_server(version=version)
    url = new_database(server, "shop", SHOP)
    more = "select 1 + i % 1000, i, md5((7 * i)::text) from generate_series(1, 120000) i"  # many chunks, however cut
    server.sql(f"insert into a.orders(customer, pieces, note) {more}", "shop")
    first = dump(repository, url)
    server.sql("update a.orders set note = 'changed' where id = 20000", "shop")
    second = dump(repository, url)
    assert second.bytes_added < first.bytes_added / 10
    assert (second.kind, second.files, second.errors) == ("full", 3, ())
    facts = json.loads(stored(repository, "database.json"))
    assert facts["server_version"].startswith(str(version))
    assert facts["dump_program"].startswith(f"pg_dump {version}.")
    assert facts["schemas"] == ["B x", "a", "public"]
    assert b"CREATE ROLE postgres" in stored(repository, "globals.sql")
    restore(repository, new_database(server, "back"))
    assert state(server, "back") == state(server, "shop")


def test_a_dump_of_schemas_is_another_source(repository: Repository, shop: Server) -> None:
    dump(repository, at(shop, "shop"))
    dump(repository, at(shop, "shop"), "B x")
    whole, part = repository.snapshots.live()
    assert whole.source != part.source
    assert part.previous is None
    dumped = stored(repository, "database.dump")
    assert b"log_1" in dumped
    assert b"customers" not in dumped
    assert json.loads(stored(repository, "database.json"))["dumped_schemas"] == ["B x"]


def test_a_database_whose_name_looks_like_an_address_is_dumped_and_restored_where_it_is(
    repository: Repository, shop: Server
) -> None:
    """Else the password would go where that address leads."""
    odd = f"host=127.0.0.1 port={free_port()} dbname=x"
    try:
        url = new_database(shop, odd)
        with Connection(url) as session:
            session.query("create table t as select 1 x")
        dump(repository, url)
        assert b"CREATE ROLE postgres" in stored(repository, "globals.sql")
        with Connection(url) as session:
            session.query("drop table t")
        restore(repository, url)
        restore(repository, url, conflict="overwrite")
        with Connection(url) as session:
            assert session.value("select x from t") == "1"
    finally:
        shop.sql(f'drop database "{odd}"')


def test_what_cannot_be_dumped_has_a_typed_error(repository: Repository, shop: Server) -> None:
    with pytest.raises(SourceRefused, match="none"):
        dump(repository, at(shop, "none"))
    with pytest.raises(NotFound, match="'A'"):
        dump(repository, at(shop, "shop"), "A")
    with pytest.raises(SourceUnreachable):
        dump(repository, f"postgresql://postgres@127.0.0.1:{free_port()}/shop")
    assert not repository.snapshots.live()


def test_a_role_that_may_not_read_passwords_dumps_roles_without_them(repository: Repository, shop: Server) -> None:
    shop.sql(f"create role plain login password '{SECRET}'")
    url = new_database(shop, "public_only", "create table t(i int); grant select on t to plain")
    warnings: list[str] = []
    try:
        dump(repository, url, warn=warnings.append)
        assert b"SCRAM-SHA-256" in stored(repository, "globals.sql")
        assert not warnings
        dump(repository, at(shop, "public_only", "plain"), warn=warnings.append)
        assert b"CREATE ROLE plain" in stored(repository, "globals.sql")
        assert b"SCRAM-SHA-256" not in stored(repository, "globals.sql")
        assert "passwords" in warnings[0]
    finally:
        shop.sql("drop database public_only")
        shop.sql("drop role plain")


def test_a_role_that_may_not_read_a_table_makes_no_snapshot(repository: Repository, shop: Server) -> None:
    shop.sql("create role blind login")
    try:
        with pytest.raises(DumpFailed, match="permission denied"):
            dump(repository, at(shop, "shop", "blind"))
    finally:
        shop.sql("drop role blind")
    assert not repository.snapshots.live()


class Waiting:
    """A dump that waits for a table which somebody holds, on a thread of its own."""

    def __init__(self, repository: Repository, url: str) -> None:
        self.failure: BackstayError | None = None
        self._thread = threading.Thread(target=self._run, args=(repository, url))
        self._thread.start()

    def _run(self, repository: Repository, url: str) -> None:
        try:
            dump(repository, url)
        except BackstayError as error:
            self.failure = error

    def end(self) -> BackstayError | None:
        self._thread.join()
        return self.failure


def test_a_killed_pg_dump_leaves_no_snapshot_and_no_process_shows_the_password(
    repository: Repository, shop: Server
) -> None:
    from backstay.sources.postgres.connection import Connection

    with Connection(at(shop, "shop")) as holder:
        holder.query("begin")
        holder.query("lock table a.customers in access exclusive mode")
        waiting = Waiting(repository, f"postgresql://postgres:{SECRET}@127.0.0.1:{shop.port}/shop")
        for child in children("pg_dump"):
            assert SECRET.encode() not in (child / "cmdline").read_bytes()
            assert f"PGPASSWORD={SECRET}".encode() in (child / "environ").read_bytes()
            os.kill(int(child.name), signal.SIGKILL)
        failure = waiting.end()
    assert isinstance(failure, DumpFailed)
    assert "SIGKILL" in failure.cause
    assert SECRET not in f"{failure} {failure.hint}"
    assert not repository.snapshots.live()


def test_the_programs_are_those_of_the_lowest_version_that_fits(
    repository: Repository, shop: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = programs.programs_for(16, {"PATH": str(installation(18) / "bin")}, purpose="this")
    assert found.major == 16
    monkeypatch.setattr(programs, "_WHEELS", ())
    monkeypatch.setattr(programs, "_PLACES", ())
    old = {"PATH": str(installation(16) / "bin")}
    with pytest.raises(ClientTooOld, match="18") as caught:
        dump(repository, at(shop, "shop"), environ=old)
    assert "16" in caught.value.cause
    assert "postgresql-client-18" in caught.value.hint
    broken = tmp_path / "bin"
    broken.mkdir()
    for name in ("pg_dump", "pg_dumpall", "pg_restore"):
        (broken / name).write_text("no program")
        (broken / name).chmod(0o755)
    with pytest.raises(ClientTooOld, match="18"):
        dump(repository, at(shop, "shop"), environ={"PATH": str(broken)})


def test_a_newer_program_dumps_and_restores_an_older_server(
    repository: Repository, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_WHEELS", ())
    monkeypatch.setattr(programs, "_PLACES", ())
    environ = {"PATH": str(installation(18) / "bin")}
    server = start_server(version=16)
    url = new_database(server, "shop", SHOP)
    dump(repository, url, environ=environ)
    back = new_database(server, "back")
    restore(repository, back, environ=environ)
    assert state(server, "back") == state(server, "shop")
    other = new_database(
        server,
        "other",
        "create function f() returns event_trigger language plpgsql as "
        "'begin raise exception ''no index''; end'; create event trigger stop on ddl_command_end "
        "when tag in ('CREATE INDEX') execute function f()",
    )
    with pytest.raises(BackstayError, match="nothing was restored"):
        restore(repository, other, environ=environ)
    assert server.sql("select count(*) from pg_tables where schemaname = 'a'", "other") == "0"
