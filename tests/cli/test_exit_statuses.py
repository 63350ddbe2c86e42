"""Every failure ends with the status that the manual promises, in three lines or one problem document."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backstay.cli.main import run
from backstay.cli.problems import typed
from backstay.errors import RestoreFailed
from backstay.sources.target_directory import TargetDirectory
from tests.cli.conftest import Account, FullStream
from tests.storage.refusing import refuse_to_delete_packs


def test_no_repository(account: Account) -> None:
    for command in (("list",), ("ls", "latest"), ("verify",), ("gc",), ("key", "list")):
        account.run(*command, status=10)


def test_a_named_repository_is_never_created_silently(account: Account) -> None:
    place = account.root / "elsewhere"
    account.run("backup", account.documents, env={"BACKSTAY_REPO": str(place)}, status=10)
    assert not place.exists()


def test_wrong_key(saved: Account) -> None:
    saved.run("list", env={"BACKSTAY_PASSWORD": "not this one"}, status=12)


def test_no_password_and_nobody_to_ask(saved: Account) -> None:
    saved.key_file.rename(saved.root / "elsewhere.key")
    done = saved.run("list", status=12)
    assert "no password was given" in done.err


@pytest.mark.parametrize(
    "argv",
    [
        ("no-such-command",),
        ("backup", "--no-such-option"),
        ("backup",),
        ("prune",),
        ("restore", "latest"),
        ("restore", "latest", "--to", "x", "--in-place"),
        ("restore", "latest", "--to", "x", "--at", "whenever"),
        ("backup", ".", "--kind", "sideways"),
        ("backup", ".", "--name", "a:b"),
        ("backup", ".", "--name", "latest"),
        ("backup", ".", "--name", "Latest"),
        ("backup", ".", "--name", "01K9ZZZZZZZZZZZZZZZZZZZZZZ"),
        ("backup", ".", "--source", "postgres://host/db"),
        ("verify", "--read-data=many"),
        ("verify", "--min-bytes", "lots"),
        ("ls", "zz"),
        ("cat", "latest"),
        ("cat", "latest", "/"),
        ("prune", "--keep-last", "-1"),
        ("key", "remove"),
        ("completion", "tcsh"),
        ("-r", "x", "init", "y"),
    ],
)
def test_usage(saved: Account, argv: tuple[str, ...]) -> None:
    done = saved.run(*argv, status=2)
    lines = done.err.splitlines()
    assert [line.partition(":")[0] for line in lines[-3:]] == ["error", "cause", "hint"]


def test_nothing_found(saved: Account) -> None:
    saved.run("info", "deadbeef", status=1)
    saved.run("ls", "latest", "/no/such/place", status=1)
    saved.run("backup", saved.root / "not-there", status=1)
    saved.run("key", "remove", "ffffffff", status=1)


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_what_cannot_be_told_on_stderr_changes_no_status(
    saved: Account, monkeypatch: pytest.MonkeyPatch, json: tuple[str, ...]
) -> None:
    nowhere = {"BACKSTAY_REPO": str(saved.root / "nowhere"), "BACKSTAY_PASSWORD": "pw"}
    monkeypatch.setattr("sys.stderr", FullStream())
    saved.run(*json, "list", "-v", env=nowhere, status=10)
    saved.run(*json, "list", env={"BACKSTAY_PASSWORD": "not this one"}, status=12)
    saved.run(*json, "list", "--no-such-option", status=2)
    saved.run(*json, "backup", saved.documents, saved.root / "not-there", status=3)
    saved.run(*json, "--progress", "json", "backup", saved.documents)
    assert len(saved.json("list")) == 3


def test_a_document_that_cannot_be_written_is_a_failure_that_is_told_on_stderr(
    saved: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", FullStream())
    assert "error: the system refused to read or write\n" in saved.run("--json", "list", status=1).err
    assert "error: 'zzz' is too short" in saved.run("--json", "info", "zzz", status=2).err


def test_a_recovery_key_that_nobody_can_see_is_a_failure(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", FullStream())
    account.run("backup", account.documents, status=1)
    assert not account.key_file.exists()
    monkeypatch.undo()
    assert "Recovery key" in account.run("backup", account.documents).err


def test_a_current_directory_that_is_gone_is_told_where_it_is_needed(
    saved: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved.root / "gone").mkdir()
    monkeypatch.chdir(saved.root / "gone")
    (saved.root / "gone").rmdir()
    for argv in (
        ("ls", "latest", "sub"),
        ("backup", "source"),
        ("-r", "relative", "list"),
        ("restore", "latest", "--to", "relative"),
    ):
        assert saved.json(*argv, status=1)["title"] == "the current directory is gone"
    saved.run("backup", saved.documents)
    saved.run("list")


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EMFILE, "ulimit -n"), (errno.EACCES, "with -v"), (errno.ENOSPC, "where the output goes")],
)
def test_a_refusal_of_the_system_points_at_the_output_only_if_it_may_be_full(number: int, hint: str) -> None:
    assert hint in typed(OSError(number, os.strerror(number))).hint


def test_a_second_init(saved: Account) -> None:
    assert saved.json("init", status=1)["code"] == "RepositoryExists"


def test_an_address_may_be_given_twice_but_not_two(account: Account) -> None:
    one, other = str(account.root / "one"), str(account.root / "other")
    env = {"BACKSTAY_PASSWORD": "some passphrase"}
    done = account.run("-r", one, "init", other, env=env, status=2)
    assert one in done.err
    assert other in done.err
    assert not Path(one).exists()
    assert not Path(other).exists()
    account.run("-r", one, "init", one, env=env)
    account.run("init", other, env=env | {"BACKSTAY_REPO": one})


def test_unreadable_items_make_a_partial_backup(account: Account) -> None:
    done = account.json("backup", account.documents, account.root / "not-there", status=3)
    assert done["snapshot"]
    assert [error["path"] for error in done["errors"]] == [str(account.root / "not-there")]
    again = account.run("backup", account.documents, account.root / "not-there", status=3)
    assert "not backed up" in again.err
    back = account.run("restore", done["snapshot"], "--to", account.root / "out")
    assert f"warning: snapshot {done['snapshot']} lacks 1 item, or parts of them, that could not be read" in back.err


def test_what_a_stored_file_lacks_is_told_as_that(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    place = account.documents / "some file"
    place.write_bytes(b"x")

    def refused(*_: object, **__: object) -> list[str]:
        raise OSError(errno.E2BIG, "they have more than 16 MiB")

    monkeypatch.setattr(os, "listxattr", refused)
    told = account.run("backup", place, status=3).err
    assert f"backed up in part: {place}: its extended attributes are left out: they have more than 16 MiB" in told
    assert "not backed up" not in told


def test_conflict(saved: Account) -> None:
    target = saved.root / "target"
    saved.run("restore", "latest", "--to", target)
    note = target / str(saved.documents).lstrip("/") / "note"
    note.write_text("another note\n")
    problem = saved.json("restore", "latest", "--to", target, status=17)
    assert problem["code"] == "RestoreConflict"
    assert problem["paths"] == [str(saved.documents / "note")]
    saved.run("restore", "latest", "--to", target, "--dry-run", status=17)
    assert note.read_text() == "another note\n"


def test_damage(account: Account, flip: Callable[[Path], None]) -> None:
    (account.documents / "random").write_bytes(os.urandom(100_000))
    account.run("backup", account.documents)
    for pack in (account.repository / "packs").rglob("*"):
        if pack.is_file():
            flip(pack)
    report = account.json("verify", "--read-data", status=13)
    assert report["ok"] is False
    assert report["findings"]
    done = account.run("restore", "latest", "--to", account.root / "target", status=13)
    assert "not restored" in done.err
    errors = account.json("restore", "latest", "--to", account.root / "again", status=13)["errors"]
    assert {error["code"] for error in errors} == {"CorruptedBackup"}
    assert all(error["path"].startswith(str(account.documents)) and error["message"] for error in errors)


def test_a_target_that_refuses_an_item_is_no_damage(saved: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(directory: TargetDirectory, name: bytes, *_: object) -> None:
        raise RestoreFailed(f"cannot write {name.decode()}", cause="by a test")

    monkeypatch.setattr(TargetDirectory, "write_small", refuse)
    result = saved.json("restore", "latest", "--to", saved.root / "target", status=1)
    assert {error["code"] for error in result["errors"]} == {"RestoreFailed"}
    assert len(result["errors"]) == 6


def test_latest_is_not_guessed_when_a_snapshot_is_damaged(saved: Account, flip: Callable[[Path], None]) -> None:
    first = saved.json("list")[0]["id"]
    second = saved.backup("--name", "docs")["snapshot"]
    flip(saved.repository / "snapshots" / second)
    saved.run("restore", "latest", "--to", saved.root / "x", status=13)
    saved.run("restore", "docs", "--to", saved.root / "x", status=13)
    saved.run("restore", first, "--to", saved.root / "x")
    assert "warning" in saved.run("list", status=13).err


def test_refusal_to_collect_without_snapshots(saved: Account) -> None:
    saved.run("delete", "latest")
    saved.run("gc", status=16)
    saved.run("gc", "--allow-empty")


def test_what_the_store_refuses_to_delete_is_told_by_name(saved: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_delete_packs(monkeypatch)
    saved.run("delete", "latest")
    found = saved.json("gc", "--allow-empty", status=15)
    assert found["deleted_packs"]
    assert {one["reason"] for one in found["refused"]} == {"it answered 403"}
    told = saved.run("gc", "--allow-empty", status=15).err
    assert f"refused to delete {found['refused'][0]['name']}: it answered 403" in told
    monkeypatch.undo()
    assert saved.json("gc", "--allow-empty")["refused"] == []


def test_a_mistake_of_the_program_is_one_line(saved: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr("backstay.operations.snapshots.look.stats", broken)
    done = saved.run("stats", status=1)
    assert done.err.splitlines()[0] == "error: this is a mistake in backstay"
    assert "nobody thought of this" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in saved.run("stats", "-v", status=1).err
    assert saved.json("stats", status=1)["code"] == "InternalError"


def test_every_problem_is_told_in_full(saved: Account) -> None:
    for argv in (("info", "zzzz"), ("prune",), ("nonsense",), ("list", "--nonsense"), ("ls", "latest", "/nowhere")):
        problem = saved.json(*argv, status=run_quietly(saved, argv))
        assert {"type", "title", "code", "cause", "hint", "exit_status", "transient"} <= problem.keys()
        assert all(problem[key] for key in ("type", "title", "code", "cause", "hint"))


def run_quietly(account: Account, argv: tuple[str, ...]) -> int:
    """The status alone."""
    return account.run(*argv, status=None).status


def test_no_command_prints_the_help(account: Account) -> None:
    assert run([], account.environ) == 0
    assert "backup" in account.capture.readouterr().out


@pytest.mark.parametrize(
    ("argv", "status", "cause"),
    [
        (("delete",), 2, "it is called as `backstay delete [OPTIONS] {ID}...`"),
        (("info", "latest:letters"), 1, "the names are docs"),
        (("ls", "latest", "/no/such/place"), 1, "it lies in nothing that was backed up"),
        (("key", "remove", "ffffffff"), 1, "none of the 2 ids begins so"),
        (("key", "remove", ""), 2, "a text without characters names no slot"),
        (("restore", "latest"), 2, "neither --to nor --in-place is given"),
        (("cat", "latest", "/"), 2, "it is the root"),
        (("-r", "", "list"), 2, "a text without characters names no place"),
        (("prune", "--keep-within", "long"), 2, "it is no whole number with a unit"),
        (("repair", "packs", "zz"), 1, "packs are named by the SHA-256 of what they held when they were stored"),
    ],
)
def test_a_cause_tells_more_than_the_title(saved: Account, argv: tuple[str, ...], status: int, cause: str) -> None:
    assert f"cause: {cause}\n" in saved.run(*argv, status=status).err


def test_a_path_that_a_snapshot_lacks_is_told_by_its_first_missing_part(saved: Account) -> None:
    for path, cause in (
        (saved.documents / "letters/more/a", f"{saved.documents}/letters holds no more"),
        (saved.documents / "note/a", f"{saved.documents}/note is no directory"),
    ):
        assert saved.json("ls", "latest", path, status=1)["cause"] == cause
    assert "cause: it is a directory\n" in saved.run("cat", "latest", saved.documents, status=2).err


def test_how_many_secrets_were_tried(saved: Account) -> None:
    env = {"BACKSTAY_PASSWORD": "not this one"}
    assert saved.json("list", env=env, status=12)["cause"] == "2 secrets open it, and this is none of them"
