"""The manager of a policy file: runs of some sources, retention, restores in place, what others are told."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from backstay.catalog.models.backups import Backup as BackupRow
from backstay.control.manager.documents import preview_document, restore_document, run_document
from backstay.control.manager.manager import BackupManager
from backstay.control.scheduling.specs import ScheduleSpec
from backstay.errors import HookFailed, InvalidRequest, NoRepository, NotFound, PolicyInvalid, RestoreConflict, WrongKey
from backstay.testing import FakeClock, MemoryStorage
from tests.control.manager.conftest import PASSWORD

POLICIES = """
    backup_manager:
      storage: {type: local, path: ROOT/repository}
      scheduling: {timezone: Europe/Vienna}
    policies:
      shop:
        description: the shop
        tags: [production]
        retention: {keep_last: 2}
        sources:
          - {type: filesystem, name: letters, paths: [ROOT/documents/letters]}
          - {type: filesystem, name: notes, paths: [ROOT/documents/notes.tmp]}
        hooks:
          always: [{command: [sh, -c, 'echo "$BACKSTAY_JOB" > ROOT/job']}]
      single:
        sources:
          - {type: filesystem, paths: [ROOT/documents]}
      broken:
        sources:
          - {type: filesystem, paths: [ROOT/documents]}
        hooks:
          before: [{command: ["false"]}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "backstay.yaml"
    file.write_text(textwrap.dedent(POLICIES).replace("ROOT", str(tmp_path)))
    return file


@pytest.fixture
def shop(file: Path, environ: dict[str, str], clock: FakeClock, documents: Path) -> Iterator[BackupManager]:
    del documents
    with BackupManager.open(file, password=PASSWORD, environ=environ, clock=clock) as made:
        yield made


def test_a_run_of_all_sources_and_of_some(shop: BackupManager, tmp_path: Path, clock: FakeClock) -> None:
    run = shop.execute("shop", kind="full", tags=["t1", "production"], description="Pre-deployment backup")
    assert [one.name for one in run.backups] == ["shop-letters", "shop-notes"]
    assert {(one.tags, one.description, one.kind) for one in run.backups} == {
        (("production", "t1"), "Pre-deployment backup", "full")
    }
    assert (tmp_path / "job").read_text().strip() == run.id
    clock.advance(60)
    for sources in (["notes"], ["shop-notes"]):
        again = shop.execute("shop", sources=sources)
        assert [(one.name, one.description) for one in again.backups] == [("shop-notes", "the shop")]
        clock.advance(60)
    with pytest.raises(NotFound, match="no source 'nothing'"):
        shop.execute("shop", sources=["nothing"])
    with pytest.raises(NotFound, match="no policy 'shops'"):
        shop.execute("shops")
    assert len(shop.find("shop")) == 2
    assert {one.name for one in shop.list(policy="shop")} == {"shop-letters", "shop-notes"}
    with shop.records.catalog.reading() as session:
        assert set(session.scalars(select(BackupRow.policy))) == {"shop"}


def test_days_in_names_are_those_of_the_time_zone(shop: BackupManager, clock: FakeClock) -> None:
    clock.advance(11 * 3600)  # 23:00 in UTC, the next day in Vienna
    run = shop.execute("single")
    assert set(shop.find("single-2025-06-25")) == set(run.backups)


def test_a_dry_run_makes_nothing(shop: BackupManager) -> None:
    shop.execute("single")
    run = shop.execute("shop", dry_run=True)
    assert (run.backups, run.ok, run.dry_run) == ((), True, True)
    assert len(shop.list()) == 1


def test_retention_of_the_policy_and_of_the_call(shop: BackupManager, clock: FakeClock) -> None:
    for _ in range(4):
        shop.execute("shop", sources=["notes"])
        clock.advance(86_400)
    assert len(shop.list()) == 2, "the policy keeps two"
    for _ in range(3):
        shop.execute("shop", sources=["notes"], retention_days=30)
        clock.advance(86_400)
    assert len(shop.list()) == 5, "the call keeps what is younger besides"
    planned = shop.prune("shop", dry_run=True)
    assert (len(planned.kept), len(planned.dropped)) == (2, 3)
    assert len(shop.list()) == 5
    assert shop.prune("shop").dropped.keys() == planned.dropped.keys()
    assert len(shop.list()) == 2
    with pytest.raises(InvalidRequest, match="keeps everything"):
        shop.prune("single")


def test_days_of_retention_are_those_of_the_time_zone_of_the_policy(
    shop: BackupManager, file: Path, environ: dict[str, str], clock: FakeClock
) -> None:
    """Not those of `backup_manager`, where the policy has a zone of its own, and whoever prunes."""
    here = {"schedule": "{timezone: Asia/Tokyo}", "retention": "{keep_daily: 2}"}
    told = "\n".join(f"    {key}: {value}" for key, value in here.items())
    file.write_text(file.read_text().replace("  single:\n", f"  single:\n{told}\n"))
    with BackupManager.open(file, password=PASSWORD, environ=environ, clock=clock) as tokyo:
        clock.advance(2 * 3600)  # 14:00 UTC: 23:00 in Tokyo
        late = tokyo.execute("single").backups[0]
        clock.advance(2 * 3600)  # of the next day in Tokyo, of the same one in Vienna
        early = tokyo.execute("single").backups[0]
        assert {late.id, early.id} == tokyo.prune("single", dry_run=True).kept.keys()
        assert {one.id for one in tokyo.list()} == {late.id, early.id}
    file.write_text(file.read_text().replace("    schedule: {timezone: Asia/Tokyo}\n", ""))
    with BackupManager.open(file, password=PASSWORD, environ=environ, clock=clock) as vienna:
        assert vienna.prune("single", dry_run=True).dropped.keys() == {late.id}


def test_a_hook_that_fails_is_raised(shop: BackupManager) -> None:
    with pytest.raises(HookFailed):
        shop.execute("broken")
    run = shop.execute("broken", check=False)
    assert (run.backups, run.ok) == ((), False)
    with pytest.raises(NoRepository):
        shop.list()


def test_what_create_backup_means_without_a_source(
    shop: BackupManager, tmp_path: Path, environ: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest, match="the policies are shop, single, broken"):
        shop.create_backup()
    one = tmp_path / "one.yaml"
    one.write_text(f"policies: {{one: {{sources: [{{type: filesystem, paths: [{tmp_path}/documents]}}]}}}}")
    with BackupManager.open(one, password=PASSWORD, environ=environ) as manager:
        assert manager.create_backup().name == "one"
    with pytest.raises(PolicyInvalid):
        BackupManager.open(tmp_path / "nowhere.yaml", environ=environ)


def test_files_go_back_to_where_they_came_from(shop: BackupManager, documents: Path) -> None:
    shop.execute("single")
    letter = documents / "letters/letter-1.txt"
    whole = letter.read_text()
    letter.write_text("spoilt")
    (documents / "letters/letter-2.txt").unlink()
    with pytest.raises(RestoreConflict):
        shop.restore("single", mode="in_place")
    assert not (documents / "letters/letter-2.txt").exists(), "nothing was written"
    run = shop.restore("single", mode="in_place", conflict="overwrite")
    assert letter.read_text() == whole
    assert (documents / "letters/letter-2.txt").exists()
    assert shop.verify_restore(run.id).equal == 6
    assert [path.name for path in documents.parent.iterdir() if path.name.startswith(".backstay")] == []


def test_a_part_goes_back_to_where_it_came_from(shop: BackupManager, documents: Path) -> None:
    shop.execute("single")
    for path in documents.rglob("*.*"):
        path.write_text("spoilt")
    shop.restore("single", source=documents / "letters/letter-1.txt", mode="in_place", conflict="overwrite")
    spoilt = {path.name for path in documents.rglob("*.*") if path.read_text() == "spoilt"}
    assert spoilt == {"notes.tmp", *(f"letter-{n}.txt" for n in (0, 2, 3, 4))}


def test_a_policy_of_several_sources_restores_all_of_them(shop: BackupManager, tmp_path: Path, documents: Path) -> None:
    shop.execute("shop")
    run = shop.restore("shop", tmp_path / "out")
    assert len(run.parts) == 2
    assert (tmp_path / "out" / str(documents / "notes.tmp").lstrip("/")).exists()
    assert len(list((tmp_path / "out").rglob("*.*"))) == 6


def test_schedules_belong_to_the_file(shop: BackupManager) -> None:
    spec = ScheduleSpec(name="Daily", cron="0 2 * * *", type="full", policy="shop", retention_days=30)
    made = shop.schedules.create(spec)
    assert made.next_run_at is not None
    assert [one.id for one in shop.schedules.page().items] == [made.id]
    with pytest.raises(InvalidRequest, match="no policy 'nothing'"):
        shop.schedules.create(ScheduleSpec(name="x", cron="0 2 * * *", type="full", policy="nothing"))


def test_what_was_recorded_is_counted_once(shop: BackupManager) -> None:
    shop.execute("single")
    for _ in range(2):
        text = shop.metrics().decode()
        assert 'backup_jobs_total{kind="backup",source="single",status="succeeded"} 1.0' in text
    assert shop.notify().failed == 0


def test_results_are_documents_too(shop: BackupManager, tmp_path: Path) -> None:
    import json

    run = shop.execute("shop")
    document = json.loads(json.dumps(run_document(run)))
    assert document["backups"] == [one.id for one in run.backups]
    assert document["outcome"]["sources"][0]["snapshot"] == document["backup_id"]
    assert len(document["outcome"]["retention"]["keep"]) == 2
    plan = json.loads(json.dumps(preview_document(shop.plan_restore("shop", tmp_path / "out"))))
    assert (plan["files"], plan["conflict_count"], plan["fits"]) == (6, 0, True)
    restored = json.loads(json.dumps(restore_document(shop.restore("shop", tmp_path / "out"))))
    assert sorted(part["backup_id"] for part in restored["parts"]) == sorted(document["backups"])


def test_threads_share_a_manager(shop: BackupManager, tmp_path: Path) -> None:
    shop.execute("single")
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda number: shop.restore("single", tmp_path / f"out-{number}"), range(8)))
    assert {run.files for run in runs} == {6}
    assert len(shop.list_restores()) == 8


def test_a_store_may_be_handed_over(environ: dict[str, str], documents: Path, tmp_path: Path) -> None:
    store = MemoryStorage()
    with BackupManager(store, password=PASSWORD, environ=environ) as backups:
        made = backups.create_backup(documents)
        assert backups.create_backup(documents).kind == "incremental"
        backups.restore(made.id, tmp_path / "out")
    with BackupManager(store, password=PASSWORD, environ=environ) as again:
        assert len(again.list()) == 2
    with BackupManager(store, environ=environ) as closed, pytest.raises(WrongKey, match="no password"):
        closed.list()
