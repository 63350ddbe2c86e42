"""`tier`, `export` and `import` as a user calls them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.cli.main import run
from backstay.testing import FakeClock
from tests.cli.conftest import Account


@pytest.fixture
def cold(saved: Account) -> Path:
    """A cold tier that holds all data."""
    (saved.documents / "large").write_bytes(random.Random(1).randbytes(300_000))
    saved.backup()
    place = saved.root / "drawer"
    saved.run("tier", "set", "--cold", place)
    saved.run("tier", "move")
    return place


def test_a_tier_is_set_shown_filled_and_brought_back(saved: Account) -> None:
    assert "no cold tier" in saved.run("tier", "show").out
    done = saved.run("tier", "set", "--cold", saved.root / "drawer", "--after", "30d")
    assert "when they are 30 d 00 h old" in done.out
    plan = saved.json("tier", "move", "--dry-run")
    assert (plan["dry_run"], plan["packs"], plan["waiting"]) == (True, 0, 1)
    saved.run("tier", "set", "--cold", saved.root / "drawer")
    shown = saved.json("tier", "show")
    assert shown["cold"] == str(saved.root / "drawer")
    assert (shown["attached"], shown["after_s"], shown["cold_packs"]) == (True, 0, 0)
    assert "1 pack with" in saved.run("tier", "move", "--dry-run").out
    assert saved.json("tier", "move")["packs"] == 1
    assert saved.json("tier", "move")["packs"] == 0
    assert saved.json("tier", "show")["cold_packs"] == 1
    saved.run("tier", "remove", status=2)
    assert saved.json("tier", "recall", "--dry-run")["packs"] == 1
    assert "1 pack with" in saved.run("tier", "recall").out
    assert saved.json("tier", "remove") == {"removed": str(saved.root / "drawer")}
    assert saved.json("tier", "show")["cold"] is None
    saved.run("restore", "latest", "--to", saved.root / "out")


@pytest.mark.usefixtures("cold")
def test_limits_hold_for_the_cold_tier_too(saved: Account) -> None:
    clock = FakeClock()
    for seed in (2, 3):
        (saved.documents / "large").write_bytes(random.Random(seed).randbytes(300_000))
        saved.backup()
    assert run(["tier", "move", "--limit-upload", "10KiB"], saved.environ, clock=clock) == 0
    assert sum(clock.slept) > 25  # the second of two packs had to wait for the first


def test_the_repository_under_another_name_does_not_become_its_cold_tier(saved: Account) -> None:
    link = saved.root / "link"
    link.symlink_to(saved.repository)
    for same in (f"file:{saved.repository}", link):
        assert "cannot be a cold tier" in saved.run("tier", "set", "--cold", same, status=2).err
    assert "no cold tier" in saved.run("tier", "show").out


def test_commands_need_a_tier(saved: Account) -> None:
    for command in ("move", "recall", "remove"):
        assert "has no cold tier" in saved.run("tier", command, status=2).err
    saved.run("tier", "set", status=2)
    saved.run("tier", "set", "--cold", "", status=2)
    saved.run("tier", "set", "--cold", "ftp://me:secret@host/x", status=2)
    saved.run("tier", "set", "--cold", saved.repository, status=2)
    saved.run("tier", "set", "--cold", saved.root / "x", "--after", "soon", status=2)


def test_a_restore_asks_for_the_disk_before_it_writes(saved: Account, cold: Path) -> None:
    cold.rename(saved.root / "away")
    out = saved.root / "out"
    plan = saved.json("restore", "latest", "--to", out, "--dry-run")
    assert plan["cold"]["attached"] is False
    assert plan["cold"]["packs"] == 2
    assert str(cold) in saved.run("restore", "latest", "--to", out, "--dry-run").out
    done = saved.run("restore", "latest", "--to", out, status=15)
    assert f"the cold tier at {cold} is not attached" in done.err
    assert "2 packs with" in done.err
    assert not out.exists()
    problem = saved.json("verify", "--read-data", status=15)
    assert problem["code"] == "TierNotAttached"
    assert "not attached" in saved.run("verify").err
    saved.run("gc")
    saved.backup()
    assert "1 packs with" in saved.run("cat", "latest", saved.documents / "large", status=15).err
    assert "2 packs with" in saved.run("copy", "--to", saved.root / "copy", status=15).err
    assert not (saved.root / "copy" / "repo.json").exists()
    (saved.root / "away").rename(cold)
    saved.run("restore", "latest", "--to", out)
    saved.run("verify", "--read-data")
    assert (out / str(saved.documents / "large").lstrip("/")).read_bytes() == (saved.documents / "large").read_bytes()


def test_healing_from_a_copy_leaves_cold_packs_where_they_are(saved: Account, cold: Path) -> None:
    copy = saved.root / "copy"
    saved.run("copy", "--to", copy)
    hot = saved.repository / "packs"
    assert "nothing needed repair" in saved.run("repair", "packs", "--from-copy", copy).out
    assert not [path for path in hot.rglob("*") if path.is_file()]
    cold.rename(saved.root / "away")
    done = saved.json("repair", "packs", "--from-copy", copy)
    (finding,) = done["findings"]
    assert (finding["severity"], finding["subject"], done["changed"]) == ("warning", str(cold), False)
    assert "not attached: 2 packs" in finding["message"]
    (saved.root / "away").rename(cold)
    lost = next(path for path in (cold / "packs").rglob("*") if path.is_file())
    lost.unlink()
    assert saved.json("repair", "packs", "--from-copy", copy)["objects_healed"] == [str(lost.relative_to(cold))]
    saved.run("verify", "--read-data")


def test_gc_defers_what_lies_on_a_disk_that_is_away(saved: Account, cold: Path) -> None:
    for path in saved.documents.rglob("*"):
        if path.is_file():
            path.write_bytes(random.Random(str(path)).randbytes(5000))
    saved.backup()
    for snapshot in saved.json("list")[:-1]:
        saved.run("delete", snapshot["id"])
    cold.rename(saved.root / "away")
    found = saved.json("gc")
    assert found["deferred_packs"] == 2
    assert "a gc that finds it attached deletes them" in saved.run("gc").err
    (saved.root / "away").rename(cold)
    assert saved.json("gc")["deferred_packs"] == 0
    assert not [path for path in (cold / "packs").rglob("*") if path.is_file()]
    saved.run("verify", "--read-data")


def test_a_disk_with_a_new_address_is_told_with_set(saved: Account, cold: Path) -> None:
    moved = saved.root / "elsewhere"
    cold.rename(moved)
    saved.run("restore", "latest", "--to", saved.root / "out", status=15)
    saved.run("tier", "set", "--cold", saved.root / "empty", status=2)
    assert not (saved.root / "empty").exists()
    saved.run("tier", "set", "--cold", moved)
    saved.run("restore", "latest", "--to", saved.root / "out")


def test_snapshots_go_to_a_medium_and_come_back(saved: Account) -> None:
    saved.backup("--name", "second")
    medium = saved.root / "medium"
    first, second = (snapshot["id"] for snapshot in saved.json("list"))
    assert saved.json("export", "--to", medium, first)["exported"] == [first]
    assert "1 snapshot with" in saved.run("export", "--to", medium).out
    assert saved.json("export", "--to", medium)["already"] == [first, second]
    key = ("--password-file", saved.key_file)
    saved.run("-r", medium, *key, "verify", "--read-data")
    saved.run("-r", medium, *key, "restore", "latest", "--to", saved.root / "out")

    assert "nothing to import" in saved.run("import", "--from", medium).out
    saved.run("delete", first)
    saved.run("gc")
    ((old, new),) = saved.json("import", "--from", medium, first)["imported"]
    assert old == first
    assert {snapshot["id"] for snapshot in saved.json("list")} == {second, new}
    saved.run("verify", "--read-data")


def test_a_medium_may_be_named_by_a_file_address_and_by_no_other(
    saved: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.root)
    medium = saved.root / "me dium"
    told = saved.run("export", "--to", f"file://{saved.root}/me%20dium").out
    assert f"backstay -r '{medium}' verify" in told
    assert (medium / "repo.json").exists()
    assert "nothing to import" in saved.run("import", "--from", f"file:{medium}").out
    for elsewhere in ("s3://bucket/place", "sftp:host", ""):
        assert "no directory" in saved.run("export", "--to", elsewhere, status=2).err
        assert "no directory" in saved.run("import", "--from", elsewhere, status=2).err
    saved.run("export", "--to", "./odd:name")
    assert (saved.root / "odd:name/repo.json").exists()


def test_an_import_from_elsewhere_says_what_to_use(saved: Account) -> None:
    other = saved.root / "other"
    password = {"BACKSTAY_PASSWORD": "correct horse"}
    saved.run("init", other, env=password)
    assert "backstay copy --to" in saved.run("import", "--from", other, status=2).err
    saved.run("import", "--from", saved.root / "nothing", status=10)
    saved.run("export", "--to", other, status=2)
