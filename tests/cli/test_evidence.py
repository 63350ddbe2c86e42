"""verify --evidence, and evidence check."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backstay.catalog.database import Catalog
from backstay.control.evidence.kept import store
from backstay.control.evidence.seal import seal
from tests.cli.conftest import Account
from tests.control.evidence.test_evidence import minimal

BACKUP = "01m8jxsyjrnk9gf6s19s8yvh7d"
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture
def key(saved: Account) -> tuple[Path, str]:
    """A key file and its public half."""
    file = saved.root / "auditor.key"
    return file, saved.json("graph", "validator", "auditor", "--key-file", file)["public_key"]


def test_a_rehearsal_leaves_evidence_that_can_be_checked(saved: Account, key: tuple[Path, str]) -> None:
    page, document = saved.root / "e.html", saved.root / "e.json"
    asked = f'test -s "$BACKSTAY_SCRATCH{saved.documents}/note"'
    done = saved.json(
        "verify", "latest", "--rehearse", saved.root / "scratch", "--command", asked,
        "--evidence", page, "--evidence", document, "--evidence-key", key[0],
    )  # fmt: skip
    assert done["rehearsals"][0]["outcomes"][-1]["status"] == "ok"
    for file in (page, document):
        found = saved.json("evidence", "check", file, "--key", key[1])
        assert (found["ok"], found["genuine"], found["signed_by"]) == (True, True, key[1])
        assert found["backups"] == [done["rehearsals"][0]["snapshot"]]
    assert saved.run("evidence", "check", page).out.count("signed by") == 1
    changed = json.loads(document.read_text())
    changed["report"]["ok"] = False
    document.write_text(json.dumps(changed))
    assert "not what was sealed" in saved.run("evidence", "check", document, status=13).err


def test_a_failure_is_evidence_too(saved: Account) -> None:
    file = saved.root / "e.json"
    saved.run("verify", "--rehearse", saved.root / "s", "--command", "false", "--evidence", file, status=13)
    done = saved.run("evidence", "check", file)
    assert "FAILED" in done.out
    assert "nobody signed it" in done.err


def test_a_verification_without_a_rehearsal_leaves_evidence(saved: Account) -> None:
    file = saved.root / "e.html"
    saved.run("verify", "--read-data=50%", "--evidence", file)
    assert saved.json("evidence", "check", file)["kind"] == "verification"
    assert "a random 50 % of the data was read" in file.read_text()


def test_what_the_service_kept_is_listed_and_exported(account: Account) -> None:
    (account.root / "data").mkdir()
    report = minimal("x")
    report["backups"] = [report["backups"][0] | {"id": BACKUP}]
    with Catalog.open(f"sqlite:///{account.root}/data/catalog.db") as catalog:
        catalog.migrate()
        with catalog.session() as session:
            for at in range(3):
                store(session, seal(report), now=NOW + timedelta(days=at), random=os.urandom)
    place = ("--data-dir", account.root / "data")
    rows = account.json("evidence", "list", *place)
    assert [row["created_at"][:10] for row in rows] == ["2026-12-01", "2026-11-30", "2026-11-29"]
    assert account.json("evidence", "list", BACKUP[:-1] + "0", *place) == []
    assert len(account.run("evidence", "list", BACKUP, "--limit", 2, *place).out.splitlines()) == 2
    for name in ("e.html", "e.json"):
        account.run("evidence", "export", rows[0]["id"], account.root / name, *place)
        assert account.json("evidence", "check", account.root / name)["backups"] == [BACKUP]
    assert "no report" in account.run("evidence", "export", "zzz", account.root / "e.json", *place, status=1).err
    assert "several" in account.run("evidence", "export", "0", account.root / "e.json", *place, status=2).err


@pytest.mark.parametrize(
    "argv",
    [
        ("verify", "--sql", "select 1"),
        ("verify", "--command", "true"),
        ("verify", "--evidence-key", "x"),
        ("verify", "--evidence", "e.txt"),
        ("verify", "--evidence", "/no/such/place/e.html"),
        ("evidence", "check", "nowhere.json"),
        ("evidence", "check", "nowhere.json", "--key", "abc"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(saved: Account, argv: tuple[str, ...]) -> None:
    done = saved.run(*argv, status=2)
    assert "hint:" in done.err
