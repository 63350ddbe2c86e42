"""The end of a job is counted and told of once, whoever wrote it and whoever settles it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import Job
from backstay.control.metrics.counters import counted
from backstay.control.metrics.monitor import monitor_status
from backstay.control.notifying.alerts import Alerts
from backstay.control.notifying.matchers import Rule
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.settling import Settling
from backstay.testing.clock import FakeClock
from tests.control.notifying.rows import Mailbox, backup, job, schedule

FAILED = "error: backup of shop failed: there is no room"
SUCCEEDED = "info: backup of shop succeeded"
AGAIN = "resolved: backup of shop succeeded again"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def counts(session: Session, name: str) -> dict[str, float]:
    return {row.labels: row.value for row in counted(session) if row.name == name}


def add(catalog: Catalog, *rows: Any) -> None:
    with catalog.session() as session:
        session.add_all(rows)


def test_failures_are_an_alert_that_the_next_success_ends(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, notifier: Notifier, mailbox: Mailbox
) -> None:
    for status in ("succeeded", "failed", "failed", "cancelled", "succeeded", "succeeded"):
        add(new_catalog, job(clock.now(), status=status))
        assert settling.sweep() == 1
        assert settling.sweep() == 0
        clock.advance(60)
    notifier.deliver_due()
    assert mailbox.titles == [SUCCEEDED, FAILED, SUCCEEDED, AGAIN, SUCCEEDED]


def test_the_message_has_cause_and_solution_policy_and_schedule(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, notifier: Notifier, mailbox: Mailbox
) -> None:
    nightly = schedule(clock.now(), "0 2 * * *", name="every night")
    add(new_catalog, nightly, job(clock.now(), status="failed", schedule_id=nightly.id))
    settling.sweep()
    notifier.deliver_due()
    body = mailbox.got[0][1].body.splitlines()
    assert body[:3] == ["backup of shop failed: there is no room", "Cause: the disk is full", "What to do: buy one"]
    assert body[4:7] == ["About: backup of shop", "Policy: shop", "Schedule: every night"]


def test_jobs_may_be_settled_in_any_order(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, alerts: Alerts
) -> None:
    old = job(clock.now(), status="failed")
    new = job(clock.now() + timedelta(minutes=1), status="succeeded")
    add(new_catalog, old, new)
    with new_catalog.session() as session:
        assert settling.settle(session, new.id)
    with new_catalog.session() as session:
        assert settling.settle(session, old.id)
    assert alerts.on() == []


def test_each_policy_and_each_kind_has_its_own_alert(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, alerts: Alerts
) -> None:
    add(new_catalog, job(clock.now(), status="failed"), job(clock.now(), status="failed", kind="gc", policy=None))
    add(new_catalog, job(clock.now(), policy="other"), job(clock.now(), kind="verification"))
    settling.sweep()
    assert [(alert.kind, alert.subject) for alert in alerts.on()] == [
        ("backup_failed", "backup of shop"),
        ("job_failed", "gc"),
    ]


def test_a_restore_that_failed_is_told_of_and_that_is_all(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, alerts: Alerts, notifier: Notifier, mailbox: Mailbox
) -> None:
    add(
        new_catalog,
        job(clock.now(), status="failed", kind="restore"),
        job(clock.now(), status="failed", kind="restore"),
    )
    settling.sweep()
    notifier.deliver_due()
    assert mailbox.titles == ["error: restore of shop failed: there is no room"] * 2
    assert alerts.on() == []


def test_jobs_that_did_not_end_are_left_alone(new_catalog: Catalog, clock: FakeClock, settling: Settling) -> None:
    add(new_catalog, job(clock.now(), status="running"), job(clock.now(), status="queued"))
    assert settling.sweep() == 0


def test_an_end_is_counted_with_its_time_and_its_bytes(
    new_catalog: Catalog, clock: FakeClock, settling: Settling
) -> None:
    made = backup(clock.now(), source="shop-db")
    add(new_catalog, made, job(clock.now(), result={"backups": [made.id]}), job(clock.now(), status="failed"))
    settling.sweep()
    with new_catalog.reading() as session:
        assert counts(session, "backup_jobs_total") == {
            '{"kind":"backup","source":"shop","status":"succeeded"}': 1,
            '{"kind":"backup","source":"shop","status":"failed"}': 1,
        }
        assert counts(session, "backup_job_duration_seconds_bucket") == {'{"kind":"backup","le":"15.0"}': 2}
        assert counts(session, "backup_job_duration_seconds_sum") == {'{"kind":"backup"}': 14}
        assert counts(session, "backup_source_bytes_total") == {'{"source":"shop-db"}': 1000}
        assert counts(session, "backup_stored_bytes_total") == {'{"source":"shop-db"}': 100}


def test_findings_of_a_verification_are_counted(new_catalog: Catalog, clock: FakeClock, settling: Settling) -> None:
    result = {"damaged_objects": 3, "missing_objects": 1}
    add(new_catalog, job(clock.now(), status="failed", kind="verification", result=result))
    add(new_catalog, job(clock.now(), result={"backups": [], "outcome": {"verification": {"damaged_objects": 2}}}))
    settling.sweep()
    with new_catalog.reading() as session:
        assert counts(session, "backup_corrupted_objects_total") == {"{}": 5}
        assert counts(session, "backup_missing_objects_total") == {"{}": 1}


def test_a_crash_before_the_commit_leaves_the_job_to_the_next_sweep(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, notifier: Notifier, mailbox: Mailbox
) -> None:
    row = job(clock.now(), status="failed")
    add(new_catalog, row)

    def dies() -> None:
        with new_catalog.session() as session:
            assert settling.settle(session, row.id)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dies()
    notifier.deliver_due()
    assert mailbox.got == []
    assert settling.sweep() == 1
    notifier.deliver_due()
    assert mailbox.titles == [FAILED]
    with new_catalog.reading() as session:
        assert sum(counts(session, "backup_jobs_total").values()) == 1


def test_the_transaction_that_ends_a_job_may_settle_it(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, notifier: Notifier, mailbox: Mailbox
) -> None:
    row = job(clock.now(), status="running")
    add(new_catalog, row)
    with new_catalog.session() as session:
        session.execute(update(Job).where(Job.id == row.id).values(status="succeeded", finished_at=clock.now()))
        assert settling.settle(session, row.id)
    assert settling.sweep() == 0
    notifier.deliver_due()
    assert mailbox.titles == [SUCCEEDED]


def test_many_who_settle_at_once_count_each_job_once(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, notifier: Notifier, mailbox: Mailbox
) -> None:
    add(new_catalog, *(job(clock.now(), policy=f"p{number}") for number in range(20)))
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: settling.sweep(), range(4))) == 20
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: notifier.deliver_due(), range(4)))
    assert len(mailbox.got) == len({message.id for _, message in mailbox.got}) == 20
    with new_catalog.reading() as session:
        assert sum(counts(session, "backup_jobs_total").values()) == 20
        assert session.scalar(select(Job.id).where(Job.settled_at.is_(None))) is None


def outcome(**errors: bool) -> dict[str, Any]:
    """The result of a run, by its sources and whether each failed."""
    told = [{"name": f"shop-{name}", "error": {"title": "no"} if failed else None} for name, failed in errors.items()]
    return {"outcome": {"sources": told, "hooks": [], "error": None, "verification": None}}


BAD = {"status": "failed", "result": outcome(good=False, bad=True)}
GOOD = {"arguments": {"sources": ["good"]}, "result": outcome(good=False)}
MENDED = {"arguments": {"sources": ["shop-bad"]}, "result": outcome(bad=False)}
FULL = {"type": "full"}


@pytest.mark.parametrize(
    ("runs", "on"),
    [
        pytest.param([BAD, {"arguments": {"dry_run": True}}], True, id="a dry run"),
        pytest.param([{"status": "failed", "arguments": {"dry_run": True}}], False, id="a dry run that fails"),
        pytest.param([BAD, GOOD], True, id="another source"),
        pytest.param([BAD, MENDED], False, id="the source that failed"),
        pytest.param([BAD, MENDED, BAD, GOOD], True, id="the source failed again"),
        pytest.param([{"status": "failed"}, MENDED, GOOD], True, id="the whole failed"),
        pytest.param([{"status": "failed"}, MENDED, GOOD, {}], False, id="the whole was done again"),
        pytest.param(
            [{"status": "failed", "arguments": {"sources": ["bad"]}}, MENDED], False, id="a source by its short name"
        ),
        pytest.param([{"status": "failed", "arguments": FULL}, {}], True, id="an incremental after a full one"),
        pytest.param([{"status": "failed", "arguments": FULL}, {"arguments": FULL}], False, id="a full one again"),
        pytest.param([{"status": "failed"}, {"arguments": FULL}], False, id="a full one after an incremental"),
    ],
)
def test_an_alert_ends_when_what_failed_was_done_again(
    new_catalog: Catalog,
    clock: FakeClock,
    settling: Settling,
    alerts: Alerts,
    runs: list[dict[str, Any]],
    on: bool,
) -> None:
    for run in runs:
        add(new_catalog, job(clock.now(), **run))
        settling.sweep()
        clock.advance(60)
    assert bool(alerts.on()) is on
    assert monitor_status(new_catalog, "shop").status == ("failure" if on else "never")


def test_a_verification_of_another_backup_does_not_end_an_alert(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, alerts: Alerts
) -> None:
    for status, asked in (("failed", "a"), ("succeeded", "b")):
        add(new_catalog, job(clock.now(), kind="verification", status=status, arguments={"backups": [asked]}))
        clock.advance(60)
    settling.sweep()
    assert [alert.subject for alert in alerts.on()] == ["verification of shop"]


def test_a_sign_of_life_is_given_only_by_real_backups_while_nothing_is_wrong(
    new_catalog: Catalog, clock: FakeClock, settling: Settling, notifier: Notifier, mailbox: Mailbox
) -> None:
    ping = "ping+https://hc.example/uuid"
    with new_catalog.session() as session:
        notifier.targets.create(session, name="ping", address=ping)
        notifier.matchers.create(session, name="ping", rule=Rule(targets=("ping",), kinds=("backup_succeeded",)))
    pings = []
    for run in (BAD, {"arguments": {"dry_run": True}}, GOOD, {}, {"arguments": {"dry_run": True}}):
        add(new_catalog, job(clock.now(), **run))
        settling.sweep()
        notifier.deliver_due()
        pings.append(sum(address == ping for address, _ in mailbox.got))
        clock.advance(60)
    assert pings == [0, 0, 0, 1, 1]
