"""Whatever happens in whatever order, begins and ends of an alert take turns, and messages say what is true."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, select

from backstay.catalog.database import Catalog
from backstay.catalog.models import AlertState, Matcher, OutboxMessage, Target
from backstay.control.notifying.alerts import Alerts
from backstay.control.notifying.conditions import Condition
from backstay.control.notifying.matchers import Rule
from backstay.control.notifying.notices import NoticeKind
from backstay.control.notifying.notifier import Notifier
from backstay.testing.clock import FakeClock
from tests.control.notifying.rows import Mailbox

SUBJECTS: list[tuple[NoticeKind, str]] = [("capacity", "a"), ("capacity", "b"), ("key_age", "a")]
CONDITIONS = [
    Condition(kind=kind, subject=subject, severity="warning", title=f"{kind} {subject}", ended=f"{kind} {subject} over")
    for kind, subject in SUBJECTS
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "deliver", "crash while sending", "rollback", "again"]),
        st.sampled_from(CONDITIONS),
        st.integers(0, 1),  # which of two processes
        st.sampled_from([0, 1, 600]),  # seconds that pass
    ),
    max_size=40,
)


class RollBackError(Exception):
    """Ends a transaction as a failure does."""


@pytest.fixture
def quick_catalog(new_catalog: Catalog) -> Catalog:
    """One that does not wait for the disk: no power fails here."""
    event.listen(new_catalog.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    return new_catalog


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_begins_and_ends_take_turns_and_each_is_told_at_least_once(
    steps: list[tuple[str, Condition, int, int]], quick_catalog: Catalog
) -> None:
    catalog = quick_catalog
    with catalog.session() as session:
        for table in (AlertState, OutboxMessage, Matcher, Target):
            session.execute(delete(table))
    clock, mailbox = FakeClock(), Mailbox()
    notifiers = [Notifier(catalog, clock, mailbox) for _ in range(2)]
    processes = [Alerts(catalog, clock, notifier) for notifier in notifiers]
    with catalog.session() as session:
        notifiers[0].targets.create(session, name="t", address="json://x.example/y")
        notifiers[0].matchers.create(session, name="m", rule=Rule(targets=("t",)))
    on: dict[str, bool] = {}
    told: list[str] = []
    for what, condition, process, seconds in steps:
        clock.advance(seconds)
        alerts, notifier = processes[process], notifiers[process]
        was = on.get(condition.fingerprint, False)
        if what in ("begin", "again"):
            with catalog.session() as session:
                shown = replace(condition, title=f"{condition.title} {seconds}")
                assert alerts.begin(session, shown) is not was
            told += [] if was else [f"warning: {shown.title}"]
            on[condition.fingerprint] = True
        elif what == "end":
            with catalog.session() as session:
                assert alerts.end(session, condition.fingerprint) is was
            told += [f"resolved: {condition.ended}"] if was else []
            if condition.fingerprint in on:
                on[condition.fingerprint] = False
        elif what == "rollback":
            with suppress(RollBackError), catalog.session() as session:
                alerts.end(session, condition.fingerprint)
                alerts.begin(session, condition)
                raise RollBackError
        elif what == "deliver":
            notifier.deliver_due()
        else:
            mailbox.dies = True
            with suppress(KeyboardInterrupt):
                notifier.deliver_due()
            mailbox.dies = False
    clock.advance(600)
    notifiers[0].deliver_due()
    with catalog.reading() as session:
        states = {row.fingerprint: row.resolved_at is None for row in session.scalars(select(AlertState))}
        titles = [row.title for row in session.scalars(select(OutboxMessage).order_by(OutboxMessage.id))]
    assert states == on
    assert [title.removeprefix("[Backstay] ") for title in titles] == told
    assert sorted(mailbox.titles) == sorted(told)
