"""Dumps come back whole or in part, all or nothing, and never over what is there unless that was asked for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from backstay.errors import BackstayError, InvalidRequest, NotFound, RestoreConflict, RestoreFailed
from backstay.operations.restore.postgres_dump import DumpPlan
from backstay.repository.repository import Repository
from backstay.sources.postgres.connection import Connection
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret
from tests.postgres.dumps import SHOP, children, dump, new_database, restore, state, tables
from tests.postgres.servers import Server, running_server

OWNERS = """
    create role keeper; create role reader; grant keeper to postgres;
    create schema a authorization keeper; create table a.t(i int); alter table a.t owner to keeper;
    create table "to"(i int); grant select on a.t, "to" to reader; insert into a.t values (7)"""
SECRET = "never-to-be-seen"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all tests here; each has databases of its own."""
    with running_server() as server:
        new_database(server, "shop", SHOP)
        yield server


@pytest.fixture(scope="module")
def repository(server: Server) -> Iterator[Repository]:
    """A repository with one snapshot, the dump of the shop."""
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        dump(repository, shop(server))
        yield repository


@pytest.fixture
def empty() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        yield repository


def shop(server: Server) -> str:
    return server.url.removesuffix("/postgres") + "/shop"


def test_one_schema_comes_back_with_what_it_has(repository: Repository, server: Server) -> None:
    url = new_database(server, "schema")
    plan = restore(repository, url, schemas=["a"])
    assert plan.warnings == ()
    assert tables(server, "schema") == {"a.customers", "a.orders", "a.numbered"}
    assert server.sql(
        "select count(*), a.answer(1, '') from a.orders join a.customers c on customer = c.id", "schema"
    ) == ("40000|42")


def test_one_table_comes_back_with_what_belongs_to_it_and_what_it_needs(repository: Repository, server: Server) -> None:
    url = new_database(server, "one_table")
    plan = restore(repository, url, tables=["orders"])
    assert tables(server, "one_table") == {"a.orders"}
    assert "orders_customer_fkey" in plan.warnings[0]
    server.sql("insert into a.orders(pieces) values (1)", "one_table")  # the domain, and the identity where it was
    assert server.sql("select max(id) from a.orders", "one_table") == "40001"
    assert "orders_customer_idx" in server.sql("select indexname from pg_indexes where schemaname = 'a'", "one_table")
    assert server.sql("select to_regclass('a.shared')", "one_table") == ""
    restore(repository, url, tables=["a.customers"])
    assert server.sql("select mood, count(*) from a.customers group by 1", "one_table") == "good|1000"
    assert server.sql("insert into a.customers default values returning id", "one_table") == "1001"


def test_a_partitioned_table_brings_its_partitions(repository: Repository, server: Server) -> None:
    url = new_database(server, "parts")
    restore(repository, url, tables=["B x.log"])
    assert server.sql('select v from "B x".log', "parts") == "one"


def test_names_that_are_nowhere_are_told(repository: Repository, server: Server) -> None:
    url = new_database(server, "names")
    for wrong in ({"schemas": ["A"]}, {"tables": ["Orders"]}, {"schemas": ["B x"], "tables": ["orders"]}):
        with pytest.raises(NotFound, match="there is no"):
            restore(repository, url, **wrong)  # type: ignore[arg-type]
    assert tables(server, "names") == set()


def test_what_is_there_is_a_conflict_and_replaced_only_when_asked(repository: Repository, server: Server) -> None:
    url = new_database(
        server, "taken", "create schema a; create view a.customers as select 1; create table mine(i int)"
    )
    with pytest.raises(RestoreConflict) as caught:
        restore(repository, url)
    assert caught.value.paths == ("table a.customers",)
    assert tables(server, "taken") == {"public.mine"}
    server.sql("drop view a.customers; create table a.customers(old int)", "taken")
    restore(repository, url, conflict="overwrite")
    assert tables(server, "taken") == tables(server, "shop") | {"public.mine"}
    before = state(server, "taken")
    restore(repository, url, conflict="overwrite")
    assert state(server, "taken") == before


