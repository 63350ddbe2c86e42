"""Messages reach their targets at least once, and nobody tries for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from backstay.catalog.database import Catalog
from backstay.catalog.models import OutboxMessage, Target
from backstay.control.notifying.notices import Notice
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.outbox import CLAIM, KEPT, PING_TRIES, WAITS, Delivered
from backstay.testing.clock import FakeClock
from tests.control.notifying.conftest import ADDRESS
from tests.control.notifying.rows import Mailbox

NOTICE = Notice(severity="warning", kind="capacity", subject="repository", title="it is full", policy="shop")
PING = "ping+https://hc.example/uuid"


def tell(catalog: Catalog, notifier: Notifier) -> str:
    with catalog.session() as session:
        (message_id,) = notifier.notice(session, NOTICE)
    return message_id


def row(catalog: Catalog) -> OutboxMessage:
    with catalog.reading() as session:
        return session.scalars(select(OutboxMessage)).one()


def test_a_message_is_sent_once_and_says_where_it_belongs(
    new_catalog: Catalog, notifier: Notifier, mailbox: Mailbox
) -> None:
    message_id = tell(new_catalog, notifier)
    assert notifier.deliver_due() == Delivered(sent=1)
    assert notifier.deliver_due() == Delivered()
    ((address, message),) = mailbox.got
    assert (address, message.id, message.kind, message.policy) == (ADDRESS, message_id, "capacity", "shop")
    assert row(new_catalog).sent_at is not None


def test_without_a_commit_there_is_no_message(new_catalog: Catalog, notifier: Notifier, mailbox: Mailbox) -> None:
    def fails() -> None:
        with new_catalog.session() as session:
            notifier.notice(session, NOTICE)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert notifier.deliver_due() == Delivered()
    assert mailbox.got == []


def test_a_failure_is_tried_again_ever_more_seldom_and_given_up_in_the_end(
    new_catalog: Catalog, clock: FakeClock, notifier: Notifier, mailbox: Mailbox
) -> None:
    tell(new_catalog, notifier)
    mailbox.refuses.add(ADDRESS)
    for wait in WAITS:
        assert notifier.deliver_due() == Delivered(failed=1)
        clock.advance(wait.total_seconds() - 1)
        assert notifier.deliver_due() == Delivered()
        clock.advance(1)
    assert notifier.deliver_due() == Delivered(given_up=1)
    clock.advance(10 * 86400)
    assert notifier.deliver_due() == Delivered()
    last = row(new_catalog)
    assert last.given_up_at is not None
    assert last.last_error == "a message was not taken by json://***: the server answered 500"
    assert sum(WAITS, timedelta()) > timedelta(days=2)


def test_a_target_that_works_again_gets_what_waited(
    new_catalog: Catalog, clock: FakeClock, notifier: Notifier, mailbox: Mailbox
) -> None:
    tell(new_catalog, notifier)
    mailbox.refuses.add(ADDRESS)
    notifier.deliver_due()
    mailbox.refuses.clear()
    clock.advance(60)
    assert notifier.deliver_due() == Delivered(sent=1)
    assert row(new_catalog).last_error is None


def test_no_message_overtakes_another_and_all_come_when_the_target_is_back(
    new_catalog: Catalog, clock: FakeClock, notifier: Notifier, mailbox: Mailbox
) -> None:
    first = tell(new_catalog, notifier)
    mailbox.refuses.add(ADDRESS)
    for wait in WAITS[:3]:
        assert notifier.deliver_due() == Delivered(failed=1)
        clock.advance(wait.total_seconds())
    notifier.deliver_due()
    mailbox.refuses.clear()
    later = [tell(new_catalog, notifier), tell(new_catalog, notifier)]
    assert notifier.deliver_due() == Delivered()
    clock.advance(WAITS[3].total_seconds())
    assert notifier.deliver_due() == Delivered(sent=3)
    assert [message.id for _, message in mailbox.got] == [first, *later]


def test_what_waited_by_itself_is_due_when_an_older_one_gets_through(
    new_catalog: Catalog, notifier: Notifier, mailbox: Mailbox, clock: FakeClock
) -> None:
    """As on PostgreSQL, where a transaction that began first may end last."""
    messages = [tell(new_catalog, notifier), tell(new_catalog, notifier)]
    with new_catalog.session() as session:
        tried = update(OutboxMessage).where(OutboxMessage.message_id == messages[1])
        session.execute(tried.values(next_try_at=clock.now() + timedelta(hours=8), tries=8))
    assert notifier.deliver_due() == Delivered(sent=2)
    assert [message.id for _, message in mailbox.got] == messages


def test_what_waited_behind_a_message_that_is_given_up_is_not_tried_for_days_once_more(
    new_catalog: Catalog, clock: FakeClock, notifier: Notifier, mailbox: Mailbox
) -> None:
    mailbox.refuses.add(ADDRESS)
    tell(new_catalog, notifier)
    tell(new_catalog, notifier)
    for wait in WAITS:
        assert notifier.deliver_due() == Delivered(failed=1)
        clock.advance(wait.total_seconds())
    tell(new_catalog, notifier)
    assert notifier.deliver_due() == Delivered(given_up=2, failed=1)


def test_who_dies_while_sending_leaves_a_message_that_is_sent_again_under_its_id(
    new_catalog: Catalog, clock: FakeClock, notifier: Notifier, mailbox: Mailbox
) -> None:
    message_id = tell(new_catalog, notifier)
    mailbox.dies = True
    with pytest.raises(KeyboardInterrupt):
        notifier.deliver_due()
    mailbox.dies = False
    assert notifier.deliver_due() == Delivered()  # it may be on its way
    clock.advance(CLAIM.total_seconds())
    assert notifier.deliver_due() == Delivered(sent=1)
    assert [message.id for _, message in mailbox.got] == [message_id]


def test_who_comes_back_too_late_does_not_overwrite_a_later_try(
    new_catalog: Catalog, clock: FakeClock, notifier: Notifier, mailbox: Mailbox
) -> None:
    """A process that stood still while it sent fails, when another has sent the message meanwhile."""
    tell(new_catalog, notifier)
    other = Mailbox()

    class Sleeps(Mailbox):
        def send(self, message: object, address: str) -> None:
            clock.advance(CLAIM.total_seconds())
            assert Notifier(new_catalog, clock, other).deliver_due() == Delivered(sent=1)
            mailbox.refuses.add(ADDRESS)
            mailbox.send(message, address)  # type: ignore[arg-type]

    Notifier(new_catalog, clock, Sleeps()).deliver_due()
    assert row(new_catalog).sent_at is not None
    clock.advance(86400)
    assert notifier.deliver_due() == Delivered()


@pytest.mark.parametrize("switched_off", [True, False])
def test_a_target_that_is_gone_or_switched_off_gets_nothing_more(
    new_catalog: Catalog, notifier: Notifier, mailbox: Mailbox, switched_off: bool
) -> None:
    tell(new_catalog, notifier)
    with new_catalog.session() as session:
        (target,) = notifier.targets.all(session)
        if switched_off:
            notifier.targets.update(session, target.id, enabled=False)
        else:
            notifier.targets.delete(session, target.id)
    assert notifier.deliver_due() == Delivered(given_up=1)
    assert mailbox.got == []
    with new_catalog.session() as session:
        assert notifier.notice(session, NOTICE) == []


def test_a_sign_of_life_is_not_sent_hours_late(
    new_catalog: Catalog, clock: FakeClock, notifier: Notifier, mailbox: Mailbox
) -> None:
    tell(new_catalog, notifier)
    with new_catalog.session() as session:
        session.execute(update(Target).values(address=PING))
    mailbox.refuses.add(PING)
    tries = 0
    for _ in range(60):
        tries += notifier.deliver_due() != Delivered()
        clock.advance(60)
    assert tries == PING_TRIES


def test_what_was_sent_is_forgotten_after_a_month(new_catalog: Catalog, clock: FakeClock, notifier: Notifier) -> None:
    tell(new_catalog, notifier)
    notifier.deliver_due()
    clock.advance(KEPT.total_seconds() - 60)
    notifier.deliver_due()
    assert row(new_catalog) is not None
    clock.advance(120)
    notifier.deliver_due()
    with new_catalog.reading() as session:
        assert session.scalars(select(OutboxMessage)).all() == []


def test_who_has_nothing_to_send_or_forget_does_not_wait_for_the_right_to_write(
    new_catalog: Catalog, notifier: Notifier
) -> None:
    with new_catalog.session():
        assert notifier.deliver_due() == Delivered()
        assert notifier.begin_due() == Delivered()
