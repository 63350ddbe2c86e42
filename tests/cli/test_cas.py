"""`cas` as a user calls it."""

from __future__ import annotations

import os
from hashlib import sha256

import pytest

from tests.cli.conftest import Account


def test_values_go_in_and_come_out(saved: Account) -> None:
    small, large = saved.documents / "note", saved.root / "large"
    large.write_bytes(bytes(range(256)) * 2000)
    keys = [made["id"] for made in saved.json("cas", "store", small, large, "--metadata", '{"k": 1}')]
    assert keys == [f"sha256:{sha256(path.read_bytes()).hexdigest()}" for path in (small, large)]
    assert saved.run("cas", "store", small).out.strip() == keys[0]
    assert saved.json("cas", "list") == sorted(keys)
    assert saved.run("cas", "list").out.split() == sorted(keys)
    assert saved.run("cas", "retrieve", keys[0]).out == "a note\n"
    assert saved.json("cas", "retrieve", keys[1], "--to", saved.root / "again") == {"id": keys[1], "bytes": 512_000}
    assert (saved.root / "again").read_bytes() == large.read_bytes()
    saved.run("cas", "retrieve", keys[1], "--to", saved.root / "again", status=17)
    assert saved.json("cas", "info", keys[0])["metadata"] == {"k": 1}
    assert "500 KiB" in saved.run("cas", "info", keys[1]).out
    assert saved.json("cas", "fold")["values"] == 2
    assert "nothing to fold" in saved.run("cas", "fold").out
    assert saved.json("verify")["ok"]
    assert len(saved.json("list")) == 1  # snapshots that keep values are none that people made


def test_json_values_have_one_form(saved: Account) -> None:
    (saved.root / "value.json").write_text('{ "b": 1.0, "a": [] }')
    key = saved.json("cas", "store", "--as-json", saved.root / "value.json")[0]["id"]
    assert saved.run("cas", "retrieve", key).out == '{"a":[],"b":1}'
    (saved.root / "value.json").write_text('{ "b": ')
    saved.run("cas", "store", "--as-json", saved.root / "value.json", status=2)


def test_what_is_absent_is_told(saved: Account) -> None:
    key = saved.json("cas", "store", saved.documents / "note")[0]["id"]
    assert saved.json("cas", "exists", key) == {"id": key, "exists": True}
    absent = "0" * 64
    assert saved.json("cas", "exists", absent, status=1)["exists"] is False
    assert saved.json("cas", "delete", key, absent) == {"deleted": [key], "absent": [absent]}
    saved.run("cas", "retrieve", key, status=1)
    saved.run("cas", "info", "nonsense", status=2)
    saved.run("cas", "store", saved.root / "nothing", status=1)
    saved.run("cas", "store", saved.documents / "note", "--base", absent, status=1)
    for metadata in ("[1]", "null"):
        refused = saved.run("cas", "store", saved.documents / "note", "--metadata", metadata, status=2)
        assert "the metadata is no JSON object" in refused.err
    saved.run("--json", "cas", "retrieve", key, status=2)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"a": 1, "a": 1}]', '{"a": "caf\udce9"}'])
def test_json_that_could_be_read_in_two_ways_is_refused(saved: Account, text: str) -> None:
    (saved.root / "value.json").write_bytes(os.fsencode(text))
    told = saved.run("cas", "store", "--as-json", saved.root / "value.json", status=2).err
    assert "is no JSON value" in told
    assert "retrieve" not in told
    saved.run("cas", "store", saved.documents / "note", "--metadata", text, status=2)
    assert saved.json("cas", "list") == []