def test_tables_that_changed_their_shape_are_replaced(empty: Repository, server: Server) -> None:
    shape = """
        create table one(id serial primary key, other int); create table two(id serial primary key, one int);
        alter table one add foreign key (other) references two; alter table two add foreign key (one) references one;
        create view pairs as select one.id from one join two on other = two.id; create table kind(i int)"""
    dump(empty, new_database(server, "shape", shape))
    changes = """
        drop view pairs; alter table one drop column id cascade; create table three(two int references two);
        drop table kind; create view kind as select * from one"""
    url = new_database(server, "changed", f"{shape}; {changes}")
    with pytest.raises(RestoreFailed) as caught:
        restore(empty, url, conflict="overwrite")
    assert "three" in caught.value.cause
    assert "relies on" in caught.value.hint
    server.sql("drop table three", "changed")
    restore(empty, url, conflict="overwrite")
    assert state(server, "changed") == state(server, "shape")


@pytest.mark.parametrize(
    "taken",
    [
        "create function a.answer(int, text) returns int language sql as 'select 1'",
        "create aggregate a.total(int) (sfunc = int4pl, stype = int)",
        "create type a.mood as (x int)",
        "create sequence a.shared",
        "create table a.t(i int); create index orders_customer_idx on a.t(i)",
    ],
)
def test_all_kinds_of_objects_can_be_in_the_way(repository: Repository, server: Server, taken: str) -> None:
    url = new_database(server, f"kind {abs(hash(taken))}".lower(), f"create schema a; {taken}")
    with pytest.raises(RestoreConflict) as caught:
        restore(repository, url, schemas=["a"])
    assert len(caught.value.paths) == 1


def test_other_overloads_and_empty_schemas_are_no_conflict(repository: Repository, server: Server) -> None:
    own = (
        "create schema a; create function a.answer(text) returns int language sql as 'select 1'; create table b(i int)"
    )
    url = new_database(server, "overloads", own)
    restore(repository, url)
    assert server.sql("select a.answer('') + a.answer(1, '')", "overloads") == "43"


def test_something_unforeseen_in_the_way_undoes_everything(empty: Repository, server: Server) -> None:
    operator = "create operator public.<#> (leftarg = int, rightarg = int, function = int4pl)"
    dump(empty, new_database(server, "operator", f"create table early(i int); {operator}"))
    url = new_database(server, "with operator", operator)
    with pytest.raises(RestoreConflict, match="nothing was restored"):
        restore(empty, url)
    assert tables(server, "with operator") == set()


def test_missing_roles_are_told_before_anything_is_written(empty: Repository, server: Server) -> None:
    dump(empty, new_database(server, "owned", OWNERS))
    restore(empty, new_database(server, "owned back"))
    owner = "select tableowner from pg_tables where tablename = 't'"
    assert server.sql(owner, "owned back") == "keeper"
    assert server.sql("select has_table_privilege('reader', 'a.t', 'select')", "owned back") == "t"
    server.sql('drop database "owned back"')
    server.sql("drop database owned")
    server.sql("drop role keeper; drop role reader")
    url = new_database(server, "no roles")
    with pytest.raises(NotFound) as caught:
        restore(empty, url)
    assert caught.value.cause == "keeper, reader"
    assert "globals.sql" in caught.value.hint
    assert "--no-owner" in caught.value.hint
    assert tables(server, "no roles") == set()
    restore(empty, url, owners=False)
    assert server.sql(owner, "no roles") == "postgres"
    assert server.sql("select i from a.t", "no roles") == "7"


def test_a_role_that_may_not_give_away_is_told_so(repository: Repository, server: Server) -> None:
    server.sql("create role small login")
    server.sql("create database small owner small")
    url = server.url.replace("postgres@", "small@").removesuffix("/postgres") + "/small"
    with pytest.raises(InvalidRequest) as caught:
        restore(repository, url)
    assert "postgres" in caught.value.cause
    restore(repository, url, owners=False)
    assert server.sql("select tableowner from pg_tables where tablename = 'orders'", "small") == "small"


