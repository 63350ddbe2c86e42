"""The list of backups follows the repository, reads nothing twice, and can be made anew from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from backstay.catalog.backup_search import BackupFilters, scope_of
from backstay.catalog.database import Catalog
from backstay.catalog.index import BackupIndex, Refreshed
from backstay.catalog.models import Backup, Base, PassedOver
from backstay.errors import InvalidRequest, NotFound
from backstay.operations.backup.request import BackupKind, BackupOptions
from backstay.operations.backup.run import run_backup
from backstay.operations.retention.holds import clear_hold, set_hold
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.format import snapshot_name
from backstay.repository.repository import Environment, Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.memory import MemoryStorage
from backstay.testing.clock import FakeClock
from backstay.trust.secrets import Secret

SECRET = Secret.new_keyfile()
POLICIES = {"shop": "shop", "shop-db": "shop"}


class CountingStorage(MemoryStorage):
    """Remembers which snapshots, drops and holds were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        if name.startswith(("snapshots/", "drops/", "holds/")):
            self.read.append(name)
        return super().retrieve(name, start=start, length=length)


class World:
    """A repository with snapshots, and a catalog that follows it."""

    def __init__(self, catalog: Catalog, place: Path) -> None:
        self.catalog, self.clock, self.store = catalog, FakeClock(), CountingStorage()
        self.place = place
        self.environment = Environment(clock=self.clock, threads=1)
        Repository.create(self.store, SECRET, environment=self.environment).close()
        self.index = BackupIndex(catalog, self.clock)

    def repository(self) -> Repository:
        """Opened anew, as by another process."""
        return Repository.open(self.store, SECRET, environment=self.environment)

    def backup(self, name: str | None = "shop", *, kind: BackupKind = "incremental", **given: Any) -> str:
        self.clock.advance(60)
        self.place.joinpath("file").write_text(str(self.clock.now()))
        with self.repository() as repository:
            repository.reload_index()
            source = FilesystemSource([bytes(self.place)], filters=Filters([]), clock=self.clock)
            done = run_backup(repository, source, BackupOptions(host="h", name=name, kind=kind, **given))
        assert done.snapshot is not None
        return done.snapshot

    def refresh(self) -> Refreshed:
        self.store.read.clear()
        with self.repository() as repository:
            return self.index.refresh(repository, policies=POLICIES)

    def rows(self) -> dict[str, Backup]:
        return {row.id: row for row in self.index.page(limit=1000).items}

    def damage(self, ulid: str) -> bytes:
        data = self.store.retrieve(snapshot_name(ulid))
        self.store.store(snapshot_name(ulid), data[:-1] + bytes([data[-1] ^ 1]), overwrite=True)
        return data


@pytest.fixture
def world(catalog: Catalog, tmp_path: Path) -> World:
    place = tmp_path / "data"
    place.mkdir()
    return World(catalog, place)


@pytest.fixture
def small(sqlite_catalog: Catalog, tmp_path: Path) -> World:
    place = tmp_path / "data"
    place.mkdir()
    return World(sqlite_catalog, place)


def test_a_backup_is_listed_with_what_its_snapshot_says(world: World) -> None:
    ulid = world.backup("shop-db", kind="full", tags=("t1", "t\0wo"), description="before the move")
    done = world.refresh()
    assert (done.added, done.removed, done.damaged, done.read) == (1, 0, (), 1)
    (row,) = world.rows().values()
    assert (row.id, row.policy, row.source, row.type, row.host) == (ulid, "shop", "shop-db", "full", "h")
    assert (row.time, row.description, row.files) == (world.clock.now(), "before the move", 1)
    assert row.tags == ["t1", "t\\x00wo"]
    assert row.paths == [str(world.place)]
    assert (row.held, row.damaged, row.job_id, row.verified_at) == (False, False, None, None)
    assert row.bytes > 0
    assert row.stored_bytes > 0
    assert scope_of(row) == "/policy/shop/source/shop-db"


def test_nothing_is_read_twice_by_any_process(world: World) -> None:
    ids = [world.backup() for _ in range(4)]
    with world.repository() as repository:
        repository.snapshots.drop(ids[0], "not wanted", world.clock)
        repository.snapshots.fence("0" * 26, 1, world.clock)
        repository.reload_index()
        values = ContentAddressableStorage(repository)
        values.store(b"value")
        values.fold()
        world.index.refresh(repository)
    world.refresh()
    assert world.store.read == []
    new = world.backup()
    assert world.refresh().read == 1
    assert world.store.read == [snapshot_name(new)]
    assert set(world.rows()) == {*ids[1:], new}
    with world.catalog.reading() as session:
        passed = {row.id: row.why for row in session.scalars(select(PassedOver))}
    assert (passed.pop(ids[0]), passed.pop("0" * 26), set(passed.values())) == ("dropped", "fenced", {"values"})


