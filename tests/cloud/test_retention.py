"""Locks that are extended, and legal holds, on a server that has them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import InvalidRequest, ObjectNotFound, StorageMissing, StorageRefused
from backstay.storage.cloud_address import parse_address
from backstay.storage.limits import LimitPolicy, Limits
from backstay.storage.object_store import ObjectStorage
from backstay.storage.retention import LockState, Retention, locked_until, must_stay
from tests.cli.conftest import Account
from tests.cloud.servers import CREDENTIALS, control

NAME = "packs/ab/one"
Open = Callable[..., ObjectStorage]


@pytest.fixture
def locked(weed: str, s3: Open) -> Open:
    """Opens an empty bucket with Object Lock."""

    def open_(options: str = "&retain-days=10") -> ObjectStorage:
        bucket = f"locks-{secrets.token_hex(6)}"
        control(weed).create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        return ObjectStorage(parse_address(f"s3://{bucket}/r?endpoint={weed}{options}"), CREDENTIALS)

    return open_


def retention_of(store: ObjectStorage) -> Retention:
    found = store.retention()
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def one_day() -> None:
    """Locks end with a day: what a test compares must not lie on both sides of midnight."""
    while (now := datetime.now(UTC)).hour == 23 and now.minute == 59:
        time.sleep(1)


def days_from_now(days: int) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def test_without_a_number_of_days_nothing_is_locked(weed: str, s3: Open) -> None:
    assert s3(weed).retention() is None


def test_a_lock_is_seen_and_extended_and_never_shortened(locked: Open) -> None:
    store = locked()
    store.store(NAME, b"kept")
    retention = retention_of(store)
    assert retention.days == 10
    assert retention.state(NAME) == LockState(until=locked_until(datetime.now(UTC), 10))
    later = days_from_now(30)
    retention.extend(NAME, later)
    assert retention.state(NAME).until == later
    retention.extend(NAME, days_from_now(20))
    assert retention.state(NAME).until == later


def test_an_object_that_was_never_locked_gets_a_lock(locked: Open) -> None:
    store = locked("&retain-days=10&retain-mode=governance")
    store.store("probe/one", b"x")
    retention = retention_of(store)
    assert retention.state("probe/one") == LockState()
    retention.extend("probe/one", later := days_from_now(1))
    assert retention.state("probe/one") == LockState(until=later)


def test_a_legal_hold_comes_and_goes_and_outlasts_the_lock(locked: Open) -> None:
    store = locked()
    store.store(NAME, b"kept")
    retention = retention_of(store)
    for _ in range(2):
        retention.hold(NAME, on=True)
    state = retention.state(NAME)
    assert state.held
    assert state.keeps(days_from_now(1000))
    retention.hold(NAME, on=False)
    state = retention.state(NAME)
    assert not state.held
    assert state.keeps(days_from_now(1))
    assert not state.keeps(days_from_now(12))


def test_what_is_not_there_is_told(locked: Open) -> None:
    retention = retention_of(locked())
    with pytest.raises(ObjectNotFound):
        retention.state(NAME)
    with pytest.raises(ObjectNotFound):
        retention.extend(NAME, days_from_now(1))


def test_a_bucket_without_object_lock_is_told(weed: str, s3: Open) -> None:
    retention = retention_of(s3(weed, "&retain-days=10"))
    for call in (
        lambda: retention.state(NAME),
        lambda: retention.extend(NAME, days_from_now(1)),
        lambda: retention.hold(NAME, on=True),
        lambda: retention.try_out(NAME),
    ):
        with pytest.raises(InvalidRequest, match="without Object Lock"):
            call()


def test_a_bucket_without_object_lock_is_told_to_who_writes(weed: str, s3: Open) -> None:
    store = s3(weed, "&retain-days=10")
    store.store("probe/a", b"not locked")
    with pytest.raises(StorageRefused) as caught:
        store.store(NAME, b"locked")
    assert "made without Object Lock" in caught.value.cause
    assert "retain-days" in caught.value.hint


def test_what_was_tried_out_is_not_kept(locked: Open) -> None:
    store = locked()
    store.store("probe/a", b"x")
    retention = retention_of(store)
    retention.try_out("probe/a")
    assert retention.state("probe/a") == LockState()


def test_a_bucket_that_is_not_there_is_told(weed: str, s3: Open) -> None:
    address = parse_address(f"s3://no-such-bucket?endpoint={weed}&retain-days=1")
    with pytest.raises(StorageMissing, match="no-such-bucket"):
        retention_of(ObjectStorage(address, CREDENTIALS)).state(NAME)


def test_wrappers_pass_it_on(weed: str, s3: Open) -> None:
    store = s3(weed, "&retain-days=10")
    assert Limits(store, LimitPolicy(upload=1000), clock=SystemClock()).retention() is store.retention()


def test_a_repository_is_locked_and_its_locks_extended_by_command(account: Account, weed: str) -> None:
    bucket = f"locks-{secrets.token_hex(6)}"
    client = control(weed)
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    address = f"s3://{bucket}/r?endpoint={weed}&retain-days=10"
    account.run("-r", address, "init")
    account.json("-r", address, "backup", account.documents)
    for version in client.list_object_versions(Bucket=bucket)["Versions"]:
        head = client.head_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        assert ("ObjectLockMode" in head) == must_stay(version["Key"].removeprefix("r/")), version["Key"]
    assert account.json("-r", address, "retain")["due"] == 0
    longer = address.replace("retain-days=10", "retain-days=30")
    plan = account.json("-r", longer, "retain", "--dry-run")
    done = account.json("-r", longer, "retain")
    assert plan["due"] == done["due"] == done["extended"] > 5
    assert account.json("-r", longer, "retain")["due"] == 0
    names = [version["Key"] for version in client.list_object_versions(Bucket=bucket)["Versions"]]
    until = locked_until(datetime.now(UTC), 30)
    for name in {name for name in names if name.startswith(("r/packs/", "r/meta/", "r/snapshots/", "r/keys/"))}:
        assert client.get_object_retention(Bucket=bucket, Key=name)["Retention"]["RetainUntilDate"] == until


def test_a_store_without_locks_has_nothing_to_retain(account: Account, address: str) -> None:
    account.run("-r", address, "init")
    assert "retain-days" in account.run("-r", address, "retain", status=2).err


def test_a_hold_reaches_the_store_and_a_collection_tells_what_is_locked(account: Account, weed: str) -> None:
    bucket = f"locks-{secrets.token_hex(6)}"
    client = control(weed)
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    address = f"s3://{bucket}/r?endpoint={weed}&retain-days=10"
    account.run("-r", address, "init")
    first = account.json("-r", address, "backup", account.documents)["snapshot"]
    done = account.json("-r", address, "hold", "set", first, "--reason", "case 7")
    assert done["stores"] == 1
    held = [version["Key"] for version in client.list_object_versions(Bucket=bucket)["Versions"]]
    held = [name for name in set(held) if name.startswith(("r/packs/", "r/meta/", "r/snapshots/", "r/repo.json"))]
    assert len(held) >= 4
    for name in held:
        assert client.get_object_legal_hold(Bucket=bucket, Key=name)["LegalHold"]["Status"] == "ON"
    account.run("-r", address, "delete", first, status=16)
    account.run("-r", address, "hold", "clear", first)
    for name in held:
        assert client.get_object_legal_hold(Bucket=bucket, Key=name)["LegalHold"]["Status"] == "OFF"
    account.run("-r", address, "delete", first)
    result = account.json("-r", address, "gc", "--allow-empty")
    assert result["freed_bytes"] == 0
    assert result["retained_packs"] >= 2
    assert result["retained_bytes"] > 3 << 20
    assert result["retained_until"].startswith(locked_until(datetime.now(UTC), 10).date().isoformat())
