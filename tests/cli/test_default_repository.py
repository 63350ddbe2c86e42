"""The first backup of an account creates an encrypted repository; nothing later does."""

from __future__ import annotations

import errno
import json
import os
import pwd
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cli.conftest import Account
from tests.synced import Synced


def recovery_key(text: str) -> str:
    """The recovery key in a printed text."""
    return next(line.split()[-1] for line in text.splitlines() if "Recovery key:" in line)


def test_first_backup(account: Account) -> None:
    first = account.run("backup", account.documents)
    key = recovery_key(first.err)
    assert "Recovery key" not in first.out
    assert stat.S_IMODE(account.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(account.key_file.parent.stat().st_mode) == 0o700
    assert [path.name for path in account.key_file.parent.iterdir()] == ["default.key"]
    again = account.run("backup", account.documents)
    assert "ecovery" not in again.out + again.err
    assert len(account.json("list")) == 2
    assert key not in account.key_file.read_text()


def test_the_recovery_key_opens_wherever_a_password_does(account: Account) -> None:
    key = recovery_key(account.run("backup", account.documents).err)
    account.key_file.unlink()
    typed = account.root / "typed"
    typed.write_text(key.lower().replace("-", " ") + "\n")
    account.run("list", env={"BACKSTAY_PASSWORD": key})
    account.run("list", env={"BACKSTAY_PASSWORD_FILE": str(typed)})
    account.run("list", "--password-file", typed)
    account.run("restore", "latest", "--to", account.root / "back", env={"BACKSTAY_PASSWORD_COMMAND": f"cat '{typed}'"})


def test_recovery_key_is_never_in_json(account: Account) -> None:
    done = account.run("--json", "backup", account.documents)
    assert recovery_key(done.err) not in done.out


def test_restore_after_a_backup(saved: Account) -> None:
    saved.run("restore", "latest", "--to", saved.root / "back")
    back = saved.root / "back" / str(saved.documents).lstrip("/")
    assert (back / "letters/letter-3.txt").read_text() == (saved.documents / "letters/letter-3.txt").read_text()


def test_a_vanished_repository_is_not_replaced(saved: Account) -> None:
    saved.repository.rename(saved.root / "unmounted")
    done = saved.run("backup", saved.documents, status=10)
    assert "is gone" in done.err
    assert not saved.repository.exists()
    saved.run("init")
    saved.run("backup", saved.documents)


def test_a_first_backup_that_was_stopped_before_the_repository_existed(account: Account) -> None:
    account.run("backup", account.documents)
    account.key_file.rename(account.key_file.with_name("default.key.new"))
    account.repository.rename(account.root / "never-made")
    done = account.run("backup", account.documents)
    assert recovery_key(done.err)
    assert account.key_file.exists()


def test_a_first_backup_that_was_stopped_before_it_told_the_recovery_key(account: Account) -> None:
    account.run("backup", account.documents)
    account.key_file.rename(account.key_file.with_name("default.key.new"))
    done = account.run("backup", account.documents)
    assert account.json("list", env={"BACKSTAY_PASSWORD": recovery_key(done.err)})
    assert len(account.json("list")) == 2


@pytest.mark.crash
def test_the_only_key_is_durable_before_anything_is_sealed_with_it(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(account.root, monkeypatch)
    account.run("init")
    directory, key = (str(path.relative_to(account.root)) for path in (account.key_file.parent, account.key_file))
    repository = str(account.repository.relative_to(account.root))
    calls = [call for call in synced.calls if directory in call or repository in call]
    begin = next(number for number, call in enumerate(calls) if repository in call)
    made = calls.index(f"rename {key}.new {key}")
    assert calls[1].endswith(f" {key}.new")
    assert calls[begin - 1] == f"fsync {directory}"
    assert any(call.endswith("/repo.json") for call in calls[begin:made])
    assert calls[made + 1] == f"fsync {directory}"
    assert synced.contents[calls[0].removeprefix("fsync ")] == account.key_file.read_bytes()


def test_two_first_backups_at_once(account: Account) -> None:
    runs = [account.program("backup", account.documents) for _ in range(2)]
    told = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert sum(b"Recovery key:" in err for _, err in told) == 1
    assert len(account.json("list")) == 2


def test_a_dry_run_creates_nothing(account: Account) -> None:
    account.run("backup", account.documents, "--dry-run", status=10)
    assert not account.repository.exists()
    assert not account.key_file.exists()


def test_with_a_password_there_is_no_key_file(account: Account) -> None:
    password = {"BACKSTAY_PASSWORD": "a password of several words"}
    done = account.run("backup", account.documents, env=password)
    assert recovery_key(done.err)
    assert not account.key_file.exists()
    account.run("list", env=password)


def test_xdg_directories(account: Account) -> None:
    env = {"XDG_DATA_HOME": str(account.root / "d"), "XDG_CONFIG_HOME": str(account.root / "c"), "XDG_CACHE_HOME": ""}
    account.run("backup", account.documents, env=env)
    assert (account.root / "d/backstay/repository/repo.json").is_file()
    assert (account.root / "c/backstay/default.key").is_file()
    account.run("list", env={**env, "XDG_CONFIG_HOME": "relative/is/ignored"}, status=12)


def test_the_repository_stays_out_of_its_own_backups(account: Account) -> None:
    home = account.root / "home"
    (home / "file").write_text("x")
    account.run("backup", home)
    account.run("backup", home)
    told = account.json("ls", "latest", "-R")["entries"]
    paths = [Path(entry["path"]) for entry in told]
    assert home / "file" in paths
    assert not any(account.repository in (path, *path.parents) for path in paths)


def test_what_is_cached_stays_out_and_what_others_mark_as_a_cache_only_when_asked(account: Account) -> None:
    home = account.root / "home"
    (home / "build").mkdir()
    (home / "build/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    (home / "build/thesis").write_text("x")
    for options, is_held in (((), True), (("--exclude-caches",), False)):
        account.run("backup", home, *options)
        paths = [Path(entry["path"]) for entry in account.json("ls", "latest", "-R")["entries"]]
        assert (home / "build/thesis" in paths) == is_held
        assert home / "build/CACHEDIR.TAG" in paths
        assert home / ".cache" in paths
        assert home / ".cache/backstay" not in paths


def test_what_is_cached_of_other_repositories_stays_out_unless_it_is_named(saved: Account) -> None:
    cache = saved.root / "home/.cache/backstay"
    (cache / "other/inner").mkdir(parents=True)
    (cache / "other/inner/file").touch()
    (cache.parent / "another").touch()

    def held(*named: Path) -> list[str]:
        saved.run("backup", *named)
        below = f"{cache.parent}/"
        entries = saved.json("ls", "latest", "/", "-R")["entries"]
        return [entry["path"].removeprefix(below) for entry in entries if entry["path"].startswith(below)]

    assert held(saved.root / "home/.cache") == ["another"]
    inner = ["backstay", "backstay/other", "backstay/other/inner", "backstay/other/inner/file"]
    assert held(cache / "other") == inner
    assert held(saved.root / "home/.cache", cache / "other") == ["another", *inner]


def test_the_cache_marks_itself_as_one(saved: Account) -> None:
    tag = saved.root / "home/.cache/backstay/CACHEDIR.TAG"
    assert tag.read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


@pytest.mark.parametrize("home", ["", "relative"])
def test_whoever_has_no_home_works_without_a_cache(
    account: Account, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """As in a container whose user the system does not know."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    account.environ["HOME"] = home
    monkeypatch.chdir(account.root)
    for command in (("backup", account.documents), ("list",)):
        refused = account.run(*command, status=2).err
        assert "there is no home directory" in refused
        assert "set HOME, or BACKSTAY_REPO" in refused
    account.environ |= {"BACKSTAY_REPO": str(account.root / "repo"), "BACKSTAY_PASSWORD": "pw"}
    account.run("init")
    done = account.run("backup", account.documents)
    assert "warning: working without a cache: there is no home directory" in done.err
    account.run("restore", "latest", "--to", account.root / "back")
    checks = account.run("--json", "doctor", status=None).out
    assert {check["state"] for check in json.loads(checks)["checks"] if check["name"] == "cache"} == {"bad"}


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 14), (errno.EDQUOT, 14), (errno.EROFS, 1)])
def test_a_key_file_that_cannot_be_written_is_told_by_its_reason(
    account: Account, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("backstay.control.opening.key_files.mkstemp", refuse)
    problem = account.json("backup", account.documents, status=status)
    assert problem["title"].startswith("cannot write the key file")
    assert problem["cause"] == os.strerror(number)
    monkeypatch.undo()
    account.run("backup", account.documents)


def test_a_home_where_nothing_can_be_written(account: Account) -> None:
    (account.root / "home/.config").touch()
    problem = account.json("backup", account.documents, status=1)
    assert "set HOME" in problem["hint"]
    assert not account.repository.exists()


def test_as_a_program(account: Account) -> None:
    run = account.program("backup", account.documents)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert b"snapshot" in out


def test_an_empty_address_does_not_mean_the_default_repository(account: Account) -> None:
    account.environ["BACKSTAY_REPO"] = ""
    told = account.json("backup", account.documents, status=2)
    assert told["cause"] == "BACKSTAY_REPO is set, and has no characters"
    assert not account.repository.exists()
    account.run("list", "-r", account.root / "elsewhere", status=10)  # what is named counts
