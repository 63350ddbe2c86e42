"""Whoever meets damage in snapshots and listings is told which command helps, and it does help."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backstay.storage.filesystem_seam import Filesystem
from tests.cli.conftest import Account

REPAIR = "`backstay repair snapshots`"


@pytest.fixture
def without_listings(saved: Account, flip: Callable[[Path], None]) -> Account:
    """An account whose listings cannot be read any more."""
    for pack in (saved.repository / "meta").rglob("*"):
        if pack.is_file():
            flip(pack)
    return saved


@pytest.mark.parametrize("argv", [("ls", "latest"), ("gc",)])
def test_a_listing_that_cannot_be_read(without_listings: Account, argv: tuple[str, ...]) -> None:
    problem = without_listings.json(*argv, status=13)
    assert REPAIR in problem["hint"]
    assert "meta/" in problem["cause"]


@pytest.mark.parametrize("argv", [("ls", "latest:/", "-R"), ("find", "note")])
def test_listings_that_cannot_be_read_are_passed_over_with_a_word(
    without_listings: Account, argv: tuple[str, ...]
) -> None:
    told = without_listings.run(*argv, status=13).err
    assert REPAIR in told
    assert "meta/" in told


def test_a_restore_names_the_directories_that_it_cannot_look_into(without_listings: Account) -> None:
    (failed,) = without_listings.json("restore", "latest", "--to", "x", status=13)["errors"]
    assert (failed["path"], failed["code"]) == ("/", "CorruptedBackup")
    assert "meta/" in failed["message"]
    (without_listings.root / "place").mkdir()
    argv = ("restore", "latest", "--to", without_listings.root / "place", "--dry-run")
    assert without_listings.json(*argv, status=13)["damaged_paths"] == ["/"]


def test_verify_names_the_command_for_each_damaged_pack_and_snapshot(without_listings: Account) -> None:
    findings = without_listings.json("verify", "--read-data", status=13)["findings"]
    assert {finding["subject"].split("/")[0].split(" ")[0] for finding in findings} == {"meta", "snapshot"}
    assert all(REPAIR in finding["hint"] for finding in findings)


def test_a_snapshot_that_cannot_be_read(saved: Account, flip: Callable[[Path], None]) -> None:
    saved.backup()
    (first, second) = sorted((saved.repository / "snapshots").iterdir())
    flip(second)
    assert REPAIR in saved.json("info", "latest", status=13)["hint"]
    assert REPAIR in saved.json("gc", status=13)["hint"]
    assert all(REPAIR in finding["hint"] for finding in saved.json("verify", status=13)["findings"])
    flip(first)
    assert REPAIR in saved.json("info", "latest", status=13)["hint"]
    saved.run("repair", "snapshots")
    saved.run("verify", "--read-data")


def test_a_name_that_only_a_damaged_snapshot_may_have(saved: Account, flip: Callable[[Path], None]) -> None:
    saved.backup("--name", "unique")
    assert saved.json("info", "latest:other", status=1)["code"] == "NotFound"
    flip(max((saved.repository / "snapshots").iterdir()))
    problem = saved.json("restore", "latest:unique", "--to", "x", status=13)
    assert "snapshots/" in problem["cause"]
    assert REPAIR in problem["hint"]


@pytest.mark.parametrize(
    "argv",
    [
        ("restore", "latest", "--to", "x"),
        ("cat", "latest:/"),
        ("ls", "latest"),
        ("diff", "latest", "latest"),
        ("find", "note", "--snapshot", "latest"),
        ("export", "--to", "medium", "latest"),
    ],
)
def test_a_newest_snapshot_that_the_disk_does_not_give_is_told_with_the_newest_that_it_gives(
    saved: Account, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    saved.backup()
    readable, bad = sorted(path.name for path in (saved.repository / "snapshots").iterdir())
    without(monkeypatch, bad)
    told = saved.run(*argv, status=13).err
    assert f"snapshots/{bad} cannot be read" in told
    assert f"the newest that can be read is {readable} " in told
    saved.run("restore", readable, "--to", saved.root / "out")
    assert [one["id"] for one in saved.json("list", status=13)] == [readable]


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A disk that does not give the files of a name."""
    real = Filesystem.open

    def opened(self: Filesystem, path: str, flags: int, mode: int = 0o600) -> int:
        if path.endswith(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, path, flags, mode)

    monkeypatch.setattr(Filesystem, "open", opened)
