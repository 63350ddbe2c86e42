"""A dump of PostgreSQL in a database that is made for a rehearsal, on a server that is there for such, and dropped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from backstay.core.events import EventSink
from backstay.operations.restore.postgres_dump import DumpPart, run_dump_restore
from backstay.operations.restore.request import RestoreOptions
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.postgres.connection import Connection

PREFIX = "backstay_rehearsal_"


@contextmanager
def restored_dump(
    repository: Repository, manifest: Manifest, server: str, *, environ: Mapping[str, str], events: EventSink
) -> Iterator[Connection]:
    """A session in the restored database. A crash leaves a database whose name begins with PREFIX.

    Owners are not restored: the server need not have their roles. Raises what a restore of a dump raises.
    """
    from psycopg import conninfo

    name = PREFIX + os.urandom(6).hex()
    with Connection(server) as maintenance:
        maintenance.query(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            url = conninfo.make_conninfo(server, dbname=name)
            run_dump_restore(
                repository, manifest, url, DumpPart(owners=False), RestoreOptions(), environ=environ, events=events
            )
            with Connection(url) as session:
                yield session
        finally:
            maintenance.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
