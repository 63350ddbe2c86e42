"""Whole repositories in an object store, through the command line."""

from __future__ import annotations

import filecmp
import random
from pathlib import Path

import pytest

from backstay.errors import StorageUnfit
from backstay.repository.repository import Repository
from backstay.storage.backend import Buffer, Capabilities
from backstay.storage.memory import MemoryStorage
from backstay.storage.registry import open_backend
from backstay.trust.secrets import Secret
from tests.cli.conftest import Account
from tests.cloud.servers import BUCKET


def same(one: Path, other: Path) -> bool:
    """Whether two trees hold the same files with the same bytes."""
    names = sorted(path.relative_to(one) for path in one.rglob("*"))
    if names != sorted(path.relative_to(other) for path in other.rglob("*")):
        return False
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names if (one / name).is_file())


def test_a_repository_goes_through_its_whole_life(account: Account, address: str) -> None:
    account.run("-r", address, "init")
    first = account.json("-r", address, "backup", account.documents)
    (account.documents / "large.bin").write_bytes(random.Random(2).randbytes(3 << 20))
    second = account.json("-r", address, "backup", account.documents)
    assert (second["parent"], second["files_changed"]) == (first["snapshot"], 1)

    account.run("-r", address, "restore", "latest", "--to", account.root / "out", "--verify")
    assert same(account.documents, account.root / f"out{account.documents}")
    assert account.json("-r", address, "verify", "--read-data")["ok"]

    with open_backend(address) as backend:
        before = sum(info.size for info in backend.list("packs/"))
        account.run("-r", address, "prune", "--keep-last", "1")
        account.run("-r", address, "gc")
        after = sum(info.size for info in backend.list("packs/"))
        assert not [*backend.list("probe/")]
    assert before - after > 2 << 20, "gc freed nothing"
    assert [snapshot["id"] for snapshot in account.json("-r", address, "list")] == [second["snapshot"]]
    assert account.json("-r", address, "verify", "--read-data")["ok"]


def test_a_store_that_overwrites_gets_no_repository(account: Account, rclone: str) -> None:
    address = f"s3://{BUCKET}/unfit?endpoint={rclone}"
    failed = account.run("-r", address, "init", status=15)
    assert "cannot hold a repository" in failed.err
    assert "writers at the same time lose data" in failed.err
    assert "check-storage" in failed.err
    with open_backend(address) as backend:
        assert not [*backend.list()], "something was left"


def test_a_bucket_that_is_missing_is_told_as_such(account: Account, weed: str) -> None:
    address = f"s3://no-such-bucket/x?endpoint={weed}"
    assert "no-such-bucket is not there" in account.run("-r", address, "list", status=10).err
    assert "no-such-bucket is not there" in account.run("-r", address, "init", status=15).err
    assert "no-such-bucket is not there" in account.run("-r", address, "init", status=15).err, "init made the bucket"


def test_wrong_credentials_are_no_missing_repository(
    account: Account, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.run("-r", address, "init")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-here")
    for command in (["list"], ["backup", account.documents], ["gc"], ["verify"], ["init"]):
        failed = account.run("-r", address, *command, status=15)
        assert "403 SignatureDoesNotMatch" in failed.err
        assert "wrong-secret-here" not in failed.err


class _Overwriting(MemoryStorage):
    """Keeps its promise until it is told not to."""

    capabilities = Capabilities()
    overwrites = False

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=overwrite or self.overwrites)


def test_a_store_that_stops_deciding_races_is_not_written_to() -> None:
    backend = _Overwriting()
    with Repository.create(backend, Secret.new_keyfile()) as repository:
        backend.overwrites = True
        before = {info.name for info in backend.list()}
        with pytest.raises(StorageUnfit):
            repository.begin_session()
        assert {info.name for info in backend.list()} == before