def test_what_was_deleted_goes_and_what_is_held_is_marked(world: World) -> None:
    first, second = world.backup(), world.backup()
    world.refresh()
    with world.repository() as repository:
        set_hold(repository, repository.snapshots.get(second), "court")
        repository.snapshots.drop(first, "not wanted", world.clock)
    done = world.refresh()
    assert (done.added, done.removed, done.held) == (0, 1, 1)
    assert {ulid: row.held for ulid, row in world.rows().items()} == {second: True}
    with world.repository() as repository:
        clear_hold(repository, second, "over")
    assert world.refresh().held == 1
    assert world.rows()[second].held is False


def test_damage_is_marked_and_healed(world: World) -> None:
    known, fresh = world.backup("shop"), ""
    world.refresh()
    fresh = world.backup("shop-db")
    good = world.damage(fresh)
    done = world.refresh()
    assert done.damaged == (fresh,)
    row = world.rows()[fresh]
    assert (row.damaged, row.type, row.source, row.policy) == (True, "unknown", "", None)
    assert abs(row.time - world.clock.now()) < timedelta(seconds=1)  # which its id says
    assert not world.rows()[known].damaged
    world.store.store(snapshot_name(fresh), good, overwrite=True)
    assert world.refresh().damaged == ()
    row = world.rows()[fresh]
    assert (row.damaged, row.type, row.source, row.policy) == (False, "full", "shop-db", "shop")


def test_a_snapshot_that_is_lost_is_marked_and_not_forgotten(world: World) -> None:
    ulid = world.backup()
    world.refresh()
    world.store.delete(snapshot_name(ulid))
    assert world.refresh().damaged == (ulid,)
    row = world.rows()[ulid]
    assert (row.damaged, row.source) == (True, "shop")
    with world.repository() as repository:
        repository.snapshots.accept_loss(ulid, "gone", world.clock)
    assert world.refresh().removed == 1
    assert world.rows() == {}


def test_the_list_is_made_anew_from_the_repository_alone(world: World) -> None:
    ids = [world.backup("shop" if number % 2 else "by-hand", tags=(f"t{number}",)) for number in range(4)]
    with world.repository() as repository:
        set_hold(repository, repository.snapshots.get(ids[1]), "court")
        repository.snapshots.drop(ids[0], "not wanted", world.clock)
    world.refresh()

    def facts() -> dict[str, dict[str, Any]]:
        return {
            row.id: {column.key: getattr(row, column.key) for column in Backup.__table__.columns}
            for row in world.rows().values()
        }

    before = facts()
    assert set(before) == set(ids[1:])
    with world.catalog.session() as session:  # the database is lost, and there is an empty one
        for table in (Backup, PassedOver):
            session.execute(delete(table))
    with world.repository() as repository:
        done = world.index.rebuild(repository, policies=POLICIES)
    assert done.added == 3
    assert facts() == before


def test_making_it_anew_keeps_what_only_the_catalog_knows(world: World) -> None:
    ulid = world.backup()
    with world.repository() as repository:
        world.index.made(repository, [ulid], job_id="j" * 26, policy="shop")
        wrong = {"verified_ok": True, "description": "changed by hand", "bytes": 7, "source": "other"}
        with world.catalog.session() as session:
            session.execute(update(Backup).values(**wrong))
        world.index.rebuild(repository, policies={})
    row = world.rows()[ulid]
    assert (row.job_id, row.policy, row.verified_ok) == ("j" * 26, "shop", True)
    assert (row.description, row.source) == ("", "shop")
    assert row.bytes != 7


def test_what_was_just_made_or_deleted_is_told_without_listing(world: World) -> None:
    ulid = world.backup("by-hand")
    with world.repository() as repository:
        world.index.made(repository, [ulid], job_id="j" * 26, policy="shop")
        assert world.rows()[ulid].policy == "shop"
        world.index.made(repository, [ulid])  # again, by whoever
        assert (world.rows()[ulid].policy, world.rows()[ulid].job_id) == ("shop", "j" * 26)
        repository.snapshots.drop(ulid, "not wanted", world.clock)
        with world.catalog.session() as session:
            world.index.removed(session, repository, [ulid])
    assert world.rows() == {}
    assert world.refresh() == Refreshed(added=0, removed=0, held=0, damaged=(), read=0)


def test_a_refresh_that_comes_late_is_put_right_by_the_next(world: World) -> None:
    first = world.backup()
    world.refresh()
    with world.catalog.session() as session:  # one that had listed before the deletion
        session.execute(delete(PassedOver))
    with world.repository() as repository:
        repository.snapshots.drop(first, "not wanted", world.clock)
    assert world.refresh().removed == 1
    assert world.rows() == {}


def test_a_policy_that_is_known_later_is_named(small: World) -> None:
    small.backup("shop")
    with small.repository() as repository:
        small.index.refresh(repository)
        assert [row.policy for row in small.rows().values()] == [None]
        small.index.refresh(repository, policies=POLICIES)
        assert [row.policy for row in small.rows().values()] == ["shop"]


