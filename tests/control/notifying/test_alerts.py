"""Each alert is told once when it begins and once when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import (
    AgentProcess,
    AlertState,
    AuditEntry,
    Backup,
    Base,
    Job,
    OutboxMessage,
    Target,
    Worker,
)
from backstay.control.metrics.expectations import Expectations, PolicyExpectation
from backstay.control.notifying.alerts import Alerts
from backstay.control.notifying.conditions import Condition
from backstay.control.notifying.conditions.workers import lost_worker
from backstay.control.notifying.notifier import Notifier
from backstay.testing.clock import FakeClock
from tests.control.notifying.conftest import Expected
from tests.control.notifying.rows import Mailbox, add_agent_process, backup, job, sample, schedule, worker

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def nothing(session: Session, clock: FakeClock) -> None:
    """Nothing happens before."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """How something comes to hold, what is told then, how it ends, and what is told of that."""

    begin: Callable[[Session, FakeClock], Any]
    told: str
    end: Callable[[Session, FakeClock], Any]
    told_end: str
    before: Callable[[Session, FakeClock], Any] = nothing
    expected: Expectations = field(default_factory=Expectations)


SHOP = Expectations(policies={"shop": PolicyExpectation(sources=("shop",), rpo=DAY)})
CHECKED = Expectations(
    policies={"shop": PolicyExpectation(sources=("shop",), verification=7 * DAY, rehearsal=30 * DAY)}
)


def denials(count: int) -> Callable[[Session, FakeClock], None]:
    def write(session: Session, clock: FakeClock) -> None:
        for number in range(count):
            session.add(
                AuditEntry(
                    seq=number + 1,
                    time=clock.now(),
                    actor="mallory",
                    action="backup:read",
                    object="/policy/shop",
                    outcome="deny",
                    prev_hash="",
                    hash="",
                )
            )

    return write


def later(length: timedelta) -> Callable[[Session, FakeClock], None]:
    def passes(session: Session, clock: FakeClock) -> None:
        clock.advance(length.total_seconds())

    return passes


def changed(model: type[Base], **values: Any) -> Callable[[Session, FakeClock], None]:
    """What changes all rows; a value may be a function of the time."""

    def change(session: Session, clock: FakeClock) -> None:
        session.execute(update(model).values({k: v(clock.now()) if callable(v) else v for k, v in values.items()}))

    return change


def added(*makers: Callable[[datetime], Any]) -> Callable[[Session, FakeClock], None]:
    """Rows that are made of the time."""

    def add(session: Session, clock: FakeClock) -> None:
        session.add_all([make(clock.now()) for make in makers])

    return add


def now(moment: datetime) -> datetime:
    return moment


def gone(session: Session, clock: FakeClock) -> None:
    session.execute(delete(Backup))


def replaced(session: Session, clock: FakeClock) -> None:
    session.execute(delete(Worker))
    session.add(worker(clock.now(), pid=8))


def growth(days: int, daily: int, quota: int) -> Callable[[Session, FakeClock], None]:
    def write(session: Session, clock: FakeClock) -> None:
        for number in range(days):
            session.add(sample(clock.now() - (days - 1 - number) * DAY, number * daily, quota_bytes=quota))

    return write


CASES = {
    "no fresh backup": Case(
        before=added(backup),
        expected=SHOP,
        begin=later(DAY + HOUR),
        told="error: shop has no good backup since 2026-01-01 00:00 UTC",
        end=added(backup),
        told_end="resolved: shop has a good backup again",
    ),
    "no backup at all": Case(
        before=added(lambda at: schedule(at, "0 * * * *")),
        begin=later(2 * HOUR),
        expected=Expectations(policies={"shop": PolicyExpectation(sources=("shop",))}),
        told="error: shop has no good backup",
        end=added(backup),
        told_end="resolved: shop has a good backup again",
    ),
    "not verified": Case(
        before=added(
            lambda at: backup(at, verified_at=at, verified_ok=True, rehearsed_at=at + 9 * DAY, rehearsed_ok=True)
        ),
        expected=CHECKED,
        begin=later(8 * DAY),
        told="warning: shop was not verified since 2026-01-01 00:00 UTC",
        end=changed(Backup, verified_at=now),
        told_end="resolved: shop was verified again",
    ),
    "never restored": Case(
        before=added(
            lambda at: backup(at, verified_at=at + 32 * DAY, verified_ok=True, rehearsed_at=at, rehearsed_ok=False)
        ),
        expected=CHECKED,
        begin=later(31 * DAY),
        told="warning: shop was never restored to try it",
        end=changed(Backup, rehearsed_at=now, rehearsed_ok=True),
        told_end="resolved: shop was restored to try it again",
    ),
    "quota": Case(
        before=added(lambda at: sample(at, 80, quota_bytes=100)),
        begin=added(lambda at: sample(at, 91, quota_bytes=100)),
        told="warning: the quota of the repository is 91 % full",
        end=added(lambda at: sample(at, 50, quota_bytes=100)),
        told_end="resolved: the quota of the repository has room again",
    ),
    "disk": Case(
        begin=added(lambda at: sample(at, 5, free_bytes=1, facts={"disk_bytes": 100})),
        told="error: the disk of the repository is 99 % full",
        end=added(lambda at: sample(at, 5, free_bytes=60, facts={"disk_bytes": 100})),
        told_end="resolved: the disk of the repository has room again",
    ),
    "growth": Case(
        before=growth(10, 10, 1000),
        begin=added(lambda at: sample(at, 90, quota_bytes=110)),
        told="warning: the repository will be full in 48 hours",
        end=added(lambda at: sample(at, 90, quota_bytes=1000)),
        told_end="resolved: the repository will not be full soon",
    ),
    "damage": Case(
        before=added(lambda at: backup(at, verified_ok=True)),
        begin=changed(Backup, verified_ok=False),
        told="error: 1 backup of shop failed verification",
        end=gone,
        told_end="resolved: no backup of shop is known to be damaged any more",
    ),
    "access": Case(
        begin=denials(10),
        told="warning: mallory was refused 10 times",
        end=later(timedelta(minutes=11)),
        told_end="resolved: mallory is no longer refused",
    ),
    "key": Case(
        before=added(lambda at: sample(at, 1, facts={"key_ages": {"1": 86400.0}})),
        begin=later(90 * DAY),
        told="warning: the key of the repository is 91 days old",
        end=added(lambda at: sample(at, 1, facts={"key_ages": {"2": 60.0}})),
        told_end="resolved: the repository has a new key",
    ),
    "job that waits": Case(
        before=added(lambda at: job(at, status="queued")),
        begin=later(2 * HOUR),
        told="warning: backup of shop waits for 2 hours",
        end=changed(Job, status="running", started_at=now),
        told_end="resolved: backup of shop goes on",
    ),
    "job that runs": Case(
        before=added(lambda at: job(at, status="running", worker="node1:7")),
        begin=later(2 * DAY),
        told="warning: backup of shop runs for 48 hours",
        end=changed(Job, status="succeeded", finished_at=now),
        told_end="resolved: backup of shop goes on",
    ),
    "worker": Case(
        before=added(worker),
        begin=later(HOUR),
        told="warning: a worker on node1 was lost",
        end=replaced,
        told_end="resolved: a worker on node1 is back, or none is awaited any more",
    ),
    "agent": Case(
        before=lambda session, clock: add_agent_process(session, clock.now()),
        expected=Expectations(agents=("web-1",)),
        begin=later(HOUR + timedelta(minutes=2)),
        told="warning: the agent web-1 was not seen for 62 minutes",
        end=changed(AgentProcess, seen_at=now),
        told_end="resolved: the agent web-1 is back",
    ),
    "agent that never came": Case(
        expected=Expectations(agents=("web-1",)),
        begin=later(2 * HOUR),
        told="warning: the agent web-1 was never seen",
        end=lambda session, clock: add_agent_process(session, clock.now()),
        told_end="resolved: the agent web-1 is back",
    ),
    "job that waits for an agent": Case(
        before=added(lambda at: job(at, status="queued", queue="agents", agent="web-1")),
        begin=later(2 * HOUR),
        told="warning: backup of shop waits for 2 hours",
        end=changed(Job, status="running", started_at=now),
        told_end="resolved: backup of shop goes on",
    ),
}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", CASES)
def test_each_is_told_once_when_it_begins_and_once_when_it_ends(
    name: str,
    new_catalog: Catalog,
    clock: FakeClock,
    alerts: Alerts,
    notifier: Notifier,
    mailbox: Mailbox,
    expected: Expected,
) -> None:
    case = CASES[name]
    expected.now = case.expected

    def happens(what: Callable[[Session, FakeClock], Any]) -> list[str]:
        mailbox.got.clear()
        with new_catalog.session() as session:
            what(session, clock)
        for _ in range(3):
            alerts.evaluate()
            notifier.deliver_due()
        return mailbox.titles

    assert happens(case.before) == []
    assert happens(case.begin) == [case.told]
    assert [alert.resolved_at for alert in alerts.on()] == [None]
    assert happens(case.end) == [case.told_end]
    assert alerts.on() == []


def test_a_message_says_why_and_what_to_do_and_names_the_policy(
    new_catalog: Catalog, clock: FakeClock, alerts: Alerts, notifier: Notifier, mailbox: Mailbox, expected: Expected
) -> None:
    expected.now = SHOP
    assert alerts.evaluate().began == ()  # it may have been there for a minute only
    clock.advance(25 * 3600)
    alerts.evaluate()
    notifier.deliver_due()
    ((_, message),) = mailbox.got
    assert message.body.splitlines() == [
        "shop has no good backup",
        "Cause: there is none at all, and 24 hours are allowed",
        "What to do: look at the last jobs of its policy, mend what keeps them, and run it now",
        "",
        "Policy: shop",
        "",
        f"Message: {message.id}",
    ]


def test_a_schedule_says_how_old_a_backup_may_be_and_a_paused_one_says_nothing(
    new_catalog: Catalog, clock: FakeClock, alerts: Alerts, expected: Expected
) -> None:
    expected.now = Expectations(policies={"shop": PolicyExpectation(sources=("shop", "shop-db"))})
    nightly = schedule(clock.now(), "0 2 * * *")
    with new_catalog.session() as session:
        session.add_all([nightly, schedule(clock.now(), "0 * * * *", sources=["db"])])
        session.add_all([backup(clock.now()), backup(clock.now(), source="shop-db")])
    clock.advance(2 * 3600)
    assert alerts.evaluate().began == ("rpo_at_risk:shop-db",)  # hourly: an hour and a half is allowed
    clock.advance(35 * 3600)
    assert alerts.evaluate().began == ("rpo_at_risk:shop",)  # nightly: 36 hours
    with new_catalog.session() as session:
        session.merge(nightly).paused_until = clock.now() + DAY
    assert alerts.evaluate().ended == ("rpo_at_risk:shop",)


def test_a_limit_is_left_a_little_later_than_it_was_reached(
    new_catalog: Catalog, clock: FakeClock, alerts: Alerts
) -> None:
    def at(used: int) -> tuple[int, int]:
        with new_catalog.session() as session:
            session.add(sample(clock.now(), used, quota_bytes=100))
        found = alerts.evaluate()
        return len(found.began), len(found.ended)

    assert [at(used) for used in (89, 90, 89, 90, 89, 88, 89)] == [
        (0, 0),
        (1, 0),
        (0, 0),
        (0, 0),
        (0, 0),
        (0, 1),
        (0, 0),
    ]


def test_an_alert_that_comes_again_is_told_again_and_counted(
    new_catalog: Catalog, clock: FakeClock, alerts: Alerts, notifier: Notifier, mailbox: Mailbox
) -> None:
    for used in (95, 10, 95, 10, 95):
        with new_catalog.session() as session:
            session.add(sample(clock.now(), used, quota_bytes=100))
        alerts.evaluate()
        clock.advance(60)
    notifier.deliver_due()
    begins = "warning: the quota of the repository is 95 % full"
    ends = "resolved: the quota of the repository has room again"
    assert mailbox.titles == [begins, ends, begins, ends, begins]
    (alert,) = alerts.on()
    assert alert.count == 3


def test_who_cannot_be_reached_is_told_of_to_all_others(
    new_catalog: Catalog, clock: FakeClock, alerts: Alerts, notifier: Notifier, mailbox: Mailbox
) -> None:
    with new_catalog.session() as session:
        row = session.scalar(select(Target))
        assert row is not None
        broken = notifier.targets.create(session, name="broken", address="json://broken.example/hook")
        session.add(
            OutboxMessage(
                message_id="m1",
                target_id=broken.id,
                kind="test",
                severity="info",
                title="t",
                body="b",
                created_at=clock.now(),
                given_up_at=clock.now(),
                last_error="the server answered 500",
            )
        )
    assert alerts.evaluate().began == ("undeliverable:target broken",)
    notifier.deliver_due()
    assert [address for address, _ in mailbox.got] == ["json://everything.example/hook"]
    assert mailbox.titles == ["warning: messages do not reach broken (json://***)"]
    assert "Cause: the server answered 500" in mailbox.got[0][1].body
    with new_catalog.session() as session:
        session.execute(update(OutboxMessage).where(OutboxMessage.message_id == "m1").values(sent_at=clock.now()))
    assert alerts.evaluate().ended == ("undeliverable:target broken",)


def test_a_lost_worker_whose_row_went_at_once_stays_told_until_its_host_has_another(
    new_catalog: Catalog, clock: FakeClock, alerts: Alerts
) -> None:
    alerts.workers_lost(["node1:7:ab01"])
    alerts.workers_lost([])
    assert [alert.subject for alert in alerts.on()] == ["worker of node1"]
    clock.advance(600)
    assert alerts.evaluate().ended == ()
    with new_catalog.session() as session:
        session.add(worker(clock.now(), pid=8))
    assert alerts.evaluate().ended == ("worker_lost:worker of node1",)


def test_a_host_that_was_taken_away_is_forgotten_after_a_day(
    new_catalog: Catalog, clock: FakeClock, alerts: Alerts
) -> None:
    with new_catalog.session() as session:
        alerts.begin(session, lost_worker("node1", 7))
    clock.advance(25 * 3600)
    assert alerts.evaluate().ended == ("worker_lost:worker of node1",)


def test_a_job_that_was_told_to_wait_is_not_stuck(new_catalog: Catalog, clock: FakeClock, alerts: Alerts) -> None:
    until = (clock.now() + DAY).isoformat()
    with new_catalog.session() as session:
        session.add(job(clock.now(), status="queued", arguments={"not_before": until}))
    clock.advance(20 * 3600)
    assert alerts.evaluate().began == ()
    clock.advance(6 * 3600)
    assert len(alerts.evaluate().began) == 1


def test_nothing_is_told_of_an_alert_whose_transaction_fails(
    new_catalog: Catalog, clock: FakeClock, alerts: Alerts, notifier: Notifier, mailbox: Mailbox
) -> None:
    condition = Condition(kind="capacity", subject="x", severity="warning", title="full", ended="room")

    def fails() -> None:
        with new_catalog.session() as session:
            assert alerts.begin(session, condition)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    notifier.deliver_due()
    assert (alerts.on(), mailbox.got) == ([], [])
    with new_catalog.session() as session:
        assert alerts.begin(session, condition)
        assert not alerts.begin(session, replace(condition, title="fuller"))
    assert [alert.title for alert in alerts.on()] == ["fuller"]


def test_a_subject_of_any_length_has_a_fingerprint_that_fits(new_catalog: Catalog, alerts: Alerts) -> None:
    one = Condition(kind="capacity", subject="x" * 400 + "1", severity="warning", title="t", ended="e")
    with new_catalog.session() as session:
        assert alerts.begin(session, one)
        assert alerts.begin(session, replace(one, subject="x" * 400 + "2"))
        assert all(len(row.fingerprint) <= 255 for row in session.scalars(select(AlertState)))
