"""A shop to dump, and short ways to dump and restore it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from backstay.core.clock import SystemClock
from backstay.operations.backup.run import BackupOptions, BackupResult, run_backup
from backstay.operations.restore.postgres_dump import DumpPart, DumpPlan, run_dump_restore
from backstay.operations.restore.request import Conflict
from backstay.operations.restore.run import RestoreOptions
from backstay.repository.repository import Repository
from backstay.sources.postgres.dump import dump_source
from tests.postgres.servers import Server

SHOP = """
    create schema a; create schema "B x";
    create type a.mood as enum ('good', 'bad'); create domain a.count as int check (value >= 0);
    create table a.customers(id serial primary key, mood a.mood, "Full Name" text unique);
    create table a.orders(
        id int generated always as identity primary key, customer int references a.customers, pieces a.count, note text
    );
    create index on a.orders(customer);
    create function a.answer(int, text) returns int language sql as 'select 42';
    create aggregate a.total(int) (sfunc = int4pl, stype = int);
    create view a.happy as select * from a.customers where mood = 'good';
    create table "B x".log(k int, v text) partition by range (k);
    create table "B x".log_1 partition of "B x".log for values from (0) to (10);
    create table plain(x int);
    create sequence a.shared; create table a.numbered(n int default nextval('a.shared'));
    comment on table a.customers is 'who buys';
    insert into a.customers(mood, "Full Name") select 'good', md5(i::text) from generate_series(1, 1000) i;
    insert into a.orders(customer, pieces, note) select 1 + i % 1000, i, md5(i::text) from generate_series(1, 40000) i;
    insert into "B x".log values (1, 'one')"""


def new_database(server: Server, name: str, commands: str = "") -> str:
    """Make a database; its address."""
    server.sql(f'create database "{name}"')
    if commands:
        server.sql(commands, name)
    return server.url.removesuffix("/postgres") + f"/{quote(name)}"


def dump(
    repository: Repository,
    url: str,
    *schemas: str,
    warn: Callable[[str], None] = lambda _: None,
    environ: Mapping[str, str] | None = None,
) -> BackupResult:
    given = os.environ if environ is None else environ
    source = dump_source(url, schemas, clock=SystemClock(), environ=given, warn=warn)
    return run_backup(repository, source, BackupOptions(host="host"))


def restore(
    repository: Repository,
    url: str,
    *,
    schemas: Sequence[str] = (),
    tables: Sequence[str] = (),
    owners: bool = True,
    conflict: Conflict = "fail",
    environ: Mapping[str, str] | None = None,
) -> DumpPlan:
    """Restore the newest snapshot."""
    newest = repository.snapshots.live()[-1]
    part = DumpPart(tuple(schemas), tuple(tables), owners)
    given = os.environ if environ is None else environ
    return run_dump_restore(repository, newest, url, part, RestoreOptions(conflict=conflict), environ=given)


def state(server: Server, database: str) -> str:
    """All that a database holds, as pg_dump writes it."""
    where = ("-h", "127.0.0.1", "-p", server.port, "-U", "postgres")
    lines = server.tool("pg_dump", *where, database).stdout.splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))


def tables(server: Server, database: str) -> set[str]:
    """The tables of users, with their schemas."""
    others = "('pg_catalog', 'information_schema')"
    query = f"select schemaname || '.' || tablename from pg_tables where schemaname not in {others}"
    return set(server.sql(query, database).split("\n")) - {""}


def children(program: str, *, seconds: float = 20) -> Iterator[Path]:
    """Wait for children of this process that run a program on a database; their places in /proc."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = [place for place in Path("/proc").glob("[0-9]*") if _is_child(place, program)]
        if found:
            yield from found
            return
        time.sleep(0.02)
    raise AssertionError(f"no {program} was started")


def _is_child(place: Path, program: str) -> bool:
    try:
        parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        command = (place / "cmdline").read_bytes().split(b"\0")
        runs = command[0].endswith(f"/{program}".encode()) and any(word.startswith(b"--dbname=") for word in command)
        return parent == os.getpid() and runs
    except OSError:
        return False  # it ended meanwhile
