"""Schedules as people see them: made, changed, paused, looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, false, or_, select
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import ScheduleRecord
from backstay.catalog.pages import Order, Page, page_of
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.scheduling.from_policies import SyncedSchedules, sync
from backstay.control.scheduling.kinds import DueJob, job_of
from backstay.control.scheduling.specs import ScheduleSpec, checked
from backstay.control.scheduling.timing import preview, set_next
from backstay.control.scheduling.work import require_work, sources_to_back_up
from backstay.core.arguments import checks_arguments
from backstay.core.clock import Clock
from backstay.core.ids import Random, is_ulid, new_ulid
from backstay.errors import InvalidRequest, NotFound, PreconditionFailed

MOST_PREVIEWED: Final = 100
NOTHING_TO_DO: Final = "nothing to do: "  # how a refusal begins
_ORDER: Final = Order(name="schedules", keys=(ScheduleRecord.id,), descending=False)
_TIMING: Final = ("cron", "timezone", "enabled", "jitter_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFilters:
    """Which schedules; None for any. `scopes` are what somebody may see: `/`, or `/policy/NAME`."""

    policy: str | None = None
    type: str | None = None
    origin: str | None = None
    enabled: bool | None = None
    scopes: Sequence[str] | None = None


@checks_arguments
class Schedules:
    """All schedules. With a `session` a change is part of its transaction, else a transaction of its own.

    `policies` gives the policy file as it stands, so that nothing is planned for a policy that there is not.
    """

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        *,
        policies: Callable[[], LoadedPolicies | None] = lambda: None,
        random: Random | None = None,
    ) -> None:
        self.catalog, self.clock = catalog, clock
        self._policies, self._random = policies, random

    # -- change

    def create(self, spec: ScheduleSpec, *, session: Session | None = None) -> ScheduleRecord:
        """Raises InvalidRequest, whose title begins with the field that cannot be."""
        spec = checked(spec, self._policies())
        now = self.clock.now()
        record = ScheduleRecord(id=self._new_id(), origin="api", created_at=now, updated_at=now, version=1)
        _take(record, spec)
        set_next(record, now, now)
        with self._within(session) as inner:
            inner.add(record)
            inner.flush()
        return record

    def update(
        self, schedule_id: str, spec: ScheduleSpec, *, version: int | None = None, session: Session | None = None
    ) -> ScheduleRecord:
        """Change all of it. Raises NotFound, InvalidRequest, PreconditionFailed if it is not that version any more."""
        spec = checked(spec, self._policies())
        now = self.clock.now()
        with self._within(session) as inner:
            record = _own(_found(inner, schedule_id), version)
            before = [getattr(record, name) for name in _TIMING]
            _take(record, spec)
            if before != [getattr(record, name) for name in _TIMING]:
                set_next(record, now, now)
            _changed(record, now)
        return record

    def delete(self, schedule_id: str, *, version: int | None = None, session: Session | None = None) -> None:
        """Its jobs stay. Raises NotFound, InvalidRequest for one of the policy file, PreconditionFailed."""
        with self._within(session) as inner:
            inner.delete(_own(_found(inner, schedule_id), version))
            inner.flush()

    def pause(
        self,
        schedule_id: str,
        *,
        until: datetime | None = None,
        reason: str = "",
        version: int | None = None,
        session: Session | None = None,
    ) -> ScheduleRecord:
        """Let it not run until a moment, or until somebody resumes it. Times in between are not made up for.

        Raises NotFound, InvalidRequest, PreconditionFailed.
        """
        now = self.clock.now()
        if until is not None and (until.tzinfo is None or until <= now):
            raise InvalidRequest(
                "until cannot be so", cause=f"{until.isoformat()} is over, or has no zone", hint="give a time to come"
            )
        with self._within(session) as inner:
            record = _expected(_found(inner, schedule_id), version)
            record.paused_until, record.paused_reason = until, reason
            set_next(record, now, now)
            _changed(record, now)
        return record

    def resume(self, schedule_id: str, *, version: int | None = None, session: Session | None = None) -> ScheduleRecord:
        """End a pause; the next time is the first after now. Raises NotFound, PreconditionFailed."""
        now = self.clock.now()
        with self._within(session) as inner:
            record = _expected(_found(inner, schedule_id), version)
            record.paused_until = record.paused_reason = None
            set_next(record, now, now)
            _changed(record, now)
        return record

    def sync_from_policies(self, loaded: LoadedPolicies | None, *, session: Session | None = None) -> SyncedSchedules:
        """Make the schedules of the policy file those of a file; without one all of them are disabled."""
        with self._within(session) as inner:
            return sync(inner, loaded, self.clock.now())

    # -- look

    def get(self, schedule_id: str) -> ScheduleRecord:
        """Raises NotFound."""
        with self.catalog.reading() as session:
            return _found(session, schedule_id, to_change=False)

    def page(
        self, filters: ScheduleFilters | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[ScheduleRecord]:
        """Schedules, those of the policy file first. Raises InvalidRequest."""
        filters = filters or ScheduleFilters()
        query = select(ScheduleRecord)
        for name in ("policy", "type", "origin", "enabled"):
            if (wanted := getattr(filters, name)) is not None:
                query = query.where(getattr(ScheduleRecord, name) == wanted)
        if filters.scopes is not None:
            query = query.where(_visible(filters.scopes))
        with self.catalog.reading() as session:
            return page_of(session, query, _ORDER, limit=limit, cursor=cursor)

    def preview(self, schedule_id: str, n: int = 5) -> list[datetime]:
        """The next moments at which it will run, in UTC; none if it will not. Raises NotFound, InvalidRequest."""
        return preview(self.get(schedule_id), _checked_count(n), self.clock.now())

    def refusal(self, record: ScheduleRecord) -> str | None:
        """Why a schedule that was good when it was made has nothing to do any more; None if it has."""
        if record.origin != "api" or (policies := self._policies()) is None:
            return None
        try:
            require_work(record.type, record.policy, record.sources, policies)
        except InvalidRequest as error:
            return f"{NOTHING_TO_DO}{error.cause}"
        return None

    def job_of(self, record: ScheduleRecord, time: datetime) -> DueJob:
        """The job for a time of a schedule. Raises InvalidRequest, NotFound when there is nothing to do any more."""
        sources: Sequence[str] = record.sources
        if record.origin == "api" and (policies := self._policies()) is not None:
            sources = sources_to_back_up(record.type, record.policy, sources, policies)
        return job_of(record, time, sources)

    # -- inside

    @contextmanager
    def _within(self, session: Session | None) -> Iterator[Session]:
        if session is not None:
            yield session
            session.flush()
            return
        with self.catalog.session() as own:
            yield own

    def _new_id(self) -> str:
        now_ns = self.clock.now_ns()
        return new_ulid(now_ns) if self._random is None else new_ulid(now_ns, self._random)


def _take(record: ScheduleRecord, spec: ScheduleSpec) -> None:
    for name, value in asdict(spec).items():
        setattr(record, name, list(value) if name == "sources" else value)
    record.name = spec.name.strip()


def _changed(record: ScheduleRecord, now: datetime) -> None:
    record.updated_at = now
    record.version += 1


def _found(session: Session, schedule_id: str, *, to_change: bool = True) -> ScheduleRecord:
    lock = {"skip_locked": False} if to_change else None  # the ticker may be at it
    record = session.get(ScheduleRecord, schedule_id, with_for_update=lock) if is_ulid(schedule_id) else None
    if record is None:
        raise NotFound(
            f"there is no schedule {schedule_id[:80]}",
            cause="none has this id, or it was deleted",
            hint="the list of schedules shows them",
        )
    return record


def _expected(record: ScheduleRecord, version: int | None) -> ScheduleRecord:
    if version is not None and record.version != version:
        raise PreconditionFailed(
            f"the schedule {record.name!r} was changed meanwhile",
            cause=f"it is version {record.version}, not {version}",
        )
    return record


def _own(record: ScheduleRecord, version: int | None) -> ScheduleRecord:
    """One that people may change here."""
    if record.origin == "file":
        raise InvalidRequest(
            f"the schedule {record.name!r} stands in the policy file",
            cause="what the file says is changed there",
            hint="change the file, or pause the schedule",
        )
    return _expected(record, version)


def _visible(scopes: Sequence[str]) -> ColumnElement[bool]:
    allowed: list[ColumnElement[bool]] = []
    for scope in scopes:
        match scope.strip("/").split("/"):
            case [""]:
                return ScheduleRecord.id.is_not(None)
            case ["policy", policy]:
                allowed.append(ScheduleRecord.policy == policy)
            case ["repository"]:
                allowed.append(ScheduleRecord.policy == "")
    return or_(*allowed) if allowed else false()


def _checked_count(n: int) -> int:
    if not 1 <= n <= MOST_PREVIEWED:
        raise InvalidRequest("n cannot be so", cause=f"it is {n}", hint=f"ask for 1 to {MOST_PREVIEWED} times")
    return n
