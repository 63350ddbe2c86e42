"""Locks on a WebDAV server, by a clock that goes as the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backstay.errors import StorageUnavailable
from backstay.storage.http_client import Answer, HttpClient
from backstay.storage.retrying import RetryPolicy
from backstay.storage.webdav_locks import WebdavLocks
from backstay.testing import FakeClock

NOTHING = Answer(204, {}, b"")
ERRORS = (500, 502, 503, 504, 520)
PAGE = Answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")


class LockServer(HttpClient):
    """Grants one lock at a time, for as long as it was asked for. `before` may answer a request in its place."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("http://127.0.0.1:1", clock=clock)
        self.clock = clock
        self.granted = 0
        self.ends = -1.0
        self.before: Callable[[str], Answer | None] = lambda _: None

    def request(self, method: str, target: str, **more: Any) -> Answer:
        if (answer := self.before(method)) is not None:
            return answer
        return self.serve(method, more.get("headers") or {})

    def serve(self, method: str, headers: dict[str, str]) -> Answer:
        token = f"<lock-{self.granted}>"
        is_held = self.ends > self.clock.monotonic()
        if method == "UNLOCK" and headers["Lock-Token"] == token:
            self.ends = -1.0
        if method != "LOCK":
            return NOTHING
        is_renewal = "If" in headers
        if is_renewal and (not is_held or headers["If"] != f"({token})"):
            return Answer(412, {}, b"")
        if is_held and not is_renewal:
            return Answer(423, {}, b"")
        self.granted += not is_renewal
        self.ends = self.clock.monotonic() + int(headers["Timeout"].removeprefix("Second-"))
        return Answer(200, {"Lock-Token": f"<lock-{self.granted}>"}, b"")


@pytest.fixture
def server() -> LockServer:
    return LockServer(FakeClock())


@pytest.fixture
def locks(server: LockServer) -> WebdavLocks:
    return WebdavLocks(server, server.clock)


def once(answer: Answer, method: str = "LOCK") -> Callable[[str], Answer | None]:
    answers = [answer]
    return lambda asked: answers.pop() if asked == method and answers else None


def test_a_lock_is_held_within_the_block_only(server: LockServer, locks: WebdavLocks) -> None:
    with locks.held("/claim", "cannot store a") as check:
        check()
        assert server.ends > server.clock.monotonic()
    assert server.ends < server.clock.monotonic()
    assert server.granted == 1


def test_a_lock_whose_grant_was_lost_is_had_again_before_the_retries_end(
    server: LockServer, locks: WebdavLocks
) -> None:
    server.serve("LOCK", {"Timeout": _asked_for(server, locks)})
    with locks.held("/claim", "cannot store a") as check:
        check()
    assert server.granted == 3
    assert server.clock.monotonic() < RetryPolicy().deadline_s / 1.5
    assert len(server.clock.slept) < 600, "it is not asked for all the time"


def _asked_for(server: LockServer, locks: WebdavLocks) -> str:
    """How long a writer asks a lock to last."""
    with locks.held("/claim", "cannot store a"):
        return f"Second-{server.ends - server.clock.monotonic():.0f}"


def test_a_lock_that_never_ends_is_given_up(server: LockServer, locks: WebdavLocks) -> None:
    server.ends = 1e9
    with pytest.raises(StorageUnavailable, match="another writer holds the lock"), locks.held("/claim", "no"):
        pytest.fail("it is another's")


@pytest.mark.parametrize("away", [20, 40, 80])
def test_a_lock_is_renewed_for_a_block_that_takes_long(server: LockServer, locks: WebdavLocks, away: float) -> None:
    with locks.held("/claim", "cannot store a") as check:
        server.clock.advance(away)
        check()
        assert server.ends - server.clock.monotonic() >= 60
    assert server.granted == 1


def test_a_block_that_was_away_for_longer_than_its_lock_does_not_act(server: LockServer, locks: WebdavLocks) -> None:
    with locks.held("/claim", "cannot store a") as check:
        server.clock.advance(200)
        with pytest.raises(StorageUnavailable, match="may have run out"):
            check()


def test_a_renewal_that_takes_too_long_itself_counts_for_nothing(server: LockServer, locks: WebdavLocks) -> None:
    with locks.held("/claim", "cannot store a") as check:
        server.clock.advance(40)
        server.before = lambda _: server.clock.advance(40)
        with pytest.raises(StorageUnavailable, match="may have run out"):
            check()


@pytest.mark.parametrize("answer", [PAGE, *(Answer(status, {}, b"") for status in (302, 408, 429, *ERRORS))], ids=str)
def test_a_server_that_does_not_say_whether_it_locks_does_not_pass_for_one_without_locks(
    server: LockServer, locks: WebdavLocks, answer: Answer
) -> None:
    server.before = once(answer)
    with pytest.raises(StorageUnavailable, match="cannot lock"):
        locks.work("/claim")
    assert locks.work("/claim")


@pytest.mark.parametrize("status", [403, 404, 405, 501])
@pytest.mark.parametrize(
    "told", [Answer(200, {"DAV": "1, 3"}, b""), Answer(200, {}, b""), Answer(405, {}, b"")], ids=str
)
def test_a_server_that_knows_no_locks_has_none(
    server: LockServer, locks: WebdavLocks, status: int, told: Answer
) -> None:
    server.before = {"LOCK": Answer(status, {}, b""), "OPTIONS": told}.get
    assert not locks.work("/claim")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 423])
def test_a_refused_lock_of_a_server_that_says_it_has_locks_is_an_error(
    server: LockServer, locks: WebdavLocks, status: int
) -> None:
    server.before = {"LOCK": Answer(status, {}, b""), "OPTIONS": Answer(200, {"DAV": "1,2, 3"}, b"")}.get
    with pytest.raises(StorageUnavailable, match="cannot lock"):
        locks.work("/claim")


def test_a_server_that_does_not_say_what_it_has_is_no_server_without_locks(
    server: LockServer, locks: WebdavLocks
) -> None:
    server.before = {"LOCK": Answer(403, {}, b""), "OPTIONS": Answer(500, {}, b"")}.get
    with pytest.raises(StorageUnavailable, match="can be locked"):
        locks.work("/claim")


@pytest.mark.parametrize("status", [403, 405, *ERRORS])
def test_an_error_is_not_taken_for_another_writers_lock(server: LockServer, locks: WebdavLocks, status: int) -> None:
    server.before = once(Answer(status, {}, b""))
    with pytest.raises(StorageUnavailable, match="cannot lock"), locks.held("/claim", "no"):
        pytest.fail("nothing was granted")
    assert not server.clock.slept
