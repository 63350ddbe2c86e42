"""`recover`: the files that it writes replace nothing of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
