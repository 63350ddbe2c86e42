"""What an agent may not, and how it is told."""

from __future__ import annotations

import os
import re
import time
from datetime import timedelta

import pytest

from backstay.api.app import ENDPOINTS
from backstay.api.endpoints import PUBLIC
from backstay.catalog.audit import AuditFilters
from backstay.control.agents.home import Belonging, Home
from backstay.control.agents.joining import Renewing
from backstay.control.agents.server import Server
from backstay.core.clock import SystemClock
from backstay.errors import (
    BackstayError,
    Forbidden,
    InvalidRequest,
    NotFound,
    ServerUnreachable,
    Unauthorized,
    VersionUnsupported,
)
from backstay.operations.backup.request import BackupOptions
from backstay.operations.backup.run import run_backup
from backstay.repository.repository import Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.trust.authority import Authority
from backstay.trust.certificate_requests import new_request
from tests.agents.test_joining import PROCESS, server_of
from tests.agents.world import PASSWORD, World, wait_until


def backup_of(world: World, name: str) -> str | None:
    """A new backup of what the agents back up, made by nobody."""
    with Repository.open(str(world.root / "repository"), password=PASSWORD) as repository:
        source = FilesystemSource([os.fsencode(world.root / "web")], filters=Filters([]), clock=repository.clock)
        return run_backup(repository, source, BackupOptions(host="h", name=name)).snapshot


def test_an_agent_may_do_nothing_but_the_work_of_agents(world: World) -> None:
    server = server_of(world, world.joined("web-1"))
    tried = [one for one in ENDPOINTS if one.needs is not PUBLIC and one.needs != "agent:work"]
    assert len(tried) > 70
    for endpoint in tried:
        path = re.sub(r"\{[a-z]+\}", "x", endpoint.path)
        with pytest.raises(Forbidden):
            server.call(endpoint.method, path, {} if endpoint.method in ("POST", "PUT") else None)


def test_an_agent_reaches_its_own_jobs_alone(world: World) -> None:
    job = world.ask("mail")
    mine, others = (server_of(world, world.joined(name)) for name in ("mail-1", "web-1"))
    assert others.call("POST", "/api/agents/work", PROCESS | {"wait_s": 0}) == {"job": None}
    given = mine.call("POST", "/api/agents/work", PROCESS | {"wait_s": 0})["job"]
    assert (given["id"], given["attempt"]) == (job, 1)
    about = PROCESS | {"attempt": 1}
    for path, body in (("report", about), ("end", about | {"status": "cancelled"})):
        with pytest.raises(NotFound):
            others.call("POST", f"/api/agents/jobs/{job}/{path}", body)
    assert mine.call("POST", f"/api/agents/jobs/{job}/report", about) == {"cancel": False, "lost": False}
    assert mine.call("POST", f"/api/agents/jobs/{job}/end", about | {"status": "cancelled"}) == {"accepted": True}
    assert world.job(job).status == "cancelled"
    written = world.service.audit.page(AuditFilters(actor="mail-1", outcome="allow")).items
    assert {(one.action, one.object) for one in written} >= {("job.take", f"job/{job}"), ("job.end", f"job/{job}")}
    assert not [one for one in written if one.action == "job.report"]


def test_a_certificate_that_was_revoked_ends_the_agent(world: World) -> None:
    home = world.joined("gone-1")
    agent = world.agent(home)
    world.revoke("gone-1")
    begun = time.monotonic()
    wait_until(lambda: agent.process.poll() is not None, agent.said)
    assert time.monotonic() - begun < 20  # its question for work would wait 25 s
    assert agent.process.returncode == 16
    assert "error: the server does not know this agent" in agent.said()
    assert "invite this agent again" in agent.said()


def test_a_certificate_of_another_authority_is_worth_nothing(world: World) -> None:
    home = Home.prepare(world.root / "forged")
    key, request = new_request("x")
    forged = Authority.generate(SystemClock()).issue(request, "web-1", clock=SystemClock(), life=timedelta(days=1))
    home.joined(key, forged.pem, Belonging(server=world.address, authority=world.authority))
    with pytest.raises(BackstayError) as caught:
        server_of(world, home).call("POST", "/api/agents/work", PROCESS | {"wait_s": 0})
    assert not isinstance(caught.value, NotFound | Forbidden)


def test_a_certificate_that_has_ended_is_taken_by_nobody(world: World) -> None:
    home, token = Home.prepare(world.root / "ended"), world.invite("late-1")
    key, request = new_request("x")
    with world.service.catalog.session() as session:
        issued = world.service.access.agents.join(session, token, request, life=timedelta(minutes=-1))
    home.joined(key, issued.pem, Belonging(server=world.address, authority=world.authority))
    with pytest.raises(Unauthorized, match="has ended"):
        Renewing(home, server_of(world, home), SystemClock()).if_due()
    with pytest.raises((Unauthorized, ServerUnreachable)):  # it depends on who closes the line first
        server_of(world, home).call("POST", "/api/agents/work", PROCESS | {"wait_s": 0})


