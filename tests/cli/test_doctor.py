"""`doctor`: what it looks at, what it says to do, and the list of backups from the repository alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.catalog.index import BackupIndex
from backstay.cli import checkup
from backstay.core.clock import SystemClock
from tests.cli.conftest import Account


def checks(account: Account, *argv: object, status: int = 0) -> dict[str, dict[str, Any]]:
    document = account.json("doctor", *argv, status=status)
    assert document["ok"] is (status == 0)
    return {check["name"]: check for check in document["checks"]}


def states(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["state"] for name, check in found.items()}


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever room this machine has, it is enough."""
    monkeypatch.setattr(checkup, "_LITTLE", 0)
    monkeypatch.setattr(checkup, "_FEW_PARTS", 10**9)


def catalog_of(account: Account, data: Path) -> Catalog:
    return Catalog.open(f"sqlite:///{data / 'catalog.db'}")


def test_all_is_well(account: Account, tmp_path: Path) -> None:
    account.backup()
    account.json("doctor", "--rebuild-catalog")
    assert states(checks(account)) == {
        "policy file": "note",
        "repository": "good",
        "keys": "good",
        "clocks of others": "good",
        "cache": "good",
        "catalog": "good",
        "audit log": "good",
        "clock": "good",
        "time zones": "good",
        "room of the cache": "good",
        "room of the data directory": "good",
        "room of the repository": "good",
    }
    assert "what to do: give --config FILE" in account.run("doctor").out


def test_it_changes_nothing(account: Account) -> None:
    found = checks(account)
    assert (found["repository"]["state"], found["catalog"]["state"]) == ("note", "note")
    assert not account.repository.exists()
    assert not account.repository.parent.exists()


def test_a_repository_of_a_policy_file_that_is_not_there_is_bad(account: Account) -> None:
    file = account.root / "backstay.yaml"
    file.write_text("backup_manager: {storage: {type: local, path: /nowhere/at/all}}\n")
    found = checks(account, "--config", file, status=10)
    assert found["repository"]["state"] == "bad"
    assert found["repository"]["hint"]


def test_a_policy_file_with_mistakes_is_told(account: Account) -> None:
    file = account.root / "backstay.yaml"
    file.write_text("policies: 7\n")
    found = checks(account, "--config", file, status=2)
    assert found["policy file"]["state"] == found["repository"]["state"] == "bad"
    assert "policy check" in found["policy file"]["hint"]
    assert found["cache"]["state"] == "good"  # all others are looked at


def test_a_snapshot_that_cannot_be_read_is_bad(account: Account) -> None:
    ulid = account.backup()["snapshot"]
    file = account.repository / "snapshots" / ulid
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1])
    found = checks(account, status=13)
    assert ulid in found["repository"]["message"]


def test_the_wrong_password_is_told(account: Account) -> None:
    account.backup()
    account.key_file.unlink()
    found = checks(account, "--password-file", _file(account, "wrong"), status=12)
    assert found["repository"]["state"] == "bad"


def test_no_recovery_key_is_noted(account: Account) -> None:
    account.backup()
    (recovery,) = [slot["id"] for slot in account.json("key", "list")["slots"] if slot["kind"] == "recovery"]
    account.run("key", "remove", recovery)
    keys = checks(account)["keys"]
    assert (keys["state"], keys["message"]) == ("note", "1 way to open it, and no recovery key")
    assert "key recovery" in keys["hint"]


def test_a_cache_that_cannot_be_written_is_bad(account: Account) -> None:
    file = _file(account, "a file, and no directory")
    found = checks(account, status=0)
    assert found["cache"]["state"] == "good"
    account.environ["BACKSTAY_CACHE_DIR"] = "/proc/nowhere"
    found = checks(account, status=15)
    assert "BACKSTAY_CACHE_DIR" in found["cache"]["hint"]
    assert file.exists()


def test_little_room_is_told(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_FEW_PARTS", 0)
    monkeypatch.setattr(checkup, "_LITTLE", 10**30)
    found = checks(account, status=14)
    assert "make room" in found["room of the cache"]["hint"]


def test_a_log_that_somebody_changed_is_bad(account: Account) -> None:
    data = account.root / "data"
    with catalog_of(account, data) as catalog:
        catalog.migrate()
        AuditLog(catalog, SystemClock()).note(actor="ann", action="a", object="o")
        with catalog.session() as session:
            session.connection().exec_driver_sql("DROP TRIGGER audit_no_update")
            session.connection().exec_driver_sql("UPDATE audit SET actor = 'eve'")
    found = checks(account, "--data-dir", data, status=13)
    assert "broken at entry 1" in found["audit log"]["message"]


def test_a_catalog_of_another_version_is_told(account: Account) -> None:
    data = account.root / "data"
    with catalog_of(account, data) as catalog:
        catalog.migrate()
        with catalog.session() as session:
            session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    found = checks(account, "--data-dir", data, status=1)
    assert "newer version" in found["catalog"]["message"]


# -- losing the database loses no backup


def listed(account: Account, data: Path) -> dict[str, tuple[str, str | None]]:
    with catalog_of(account, data) as catalog:
        return {row.id: (row.source, row.policy) for row in BackupIndex(catalog, SystemClock()).page(limit=1000).items}


def test_losing_the_database_loses_no_backup(account: Account) -> None:
    data = account.root / "data"
    file = account.root / "backstay.yaml"
    file.write_text(
        f"backup_manager: {{storage: {{type: local, path: {account.root}/repository}}}}\n"
        f"policies: {{docs: {{sources: [{{type: filesystem, paths: [{account.documents}]}}]}}}}\n"
    )
    account.environ["BACKSTAY_CONFIG"] = str(file)
    account.run("run", "docs")
    account.run("run", "docs", "--kind", "full")
    account.backup("--name", "by-hand")
    done = account.json("doctor", "--rebuild-catalog", "--data-dir", data)
    assert done == {"read": 3, "added": 3, "removed": 0, "damaged": []}
    before = listed(account, data)
    assert sorted(before.values()) == [("by-hand", None), ("docs", "docs"), ("docs", "docs")]
    for left in data.iterdir():
        left.unlink()
    account.json("doctor", "--rebuild-catalog", "--data-dir", data)
    assert listed(account, data) == before
    assert account.json("doctor", "--rebuild-catalog", "--data-dir", data)["added"] == 0
    assert set(before) == {snapshot["id"] for snapshot in account.json("list")}


def test_a_database_that_is_damaged_is_told_with_what_to_do(account: Account) -> None:
    data = account.root / "data"
    data.mkdir()
    account.backup()
    (data / "catalog.db").write_bytes(b"this is no database, " * 500)
    told = account.json("doctor", "--rebuild-catalog", "--data-dir", data, status=15)
    assert told["code"] == "CatalogUnavailable"
    assert "move it" in told["hint"]
    assert states(checks(account, "--data-dir", data, status=15))["catalog"] == "bad"


def _file(account: Account, content: str) -> Path:
    file = account.root / "file"
    file.write_text(content)
    return file
