"""Recoveries by plans: which there are, and carried out. They are followed as restores are."""

from __future__ import annotations

from typing import Final

from fastapi import Response

from backstay.api.answers import page
from backstay.api.call import Call, Caller
from backstay.api.endpoints import Section
from backstay.api.job_answers import accepted, job_meant
from backstay.api.models.base import MAXIMUM_LIMIT, Ident, PageOf, PageQuery
from backstay.api.models.jobs import JobDocument
from backstay.api.models.recoveries import AskedRecovery, PlannedStepDocument, RecoveryPlanDocument
from backstay.api.paging import part_of
from backstay.control.access.scopes import EVERYTHING
from backstay.control.jobs.kinds import FINISHED, JobKind, RecoveryArguments
from backstay.control.jobs.listing import JobFilters
from backstay.control.recovery.kept_plans import KeptPlans
from backstay.control.recovery.loading import LoadedPlan
from backstay.control.recovery.performing import told
from backstay.control.recovery.report import digest_of
from backstay.control.service.recovering import already_running, plans_of
from backstay.errors import BackstayError, InvalidRequest, JobConflict
from backstay.errors.documents import problem_document

section = Section("recoveries")
_KINDS: Final[tuple[JobKind, ...]] = ("recovery",)


@section.get("/api/recovery/plans", needs="restore:recover", answers=PageOf[RecoveryPlanDocument], slow=True)
def list_plans(call: Caller, asked: PageQuery) -> Response:
    """List the recovery plans that the service may carry out."""
    call.require(EVERYTHING, seen="restore:recover")
    plans = _plans(call)
    shown, following = part_of(plans.names(), lambda name: name, asked)
    return page([_document(call, plans, name) for name in shown], following)


@section.post(
    "/api/recovery/plans/{plan}/run",
    needs="restore:recover",
    does="recovery.run",
    answers={202: JobDocument},
    refuses=(404, 409),
    creates=True,
    limit="restore",
)
def run_plan(call: Caller, plan: Ident, body: AskedRecovery) -> Response:
    """Carry a recovery plan out, go on with one, or only look what it would do.

    It restores and runs programs with the rights of the service. Steps that ask a question are refused unless they are
    named as `confirmed`.
    """
    call.require(EVERYTHING, seen="restore:recover")
    call.about(f"plan/{plan}", plan=plan, dry_run=body.dry_run, confirmed=body.confirmed, resume=body.resume)
    loaded = _plans(call).load(plan, call.backing.service.environ)
    arguments = RecoveryArguments(
        plan=plan, digest=_digest(loaded, body), confirmed=body.confirmed, dry_run=body.dry_run
    )
    if body.resume is not None:
        arguments["run"] = _first_run(call, plan, body.resume)
    ident = call.new_id()
    if not body.dry_run:
        _require_answers(loaded, body)
        _require_none_running(call, plan, ident)
    job = call.backing.jobs.create(
        "recovery",
        dict(arguments),
        scope=EVERYTHING,
        actor=call.principal.name,
        job_id=ident,
        within=call.record,
    )
    return accepted(call, job)


def _plans(call: Call) -> KeptPlans:
    return plans_of(call.backing.service.context())


def _document(call: Call, plans: KeptPlans, name: str) -> RecoveryPlanDocument:
    try:
        loaded = plans.load(name, call.backing.service.environ)
    except BackstayError as error:
        problem = problem_document(error)
        return RecoveryPlanDocument(name=name, description="", digest=None, steps=[], error=problem)
    steps = [
        PlannedStepDocument(name=step, type=one.type, what=told(one), needs=list(one.needs), confirm=one.confirm)
        for step, one in loaded.steps.items()
    ]
    return RecoveryPlanDocument(
        name=name, description=loaded.plan.description, digest=digest_of(loaded), steps=steps, error=None
    )


def _digest(loaded: LoadedPlan, body: AskedRecovery) -> str:
    """The plan as it is now, which must be the one that was looked at. Raises JobConflict."""
    found = digest_of(loaded)
    if body.digest not in (None, found):
        raise JobConflict(
            "the plan was changed since it was looked at",
            cause=f"its digest is {found}",
            hint="look at it again: `GET /api/recovery/plans`",
        )
    return found


def _require_answers(loaded: LoadedPlan, body: AskedRecovery) -> None:
    """Raises InvalidRequest for questions without an answer, and for answers without a question."""
    asking = {name: step.confirm for name, step in loaded.steps.items() if step.confirm is not None}
    open_ones = [name for name in asking if name not in body.confirmed]
    if open_ones:
        raise InvalidRequest(
            "there are questions to be answered by yes",
            cause=", ".join(f"{name}: {asking[name]}" for name in open_ones),
            hint="name these steps as `confirmed`",
        )
    strange = [name for name in body.confirmed if name not in asking]
    if strange:
        raise InvalidRequest("`confirmed` names what asks nothing", cause=", ".join(strange[:5]), hint="leave it out")


def _require_none_running(call: Call, plan: str, own: str) -> None:
    """See that the plan is not being carried out, by whatever host; workers see to it again. Raises JobConflict."""
    filters = JobFilters(kinds=_KINDS, status=("queued", "running"))
    for job in call.backing.jobs.page(filters, MAXIMUM_LIMIT).items:
        arguments = job.arguments or {}
        if arguments.get("plan") == plan and not arguments.get("dry_run") and job.id != own:
            raise already_running(f"the job {job.id} is {job.status}")


def _first_run(call: Call, plan: str, ident: str) -> str:
    """The first job of a recovery that is to be gone on with. Raises NotFound, JobConflict, InvalidRequest."""
    before = job_meant(call, ident, _KINDS)
    arguments = before.arguments or {}
    if arguments.get("plan") != plan or arguments.get("dry_run"):
        raise InvalidRequest(
            f"{ident} is no recovery by this plan", cause=f"it is one by {arguments.get('plan')!r}, or only looked"
        )
    if before.status not in FINISHED or before.status == "succeeded":
        raise JobConflict(
            f"the recovery {ident} is not to be gone on with",
            cause=f"it is {before.status}",
            hint="wait for its end, or carry the plan out anew",
        )
    return str(arguments.get("run") or before.id)
