"""What agents do: they fetch their jobs, and tell how far these are and what became of them.

Nobody else may, not even an administrator: it takes the certificate of an agent, and that reaches its own jobs alone.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from backstay.api.answers import answer
from backstay.api.call import Call, Caller
from backstay.api.endpoints import PUBLIC, Section
from backstay.api.models.agents import (
    AcceptedDocument,
    AgentLine,
    AskForWork,
    AuthorityDocument,
    EndOfAgent,
    HandedJob,
    HeardDocument,
    Process,
    ReportOfAgent,
    WorkDocument,
)
from backstay.api.models.base import Ident
from backstay.catalog.models.base import Document
from backstay.control.agents.desk import AgentEnd, Handed
from backstay.control.agents.processes import Caller as AgentCaller
from backstay.control.agents.work import PROTOCOL
from backstay.control.jobs.rows import Line
from backstay.control.runs.capturing import policies_of_snapshots
from backstay.core.version import VERSION
from backstay.errors import BackstayError, Forbidden, InvalidRequest, NotFound, VersionUnsupported
from backstay.errors.documents import problem_document

section = Section("agents")
_LOOK_S: Final = 0.5
_ALLOWED_LOOKS: Final = 6  # after so many an agent that only waits is looked at, whether it still may


@section.get("/api/agents/authority", needs=PUBLIC, answers=AuthorityDocument)
def get_authority(call: Caller) -> Response:
    """Give the certificate of the agents' authority, which is no secret, to who is about to join."""
    authority = call.backing.access.agents.authority
    return answer(
        AuthorityDocument(
            certificate=authority.certificate,
            fingerprint=authority.fingerprint,
            protocol=PROTOCOL,
        )
    )


@section.post("/api/agents/work", needs="agent:work", does="job.take", answers={200: WorkDocument}, refuses=(501,))
async def fetch_work(call: Caller, body: AskForWork, request: Request) -> Response:
    """Give an agent the next job that is bound to it, or none when there was none for a while."""
    caller = _caller(call, body)
    call.recorded = True  # that there was nothing to do is no news
    until = call.backing.clock.monotonic() + body.wait_s
    handed = await run_in_threadpool(_taken, call, caller)
    looks = 0
    while handed is None and call.backing.clock.monotonic() < until and not call.backing.closing.is_set():
        await asyncio.sleep(_LOOK_S)
        looks += 1
        if await request.is_disconnected():  # a job would wait for a process that is gone
            break
        if looks % _ALLOWED_LOOKS == 0:
            await run_in_threadpool(call.still_allowed)
        if await run_in_threadpool(call.backing.service.desk.has_work, caller.agent):
            handed = await run_in_threadpool(_taken, call, caller, asks=False)
    if handed is None:
        return answer(WorkDocument(job=None))
    job = HandedJob(id=handed.tenure.job_id, attempt=handed.tenure.attempt, work=handed.work.document())
    return answer(WorkDocument(job=job))


@section.post(
    "/api/agents/jobs/{job}/report",
    needs="agent:work",
    does="job.report",
    answers={200: HeardDocument},
    refuses=(404, 501),
)
def report_work(call: Caller, job: Ident, body: ReportOfAgent) -> Response:
    """Take how far a job of an agent is, and tell whether it should end."""
    caller = _caller(call, body)
    call.about(f"job/{job}")
    asked = call.backing.service.desk.note(caller, job, body.attempt, _progress(body), _lines(body.lines))
    call.recorded = True  # every few seconds: the log of the job has it
    return answer(HeardDocument(cancel=bool(asked), lost=asked is None))


