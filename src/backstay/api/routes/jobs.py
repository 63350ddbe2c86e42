"""Jobs but restores: listed, followed, cancelled."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Response

from backstay.api.answers import answer
from backstay.api.call import Caller
from backstay.api.endpoints import Section
from backstay.api.job_answers import OTHERS, WatchedJob, cancelled, job_document, job_meant, jobs_page, log_page
from backstay.api.models.base import Ident, PageOf
from backstay.api.models.jobs import BackupJobQuery, JobDocument, LineDocument, LogQuery
from backstay.api.streams import MEDIA_TYPE, streamed

section = Section("jobs")
LastEvent = Annotated[str | None, Header(max_length=18, pattern=r"^[0-9]*$")]  # a number that catalogs can hold


@section.get("/api/backup/jobs", needs="backup:read", answers=PageOf[JobDocument])
def list_jobs(call: Caller, asked: Annotated[BackupJobQuery, Query()]) -> Response:
    """List jobs, the newest first: backups, verifications, upkeep; restores have a list of their own."""
    return jobs_page(call, asked, OTHERS if asked.kind is None else (asked.kind,))


@section.get("/api/backup/jobs/{job}", needs="backup:read", answers=JobDocument, refuses=(404,))
def get_job(call: Caller, job: Ident) -> Response:
    """Tell how a job is."""
    return answer(job_document(job_meant(call, job, OTHERS)))


@section.delete(
    "/api/backup/jobs/{job}", needs="backup:cancel", does="job.cancel", answers={202: JobDocument}, refuses=(409,)
)
def cancel_job(call: Caller, job: Ident) -> Response:
    """Cancel a job. One that waits never starts; one that runs ends soon. Asking again changes nothing."""
    return cancelled(call, job, OTHERS)


@section.get("/api/backup/jobs/{job}/log", needs="backup:read", answers=PageOf[LineDocument], refuses=(404,))
def get_job_log(call: Caller, job: Ident, asked: Annotated[LogQuery, Query()]) -> Response:
    """Show a job's log, the oldest line first."""
    return log_page(call, job, OTHERS, asked)


@section.get(
    "/api/backup/jobs/{job}/events",
    needs="backup:read",
    answers={"type": "string"},
    media_type=MEDIA_TYPE,
    refuses=(404,),
)
def follow_job(call: Caller, job: Ident, last_event_id: LastEvent = None) -> Response:
    """Follow a job: an event `job` after each change, `line` for each line of its log, `end` at the end.

    Who comes back with Last-Event-ID gets the lines that came since.
    """
    found = job_meant(call, job, OTHERS)
    return streamed(call, WatchedJob(call.backing.jobs, found.id, int(last_event_id or 0)))
