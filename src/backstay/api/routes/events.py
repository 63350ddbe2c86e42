"""All jobs as they change, and the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import Header, Response

from backstay.api.call import Call, Caller
from backstay.api.endpoints import Section
from backstay.api.job_answers import job_document
from backstay.api.models.jobs import JobDocument
from backstay.api.streams import MEDIA_TYPE, Sent, streamed
from backstay.catalog.models import Job
from backstay.control.access.scopes import EVERYTHING
from backstay.control.jobs.listing import JobFilters
from backstay.control.metrics.exposition import CONTENT_TYPE, exposition

section = Section("events")
_RECENT: Final = timedelta(minutes=10)  # how long jobs are told of again to who comes back
_LATE: Final = timedelta(seconds=10)  # a change is seen after its time: it has to be committed, and clocks differ
_MOST: Final = 500
LastMoment = Annotated[str | None, Header(max_length=40, pattern=r"^[0-9TZ:.+-]*$")]


@section.get("/api/events", needs="backup:read", answers={"type": "string"}, media_type=MEDIA_TYPE)
def follow_all(call: Caller, last_event_id: LastMoment = None) -> Response:
    """Follow all jobs that the caller may see: an event `job` for each that runs, and after each change.

    Who comes back with Last-Event-ID gets the jobs that were asked for or ended since, as far as ten minutes back.
    """
    return streamed(call, _WatchedJobs(call, _moment(last_event_id)))


@section.get(
    "/metrics", needs="backup:read", answers={"type": "string"}, media_type=CONTENT_TYPE, slow=True, probed=True
)
def metrics(call: Caller) -> Response:
    """Give the metrics for Prometheus, to those who may see everything."""
    call.require(EVERYTHING, seen="backup:read")
    text = exposition(call.backing.catalog, call.backing.clock, expected=call.backing.expected())
    return Response(text, media_type=CONTENT_TYPE)


class _WatchedJobs:
    """What a stream tells of all jobs of some scopes."""

    ended = False

    def __init__(self, call: Call, since: datetime | None) -> None:
        self._call = call
        self._shown: dict[str, JobDocument] = {}
        now = call.backing.clock.now()
        self._since = self._told = now if since is None else max(min(since, now), now - _RECENT) - _LATE
        self._missed = since is not None

    def look(self) -> Sequence[Sent]:
        """Jobs that run or wait, and those that were asked for since the beginning, as far as they changed.

        To who comes back also those that ended meanwhile, once.
        """
        now = self._call.backing.clock.now()
        found: dict[str, Job] = {}
        wanted = [
            JobFilters(status=("queued", "running"), scopes=self._call.scopes),
            JobFilters(since=self._since, scopes=self._call.scopes),
        ]
        if self._missed:
            wanted.append(JobFilters(ended_since=self._since, scopes=self._call.scopes))
        for filters in wanted:
            found |= {job.id: job for job in self._call.backing.jobs.page(filters, _MOST).items}
        for ident in self._shown.keys() - found.keys():  # it ran, and was asked for before
            job = self._call.backing.jobs.get(ident)
            if self._call.principal.may(self._call.needs, job.scope):  # rights may have been taken away since
                found[ident] = job
        sent = []
        for job in found.values():
            document = job_document(job)
            if self._shown.get(job.id) != document:
                sent.append(Sent(event="job", data=document, ident=self._told.isoformat()))
        if sent:  # who has the last of them has all of them
            sent[-1] = replace(sent[-1], ident=now.isoformat())
        self._told, self._missed = now, False
        self._shown = {
            job.id: job_document(job)
            for job in found.values()
            if job.finished_at is None or job.created_at >= self._since
        }
        return sent


def _moment(text: str | None) -> datetime | None:
    """A time that this gave as the id of an event; anything else is none."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
