"""What streams of events tell, to whom, and to how many."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from backstay.api.app import ENDPOINTS
from backstay.api.call import Call
from backstay.api.listeners import Listeners
from backstay.api.routes.events import _WatchedJobs
from backstay.api.streams import streamed
from backstay.catalog.models import Job
from backstay.control.access.principal import grants_of_roles, the_machine
from backstay.control.access.scopes import policy_scope
from backstay.errors import RateLimited
from tests.api.world import World


@pytest.fixture
def call(world: World) -> Call:
    """One of somebody who sees two policies, and follows all jobs."""
    (endpoint,) = (one for one in ENDPOINTS if one.name == "follow_all")
    both = grants_of_roles([("viewer", "/policy/files"), ("viewer", "/policy/other")])
    return Call(
        backing=world.app.state.backing,
        endpoint=endpoint,
        principal=replace(the_machine(), grants=both),
        address="",
        request_id="",
        path="",
    )


@pytest.fixture
def jobs(world: World) -> Iterator[list[Job]]:
    """A job of each of two policies, which has been running for an hour."""
    jobs = [
        Job(
            id=f"0000000000000000000000000{number}",
            kind="backup",
            queue="direct",
            priority=0,
            policy=name,
            scope=policy_scope(name),
            status="running",
            actor="test",
            arguments={},
            attempts=1,
            cancel_asked=False,
            created_at=world.service.clock.now() - timedelta(hours=1),
        )
        for number, name in enumerate(("files", "other"))
    ]
    with world.service.catalog.session() as session:
        session.add_all(jobs)
    yield jobs
    with world.service.catalog.session() as session:
        for job in jobs:
            session.delete(session.get_one(Job, job.id))


def test_a_stream_of_all_jobs_tells_nothing_of_a_policy_that_was_taken_away(
    world: World, call: Call, jobs: list[Job]
) -> None:
    watched = _WatchedJobs(call, None)
    assert {sent.data["policy"] for sent in watched.look()} == {"files", "other"}
    call.principal = replace(call.principal, grants=grants_of_roles([("viewer", "/policy/other")]))
    with world.service.catalog.session() as session:
        for job in jobs:
            session.get_one(Job, job.id).progress = {"files": 7}
    assert {sent.data["policy"] for sent in watched.look()} == {"other"}
    with world.service.catalog.session() as session:
        for job in jobs:
            session.get_one(Job, job.id).status = "failed"
    assert {sent.data["policy"] for sent in watched.look()} == {"other"}  # the last that is told of it


def test_who_comes_back_hears_of_jobs_that_ended_meanwhile_however_old_they_are(
    world: World, call: Call, jobs: list[Job]
) -> None:
    first, last = _WatchedJobs(call, None).look()
    assert first.ident is not None
    assert last.ident is not None
    for ident in (first.ident, last.ident):  # also if the line was cut between the two
        seen = datetime.fromisoformat(ident)
        with world.service.catalog.session() as session:
            for job in jobs:
                found = session.get_one(Job, job.id)
                found.status, found.finished_at = "failed", seen
        back = _WatchedJobs(call, seen)
        told = {sent.data["id"]: sent.data["status"] for sent in back.look()}  # of other tests' jobs too, if just ended
        assert {job.id: told.get(job.id) for job in jobs} == {job.id: "failed" for job in jobs}
        assert back.look() == []
    assert _WatchedJobs(call, None).look() == []


def test_an_event_names_a_moment_until_which_all_was_told(world: World, call: Call, jobs: list[Job]) -> None:
    begun = world.service.clock.now() - timedelta(minutes=5)
    sent = _WatchedJobs(call, begun).look()
    assert len(sent) >= len(jobs) >= 2  # jobs of other tests may have ended meanwhile
    *before, last = (datetime.fromisoformat(one.ident or "") for one in sent)
    assert max(before) <= begun < last


@pytest.mark.parametrize("seen", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_that_this_never_named_does_no_harm(call: Call, seen: str) -> None:
    assert _WatchedJobs(call, datetime.fromisoformat(seen)).look() is not None


def test_one_user_leaves_places_to_others() -> None:
    listeners = Listeners(8)
    for _ in range(2):
        listeners.come("viewer")
    with pytest.raises(RateLimited, match="you listen"):
        listeners.come("viewer")
    for name in ("ann", "bob", "cid"):
        for _ in range(2):
            listeners.come(name)
    with pytest.raises(RateLimited, match="too many listen"):
        listeners.come("admin")
    listeners.go("ann")
    listeners.come("admin")


def test_a_stream_gives_its_place_back_to_who_took_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call.backing, "listeners", Listeners(4))
    stream = streamed(call, _WatchedJobs(call, None))
    with pytest.raises(RateLimited):
        streamed(call, _WatchedJobs(call, None))
    del stream
    gc.collect()
    assert streamed(call, _WatchedJobs(call, None))
