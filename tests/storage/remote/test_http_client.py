"""What an HTTP server's answers mean, and the way to it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import urllib3

from backstay.errors import InvalidRequest, StorageRefused, StorageUnavailable
from backstay.storage.http_client import Answer, HttpClient, _pool
from backstay.testing import FakeClock
from tests.storage.remote.http_stub import HttpStub, served

NOW = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("120", 120.0),
        ("Wed, 21 Oct 2026 07:29:30 GMT", 90.0),
        ("Wednesday, 21-Oct-26 07:29:30 GMT", 90.0),
        ("Wed, 21 Oct 2026 07:29:30 -0000", 90.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0),
        ("Wed, 99 Oct 2026 07:29:30 GMT", None),
        ("Wed, 21 Oct 99999999999 07:29:30 GMT", None),
        ("9" * 400, None),
        ("9" * 5000, None),
        ("soon", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_left_alone_for_as_long_as_it_says(said: str, wait: float | None, status: int) -> None:
    client = HttpClient("http://127.0.0.1:1", clock=FakeClock(NOW))
    error = client.failure("cannot read a", Answer(status, {"Retry-After": said}, b""))
    assert isinstance(error, StorageUnavailable)
    assert error.retry_after == wait


@pytest.mark.parametrize("told", ["9" * 19, "9" * 400, "9" * 5000, "-1", "\u0663", "ten", ""])
def test_a_header_that_counts_nothing_possible_is_no_number(told: str) -> None:
    assert Answer(200, {"Content-Length": told}, b"").number("Content-Length") is None


@pytest.mark.parametrize(
    ("status", "hint"),
    [(400, "no such request"), (405, "no such request"), (413, "limit for uploads"), (501, "no such")],
)
def test_a_request_that_is_never_taken_is_no_passing_failure(status: int, hint: str) -> None:
    client = HttpClient("http://127.0.0.1:1", clock=FakeClock(NOW))
    error = client.failure("cannot store a", Answer(status, {}, b""))
    assert isinstance(error, StorageRefused)
    assert not error.transient
    assert str(status) in error.cause
    assert hint in error.hint


@pytest.mark.parametrize("status", [404, 408, 409, 423, 425, 429, 500, 502, 503, 504])
def test_what_may_be_answered_otherwise_later_is_tried_again(status: int) -> None:
    client = HttpClient("http://127.0.0.1:1", clock=FakeClock(NOW))
    assert client.failure("cannot store a", Answer(status, {}, b"")).transient


@pytest.mark.parametrize(
    ("named", "proxy"),
    [
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("[2001:db8::7]", "http://[2001:db8::7]:3128"),
        ("http://proxy.example", "http://proxy.example:3128"),
        ("http://me:word@10.0.0.1:99", "http://10.0.0.1:99"),
    ],
)
def test_a_proxy_is_found_where_the_environment_says(named: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", named)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    pool = _pool("http://store.example")
    assert isinstance(pool, urllib3.ProxyManager)
    assert pool.proxy is not None
    assert pool.proxy.url == proxy


@pytest.mark.parametrize(
    "named",
    [
        "http://me:hush@proxy.example:x",
        "http://me:hush@proxy.example:99999",
        "http://me:hush@[::1",
        "http://me:hush\u20ac@proxy.example",
        "socks5://me:hush@proxy.example",
        "http://",
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", named)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(InvalidRequest, match="HTTPS_PROXY") as caught:
        HttpClient("https://store.example", clock=FakeClock())
    assert "hush" not in f"{caught.value} {caught.value.cause} {caught.value.hint}"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("status", "final", "cause", "hint"),
    [
        (407, True, "another login", "HTTPS_PROXY"),
        (403, True, "does not lead to it: it answered with HTTP 403", "NO_PROXY"),
        (502, False, "does not lead to it: it answered with HTTP 502", "NO_PROXY"),
    ],
)
def test_a_proxy_that_refuses_is_told_as_such(
    status: int, final: bool, cause: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with served(HttpStub(lambda *_: (status, {}, b""))) as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:hush@127.0.0.1:{proxy.port}")
        client = HttpClient("https://store.example", clock=FakeClock())
        with pytest.raises(StorageUnavailable, match="cannot be reached") as caught:
            client.request("GET", "/")
    assert isinstance(caught.value, StorageRefused) == final
    assert cause in caught.value.cause
    assert hint in caught.value.hint
    assert proxy.requests == ["CONNECT store.example:443"]


def test_a_proxy_that_wants_another_login_is_told_as_such_without_tls() -> None:
    error = HttpClient("http://127.0.0.1:1", clock=FakeClock()).failure("cannot read a", Answer(407, {}, b""))
    assert isinstance(error, StorageRefused)
    assert "HTTPS_PROXY" in error.hint
