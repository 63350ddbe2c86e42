"""`recover`: the files that it writes replace nothing of others."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from unittest.mock import patch

import pytest

from backstay.control.recovery.report_file import write_report
from backstay.errors import InsufficientSpace
from tests.cli.conftest import Account


@pytest.fixture
def plan(account: Account) -> Path:
    plan = account.root / "plan.yaml"
    plan.write_text(f'steps:\n  one: {{type: file, path: "{account.documents}"}}\n')
    return plan


@pytest.mark.parametrize("more", [(), ("--restart",), ("--dry-run",), ("--dry-run", "--restart")])
def test_a_state_file_that_no_recovery_made_is_refused(account: Account, plan: Path, more: tuple[str, ...]) -> None:
    text = plan.read_text()
    done = account.run("recover", plan, "--yes", "--state", plan, *more, status=2)
    assert "no state of a recovery" in done.err
    assert plan.read_text() == text


def test_a_report_goes_where_it_replaces_at_most_an_older_one(account: Account, plan: Path) -> None:
    text, report = plan.read_text(), account.root / "report.json"
    state = plan.with_name("plan.yaml.state")
    (account.root / "link").symlink_to(plan)
    for other, cause in ((plan, "the plan"), (state, "what is done"), (account.root / "link", "the plan")):
        assert cause in account.run("recover", plan, "--report", other, status=2).err
    assert "is not there" in account.run("recover", plan, "--report", account.root / "none" / "file", status=2).err
    assert plan.read_text() == text
    assert not state.exists()
    for _ in range(2):
        account.run("recover", plan, "--report", report)
        assert json.loads(report.read_text())["ok"]


@pytest.mark.parametrize("text", ["a key", '{"ok": true}', "[]", "[" * 100_000])
def test_a_report_replaces_no_file_that_is_none(account: Account, plan: Path, text: str) -> None:
    other, target = account.root / "other", account.root / "target"
    other.write_text(text)
    plan.write_text(f'steps:\n  one: {{type: command, command: [touch, "{target}"]}}\n')
    done = account.run("recover", plan, "--yes", "--report", other, status=2)
    assert "no report of a recovery" in done.err
    assert other.read_text() == text
    assert not target.exists()


def test_a_report_goes_into_an_empty_file_a_link_and_a_device(account: Account, plan: Path) -> None:
    empty, link = account.root / "empty", account.root / "link"
    empty.touch()
    link.symlink_to(empty)
    for _ in range(2):
        account.run("recover", plan, "--report", link)
        assert link.is_symlink()
        assert json.loads(empty.read_text())["ok"]
    account.run("recover", plan, "--report", "/dev/null")
    assert not list(account.root.glob("*.new"))


def test_a_report_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    write_report(report, "old")
    full = OSError(errno.ENOSPC, "No space left on device")
    with patch("os.fsync", side_effect=full), pytest.raises(InsufficientSpace):
        write_report(report, "new")
    assert report.read_text() == "old"
    assert list(tmp_path.iterdir()) == [report]
