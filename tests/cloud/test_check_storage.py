"""`backstay check-storage` finds what a store can do, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import BackstayError, InvalidRequest, StorageRefused, StorageUnavailable
from backstay.operations.trials.check_storage import Point, StorageReport, check_storage
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.registry import open_backend
from backstay.testing import FakeClock, LockedStorage
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
    place.mkdir()
    shown = account.run("check-storage", place, "--size", "1MiB").out
    assert "several programs write to at the same time" in shown
    assert "iB/s" in shown
    assert not [*place.iterdir()]


def test_a_directory_that_is_not_there_is_told_and_not_left_behind(account: Account) -> None:
    document = account.json("check-storage", account.root / "disk/deep", "--size", "1MiB")
    (point,) = [point for point in document["points"] if point["name"] == "is there already"]
    assert not point["ok"]
    assert point["details"].startswith(f"{account.root}/disk was made for this and is gone again")
    assert not (account.root / "disk").exists()


def test_a_store_that_is_not_reached_is_an_error(account: Account) -> None:
    failed = account.run("check-storage", f"s3://{BUCKET}/x?endpoint=http://127.0.0.1:9", status=15)
    assert "Connection refused" in failed.err


class _Overwriting(MemoryStorage):
    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=True)


class _Shifted(MemoryStorage):
    """Its clock shows `by` seconds more than that of this machine, or nothing."""

    def __init__(self, by: int | None) -> None:
        super().__init__(clock=(clock := FakeClock()))
        self.clock, self._by = clock, by

    def stat(self, name: str) -> ObjectInfo:
        info = super().stat(name)
        modified = 0 if self._by is None else info.modified_ns + self._by * 10**9
        return ObjectInfo(name=info.name, size=info.size, modified_ns=modified)


class _DecidingAlone(MemoryStorage):
    """Like FTP: its driver lets one of its own calls win, and cannot speak for those of other programs."""

    capabilities = Capabilities(atomic_create=False)


@pytest.mark.parametrize("backend", [_Overwriting(), _DecidingAlone()])
def test_a_store_for_one_writer_is_limited(backend: StorageBackend) -> None:
    report = check_storage(backend, size=1 << 20)
    assert report.verdict == "limited"
    assert "decides races" in [point.name for point in report.points if not point.ok]


class _ForSmallThings(MemoryStorage):
    """As behind a proxy that lets no large body through."""

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if memoryview(data).nbytes > 4 << 20:
            raise StorageUnavailable(f"{name} was not stored", cause="it is not there")
        super().store(name, data, overwrite=overwrite)


def test_a_store_that_takes_no_packs_is_unusable() -> None:
    report = check_storage(_ForSmallThings(), size=1 << 20)
    assert report.verdict == "unusable"
    assert "takes objects as large as packs" in [point.name for point in report.points if not point.ok]


@pytest.mark.parametrize(
    ("refusal", "verdict"),
    [
        (InvalidRequest("cannot hold", cause="the bucket was made without Object Lock"), "unusable"),
        (StorageRefused("cannot hold", cause="it answered AccessDenied"), "usable"),
        (None, "usable"),
    ],
)
def test_whether_it_locks_is_tried_where_the_address_asks_for_locks(
    monkeypatch: pytest.MonkeyPatch, refusal: BackstayError | None, verdict: str
) -> None:
    store = LockedStorage(clock=(clock := FakeClock()))

    def hold(_: object, name: str, *, on: bool) -> None:
        if refusal is not None:
            raise refusal

    monkeypatch.setattr(type(store.retention()), "hold", hold)
    report = check_storage(store, size=1 << 20, clock=clock)
    [point] = [point for point in report.points if point.name == "locks objects"]
    assert (report.verdict, point.ok) == (verdict, refusal is None)
    assert refusal is None or refusal.cause in point.details


class _WithoutVersions(LockedStorage):
    """As a bucket of Google without versions: what is locked cannot be deleted."""

    def delete(self, name: str) -> None:
        if name.endswith("/locked"):
            raise StorageRefused(f"{name} was not deleted", cause="RetentionPolicyNotMet", hint="turn on versions")
        super().delete(name)


def test_a_store_that_does_not_hide_what_is_locked_is_unusable_and_what_stays_is_told() -> None:
    store = _WithoutVersions(clock=(clock := FakeClock()))
    report = check_storage(store, size=1 << 20, clock=clock)
    [point] = [point for point in report.points if point.name == "locks objects"]
    assert (report.verdict, point.ok) == ("unusable", False)
    [left] = [info.name for info in store.list()]
    assert all(told in point.details for told in ("RetentionPolicyNotMet; turn on versions", f"{left} stays"))


def same_time(report: StorageReport) -> Point:
    [point] = [point for point in report.points if point.name == "has the same time as this machine"]
    return point


@pytest.mark.parametrize(
    ("by", "told"),
    [(-301, "it is 5 min 01 s behind: one of the two"), (7200, "it is 2 h 00 min ahead: one of the two")],
)
def test_a_clock_that_is_off_is_told_with_what_it_means(by: int, told: str) -> None:
    store = _Shifted(by)
    report = check_storage(store, size=1 << 20, clock=store.clock)
    assert report.verdict == "usable"
    point = same_time(report)
    assert not point.ok
    assert point.details.startswith(told)
    assert "refuse all requests from 15 minutes on" in point.details


@pytest.mark.parametrize(("by", "told"), [(0, ""), (300, "it is 5 min 00 s ahead"), (-2, "it is 2.0 s behind")])
def test_a_small_difference_of_clocks_does_no_harm(by: int, told: str) -> None:
    store = _Shifted(by)
    point = same_time(check_storage(store, size=1 << 20, clock=store.clock))
    assert (point.ok, point.details) == (True, told)


def test_a_store_that_tells_no_time_is_not_taken_for_one_in_1970() -> None:
    store = _Shifted(None)
    point = same_time(check_storage(store, size=1 << 20, clock=store.clock))
    assert not point.ok
    assert "does not tell" in point.details


class _TenMinutesAhead(SystemClock):
    def now_ns(self) -> int:
        return super().now_ns() + 600 * 10**9


def test_the_clock_of_a_real_file_system_is_compared_with_ours(tmp_path: Path) -> None:
    with open_backend(str(tmp_path)) as backend:
        point = same_time(check_storage(backend, size=1 << 20, clock=_TenMinutesAhead()))
    assert not point.ok
    assert re.match(r"it is (9 min 5\d|10 min 00) s behind: ", point.details)


def test_an_interrupted_check_cleans_up() -> None:
    backend = MemoryStorage()

    def stop(event: object) -> None:
        if [*backend.list()]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_storage(backend, size=1 << 20, events=stop)
    assert not [*backend.list()]
