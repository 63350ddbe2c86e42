"""`run POLICY`: real files, databases and programs; what fails, and what does not keep the others from being done."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from backstay.cli.backup import backup_document
from backstay.operations.backup.request import BackupResult
from backstay.repository.snapshots.store import Manifest, SnapshotStore
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.source import Problem
from tests.cli.conftest import Account

HEAD = "backup_manager:\n  storage: {{type: local, path: {root}/repository}}\n{settings}policies:\n"


@pytest.fixture
def machine(account: Account) -> Account:
    account.environ |= {"BACKSTAY_CONFIG": str(account.root / "backstay.yaml")}
    account.environ["PATH"] = os.environ["PATH"]
    return account


def write(account: Account, policies: object, settings: str = "") -> None:
    """A policy file; JSON is YAML."""
    lines = HEAD.format(root=account.root, settings=settings)
    (account.root / "backstay.yaml").write_text(lines + f"  {json.dumps(policies)}\n")


def files(account: Account, **more: Any) -> dict[str, Any]:
    return {"type": "filesystem", "paths": [str(account.documents)], **more}


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", script.replace("$", "$$")], **more}


def names(account: Account) -> list[str]:
    return sorted(snapshot["name"] for snapshot in account.json("list"))


def test_a_run_backs_up_prunes_and_verifies(machine: Account) -> None:
    (machine.documents / "x.tmp").write_text("no")
    policy = {
        "description": "all documents",
        "tags": ["daily"],
        "sources": [files(machine, exclude=["*.tmp"])],
        "retention": {"keep_last": 1},
        "verification": {"each_run": True, "restore_test": True, "read_data": 100},
    }
    write(machine, {"files": policy})
    first = machine.json("run", "files")
    second = machine.json("run", "files", "--kind", "full")
    assert (first["status"], second["status"]) == (0, 0)
    assert second["backups"][0]["kind"] == "full"
    assert second["retention"] == {
        "keep": [second["backups"][0]["snapshot"]],
        "drop": [first["backups"][0]["snapshot"]],
    }
    assert second["verification"]["ok"]
    (snapshot,) = machine.json("list")
    assert (snapshot["name"], snapshot["description"], snapshot["tags"]) == ("files", "all documents", ["daily"])
    machine.run("restore", "latest:files", "--to", machine.root / "out")
    restored = {path.name for path in (machine.root / "out").rglob("*") if path.is_file()}
    assert restored == {"note", *(f"letter-{n}.txt" for n in range(5))}


def test_people_are_told_each_step(machine: Account) -> None:
    write(machine, {"files": {"sources": [files(machine)], "retention": {"keep_last": 1}}})
    machine.run("run", "files")
    done = machine.run("run", "files")
    assert done.out.splitlines()[0] == "files:"
    assert "retention: 1 snapshot kept, 1 deleted\n" in done.out
    assert machine.run("-q", "run", "files").out == ""


def test_retention_is_about_the_policy_alone(machine: Account) -> None:
    write(
        machine,
        {
            "one": {"sources": [files(machine)], "retention": {"keep_last": 1}},
            "two": {"sources": [files(machine), files(machine, name="b")]},
        },
    )
    machine.run("backup", machine.documents, "--name", "by-hand")
    machine.run("backup", machine.documents, "--name", "by-hand")
    for name in ("two", "two", "one", "one"):
        machine.run("run", name)
    assert names(machine) == ["by-hand"] * 2 + ["one"] + ["two"] * 2 + ["two-b"] * 2


def test_the_default_retention_holds_for_policies_without_their_own(machine: Account) -> None:
    policies = {"a": {"sources": [files(machine)]}, "b": {"sources": [files(machine)], "retention": {"keep_last": 2}}}
    write(machine, policies, settings="  retention: {keep_last: 1}\n")
    for name in ("a", "b", "a", "b"):
        machine.run("run", name)
    assert names(machine) == ["a", "b", "b"]


def test_a_source_that_fails_keeps_nothing_else_from_being_done(machine: Account) -> None:
    gone = {"type": "filesystem", "name": "gone", "paths": [str(machine.root / "not-there")]}
    write(machine, {"p": {"sources": [gone, files(machine)], "retention": {"keep_last": 1}}})
    document = machine.json("run", "p", status=1)
    first, second = document["backups"]
    assert first["error"]["code"] == "NotFound"
    assert second["error"] is None
    assert names(machine) == ["p"]
    assert machine.run("run", "p", status=1).err.splitlines()[-3].startswith("error: ")


def test_nothing_older_goes_of_a_source_that_failed(machine: Account) -> None:
    write(machine, {"p": {"sources": [files(machine)]}})
    machine.run("run", "p")
    machine.run("run", "p")
    machine.documents.rename(machine.root / "away")
    write(machine, {"p": {"sources": [files(machine)], "retention": {"keep_last": 1}}})
    machine.run("run", "p", status=1)
    assert names(machine) == ["p", "p"]


def test_an_unreadable_item_is_status_3(machine: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FilesystemSource.__init__

    def init(self: Any, *args: Any, **more: Any) -> None:
        real(self, *args, **more)
        self.problems.append(Problem(b"/x", "cannot be read"))

    monkeypatch.setattr(FilesystemSource, "__init__", init)
    write(machine, {"p": {"sources": [files(machine)], "hooks": hooks_of(machine, after=":", failure=":")}})
    assert machine.json("run", "p", status=3)["status"] == 3
    assert told(machine) == ["after p 3 none"]


def test_the_output_of_a_command_is_a_file(machine: Account) -> None:
    source = {"type": "command", "command": ["sh", "-c", "printf 'two\\nlines\\n'"], "file_name": "packages.txt"}
    write(machine, {"p": {"sources": [source]}})
    machine.run("run", "p")
    assert machine.run("cat", "latest:p", "/command/packages.txt").out == "two\nlines\n"
    machine.run("restore", "latest:p", "--to", machine.root / "out")
    assert (machine.root / "out/command/packages.txt").read_text() == "two\nlines\n"


@pytest.mark.parametrize("script", ["echo half; exit 3", "echo half; kill -9 $$$$", "no-such-program"])
def test_a_command_that_fails_makes_no_snapshot(machine: Account, script: str) -> None:
    write(machine, {"p": {"sources": [{"type": "command", "command": ["sh", "-c", script]}]}})
    document = machine.json("run", "p", status=1)
    assert document["backups"][0]["error"]["code"] == "DumpFailed"
    assert names(machine) == []


def test_a_sqlite_database(machine: Account) -> None:
    path = machine.root / "app.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (42)")
    database.close()
    sources = [{"type": "sqlite", "path": str(path), "name": "db"}, files(machine)]
    write(machine, {"app": {"sources": sources}})
    machine.run("run", "app")
    assert names(machine) == ["app", "app-db"]
    machine.run("restore", "latest:app-db", "--to", machine.root / "out")
    with sqlite3.connect(next((machine.root / "out").rglob("app.db"))) as restored:
        assert restored.execute("SELECT x FROM t").fetchone() == (42,)
    restored.close()


def test_a_dry_run_changes_nothing(machine: Account) -> None:
    marker = machine.root / "hooked"
    hooks = {"before": [shell(f"touch {marker}")], "always": [shell(f"touch {marker}")]}
    write(machine, {"p": {"sources": [files(machine)], "retention": {"keep_last": 1}, "hooks": hooks}})
    machine.run("run", "p", "--dry-run", status=10)
    assert not (machine.root / "repository").exists()
    machine.run("run", "p")
    machine.run("run", "p")
    marker.unlink()
    (machine.documents / "new").write_text("new")
    document = machine.json("run", "p", "--dry-run")
    assert document["backups"][0]["files_new"] == 1
    assert document["backups"][0]["snapshot"] is None
    assert not marker.exists()
    assert names(machine) == ["p"]


def hooks_of(machine: Account, **scripts: str) -> dict[str, Any]:
    """Hooks that each write a line into `told`, and then do what their script says."""
    facts = "$BACKSTAY_HOOK $BACKSTAY_POLICY $BACKSTAY_STATUS ${BACKSTAY_PASSWORD-none}"
    return {when: [shell(f"echo {facts} >> {machine.root}/told; {script}")] for when, script in scripts.items()}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def told(machine: Account) -> list[str]:
    return (machine.root / "told").read_text().splitlines()


def test_hooks_run_in_order_and_are_told_what_there_is_to_know(machine: Account) -> None:
    out = machine.root / "snapshots"
    hooks = hooks_of(
        machine, before=":", after=f"echo $BACKSTAY_SNAPSHOTS $BACKSTAY_KIND > {out}", failure=":", always=":"
    )
    write(machine, {"p": {"sources": [files(machine)], "hooks": hooks}})
    document = machine.json("run", "p", env={"BACKSTAY_PASSWORD": "hunter2"})
    assert told(machine) == ["before p 0 none", "after p 0 none", "always p 0 none"]
    assert out.read_text() == f"{document['backups'][0]['snapshot']} incremental\n"
    assert [hook["when"] for hook in document["hooks"]] == ["before", "after", "always"]


def test_a_hook_before_that_fails_stops_the_run(machine: Account) -> None:
    hooks = hooks_of(machine, before="echo not today >&2; exit 4", after=":", failure=":", always=":")
    write(machine, {"p": {"sources": [files(machine)], "hooks": hooks}})
    document = machine.json("run", "p", status=1)
    assert document["backups"] == []
    assert document["hooks"][0]["error"]["cause"] == "it ended with status 4: not today"
    assert told(machine) == ["before p 0 none", "failure p 1 none", "always p 1 none"]
    assert not (machine.root / "repository").exists()


def test_a_hook_that_may_fail_only_warns(machine: Account) -> None:
    hooks = hooks_of(machine, before="exit 4", failure=":")
    hooks["before"][0]["on_error"] = "warn"
    write(machine, {"p": {"sources": [files(machine)], "hooks": hooks}})
    done = machine.run("run", "p")
    assert "warning: the hook sh failed: it ended with status 4" in done.err
    assert told(machine) == ["before p 0 none"]
    assert names(machine) == ["p"]


def test_a_hook_after_that_fails_is_a_failure_of_the_run(machine: Account) -> None:
    hooks = hooks_of(machine, after="exit 4", failure=":", always=":")
    write(machine, {"p": {"sources": [files(machine)], "hooks": hooks}})
    assert machine.json("run", "p", status=1)["status"] == 1
    assert told(machine) == ["after p 0 none", "failure p 1 none", "always p 1 none"]
    assert names(machine) == ["p"]


def test_hooks_at_the_end_run_when_the_repository_cannot_be_opened(machine: Account) -> None:
    hooks = hooks_of(machine, before=":", after=":", failure=":", always=":")
    write(machine, {"p": {"sources": [files(machine)], "hooks": hooks}})
    machine.run("run", "p")
    (machine.root / "told").unlink()
    assert machine.json("run", "p", status=12, env={"BACKSTAY_PASSWORD": "wrong"})["code"] == "WrongKey"
    assert told(machine) == ["before p 0 none", "failure p 12 none", "always p 12 none"]


def test_a_hook_that_does_not_end_is_killed_with_what_it_started(machine: Account) -> None:
    pid = machine.root / "pid"
    script = f"sleep 60 & echo $! > {pid}; wait"
    hooks = {"before": [shell(script, timeout="2s")]}
    write(machine, {"p": {"sources": [files(machine)], "hooks": hooks}})
    document = machine.json("run", "p", status=1)
    assert document["hooks"][0]["error"]["title"] == "the hook sh does not end"
    until = time.monotonic() + 40  # a signal takes its time
    while (runs := is_running(int(pid.read_text()))) and time.monotonic() < until:
        time.sleep(0.02)
    assert not runs


def test_a_hook_that_cannot_be_started(machine: Account) -> None:
    write(machine, {"p": {"sources": [files(machine)], "hooks": {"before": [{"command": ["/no/such"]}]}}})
    assert "the hook /no/such cannot be started" in machine.run("run", "p", status=1).err


@pytest.mark.crash
def test_hooks_at_the_end_run_after_ctrl_c(machine: Account) -> None:
    waiting = machine.root / "waiting"
    hooks = hooks_of(machine, before=f"touch {waiting}; sleep 100", after=":", failure=":", always=":")
    write(machine, {"p": {"sources": [files(machine)], "hooks": hooks}})
    process = machine.program("run", "p")
    until = time.monotonic() + 60
    while not waiting.exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert told(machine) == ["before p 0 none", "failure p 130 none", "always p 130 none"]


@pytest.mark.parametrize("rest", ["another source", "retention", "verification", "nothing"])
def test_a_signal_that_finds_a_snapshot_made_ends_what_follows(
    machine: Account, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    commit, made = SnapshotStore.commit, list[str]()

    def interrupted(store: SnapshotStore, manifest: Manifest) -> None:
        commit(store, manifest)
        made.append(manifest.id)
        signal.raise_signal(signal.SIGINT)

    policy: dict[str, Any] = {"sources": [files(machine)]}
    if rest == "another source":
        policy["sources"] += [files(machine, name="b")]
    more = {"retention": {"keep_last": 1}, "verification": {"each_run": True}}
    policy |= {what: settings for what, settings in more.items() if what == rest}
    write(machine, {"p": policy})
    first = [each["snapshot"] for each in machine.json("run", "p")["backups"]]
    monkeypatch.setattr(SnapshotStore, "commit", interrupted)
    machine.run("run", "p", status=0 if rest == "nothing" else 130)
    monkeypatch.undo()
    assert len(made) == 1
    assert sorted(each["id"] for each in machine.json("list")) == sorted(first + made)


def test_a_signal_that_comes_when_the_run_is_done_is_too_late(
    machine: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = backup_document

    def interrupted(result: BackupResult) -> dict[str, object]:
        signal.raise_signal(signal.SIGINT)
        return told(result)

    write(machine, {"p": {"sources": [files(machine)]}})
    monkeypatch.setattr("backstay.cli.run.backup_document", interrupted)
    (made,) = machine.json("run", "p")["backups"]
    monkeypatch.undo()
    assert [each["id"] for each in machine.json("list")] == [made["snapshot"]]


def test_a_policy_that_there_is_not_creates_nothing(machine: Account) -> None:
    write(machine, {"p": {"sources": [files(machine)]}})
    assert "it has p" in machine.run("run", "q", status=1).err
    assert not (machine.root / "repository").exists()


def test_another_repository_is_told(machine: Account) -> None:
    write(machine, {"p": {"sources": [files(machine)]}})
    machine.environ["BACKSTAY_PASSWORD"] = "hunter2"
    other = machine.root / "other"
    machine.run("-r", other, "init")
    done = machine.run("-r", other, "run", "p")
    assert f"warning: the repository is {other}, as -r or BACKSTAY_REPO says" in done.err
    assert not (machine.root / "repository").exists()
