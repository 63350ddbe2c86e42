"""How a host becomes an agent, and stays one."""

from __future__ import annotations

import stat
import subprocess
import sys
from datetime import timedelta

import pytest

from backstay.control.agents.home import Home
from backstay.control.agents.joining import Renewing, join, pinned_authority
from backstay.control.agents.server import Server
from backstay.errors import InvalidRequest, JobConflict, NotFound, ServerUnreachable, Unauthorized
from backstay.testing import FakeClock
from tests.agents.world import World, document

PROCESS = {"instance": "0" * 16, "host": "h", "version": "1", "protocol": 1}


def server_of(world: World, home: Home) -> Server:
    return Server(address=world.address, authority=home.belonging().authority, identity=home.identity)


def test_a_host_joins_by_the_fingerprint_that_the_administrator_was_told(world: World) -> None:
    home = world.root / "by-command"
    fingerprint = world.service.access.agents.authority.fingerprint
    words = ["agent", "join", world.address, "--authority", fingerprint, "--dir", str(home)]
    done = world.command("--json", *words, "--token", "-", given=world.invite("new-1") + "\n")
    assert done.returncode == 0, done.stderr
    assert document(done.stdout)["server"] == world.address
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in home.iterdir()} == {0o600}
    answer = server_of(world, Home(home)).call("POST", "/api/agents/work", {**PROCESS, "wait_s": 0})
    assert answer == {"job": None}


def test_a_server_of_another_authority_is_told_no_token(world: World) -> None:
    home, token = world.root / "wary", world.invite("new-2")
    with pytest.raises(InvalidRequest, match="is not the server that was meant"):
        pinned_authority(world.address, "00" * 32)
    with pytest.raises(ServerUnreachable, match="not believed to be the server"):
        join(Home.prepare(home), world.address, token, authority=None)  # no authority of the system signed it
    join(Home.prepare(home), world.address, token, authority=world.authority)  # the token is still good


@pytest.mark.parametrize("text", ["nothing of the kind", ""])
def test_an_authority_that_is_none_is_told_and_the_systems_are_not_believed_instead(world: World, text: str) -> None:
    with pytest.raises(InvalidRequest, match="authority of the server cannot be used"):
        Server(address=world.address, authority=text).call("GET", "/api/health/live")


def test_a_join_token_is_good_for_one_host_which_may_ask_again(world: World) -> None:
    token = world.invite("new-3")
    first, second = (Home.prepare(world.root / name) for name in ("first", "second"))
    first.begin_joining("")  # as a crash leaves it: the directory is there, and nothing else counts
    (first.path / "joining.pem").unlink()
    join(first, world.address, token, authority=world.authority)
    with pytest.raises(Unauthorized, match="join token is not good"):
        join(second, world.address, token, authority=world.authority)
    with pytest.raises(NotFound, match="no agent has joined"):
        second.belonging()


def test_a_join_whose_answer_was_lost_is_done_again_with_the_same_token(world: World) -> None:
    token, home = world.invite("new-4"), Home.prepare(world.root / "lost-answer")
    kept: list[str] = []
    original = Home.joined

    def crash(self: Home, *_: object) -> None:
        kept.append(self.joining() or "")
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Home, "joined", crash)
        with pytest.raises(KeyboardInterrupt):
            join(home, world.address, token, authority=world.authority)
    assert Home.joined is original
    join(home, world.address, token, authority=world.authority)
    assert kept[0].partition("-----BEGIN CERTIFICATE REQUEST")[0] in home.identity.read_text()
    assert home.joining() is None


def test_a_certificate_is_renewed_when_half_of_its_life_is_over(world: World) -> None:
    home = world.joined("new-5")
    server, before = server_of(world, home), home.identity.read_text()
    begins, ends = home.validity()
    assert not Renewing(home, server, FakeClock(begins + timedelta(days=1))).if_due()
    assert home.identity.read_text() == before
    renewing = Renewing(home, server, FakeClock(ends - timedelta(days=3)))
    assert renewing.if_due()
    assert home.identity.read_text() != before
    assert server.call("POST", "/api/agents/work", {**PROCESS, "wait_s": 0}) == {"job": None}
    with pytest.raises(Unauthorized, match="has ended"):
        Renewing(home, server, FakeClock(ends + timedelta(seconds=1))).if_due()


def test_one_process_of_a_host_is_an_agent_and_nobody_else_looks_into_its_directory(world: World) -> None:
    home = world.joined("new-6")
    with home.held(), pytest.raises(JobConflict), Home(home.path).held():
        pass
    home.path.chmod(0o755)
    with pytest.raises(InvalidRequest, match="is not safe"):
        home.checked()


@pytest.mark.parametrize("address", ["http://h:1", "https://", "h:8377", "https://h/api", "https://u@h"])
def test_an_address_without_tls_or_with_more_than_a_server_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="is no address of a server"):
        Server(address=address)


def test_an_agent_needs_none_of_the_parts_that_serve() -> None:
    modules = "backstay.cli.agent_host, backstay.cli.agents, backstay.control.agents.working, backstay.control.runs.run"
    heavy = "{'sqlalchemy', 'fastapi', 'dbos', 'uvicorn', 'alembic', 'apprise'}"
    code = f"import sys; import {modules}; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_people_see_when_an_agent_was_last_seen_and_until_when_its_certificate_is_good(world: World) -> None:
    home = world.joined("seen-1")
    server_of(world, home).call("POST", "/api/agents/work", {**PROCESS, "wait_s": 0})
    world.invite("awaited-1")
    listed = world.command("--json", "agent", "list", "--data-dir", str(world.service.data_dir))
    assert listed.returncode == 0, listed.stderr
    found = {one["name"]: one for one in document(listed.stdout)["agents"]}
    assert (found["seen-1"]["host"], found["seen-1"]["version"]) == ("h", "1")
    assert found["seen-1"]["certificate_until"][:10] == home.validity()[1].date().isoformat()
    assert found["seen-1"]["last_seen_at"] is not None
    assert (found["awaited-1"]["last_seen_at"], found["awaited-1"]["certificate_until"]) == (None, None)
