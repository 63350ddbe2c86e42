"""`backstay check-storage` finds what a store can do, and leaves nothing behind."""

from __future__ import annotations

import pytest

from backstay.operations.check_storage import check_storage
from backstay.storage.backend import Buffer, ObjectInfo
from backstay.storage.memory import MemoryStorage
from backstay.storage.registry import open_backend
from backstay.testing import FakeClock
from tests.cli.conftest import Account
from tests.cloud.servers import BUCKET


def broken(document: dict[str, list[dict[str, object]]]) -> set[object]:
    """The names of the points that were found wanting."""
    return {point["name"] for point in document["points"] if not point["ok"]}


def test_a_real_object_store_is_usable(account: Account, address: str) -> None:
    document = account.json("check-storage", address, "--size", "4MiB")
    assert (document["verdict"], broken(document)) == ("usable", set())
    assert all(value > 0 for value in document["figures"].values())
    with open_backend(address) as backend:
        assert not [*backend.list()]


def test_a_bad_object_store_is_told_apart(account: Account, rclone: str) -> None:
    address = f"s3://{BUCKET}/checked?endpoint={rclone}"
    document = account.json("check-storage", address, status=15)
    assert document["verdict"] == "unusable"
    assert broken(document) == {
        "gives exact parts of objects",
        "creates a name only once",
        "decides races",
        "checks what arrives by its checksum",
    }
    with open_backend(address) as backend:  # here an object that several have written may come back after its deletion
        assert not [info.name for info in backend.list() if "/race-" not in info.name]


def test_a_directory_is_usable_and_stays_empty(account: Account) -> None:
    place = account.root / "disk"
    shown = account.run("check-storage", place, "--size", "1MiB").out
    assert "several programs write to at the same time" in shown
    assert "MiB/s" in shown
    assert not [*place.iterdir()]


def test_a_store_that_is_not_reached_is_an_error(account: Account) -> None:
    failed = account.run("check-storage", f"s3://{BUCKET}/x?endpoint=http://127.0.0.1:9", status=15)
    assert "Connection refused" in failed.err


class _Overwriting(MemoryStorage):
    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=True)


class _Late(MemoryStorage):
    def stat(self, name: str) -> ObjectInfo:
        info = super().stat(name)
        return ObjectInfo(name=info.name, size=info.size, modified_ns=info.modified_ns - 600 * 10**9)


def test_a_store_for_one_writer_is_limited() -> None:
    report = check_storage(_Overwriting(), size=1 << 20)
    assert report.verdict == "limited"


def test_a_clock_that_is_off_is_told() -> None:
    report = check_storage(_Late(clock=(clock := FakeClock())), size=1 << 20, clock=clock)
    assert report.verdict == "usable"
    assert "it is 600 s behind" in [point.details for point in report.points]


def test_an_interrupted_check_cleans_up() -> None:
    backend = MemoryStorage()

    def stop(event: object) -> None:
        if [*backend.list()]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_storage(backend, size=1 << 20, events=stop)
    assert not [*backend.list()]