@pytest.mark.parametrize("text", ["\0", "\x1b[2J"])
def test_what_an_agent_says_holds_nothing_that_cannot_be_stored_or_shown(world: World, text: str) -> None:
    server = server_of(world, world.joined("mail-1"))
    path = "/api/agents/jobs/01jdxxxxxxxxxxxxxxxxxxxxxx/end"
    about = PROCESS | {"attempt": 1, "status": "failed"}
    source = {"name": "n", "type": "t", "more": [{"deep": text}]}
    outcome = {"status": 1, "sources": [source]}
    for said in (
        {"result": {"duration_s": 1.0, "outcome": outcome}},
        {"error": {"type": "t", "title": "t", "code": "C", "more": text}},
        {"progress": {"current": text}},
    ):
        with pytest.raises(InvalidRequest, match="the request has mistakes"):
            server.call("POST", path, about | said)


def test_without_a_certificate_there_is_no_work(world: World) -> None:
    server = Server(address=world.address, authority=world.authority)
    with pytest.raises(Unauthorized):
        server.call("POST", "/api/agents/work", PROCESS | {"wait_s": 0})


@pytest.mark.parametrize(("protocol", "word", "then"), [(0, "old", "agent"), (2, "new", "server")])
def test_an_agent_of_another_time_is_told_which_side_to_update(
    world: World, protocol: int, word: str, then: str
) -> None:
    server = server_of(world, world.joined("web-1"))
    with pytest.raises(VersionUnsupported, match=f"too {word}") as caught:
        server.call("POST", "/api/agents/work", PROCESS | {"wait_s": 0, "protocol": protocol})
    assert then in caught.value.hint


def test_what_an_agent_says_of_its_backups_is_not_believed_without_a_look(world: World) -> None:
    server = server_of(world, world.joined("mail-1"))
    job = world.ask("mail")
    server.call("POST", "/api/agents/work", PROCESS | {"wait_s": 0})
    result = {"backups": ["0" * 26], "duration_s": 1.0, "outcome": {"status": 0}}
    said = PROCESS | {"attempt": 1, "status": "succeeded", "result": result}
    server.call("POST", f"/api/agents/jobs/{job}/end", said)
    assert world.job(job).status == "failed"


def test_a_good_run_stays_one_while_the_service_does_not_see_its_repository(world: World) -> None:
    made = backup_of(world, "mail")
    server = server_of(world, world.joined("mail-1"))
    job = world.ask("mail")
    given = server.call("POST", "/api/agents/work", PROCESS | {"wait_s": 0})["job"]
    result = {"backups": [made], "duration_s": 1.0, "outcome": {"status": 0}}
    said = PROCESS | {"attempt": given["attempt"], "status": "succeeded", "result": result}
    place = world.root / "repository"
    away = place.rename(world.root / "unmounted")
    place.mkdir()  # what a disk leaves that is not mounted
    try:
        server.call("POST", f"/api/agents/jobs/{job}/end", said)
    finally:
        place.rmdir()
        away.rename(place)
    assert world.job(job).status == "succeeded"
    assert world.job(job).backup_id == made
    assert any("are listed later" in line.message for line in world.service.jobs.lines(job))


@pytest.mark.parametrize(
    ("name", "status"),
    [("mail", "succeeded"), ("mail-gone", "succeeded"), ("web", None), ("web-shop", None), ("mailbox", None)],
)
def test_a_backup_counts_for_the_policy_that_it_was_made_by_and_no_other(
    world: World, name: str, status: str | None
) -> None:
    """Also one of a source that was taken out of the policy file while it was backed up."""
    made = backup_of(world, name)
    server = server_of(world, world.joined("mail-1"))
    job = world.ask("mail")
    given = server.call("POST", "/api/agents/work", PROCESS | {"wait_s": 0})["job"]
    result = {"backups": [made], "duration_s": 1.0, "outcome": {"status": 0}}
    said = PROCESS | {"attempt": given["attempt"], "status": "succeeded", "result": result}
    if status is None:
        with pytest.raises(InvalidRequest, match="none of the policy mail"):
            server.call("POST", f"/api/agents/jobs/{job}/end", said)
        server.call("POST", f"/api/agents/jobs/{job}/end", PROCESS | {"attempt": 1, "status": "cancelled"})
    else:
        server.call("POST", f"/api/agents/jobs/{job}/end", said)
        assert world.job(job).status == status