def test_two_repositories_do_not_see_each_others_changes(small: World, tmp_path: Path) -> None:
    ulid = small.backup()
    small.refresh()
    other = World(small.catalog, small.place)
    other.backup()
    other.refresh()
    with small.repository() as repository:
        uuid = repository.header.uuid
    assert [row.id for row in small.index.page(BackupFilters(repository=uuid)).items] == [ulid]
    assert len(small.rows()) == 2


# -- lists


@pytest.fixture
def listed(catalog: Catalog) -> BackupIndex:
    """Backups of two policies and none, one each hour; two of the same moment."""
    clock = FakeClock(datetime(2026, 2, 1, tzinfo=UTC))
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    with catalog.session() as session:
        for number in range(12):
            policy = [None, "shop", "web"][number % 3]
            session.add(
                Backup(
                    id=f"01kdv{number:02d}" + "0" * 19,
                    repository="r",
                    policy=policy,
                    source=f"{policy}-db" if policy else "by-hand",
                    type="full" if number < 3 else "incremental",
                    host="h",
                    time=begin + timedelta(hours=number // 2),
                    recorded_at=begin,
                    description=f"Number {number} is 100%",
                    tags=["even" if number % 2 == 0 else "odd", f"n{number}"],
                    held=number == 4,
                    verified_ok=None if number < 6 else number % 2 == 0,
                )
            )
    return BackupIndex(catalog, clock)


def numbers(index: BackupIndex, **filters: Any) -> list[int]:
    return [int(row.id[5:7]) for row in index.page(BackupFilters(**filters)).items]


def test_lists_are_filtered(listed: BackupIndex) -> None:
    assert numbers(listed) == list(range(11, -1, -1))
    assert numbers(listed, policy="shop") == [10, 7, 4, 1]
    assert numbers(listed, source="by-hand", type="full") == [0]
    assert numbers(listed, tag="even") == [10, 8, 6, 4, 2, 0]
    assert numbers(listed, tag="n7") == [7]
    assert numbers(listed, tag="n") == []
    assert numbers(listed, text="number 1") == [11, 10, 1]
    assert numbers(listed, text="100%") == list(range(11, -1, -1))
    assert numbers(listed, text="1__%") == []
    assert numbers(listed, held=True) == [4]
    assert numbers(listed, damaged=True) == []
    assert numbers(listed, verified=True) == [10, 8, 6]
    assert numbers(listed, verified=False) == [11, 9, 7, 5, 4, 3, 2, 1, 0]
    at = datetime(2026, 1, 1, 2, tzinfo=UTC)
    assert numbers(listed, since=at, until=at + timedelta(hours=1)) == [5, 4]


def test_lists_show_what_somebody_may_see(listed: BackupIndex) -> None:
    assert numbers(listed, scopes=["/"]) == numbers(listed)
    assert numbers(listed, scopes=[]) == numbers(listed, scopes=["/repository"]) == []
    assert numbers(listed, scopes=["/policy/shop"]) == [10, 7, 4, 1]
    assert numbers(listed, scopes=["/policy/shop/source/other"]) == []
    both = ["/policy/shop/source/shop-db", "/policy/web"]
    assert numbers(listed, scopes=both) == [11, 10, 8, 7, 5, 4, 2, 1]
    assert numbers(listed, scopes=both, policy="web") == [11, 8, 5, 2]


def test_one_is_found_by_id_beginning_or_name(listed: BackupIndex) -> None:
    whole = "01kdv07" + "0" * 19
    for text in (whole, whole.upper(), "01kdv07", "01KDV07", "shop-db"):
        assert listed.get(text).policy == "shop"
    assert listed.get("01kdv07").id == whole
    assert listed.get("shop-db").id.startswith("01kdv10")  # the newest of the name
    assert listed.get("latest").id.startswith("01kdv11")
    assert listed.get("latest:by-hand").id.startswith("01kdv09")
    assert listed.get("latest", scopes=["/policy/shop"]).policy == "shop"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("01kdv", InvalidRequest),
        ("nope", NotFound),
        ("", NotFound),
        ("a\0b", NotFound),
        ("x" * 5000, NotFound),
        ("latest:other", NotFound),
        ("01kdv99" + "0" * 19, NotFound),
        ("%", NotFound),
        ("____", NotFound),
    ],
)
def test_what_is_not_one_is_told(listed: BackupIndex, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        listed.get(text)


def test_what_somebody_may_not_see_is_not_there(listed: BackupIndex) -> None:
    for text in ("01kdv07" + "0" * 19, "01kdv07", "shop-db", "latest:shop-db"):
        with pytest.raises(NotFound):
            listed.get(text, scopes=["/policy/web"])
    assert listed.get("01kdv11", scopes=["/policy/web"]).policy == "web"


def test_every_table_has_a_name_for_each_constraint() -> None:
    assert all(constraint.name for table in Base.metadata.tables.values() for constraint in table.constraints)
