"""The catalog's database: its tables come by migrations, writers wait for each other, readers change nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.exc import IntegrityError, InternalError, OperationalError
from sqlalchemy.orm import Session
from tools.catalog_migration import FILE
from tools.catalog_migration import text as first_migration

from backstay.catalog import migrating
from backstay.catalog.database import Catalog, told
from backstay.catalog.models import Base, Counter, User
from backstay.errors import BackstayError, CatalogOutdated, CatalogUnavailable, InvalidRequest
from backstay.testing.clock import FakeClock
from tests.catalogs import url_of
from tests.postgres.servers import Server

NOW = FakeClock().now()


def test_the_migrations_make_exactly_the_models(catalog: Catalog) -> None:
    with catalog.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    catalog.require_current()


def test_the_first_migration_is_what_the_tool_writes() -> None:
    assert FILE.read_text() == first_migration(), "`python -m tools.catalog_migration` makes it anew"


def test_the_program_knows_all_versions_in_their_order() -> None:
    script = ScriptDirectory(str(Path(migrating.__file__).with_name("migrations")))
    assert tuple(revision.revision for revision in script.walk_revisions())[::-1] == migrating.REVISIONS


def test_several_processes_may_make_the_tables_at_once(tmp_path: Path) -> None:
    program = "import sys; from backstay.catalog.database import Catalog; Catalog.open(sys.argv[1]).migrate()"
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    started = [subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [(b"", 0)] * 3
    with Catalog.open(url) as catalog:
        catalog.require_current()


def test_several_threads_may_make_the_tables_of_postgresql_at_once(catalog_server: Server) -> None:
    catalog_server.sql("create database made_at_once")
    with ThreadPoolExecutor(4) as threads:
        catalogs = [Catalog.open(url_of(catalog_server, "made_at_once")) for _ in range(4)]
        list(threads.map(Catalog.migrate, catalogs))
        for catalog in catalogs:
            catalog.require_current()
            catalog.close()


def test_a_migration_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = migrating._upgrade

    def interrupted(connection: object) -> None:
        upgrade(connection)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}") as catalog:
        monkeypatch.setattr(migrating, "_upgrade", interrupted)
        with pytest.raises(KeyboardInterrupt):
            catalog.migrate()
        with pytest.raises(CatalogOutdated, match="no tables yet"):
            catalog.require_current()
        monkeypatch.undo()
        catalog.migrate()
        catalog.require_current()


def test_a_newer_catalog_is_told_and_left_alone(catalog: Catalog) -> None:
    with catalog.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (catalog.migrate, catalog.require_current):
        with pytest.raises(CatalogOutdated, match="newer version") as told:
            attempt()
        assert "9999" in told.value.cause


def test_a_catalog_without_tables_is_told_by_whoever_needs_them(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    with catalog, pytest.raises(CatalogOutdated), catalog.reading() as session:
        session.scalar(select(func.count()).select_from(User))


def test_the_files_are_for_their_owner_alone(sqlite_catalog: Catalog, tmp_path: Path) -> None:
    place = tmp_path / "new"
    with Catalog.open(f"sqlite:///{place / 'catalog.db'}") as catalog:
        catalog.migrate()
        with catalog.session() as session:
            session.add(Counter(name="a", labels="{}", value=1))
            modes = {file.name: file.stat().st_mode & 0o777 for file in place.iterdir()}
    assert modes == {"catalog.db": 0o600, "catalog.db-wal": 0o600, "catalog.db-shm": 0o600}
    assert place.stat().st_mode & 0o777 == 0o700


def test_writers_that_read_first_wait_for_each_other(sqlite_catalog: Catalog) -> None:
    with sqlite_catalog.session() as session:
        session.add(Counter(name="runs", labels="{}", value=0))

    def add(number: int) -> None:
        for _ in range(5):
            with sqlite_catalog.session() as session:
                counter = session.get_one(Counter, ("runs", "{}"))
                counter.value += 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(8)))
    with sqlite_catalog.reading() as session:
        assert session.get_one(Counter, ("runs", "{}")).value == 40


def test_readers_see_one_state_while_others_write(catalog: Catalog) -> None:
    with catalog.reading() as reading:
        before = reading.scalar(select(func.count()).select_from(User))
        with catalog.session() as session:
            session.add(User(id="0" * 26, name="ann", created_at=NOW))
        assert reading.scalar(select(func.count()).select_from(User)) == before == 0
    with catalog.reading() as reading:
        assert reading.scalar(select(func.count()).select_from(User)) == 1


def test_readers_change_nothing(catalog: Catalog) -> None:
    with pytest.raises((CatalogUnavailable, InternalError), match="read"), catalog.reading() as session:
        session.add(User(id="0" * 26, name="ann", created_at=NOW))
    with catalog.reading() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 0


def test_an_exception_takes_back_what_a_transaction_did(catalog: Catalog) -> None:
    def fail() -> None:
        with catalog.session() as session:
            session.add(User(id="0" * 26, name="ann", created_at=NOW))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with catalog.reading() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 0


def test_a_constraint_is_the_callers_to_understand(catalog: Catalog) -> None:
    with pytest.raises(IntegrityError), catalog.session() as session:
        session.add_all([User(id=one * 26, name="ann", created_at=NOW) for one in "01"])


def test_work_is_done_again_where_postgresql_ends_a_deadlock(new_url: Callable[[str], str]) -> None:
    with Catalog.open(new_url("postgresql")) as catalog:
        with catalog.session() as session:
            session.add_all([Counter(name=name, labels="{}", value=0) for name in "ab"])
        met = threading.Barrier(2)
        tries: list[str] = []

        def both(first: str, second: str) -> None:
            def work(session: Session) -> None:
                session.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
                alone = tries.count(first) > 0
                tries.append(first)
                session.get_one(Counter, (first, "{}"), with_for_update=True).value += 1
                session.flush()
                if not alone:
                    met.wait(60)
                session.get_one(Counter, (second, "{}"), with_for_update=True).value += 1

            catalog.transact(work)

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(both, "ab", "ba"))
        with catalog.reading() as session:
            assert sorted(session.scalars(select(Counter.value))) == [2, 2]
        assert len(tries) in (3, 4)  # one of them twice; or both, where each finds the deadlock in the same moment


def test_words_that_are_no_text_are_refused_and_the_next_question_is_answered(catalog: Catalog) -> None:
    """They stand for bytes of a command line that are no UTF-8."""
    for ask in (catalog.reading, catalog.session):
        with pytest.raises(InvalidRequest, match="UTF-8"), ask() as session:
            session.scalar(select(User).where(User.name == "\udcff"))
        with ask() as session:
            assert session.scalar(select(User).where(User.name == "ann")) is None


def test_times_and_documents_come_back_as_they_were(catalog: Catalog) -> None:
    with catalog.session() as session:
        session.add(User(id="0" * 26, name="ann", created_at=NOW))
    with catalog.reading() as session:
        user = session.get_one(User, "0" * 26)
        assert user.created_at == NOW
        assert user.created_at.tzinfo is not None


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///relative.db", "sqlite:///:memory:", "mysql://h/d", "nonsense", "postgresql://h:port/d"],
)
def test_addresses_that_cannot_be_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as told:
        Catalog.open(url)
    assert told.value.hint


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    with Catalog.open("postgresql://ann:hunter2@127.0.0.1:1/x") as catalog:
        with pytest.raises(CatalogUnavailable) as told, catalog.reading() as session:
            session.execute(text("SELECT 1"))
        assert told.value.transient
        assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("content", [b"this is no database, but long enough to look like one" * 40, b"\0" * 5000])
def test_a_file_that_is_no_database_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "catalog.db"
    file.write_bytes(content)
    with pytest.raises(BackstayError) as told, Catalog.open(f"sqlite:///{file}") as catalog:
        catalog.migrate()
    assert told.value.code in ("CatalogUnavailable", "CatalogOutdated")


def test_a_damaged_file_is_named_with_what_to_do_and_what_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    with Catalog.open(f"sqlite:///{file}") as catalog:
        catalog.migrate()
    good = file.read_bytes()
    file.write_bytes(good[:4096] + b"Z" * (len(good) - 4096))  # the first page is whole
    with Catalog.open(f"sqlite:///{file}") as catalog:
        for work in (catalog.session, catalog.reading):
            with pytest.raises(CatalogUnavailable) as told, work() as session:
                session.execute(text("SELECT count(*) FROM jobs"))
            assert told.value.cause == f"{file} is damaged: database disk image is malformed"
            assert f"{file}-wal" in told.value.hint
            assert "backstay doctor --rebuild-catalog" in told.value.hint
            assert "audit log" in told.value.hint


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogUnavailable, match="file"):
        Catalog.open(f"sqlite:///{tmp_path / 'file' / 'catalog.db'}")


def test_what_a_database_says_in_several_lines_is_told_in_one() -> None:
    refused = OperationalError("select 1", {}, Exception("connection failed: refused\n\tIs the server running?\n"))
    with pytest.raises(CatalogUnavailable) as raised, told(create_engine("sqlite://")):
        raise refused
    assert raised.value.cause == "connection failed: refused Is the server running?"
