"""The pages on notifications and monitoring: their examples work, and their tables are whole."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from backstay.catalog.database import Catalog
from backstay.control.metrics.expected import expectations_of
from backstay.control.metrics.names import METRICS
from backstay.control.notifying import notifier
from backstay.control.notifying.notices import KINDS
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.of_policies import sync_from_policies
from backstay.control.policies.document import parse_document
from backstay.control.policies.loading import checked
from backstay.testing.clock import FakeClock
from tests.control.notifying.rows import Mailbox, backup, job

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "notifications.md").read_text()
ENVIRON = {
    "SMTP_PASSWORD": "hunter2",
    "SLACK_WEBHOOK": "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
}


def example(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_policy_file_says_who_is_told_of_what(tmp_path: Path) -> None:
    loaded = checked(parse_document(example("yaml").encode(), "example"), ENVIRON)
    assert expectations_of(loaded).policies["shop"].rpo == timedelta(hours=3)
    with Catalog.open(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        catalog.migrate()
        made = Notifier(catalog, FakeClock())
        with catalog.session() as session:
            sync_from_policies(session, made, loaded)
            assert {one.name: one.address for one in made.targets.all(session)} == {
                "admins": "mailtos://***",
                "chat": "slack://***",
                "pager": "jsons://***",
                "ping of shop": "ping+https://***",
            }


def test_the_python_example_tells_how_backups_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"
    clock, mailbox = FakeClock(), Mailbox()
    with Catalog.open(url) as catalog:
        catalog.migrate()
        with catalog.session() as session:
            session.add_all([backup(clock.now()), job(clock.now(), status="failed")])
    monkeypatch.setattr(notifier, "NetworkSender", lambda: mailbox)
    text = example("python").replace("sqlite:////var/lib/backstay/catalog.db", url)
    exec(compile(text, "docs/notifications.md", "exec"), {})
    assert mailbox.titles == ["info: this is a test"]
    assert capsys.readouterr().out.splitlines() == [
        "failure",
        "2026-01-01 00:00:00+00:00 1000 2.5",
        "there is no room the disk is full buy one",
    ]


def test_every_kind_of_message_is_on_the_page() -> None:
    table = PAGE.partition("## Kinds of messages")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {kind for row in rows for kind in re.findall(r"`(\w+)`", row)} == set(KINDS) - {"test"}


def test_the_table_of_metrics_is_that_of_the_program() -> None:
    page = (DOCS / "monitoring.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `backup_")]
    assert rows == [
        f"| `{one.name}` | {one.type} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in METRICS
    ]