def test_a_killed_pg_restore_leaves_nothing_and_shows_no_password(repository: Repository, server: Server) -> None:
    url = new_database(server, "killed")
    outcome: list[DumpPlan | BackstayError] = []

    def run() -> None:
        try:
            outcome.append(restore(repository, url.replace("postgres@", f"postgres:{SECRET}@"), schemas=["a"]))
        except BackstayError as error:
            outcome.append(error)

    with Connection(url) as holder:
        holder.query("begin")
        holder.query("create schema a")  # whoever creates it too has to wait
        running = threading.Thread(target=run)
        running.start()
        for child in children("pg_restore"):
            assert SECRET.encode() not in (child / "cmdline").read_bytes()
            os.kill(int(child.name), signal.SIGKILL)
        running.join()
    assert isinstance(outcome[0], RestoreFailed)
    assert "SIGKILL" in outcome[0].cause
    assert server.sql("select count(*) from pg_namespace where nspname = 'a'", "killed") == "0"


def test_damage_in_the_repository_leaves_the_database_as_it_was(empty: Repository, server: Server) -> None:
    dump(empty, shop(server))
    packs = [info.name for info in empty.backend.list("packs/")]
    empty.backend.delete(max(packs, key=lambda name: empty.backend.stat(name).size))
    url = new_database(server, "damaged", "create table mine(i int)")
    with pytest.raises(BackstayError):
        restore(empty, url)
    assert tables(server, "damaged") == {"public.mine"}


def test_names_in_other_encodings_are_known(empty: Repository, server: Server) -> None:
    for name in ("latin", "latin back"):
        server.sql(f"create database \"{name}\" encoding 'LATIN1' template template0")
    url = server.url.removesuffix("/postgres")
    own = "create schema größe; create table größe.straße(ort text); insert into größe.straße values ('Köln')"
    with Connection(f"{url}/latin") as connection:
        connection.query(own)
    dump(empty, f"{url}/latin", "größe")
    restore(empty, f"{url}/latin%20back", tables=["größe.straße"])
    with pytest.raises(RestoreConflict) as caught:
        restore(empty, f"{url}/latin%20back")
    assert caught.value.paths == ("table größe.straße",)
    restore(empty, f"{url}/latin%20back", conflict="overwrite")
    with Connection(f"{url}/latin%20back") as connection:
        assert connection.value("select ort from größe.straße") == "Köln"


def test_psql_that_fails_early_is_not_waited_for(empty: Repository, server: Server) -> None:
    much = "create table much as select i, repeat(md5(i::text), 30) from generate_series(1, 8000) i"
    dump(empty, new_database(server, "much", much))
    refusing = """
        create function refuse() returns event_trigger language plpgsql as $$ begin raise exception 'not here'; end $$;
        create table much(i int); create event trigger refuse on ddl_command_end when tag in ('CREATE TABLE')
        execute function refuse()"""
    url = new_database(server, "refusing", refusing)
    with pytest.raises(RestoreFailed) as caught:
        restore(empty, url, conflict="overwrite")
    assert "not here" in caught.value.cause
    assert tables(server, "refusing") == {"public.much"}


def test_large_objects_come_back(empty: Repository, server: Server) -> None:
    dump(empty, new_database(server, "large", "select lo_from_bytea(4711, 'a large object')"))
    url = new_database(server, "large back")
    restore(empty, url)
    assert server.sql("select convert_from(lo_get(4711), 'UTF8')", "large back") == "a large object"
    with pytest.raises(RestoreConflict):
        restore(empty, url)
    server.sql("select lo_put(4711, 0, 'A')", "large back")
    restore(empty, url, conflict="overwrite")
    assert server.sql("select convert_from(lo_get(4711), 'UTF8')", "large back") == "a large object"
