"""restore and cat."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from backstay.sources import target_directory
from backstay.sources.directory_descriptors import open_directory
from tests.cli.conftest import Account


def inside(target: Path, source: Path) -> Path:
    """Where a source lies in a target."""
    return target / str(source).lstrip("/")


def test_at_includes_the_whole_second(account: Account) -> None:
    (account.documents / "note").write_text("old\n")
    account.run("backup", account.documents, "--time", "2026-03-01T12:00:00.7Z")
    (account.documents / "note").write_text("new\n")
    account.run("backup", account.documents, "--time", "2026-03-01T12:00:05Z")
    for number, (moment, expected) in enumerate(
        (("2026-03-01T12:00:00Z", "old\n"), ("2026-03-01 12:00:04", "old\n"), ("2026-03-01T13:00:05+01:00", "new\n"))
    ):
        target = account.root / f"target-{number}"
        account.run("restore", "latest", "--at", moment, "--to", target)
        assert (inside(target, account.documents) / "note").read_text() == expected
    account.run("restore", "latest", "--at", "2026-02-28", "--to", account.root / "x", status=1)


def test_a_subtree_is_put_into_the_target(saved: Account) -> None:
    target = saved.root / "target"
    saved.run("restore", f"latest:{saved.documents / 'letters'}", "--to", target)
    assert sorted(path.name for path in target.iterdir()) == [f"letter-{n}.txt" for n in range(5)]
    saved.run("restore", f"latest:docs:{saved.documents / 'note'}", "--to", target)
    assert (target / "note").read_text() == "a note\n"


def test_latest_with_a_path_looks_into_the_source_that_holds_it(saved: Account) -> None:
    other = saved.root / "other"
    other.mkdir()
    (other / "thing").write_text("of another source\n")
    saved.run("backup", other)
    target = saved.root / "target"
    saved.run("restore", f"latest:{saved.documents / 'letters'}", "--to", target)
    assert len(list(target.iterdir())) == 5
    assert "/note" in saved.run("ls", "latest", saved.documents).out
    assert "/thing" in saved.run("ls", "latest").out
    assert saved.run("cat", "latest", saved.documents / "note", status=None).status == 0
    done = saved.run("ls", "latest:/no/such/place", status=1)
    assert "no snapshot holds /no/such/place" in done.err


def test_include_and_exclude(saved: Account) -> None:
    target = saved.root / "target"
    saved.run("restore", "latest", "--to", target, "--include", "letter-*", "--exclude", "letter-3*")
    names = sorted(path.name for path in target.rglob("*") if path.is_file())
    assert names == ["letter-0.txt", "letter-1.txt", "letter-2.txt", "letter-4.txt"]


@pytest.mark.parametrize("option", ["--include", "--exclude"])
def test_a_bad_pattern_is_told_before_anything_is_opened(account: Account, option: str) -> None:
    wrong = {"BACKSTAY_PASSWORD": "wrong"}
    done = account.run("restore", "latest", "--to", "x", option, "a[", status=2, env=wrong)  # there is no repository
    assert "bad pattern a[" in done.err
    account.run("backup", account.documents)
    assert account.run("restore", "latest", "--to", "x", option, "a[", status=2, env=wrong).err == done.err


def test_in_place(saved: Account) -> None:
    (saved.documents / "note").unlink()
    (saved.documents / "letters/letter-1.txt").write_text("changed\n")
    saved.run("restore", f"latest:{saved.documents}", "--in-place", status=17)
    saved.run("restore", f"latest:{saved.documents}", "--in-place", "--conflict", "skip")
    assert (saved.documents / "note").read_text() == "a note\n"
    assert (saved.documents / "letters/letter-1.txt").read_text() == "changed\n"
    (saved.documents / "note").unlink()
    saved.run("restore", f"latest:{saved.documents / 'note'}", "--in-place")
    assert (saved.documents / "note").read_text() == "a note\n"


@pytest.mark.parametrize("conflict", ["overwrite", "rename"])
def test_conflicts(saved: Account, conflict: str) -> None:
    target = saved.root / "target"
    saved.run("restore", "latest", "--to", target)
    note = inside(target, saved.documents) / "note"
    note.write_text("mine\n")
    done = saved.run("restore", "latest", "--to", target, "--conflict", conflict, "--verify")
    assert note.read_text() == "a note\n"
    aside = [path for path in note.parent.iterdir() if path.is_file() and path.read_text() == "mine\n"]
    assert len(aside) == (conflict == "rename")
    assert "read back and equal" in done.out


def test_dry_run(saved: Account) -> None:
    target = saved.root / "target"
    done = saved.run("restore", "latest", "--to", target, "--dry-run")
    assert "6 files" in done.out
    assert not target.exists()


def test_a_dry_run_tells_what_could_not_be_restored(saved: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    target = saved.root / "target"
    saved.run("restore", "latest", "--to", target)

    def closed(fd: int, name: bytes, *, writing: bool) -> tuple[int, int | None]:
        if name == b"letters":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_directory(fd, name, writing=writing)

    monkeypatch.setattr(target_directory, "open_directory", closed)
    argv = ("restore", "latest", "--to", target, "--conflict", "overwrite")
    told = [saved.run(*argv, *more, status=1).err for more in ((), ("--dry-run",))]
    assert f"would not be restored: {saved.documents}/letters: cannot open directory" in told[1]
    assert f"not restored: {saved.documents}/letters: cannot open directory" in told[0]


def test_delete(saved: Account) -> None:
    target = saved.root / "target"
    saved.run("restore", "latest", "--to", target)
    (inside(target, saved.documents) / "stranger").touch()
    saved.run("restore", "latest", "--to", target, "--delete")
    assert not (inside(target, saved.documents) / "stranger").exists()


def test_doubled_slashes_in_a_path_change_neither_what_is_deleted_nor_what_is_chosen(saved: Account) -> None:
    target = saved.root / "target"
    (target / "letters").mkdir(parents=True)
    (target / "letters" / "stranger").touch()
    doubled = f"latest:{saved.documents.parent}//{saved.documents.name}/"
    saved.run("restore", doubled, "--to", target, "--delete", "--exclude", saved.documents / "note")
    assert sorted(path.name for path in (target / "letters").iterdir()) == [f"letter-{n}.txt" for n in range(5)]
    assert not (target / "note").exists()


@pytest.mark.parametrize("address", ["s3://bucket/place", "file:///place", "PostgreSQL://user@host/db"])
def test_an_address_of_something_else_is_taken_for_no_directory(
    saved: Account, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(saved.root)
    told = saved.run("restore", "latest", "--to", address, status=2)
    assert f"{address.partition(':')[0]}: is neither a directory nor a database" in told.err
    assert not (saved.root / f"{address.partition(':')[0]}:").exists()


@pytest.mark.parametrize("direct", [(), ("--direct",)])
def test_delete_spares_key_files(saved: Account, direct: tuple[str, ...]) -> None:
    key_file = saved.key_file.read_bytes()
    saved.key_file.unlink()
    saved.run("backup", saved.root, env={"BACKSTAY_PASSWORD": key_file.decode()})
    saved.key_file.write_bytes(key_file)
    (saved.key_file.parent.parent / "stranger").touch()
    saved.run("restore", f"latest:{saved.root}", "--in-place", *direct, "--conflict", "overwrite", "--delete")
    assert saved.key_file.exists()
    assert not (saved.key_file.parent.parent / "stranger").exists()


def test_cat_gives_the_bytes(account: Account) -> None:
    data = bytes(range(256)) * 1000
    (account.documents / "binary").write_bytes(data)
    account.run("backup", account.documents)
    for argv in (("latest", account.documents / "binary"), (f"latest:{account.documents}/binary",)):
        out, err = account.program("cat", *argv).communicate(timeout=30)
        assert out == data, err
    out, _ = account.program("cat", "latest", "binary", cwd=account.documents).communicate(timeout=30)
    assert out == data
    account.run("cat", "latest", account.documents, status=2)


def test_a_database_is_not_put_into_the_repository(account: Account) -> None:
    file, repository = account.root / "app.db", account.repository
    with closing(sqlite3.connect(file)) as session, session:
        session.execute("create table t(a)")
    account.run("backup", "--source", f"sqlite:{file}")
    (account.root / "link").symlink_to(repository)
    before = (repository / "repo.json").read_bytes()
    for place in (repository / "repo.json", account.root / "link/repo.json", repository / "packs/new.db"):
        for more in ((), ("--dry-run",)):
            account.run("restore", "latest", "--to", f"sqlite:{place}", "--conflict", "overwrite", *more, status=2)
    assert (repository / "repo.json").read_bytes() == before
    assert not (repository / "packs/new.db").exists()
    account.run("restore", "latest", "--to", f"sqlite:{account.root / 'new.db'}")


def test_the_default_repository_is_found_again_by_a_new_process(saved: Account) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = saved.program("list", stderr=subprocess.STDOUT)
    out, _ = run.communicate(timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0
    assert b"docs" in out
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
