"""What S3 says about locks and holds, by answers of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.errors import InvalidRequest, StorageRefused, StorageUnavailable
from backstay.storage.cloud_address import parse_address
from backstay.storage.object_store import ObjectStorage
from backstay.storage.retention import LockState, Retention
from tests.cloud.calls import failure
from tests.cloud.google_server import PAGE
from tests.cloud.servers import CREDENTIALS
from tests.storage.remote.http_stub import HttpStub, Reply, served

NAME = "packs/ab/one"
ODD_TIMES = (
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "99999999999999999999",
    "2030-01-01T00:00:00+99:99",
)
LATER = datetime(2040, 1, 1, tzinfo=UTC)


def refusal(status: int, code: str) -> Reply:
    return status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()


@contextmanager
def locks(home: Path, reply: Callable[[str, bytes], Reply], options: str = "") -> Iterator[Retention]:
    """The locks of a bucket whose server answers so to method and body."""
    with served(HttpStub(lambda method, *_: reply(method, stub.bodies[-1]))) as stub:
        address = parse_address(f"s3://box/r?endpoint=http://127.0.0.1:{stub.port}&retain-days=10{options}")
        found = ObjectStorage(address, {**CREDENTIALS, "HOME": str(home)}).retention()
        assert found is not None
        yield found


def changes(retention: Retention) -> dict[str, Callable[[], object]]:
    return {
        "extend": lambda: retention.extend(NAME, LATER),
        "hold": lambda: retention.hold(NAME, on=True),
        "clear": lambda: retention.hold(NAME, on=False),
    }


@pytest.mark.parametrize("code", ["ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"])
def test_a_refused_change_is_no_success(home: Path, code: str) -> None:
    with locks(home, lambda *_: refusal(404, code)) as retention:
        assert retention.state(NAME) == LockState()
        for name, change in changes(retention).items():
            error = failure(change)
            assert isinstance(error, InvalidRequest), name
            assert "without Object Lock" in error.cause


def test_a_lock_of_another_mode_is_extended_as_it_is(home: Path) -> None:
    """A compliance lock is never made a governance lock; the address asks for governance."""
    asked: list[str] = []

    def reply(method: str, body: bytes) -> Reply:
        if method == "GET":
            lock = "<Mode>COMPLIANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate>"
            return 200, {"Content-Type": "application/xml"}, f"<Retention>{lock}</Retention>".encode()
        asked.append("COMPLIANCE" if b"COMPLIANCE" in body else "GOVERNANCE")
        return refusal(403, "AccessDenied") if asked[-1] == "GOVERNANCE" else (200, {}, b"")

    with locks(home, reply, "&retain-mode=governance") as retention:
        retention.extend(NAME, LATER)
        assert asked == ["GOVERNANCE", "COMPLIANCE"]
        retention.extend(NAME, datetime(2029, 1, 1, tzinfo=UTC))
        assert asked[2:] == ["GOVERNANCE"], "the lock is longer than that"


def test_a_refusal_that_is_not_for_the_mode_is_told(home: Path) -> None:
    lock = b"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate></Retention>"
    with locks(home, lambda method, _: (200, {}, lock) if method == "GET" else refusal(403, "AccessDenied")) as found:
        assert isinstance(failure(lambda: found.extend(NAME, LATER)), StorageRefused)


def test_a_web_page_changes_no_lock(home: Path) -> None:
    with locks(home, lambda *_: (200, {"Content-Type": "text/html"}, PAGE)) as retention:
        for name, change in changes(retention).items():
            error = failure(change)
            assert isinstance(error, StorageUnavailable), name
            assert "web page" in error.cause


@pytest.mark.parametrize(
    ("status", "code", "transient", "hint"),
    [
        (400, "ExpiredToken", False, "temporary credentials"),
        (403, "RequestTimeTooSkewed", False, "clock"),
        (403, "AccessDenied", False, "legal hold"),
        (403, "InvalidAccessKeyId", False, "credentials"),
        (400, "InvalidArgument", False, "endpoint"),
        (409, "OperationAborted", True, ""),
    ],
)
def test_what_is_refused_is_told_with_what_to_do(
    home: Path, status: int, code: str, transient: bool, hint: str
) -> None:
    with locks(home, lambda *_: refusal(status, code)) as retention:
        error = failure(lambda: retention.hold(NAME, on=True))
    assert isinstance(error, StorageUnavailable)
    assert (error.transient, error.cause) == (transient, f"it answered {status} {code}")
    assert hint in error.hint


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirection_is_told_and_not_followed(home: Path, status: int) -> None:
    asked: list[str] = []

    def reply(method: str, _: bytes) -> Reply:
        asked.append(method)
        return status, {"Location": "http://127.0.0.1:9/login"}, b""

    with locks(home, reply) as retention:
        for name, call in {**changes(retention), "state": lambda: retention.state(NAME)}.items():
            asked.clear()
            error = failure(call)
            assert isinstance(error, StorageUnavailable), name
            assert (error.transient, error.cause) == (True, f"it answered {status}"), name
            assert len(asked) == 1, name


@pytest.mark.parametrize("text", ["yesterday", "", "99999-01-01T00:00:00Z", *ODD_TIMES])
def test_a_lock_that_ends_at_no_time_is_no_lock_and_told(home: Path, text: str) -> None:
    lock = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{text}</RetainUntilDate></Retention>".encode()
    with locks(home, lambda *_: (200, {"Content-Type": "application/xml"}, lock)) as retention:
        error = failure(lambda: retention.state(NAME))
    assert isinstance(error, StorageUnavailable)
    assert error.cause in ("its answer cannot be understood", "its answer has no time in it")


def test_a_time_without_a_zone_is_in_utc(home: Path) -> None:
    lock = b"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2040-01-01T00:00:00</RetainUntilDate></Retention>"
    with locks(home, lambda *_: (200, {"Content-Type": "application/xml"}, lock)) as retention:
        assert retention.state(NAME).until == LATER


@pytest.mark.parametrize(
    "body",
    [
        b"<Error><Code/></Error>",
        b"<Error></Error>",
        b"<Error><Code>A</Code><Code>B</Code></Error>",
        b"<Error>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</Error>",
    ],
    ids=lambda body: body[:30],
)
def test_a_refusal_that_cannot_be_read_is_told(home: Path, body: bytes) -> None:
    with locks(home, lambda *_: (400, {"Content-Type": "application/xml"}, body)) as retention:
        for name, call in {**changes(retention), "state": lambda: retention.state(NAME)}.items():
            assert isinstance(failure(call), StorageUnavailable), name


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_store_is_neither_asked_again_here_nor_a_missing_bucket(home: Path, status: int) -> None:
    def answer(method: str, path: str, _: dict[str, str]) -> Reply:
        return (404 if path.endswith(NAME) else status), {}, b""

    with served(HttpStub(answer)) as stub:
        address = parse_address(f"s3://box/r?endpoint=http://127.0.0.1:{stub.port}&storage-class=GLACIER")
        archive = ObjectStorage(address, {**CREDENTIALS, "HOME": str(home)}).archive()
        assert archive is not None
        error = failure(lambda: archive.thaw_state(NAME))
    assert error.transient
    assert str(status) in error.cause
    assert stub.requests == [f"HEAD /box/r/{NAME}", "HEAD /box"]
