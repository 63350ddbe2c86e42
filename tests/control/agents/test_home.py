"""The directory of an agent: whatever happens to it, a key and certificate that are good stay there."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backstay.control.agents import joining
from backstay.control.agents.home import Belonging, Home
from backstay.control.agents.joining import Renewing, join
from backstay.control.agents.server import Server
from backstay.errors import InsufficientSpace, ServerUnreachable
from backstay.testing import FakeClock
from backstay.trust.authority import Authority
from backstay.trust.certificate_requests import new_request

WEEK = timedelta(days=7)


class Signing(Server):
    """Signs what it is asked to, by a clock of its own; `swapped` answers with the certificate for another key."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(address="https://h")
        self.clock, self.signs, self.swapped = clock, Authority.generate(clock), False

    def call(self, method: str, path: str, body: object = None, *, timeout_s: float = 0) -> Any:
        del method, path, timeout_s
        assert isinstance(body, dict)
        request = new_request("x")[1] if self.swapped else body["request"]
        return {"certificate": self.signs.issue(request, "web-1", clock=self.clock, life=WEEK).pem}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> Signing:
    return Signing(FakeClock(clock.now()))


@pytest.fixture
def home(tmp_path: Path, server: Signing, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(joining, "Server", lambda **_: server)
    home = Home.prepare(tmp_path / "agent")
    join(home, server.address, "token", authority=None)
    return home


def test_a_renewal_that_found_the_disk_full_is_made_when_there_is_room(
    home: Home, server: Signing, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = home.identity.read_bytes()
    renewing = Renewing(home, server, clock)
    clock.advance(4 * 86400)
    server.clock.advance(4 * 86400)
    with monkeypatch.context() as full:

        def no_room(fd: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full.setattr(os, "fsync", no_room)
        with pytest.raises(InsufficientSpace, match="No space left") as caught:
            renewing.if_due()
    assert caught.value.hint == "make room on its disk"
    assert home.identity.read_bytes() == before
    clock.jump(-86400 * 3)  # a clock that is set does not put off the next time
    clock.advance(86400 * 3 + 601)
    assert renewing.if_due()
    assert home.identity.read_bytes() != before


def test_what_a_process_that_was_killed_left_is_in_the_way_of_nobody_and_goes(home: Home) -> None:
    key, certificate = new_request("x")
    left = (f"..agent.pem.new.{os.getpid()}", ".agent.pem.new", "..agent.pem.new.abc")
    for name in left:
        (home.path / name).write_text("half a key")
    home.renewed(key, certificate)
    assert home.identity.read_text() == key + certificate + "\n"
    assert not [name for name in left if (home.path / name).exists()]


def test_a_certificate_for_another_key_takes_the_place_of_none(home: Home, server: Signing, clock: FakeClock) -> None:
    before = home.identity.read_bytes()
    server.swapped = True
    clock.advance(4 * 86400)
    server.clock.advance(4 * 86400)
    with pytest.raises(ServerUnreachable, match="no certificate for this agent"):
        Renewing(home, server, clock).if_due()
    assert home.identity.read_bytes() == before


def test_a_server_whose_clock_is_behind_by_years_makes_no_good_certificate_a_bad_one(
    home: Home, server: Signing, clock: FakeClock
) -> None:
    before = home.identity.read_bytes()
    clock.advance(4 * 86400)
    server.clock.jump(-3 * 365 * 86400)
    with pytest.raises(ServerUnreachable, match="ends before"):
        Renewing(home, server, clock).if_due()
    assert home.identity.read_bytes() == before


@pytest.mark.parametrize("text", ["", "nothing of the kind"])
def test_a_key_of_a_join_that_is_damaged_is_made_anew(home: Home, server: Signing, text: str) -> None:
    home.begin_joining(text)
    join(home, server.address, "token", authority=None)
    assert home.belonging() == Belonging(server=server.address)
    assert home.joining() is None


def test_as_many_authorities_as_systems_have_are_kept(home: Home, server: Signing) -> None:
    authority = server.signs.certificate * 1000  # some 600 KiB
    join(home, server.address, "token", authority=authority)
    assert home.belonging() == Belonging(server=server.address, authority=authority)