@section.post(
    "/api/agents/jobs/{job}/end",
    needs="agent:work",
    does="job.end",
    answers={200: AcceptedDocument},
    refuses=(404, 501),
)
def end_work(call: Caller, job: Ident, body: EndOfAgent) -> Response:
    """Take what became of a job of an agent."""
    caller = _caller(call, body)
    call.about(f"job/{job}", status=body.status, attempt=body.attempt)
    desk = call.backing.service.desk
    policy = desk.policy_of(caller, job)
    lines, status = _lines(body.lines), body.status
    error = None if body.error is None else body.error.model_dump(mode="json")
    result = _result(body, policy)
    if result is not None and result["backups"]:
        status, error = _listed(call, job, policy, result, lines, status, error)
    accepted = desk.end(
        caller, job, body.attempt, status, lines=lines, progress=_progress(body), result=result, error=error
    )
    call.about(f"job/{job}", status=status, accepted=accepted, backups=[] if result is None else result["backups"])
    return answer(AcceptedDocument(accepted=accepted))


def _caller(call: Call, body: Process) -> AgentCaller:
    """Which process of which agent calls. Raises Forbidden, VersionUnsupported."""
    who = call.principal
    if who.kind != "agent" or who.token_id is not None:
        raise Forbidden(
            "only an agent fetches work", cause="no certificate of one was shown", reason="missing_permission"
        )
    if body.protocol != PROTOCOL:
        older = body.protocol < PROTOCOL
        raise VersionUnsupported(
            f"this agent is too {'old' if older else 'new'} for the server",
            cause=f"it is version {body.version}, the server version {VERSION}",
            hint="bring the agent to the version of the server" if older else "bring the server up to date first",
        )
    return AgentCaller(
        agent=who.name, user_id=who.user_id, instance=body.instance, host=body.host, version=body.version
    )


def _taken(call: Call, caller: AgentCaller, *, asks: bool = True) -> Handed | None:
    """A job, once the agent was looked at again: it may have been shut out while it waited."""
    call.still_allowed()
    handed = call.backing.service.desk.take(caller, asks=asks)
    if handed is not None:
        call.about(f"job/{handed.tenure.job_id}", policy=handed.policy, attempt=handed.tenure.attempt)
        call.write("allow")
    return handed


def _progress(body: ReportOfAgent) -> Document | None:
    return None if body.progress is None else body.progress.model_dump(mode="json")


def _lines(lines: list[AgentLine]) -> list[Line]:
    return [Line(time=line.time, level=line.level, message=line.message) for line in lines]


def _result(body: EndOfAgent, policy: str) -> Document | None:
    if body.result is None:
        return None
    found = body.result.model_dump(mode="json")
    first = found["backups"][0] if found["backups"] else None
    return found | {"policy": policy, "backup_id": first}


def _listed(
    call: Call,
    job: str,
    policy: str,
    result: Document,
    lines: list[Line],
    status: AgentEnd,
    error: Document | None,
) -> tuple[AgentEnd, Document | None]:
    """Have the backups in the list before the job ends, as its end is counted with them.

    What is not in the repository of this service was made in another one: the job has failed. That the repository
    cannot be looked at just now is a line of the log: the list is made anew again and again.
    """
    now = call.backing.clock.now
    try:
        with call.backing.opener().open(index=False) as repository:
            try:
                names = {ident: repository.snapshots.get(ident).name or "" for ident in result["backups"]}
            except NotFound as missing:
                failure = NotFound(
                    "the backup is not in the repository of this service",
                    cause=str(missing),
                    hint="let the host of the agent use the same repository: `backstay -r ADDRESS agent run`",
                )
                lines.append(Line(time=now(), level="error", message=str(failure)))
                return "failed", error or (problem_document(failure) | {"job_id": job})
            for ident, name in names.items():
                if not _belongs(call, name, policy):
                    raise InvalidRequest(
                        f"the backup {ident} is none of the policy {policy}", cause=f"it is one of {name!r}"
                    )
            call.backing.index.made(repository, result["backups"], job_id=job, policy=policy)
    except InvalidRequest:
        raise
    except BackstayError as failed:
        lines.append(Line(time=now(), level="warning", message=f"the new backups are listed later: {failed}"))
    return status, error


def _belongs(call: Call, name: str, policy: str) -> bool:
    """Whether a snapshot is one of a policy, as its sources are named now or were when the run began."""
    loaded = call.backing.policies
    owner = None if loaded is None else policies_of_snapshots(loaded).get(name)
    return owner == policy or (owner is None and (name == policy or name.startswith(f"{policy}-")))
