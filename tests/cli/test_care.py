"""verify, prune, delete, gc, repair."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from backstay.cli.care import _part
from backstay.errors import InvalidRequest
from backstay.operations.trials import benchmark
from tests.cli.conftest import Account


def test_read_data_with_and_without_a_value(saved: Account) -> None:
    everything = saved.json("verify", "--read-data")
    assert everything["packs_read"] == everything["packs"] > 0
    assert saved.json("verify")["packs_read"] == 0
    assert 0 < saved.json("verify", "--read-data=1%")["packs_read"] < everything["packs"] + 1
    one = saved.json("verify", "latest", "--read-data", "--check", "integrity", "--check", "completeness")
    assert [result["check"] for result in one["results"]] == ["integrity", "completeness"]


def test_verify_counts_like_people(saved: Account) -> None:
    done = saved.run("verify", "--read-data", "--min-bytes", "1", "--rehearse", saved.root / "scratch")
    assert "2 key slots, 1 epoch, 1 snapshot, with signatures" in done.out
    assert "1 index segment, 2 packs, 2 of 2 packs read" in done.out
    assert "1 snapshot, 6 files" in done.out
    assert "1 snapshot, at least 1 byte each" in done.out
    assert "6 files restored" in done.out


def test_size_check(saved: Account) -> None:
    saved.run("verify", "--min-bytes", "10")
    report = saved.json("verify", "--min-bytes", "1GiB", status=13)
    assert [finding["check"] for finding in report["findings"]] == ["size"]


def test_rehearsal(saved: Account) -> None:
    report = saved.json("verify", "--rehearse", saved.root / "scratch")
    assert report["results"][-1]["check"] == "rehearsal"
    assert list((saved.root / "scratch").iterdir()) == []


def test_prune_tells_why(account: Account) -> None:
    for day in range(1, 7):
        account.run(
            "backup", account.documents, "--time", f"2026-03-0{day}T12:00:00Z", *(["--tag", "keep"] if day == 2 else [])
        )
    rules = ("--keep-daily", 2, "--keep-tag", "keep")
    shown = account.run("prune", *rules, "--dry-run").out
    assert "daily 2026-03-06 (1 of 2), newest of its source" in shown
    assert "tag keep" in shown
    assert "3 snapshots would be dropped, 3 would be kept" in shown
    assert len(account.json("list")) == 6
    done = account.json("prune", *rules)
    assert (len(done["keep"]), len(done["drop"])) == (3, 3)
    assert len(account.json("list")) == 3
    account.run("prune", "--keep-within", "1y")
    assert len(account.json("list")) == 3


def test_gc_frees_what_was_deleted(account: Account) -> None:
    (account.documents / "random").write_bytes(os.urandom(1 << 20))
    account.run("backup", account.documents)
    (account.documents / "random").unlink()
    account.run("backup", account.documents)
    first = account.json("list")[0]["id"]
    account.run("delete", first)
    planned = account.json("gc", "--dry-run")
    assert planned["bytes_to_free"] > 1 << 20
    done = account.run("gc")
    assert "freed 1.0 MiB" in done.out
    assert "nothing to free" in account.run("gc").out
    account.run("verify", "--read-data")


def test_every_repository_keeps_a_reserve(saved: Account) -> None:
    file = saved.repository / "reserve"
    assert file.stat().st_size == 1 << 20
    file.unlink()
    saved.run("gc", "--dry-run")
    assert not file.exists()
    saved.run("gc")
    assert file.stat().st_size == 1 << 20
    saved.run("verify", "--read-data")
    assert "gone" not in saved.run("repair", "index").out


@pytest.mark.parametrize("left", [None, b"", "cut", "longer", "changed"])
def test_harm_to_the_reserve_is_told_and_mended(saved: Account, left: bytes | str | None) -> None:
    file = saved.repository / "reserve"
    whole = file.read_bytes()
    file.unlink()
    if left is not None:
        harmed = {"cut": whole[:-1], "longer": whole + b"x", "changed": bytes([whole[0] ^ 1]) + whole[1:]}
        file.write_bytes(harmed[left] if isinstance(left, str) else left)
    assert "backstay gc" in saved.run("verify", status=13).err
    saved.run("gc")
    saved.run("verify", "--read-data")


def test_gc_beside_the_first_backup(account: Account) -> None:
    account.run("init")
    from backstay.repository.repository import Repository
    from backstay.storage.local import LocalStorage
    from backstay.trust.secrets import Secret

    secret = Secret.parse_keyfile(account.key_file.read_text())
    with Repository.open(LocalStorage(account.repository), secret) as repository, repository.begin_session():
        (account.repository / "packs/00").mkdir(parents=True, exist_ok=True)
        (account.repository / "packs/00" / ("00" * 32)).write_bytes(b"a pack that is not indexed yet")
        assert account.json("gc")["waiting_for"]
    account.run("gc", status=16)


def test_repair(account: Account, flip: Callable[[Path], None]) -> None:
    (account.documents / "random").write_bytes(os.urandom(200_000))
    account.run("backup", account.documents)
    for segment in (account.repository / "index").iterdir():
        segment.unlink()
    account.run("verify", status=13)
    assert account.json("repair", "index")["packs_indexed"] > 0
    account.run("verify", "--read-data")
    for pack in (account.repository / "packs").rglob("*"):
        if pack.is_file():
            flip(pack)
    account.run("repair", "packs")
    done = account.run("repair", "snapshots")
    assert "lost:" in done.err
    account.run("verify", "--read-data")
    assert "nothing needed repair" in account.run("repair", "snapshots").out


def test_a_cache_that_cannot_be_used(saved: Account) -> None:
    blocked = saved.root / "file"
    blocked.touch()
    env = {"BACKSTAY_CACHE_DIR": str(blocked / "cache")}
    for argv in (("backup", saved.documents), ("ls", "latest"), ("verify",)):
        done = saved.run(*argv, env=env)
        assert done.err.startswith("warning: working without a cache")


def test_a_damaged_cache(saved: Account) -> None:
    for path in (saved.root / "home/.cache/backstay").rglob("*.mdb"):
        path.write_bytes(b"\xff" * 10_000)
    saved.run("ls", "latest")
    saved.run("backup", saved.documents)


def test_benchmark(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "run_benchmark", partial(benchmark.run_benchmark, files=20))
    result = account.json("benchmark", account.root, "--size", "1MiB")
    assert {run["name"] for run in result["runs"]} >= {"backup", "restore"}
    assert "One thread" in account.run("benchmark", account.root, "--size", "1MiB").out


def test_parts() -> None:
    assert (_part("100%"), _part("2.5%"), _part("50")) == (1.0, 0.025, 0.5)
    for text in ("101%", "-1", "nan", "half"):
        with pytest.raises(InvalidRequest):
            _part(text)
