"""The pages on schedules and on the catalog say what the program does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.control.policies.loading import load
from backstay.control.policies.pending import pending
from backstay.control.scheduling.from_policies import said
from backstay.control.scheduling.kinds import TYPES
from backstay.core.clock import SystemClock
from tests.cli.conftest import Account, account

DOCS = Path(__file__).parents[2] / "docs"
__all__ = ["account"]  # the fixture


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_example_says_these_schedules(tmp_path: Path) -> None:
    (text,) = blocks("schedules.md", "yaml")
    file = tmp_path / "backstay.yaml"
    file.write_text(text)
    loaded = load(file, {})
    assert {(one.type, one.cron, one.timezone, one.sources) for one in said(loaded)} == {
        ("full", "0 1 * * 0", "Europe/Berlin", ()),
        ("incremental", "0 */6 * * *", "Europe/Berlin", ()),
        ("transaction_logs", "*/15 * * * *", "Europe/Berlin", ("shop-db",)),
        ("on_change", "* * * * *", "Europe/Berlin", ("shop-config",)),
        ("verification", "30 4 * * *", "Europe/Berlin", ()),
    }
    assert [remark.key for remark in pending(loaded)] == ["policies.shop.schedule.transaction_logs"]


def test_all_types_are_named() -> None:
    (row,) = [
        line for line in (DOCS / "schedules.md").read_text().splitlines() if line.startswith("| `name`, `policy`")
    ]
    assert set(re.findall("`([a-z_]+)`", row)) == {"name", "policy", "type", *TYPES}


def test_the_commands_of_the_catalog_page_work(account: Account) -> None:
    config = account.root / "backstay.yaml"
    config.write_text(
        f"backup_manager: {{storage: {{type: local, path: {account.root}/repository}}}}\n"
        f"policies: {{docs: {{sources: [{{type: filesystem, paths: [{account.documents}]}}]}}}}\n"
    )
    account.run("--config", config, "run", "docs")
    rebuild, look = blocks("catalog.md", "sh")
    words = shlex.split(rebuild.replace("/etc/backstay.yaml", str(config)))
    account.run(*words[1:])
    with Catalog.open(f"sqlite:///{account.root}/home/.local/share/backstay/catalog.db") as catalog:
        AuditLog(catalog, SystemClock()).note(actor="ann", action="backup.delete", object="/", outcome="deny")
    for line in look.splitlines():
        command, _, target = line.partition(" > ")
        command = command.replace("/mnt/elsewhere", str(account.root))
        done = account.run(*shlex.split(command)[1:])
        assert done.out
        if target:
            (account.root / Path(target).name).write_text(done.out)
