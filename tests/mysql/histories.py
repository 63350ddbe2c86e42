"""A MariaDB server that has lived a little: a dump, its log in a repository, and what its table held at each moment."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backstay.operations.mysql.plan import BinlogTarget, ReplayPlan, plan_replay
from backstay.operations.mysql.recover import recover
from backstay.repository.repository import Repository
from tests.mysql.receivers import ENVIRON, NAME, Receiver, dump, end, until_stored
from tests.mysql.servers import Server
from tests.postgres.receivers import Archive

STATE = "SELECT count(*), coalesce(sum(id), 0), coalesce(max(name), '') FROM shop.item"


@dataclass(frozen=True)
class Moment:
    """What the table held at a moment, and how the moment is called."""

    state: str
    second: int
    position: str
    gtid: str


@dataclass
class History:
    """A server that has lived a little, a dump of it, and its log in the repository."""

    archive: Archive
    snapshot: str
    moments: list[Moment]
    dropped: int  # the second in which the table went


def moment(server: Server) -> Moment:
    state = server.sql(STATE)
    second, gtid = server.sql("SELECT unix_timestamp(), @@gtid_binlog_pos").split("\t")
    return Moment(state, int(second), ":".join(map(str, end(server))), gtid)


def next_second(server: Server) -> None:
    """The log tells seconds: what has to be told apart lies in two."""
    now = float(server.sql("SELECT unix_timestamp(now(6))"))
    time.sleep(1.01 - now % 1)


@pytest.fixture(scope="session")
def lived(running_origin: Server, tmp_path_factory: pytest.TempPathFactory) -> History:
    """One for all tests that change nothing but the repository."""
    running_origin.clear()
    running_origin.sql("RESET MASTER")
    return made_history(running_origin, Archive(tmp_path_factory.mktemp("lived") / "archive"))


@pytest.fixture
def history(lived: History, tmp_path: Path) -> History:
    """A copy, whose server may be another one by now."""
    copy = replace(lived, archive=Archive(tmp_path / "copy", lived.archive.secret))
    shutil.rmtree(copy.archive.place / "repository")
    shutil.copytree(lived.archive.place / "repository", copy.archive.place / "repository")
    return copy


@pytest.fixture
def living(origin: Server, archive: Archive) -> History:
    """One whose server goes on as it was."""
    return made_history(origin, archive)


def made_history(origin: Server, archive: Archive) -> History:
    origin.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY AUTO_INCREMENT, name BLOB)")
    origin.sql("INSERT INTO item (name) VALUES ('one'), (X'00FF0A275C')", "shop")
    with archive.open() as repository:
        snapshot = dump(repository, origin)
    moments = [moment(origin)]
    with Receiver(archive, origin) as receiver:
        for commands in (
            "INSERT INTO item (name) VALUES (X'F09F9AB20A5C27'); UPDATE item SET name = 'zwei' WHERE id = 2",
            "BEGIN; INSERT INTO item (name) SELECT seq FROM seq_1_to_300; DELETE FROM item WHERE id = 1; COMMIT",
        ):
            next_second(origin)
            origin.sql(commands, "shop")
            moments.append(moment(origin))
            origin.sql("FLUSH BINARY LOGS")
        next_second(origin)
        dropped = int(origin.sql("DROP TABLE item; SELECT unix_timestamp()", "shop"))
        until_stored(archive, origin, receiver)
    return History(archive, snapshot, moments, dropped)


def at(second: int) -> BinlogTarget:
    return BinlogTarget(kind="time", time=datetime.fromtimestamp(second, UTC))


def planned(repository: Repository, target: BinlogTarget | None = None, snapshot: str = "latest") -> ReplayPlan:
    return plan_replay(repository, NAME, snapshot, target or BinlogTarget())


def recovered(repository: Repository, server: Server, target: BinlogTarget, **environ: Any) -> str:
    """What the table holds after a recovery."""
    server.clear()
    recover(repository, planned(repository, target), server.url, environ={**ENVIRON, **environ})
    return server.sql(STATE)
