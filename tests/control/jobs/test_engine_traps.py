"""What would go wrong with the engine's library as it comes, and does not."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from backstay.control.jobs.dbos_database import open_database
from backstay.control.jobs.dbos_engine import EMBEDDED, VERSION, DbosEngine
from backstay.control.jobs.queues import QUEUES
from backstay.core.clock import SystemClock
from backstay.errors import CatalogUnavailable, InvalidRequest, JobConflict
from tests.control.jobs.conftest import OpenEngine
from tests.control.jobs.recording import Recording, eventually


@pytest.fixture
def kind() -> str:
    return "sqlite"


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def test_an_old_sqlite_learns_the_function_that_it_lacks(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/x.db", sqlite_version=(3, 40, 1))
    before = int(time.time())
    with engine.connect() as connection:
        whole, parts = connection.execute(text("select unixepoch(), unixepoch('subsec')")).one()
        typed = connection.execute(text("select typeof(unixepoch()), typeof(unixepoch('subsec'))")).one()
    engine.dispose()
    assert before <= whole <= time.time()
    assert whole <= parts < whole + 2
    assert tuple(typed) == ("integer", "real")


def test_the_database_holds_ids_as_json_and_nothing_that_is_run_when_it_is_read(
    open_engine: OpenEngine, tmp_path: Path
) -> None:
    engine, run = open_engine(), Recording()
    engine.submit("a", queue="backup", partition="p")
    engine.start(run, queues=list(QUEUES))
    eventually(lambda: engine.state("a") == "done")
    stored = rows(
        tmp_path / "jobs.db", "select inputs from workflow_input union all select output from workflow_output"
    )
    assert stored
    assert all(json.loads(str(value)) in (None, {"positionalArgs": ["a"]}, {"positionalArgs": ["a"], "namedArgs": {}})
               for (value,) in stored), stored  # fmt: skip
    assert rows(tmp_path / "jobs.db", "select distinct serialization from workflow_status") == [("portable_json",)]


def test_the_version_of_jobs_is_ours_and_does_not_change_with_the_source(
    open_engine: OpenEngine, tmp_path: Path
) -> None:
    engine = open_engine()
    engine.start(Recording(), queues=list(QUEUES))
    engine.submit("a", queue="backup")
    eventually(lambda: engine.state("a") == "done")
    assert rows(tmp_path / "jobs.db", "select distinct application_version from workflow_status") == [(VERSION,)]
    assert rows(tmp_path / "jobs.db", "select version_name from application_versions") == [("jobs-v1",)]


def test_nothing_is_scheduled_by_the_library(open_engine: OpenEngine, tmp_path: Path) -> None:
    open_engine().start(Recording(), queues=list(QUEUES))
    assert rows(tmp_path / "jobs.db", "select count(*) from workflow_schedules") == [(0,)]


def test_the_embedded_engine_always_has_the_same_name_and_others_have_their_own(
    open_engine: OpenEngine, postgres_url: str
) -> None:
    assert open_engine("host:1:abc").worker == EMBEDDED
    engine = DbosEngine.open(postgres_url, worker="host:1:abc", clock=SystemClock())
    assert engine.worker == "host:1:abc"
    engine.close()


def test_the_library_prints_nothing_and_opens_no_port(
    open_engine: OpenEngine, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = listening()
    engine = open_engine()

    def broken(claim: object) -> None:
        raise ValueError("not handled")

    engine.start(broken, queues=list(QUEUES))
    engine.submit("a", queue="backup")
    eventually(lambda: engine.state("a") == "done")
    assert listening() == before
    engine.stop(timeout_s=30)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert not logging.getLogger("dbos").isEnabledFor(logging.ERROR)


def listening() -> set[str]:
    """Local addresses of TCP sockets of this process that listen."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {entry.readlink().name for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink() and _is(entry)}
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in ours}


def _is(entry: Path) -> bool:
    try:
        entry.readlink()
    except OSError:
        return False
    return True


def test_one_process_runs_jobs_of_one_engine(open_engine: OpenEngine) -> None:
    open_engine("w1").start(Recording(), queues=list(QUEUES))
    with pytest.raises(JobConflict):
        open_engine("w2").start(Recording(), queues=list(QUEUES))


def test_the_file_of_jobs_is_for_its_owner_alone(open_engine: OpenEngine, tmp_path: Path) -> None:
    open_engine()
    assert (tmp_path / "jobs.db").stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_used_is_told_in_our_words(tmp_path: Path) -> None:
    for url, kind in (
        ("mysql://host/database", InvalidRequest),
        (f"sqlite:///{tmp_path}/no/such/place.db", CatalogUnavailable),
        ("postgresql://postgres@127.0.0.1:1/none", CatalogUnavailable),
    ):
        with pytest.raises(kind):
            DbosEngine.open(url, worker="w", clock=SystemClock())


@pytest.mark.parametrize(("good", "said"), [(0, "file is not a database"), (4096, "database disk image is malformed")])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, good: int, said: str) -> None:
    file = tmp_path / "jobs.db"
    DbosEngine.open(f"sqlite:///{file}", worker="w", clock=SystemClock()).close()
    whole = file.read_bytes()
    file.write_bytes(whole[:good] + b"Z" * (len(whole) - good))
    with pytest.raises(CatalogUnavailable) as told:
        DbosEngine.open(f"sqlite:///{file}", worker="w", clock=SystemClock())
    assert told.value.cause == f"{file} is damaged: {said}"
    assert f"move {file} and" in told.value.hint
    assert "nothing else is lost" in told.value.hint


def test_what_the_database_says_in_lines_is_told_in_one() -> None:
    with pytest.raises(CatalogUnavailable) as told:
        DbosEngine.open("postgresql://ann:hunter2@127.0.0.1:1/x", worker="w", clock=SystemClock())
    assert "Is the server running" in told.value.cause
    assert told.value.cause == " ".join(told.value.cause.split())
    assert "hunter2" not in told.value.cause


def test_one_module_knows_the_library() -> None:
    source = Path(__file__).parents[3] / "src/backstay"
    knowing = [
        str(file.relative_to(source))
        for file in source.rglob("*.py")
        if any(line.startswith(("import dbos", "from dbos")) for line in file.read_text().splitlines())
    ]
    assert knowing == ["control/jobs/dbos_engine.py"]
