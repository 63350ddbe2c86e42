"""`hold` as a user calls it, and what it refuses to others."""

from __future__ import annotations

from tests.cli.conftest import Account


def test_a_held_snapshot_is_not_deleted(saved: Account) -> None:
    held = saved.json("list")[0]["id"]
    assert "no snapshot is held" in saved.run("hold", "list").out
    done = saved.json("hold", "set", "latest", "--reason", "case 7")
    assert done == {"snapshot": held, "changed": True, "objects": 0, "stores": 0}
    assert "held already" in saved.run("hold", "set", held).out
    refused = saved.run("delete", held, status=16)
    assert "case 7" in refused.err
    assert f"hold clear {held}" in refused.err
    assert saved.json("delete", held, status=16)["code"] == "HoldViolation"
    (listed,) = saved.json("hold", "list")
    assert (listed["snapshot"], listed["reason"]) == (held, "case 7")
    assert "case 7" in saved.run("hold", "list").out


def test_of_several_none_is_deleted_if_one_is_held(saved: Account) -> None:
    saved.backup()
    first, second = (snapshot["id"] for snapshot in saved.json("list"))
    saved.run("hold", "set", second)
    saved.run("delete", first, second, status=16)
    assert len(saved.json("list")) == 2


def test_prune_keeps_what_is_held(saved: Account) -> None:
    first = saved.json("list")[0]["id"]
    saved.run("hold", "set", first)
    saved.backup("--name", "docs")
    assert "it is held" in saved.run("prune", "--keep-last", "1").out
    assert first in {snapshot["id"] for snapshot in saved.json("list")}
    saved.run("hold", "clear", first, "--reason", "closed")
    assert "was not held" in saved.run("hold", "clear", first).out
    assert saved.json("hold", "list") == []
    saved.run("prune", "--keep-last", "1")
    saved.run("gc")
    assert first not in {snapshot["id"] for snapshot in saved.json("list")}
    assert saved.json("verify")["ok"]


def test_a_reason_that_is_no_text_is_refused(saved: Account) -> None:
    assert "is not valid UTF-8" in saved.run("hold", "set", "latest", "--reason", "\udcff", status=2).err
    assert saved.json("hold", "list") == []


def test_only_what_exists_is_held(saved: Account) -> None:
    saved.run("hold", "set", "nothing-of-that-name", status=1)
    saved.run("hold", "clear", "nothing-of-that-name", status=1)
