"""The page on recovery plans: its example is carried out, and every key that there is stands on it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from backstay.control.recovery.plan import RecoveryPlan
from tests.cli.conftest import Account
from tests.control.manager.conftest import PASSWORD
from tests.postgres.dumps import new_database
from tests.postgres.servers import running_server

PAGE = (Path(__file__).parents[2] / "docs/recovery.md").read_text()
(PLAN,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(COMMANDS,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_key_is_on_the_page() -> None:
    def keys(node: Any) -> set[str]:
        if isinstance(node, dict):
            found = set(node.get("properties", ()))
            return found.union(*(keys(value) for value in node.values()))
        return set().union(*map(keys, node)) if isinstance(node, list) else set()

    known = keys(RecoveryPlan.model_json_schema())
    assert {"on_error", "run_commands", "min_bytes"} <= known
    assert [key for key in sorted(known) if not re.search(rf"\b{key}\b", PAGE)] == []


def test_the_example_is_carried_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    uploads = tmp_path / "data/uploads"
    uploads.mkdir(parents=True)
    for number in range(3):
        (uploads / f"picture-{number}").write_bytes(bytes(500))
    environ = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "TZ": "UTC", "BACKSTAY_PASSWORD": PASSWORD}
    account = Account(tmp_path, capsys, environ)
    monkeypatch.chdir(tmp_path)
    with running_server() as server:
        old = new_database(server, "shop", "create table orders as select generate_series(1, 100) id")
        environ["SHOP_DB"] = new_database(server, "anew")
        account.run("backup", uploads, "--name", "shop-files")
        account.run("backup", "--source", old, "--name", "shop-database")
        plan = PLAN.replace("/data/uploads", str(uploads)).replace("/srv/shop", str(tmp_path / "srv/shop"))
        (tmp_path / "plan.yaml").write_text(plan)
        looked, carried_out = (line.split()[1:] for line in COMMANDS.splitlines())
        assert "nothing was written" in account.run(*looked).out
        assert not (tmp_path / "srv").exists()
        done = account.run(*carried_out)
        assert "recovered in" in done.out
        assert server.sql("select count(*) from orders", "anew") == "100"
    assert (tmp_path / "srv/shop/open").exists()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"]
    assert report["critical_path"][-1] == "open"
    assert {step["outcome"] for step in report["steps"]} == {"done"}
    assert account.json(*carried_out)["steps"][0]["outcome"] == "before"


def test_ends_have_their_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").mkdir()
    environ = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "BACKSTAY_PASSWORD": PASSWORD}
    account = Account(tmp_path, capsys, environ)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a").write_text("a")
    account.run("backup", tmp_path / "source", "--name", "x")
    plan = tmp_path / "plan.yaml"
    restore = f"restore, backup: x, source: {tmp_path}/source, to: {tmp_path}/out"
    plan.write_text(f"steps:\n  a: {{type: {restore}}}\n  b: {{type: fil, path: /x}}\n")
    refused = account.run("recover", plan, status=2)
    assert "plan.yaml:3: steps.b.type: there is no type 'fil' (did you mean file?)" in refused.err
    assert account.json("recover", plan, status=2)["code"] == "PlanInvalid"
    plan.write_text(
        f"steps:\n  a: {{type: {restore}}}\n"
        f"  b: {{type: command, command: [touch, {tmp_path}/b], confirm: go?, needs: [a]}}\n"
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("mine")
    account.run("recover", plan, "--dry-run", status=17)
    assert account.json("recover", plan, status=17)["steps"][0]["error"]["code"] == "RestoreConflict"
    (tmp_path / "out/a").unlink()
    asked = account.run("recover", plan, status=2)
    assert "was not confirmed" in asked.out
    account.run("recover", plan, "--done", "nothing", status=2)
    account.run("recover", plan, "--done", "b")
    assert not (tmp_path / "b").exists()
    account.run("recover", plan, "--restart", "--yes")
    assert (tmp_path / "b").exists()
    account.run("recover", tmp_path / "nowhere.yaml", status=2)
