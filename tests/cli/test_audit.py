"""`audit`: the log of the service on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.core.clock import SystemClock
from tests.cli.conftest import Account


@pytest.fixture
def data(account: Account) -> Path:
    """A data directory with five entries."""
    data = account.root / "data"
    with Catalog.open(f"sqlite:///{data / 'catalog.db'}") as catalog:
        catalog.migrate()
        log = AuditLog(catalog, SystemClock())
        for number in range(5):
            name = "ann" if number % 2 else "bob"
            log.note(actor=name, action="backup.create", object=f"/policy/p{number}", outcome="deny", reason="no right")
    return data


def change(data: Path, statement: str) -> None:
    with Catalog.open(f"sqlite:///{data / 'catalog.db'}") as catalog, catalog.session() as session:
        for what in ("update", "delete"):
            session.connection().exec_driver_sql(f"DROP TRIGGER IF EXISTS audit_no_{what}")
        session.connection().exec_driver_sql(statement)


def test_a_log_that_is_whole(account: Account, data: Path) -> None:
    assert account.run("audit", "verify", "--data-dir", data).out == "the audit log is whole: 5 entries\n"
    made = json.loads(account.run("audit", "checkpoint", "--data-dir", data).out)
    assert made["seq"] == 5
    assert json.loads(account.run("audit", "checkpoint", "--data-dir", data).out) == made  # nothing new
    found = account.json("audit", "verify", "--data-dir", data)
    # that of the catalog, and that of the file beside the key
    assert (found["ok"], found["entries"], found["checkpoints"]) == (True, 5, 2)
    assert found["keys"] == [made["public_key"]]
    assert account.json("audit", "verify", "--data-dir", data, "--key", made["public_key"])["ok"]


def test_a_changed_entry_ends_with_13_and_is_named(account: Account, data: Path) -> None:
    change(data, "UPDATE audit SET actor = 'eve' WHERE seq = 3")
    done = account.run("audit", "verify", "--data-dir", data, status=13)
    assert done.out.startswith("the audit log is broken at entry 3: entry 3 was changed\n")
    found = account.json("audit", "verify", "--data-dir", data, status=13)
    assert (found["ok"], found["first_bad"], found["entries"]) == (False, 3, 2)


def test_an_end_that_was_cut_off_is_found_by_a_kept_checkpoint(account: Account, data: Path) -> None:
    kept = account.root / "kept"
    kept.write_text(account.run("audit", "checkpoint", "--data-dir", data).out)
    change(data, "DELETE FROM audit WHERE seq > 3")
    (data / "audit.checkpoints").unlink()
    with Catalog.open(f"sqlite:///{data / 'catalog.db'}") as catalog, catalog.session() as session:
        session.connection().exec_driver_sql("DROP TRIGGER audit_checkpoints_no_delete")
        session.connection().exec_driver_sql("DELETE FROM audit_checkpoints")
    assert account.json("audit", "verify", "--data-dir", data)["ok"]
    found = account.json("audit", "verify", "--data-dir", data, "--checkpoint", kept, status=13)
    assert (found["first_bad"], found["entries"]) == (4, 3)


def test_a_checkpoint_of_somebody_else_is_not_trusted(account: Account, data: Path) -> None:
    account.run("audit", "checkpoint", "--data-dir", data)
    (data / "audit.checkpoints").unlink()
    (data / "audit.key").write_text("11" * 32)
    found = account.json("audit", "verify", "--data-dir", data, status=13)
    assert "not trusted" in found["problem"]


def test_entries_are_listed_and_filtered(account: Account, data: Path) -> None:
    found = account.json("audit", "list", "--data-dir", data)
    assert [entry["seq"] for entry in found] == [5, 4, 3, 2, 1]
    assert found[0]["actor"] == "bob"
    assert [entry["seq"] for entry in account.json("audit", "list", "--data-dir", data, "--actor", "ann")] == [4, 2]
    assert len(account.json("audit", "list", "--data-dir", data, "--limit", "2", "--outcome", "deny")) == 2
    assert account.json("audit", "list", "--data-dir", data, "--object", "/policy/p3")[0]["seq"] == 4
    assert account.json("audit", "list", "--data-dir", data, "--since", "2999-01-01T00:00Z") == []
    assert "no right" in account.run("audit", "list", "--data-dir", data).out


def test_what_is_not_there_or_no_checkpoint_is_told(account: Account, data: Path) -> None:
    account.json("audit", "verify", "--data-dir", account.root / "other", status=1)
    empty = account.root / "empty"
    empty.write_text("")
    for file in (empty, account.root / "none", data / "catalog.db"):
        assert account.json("audit", "verify", "--data-dir", data, "--checkpoint", file, status=2)["hint"]
    account.json("audit", "verify", "--data-dir", data, "--key", "nonsense", status=2)
    with Catalog.open(f"sqlite:///{account.root / 'new' / 'catalog.db'}") as catalog:
        catalog.migrate()
    account.json("audit", "checkpoint", "--data-dir", account.root / "new", status=2)
