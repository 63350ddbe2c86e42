"""A target that does not answer keeps only its own messages waiting, and those stay in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import select

from backstay.catalog.database import Catalog
from backstay.catalog.models import OutboxMessage, Target
from backstay.control.notifying.matchers import Rule
from backstay.control.notifying.messages import Message
from backstay.control.notifying.notices import Notice
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.outbox import Delivered
from backstay.errors import NotificationFailed
from backstay.testing.clock import FakeClock

NOTICE = Notice(severity="warning", kind="capacity", subject="repository", title="it is full")
QUIET, ANSWERING = "json://quiet.example/hook", "json://answering.example/hook"
LONG = 60.0


class Post:
    """A sender whose quiet target answers when it is let."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.got: list[tuple[str, str]] = []
        self.on_the_way: list[str] = []
        self.most = 0  # deliveries to the quiet target at a time
        self.answers = threading.Event()
        self.breaks = False

    def send(self, message: Message, address: str) -> None:
        if address == QUIET:
            with self.changed:
                self.on_the_way.append(message.id)
                self.most = max(self.most, len(self.on_the_way))
                self.changed.notify_all()
            answered = self.answers.wait(LONG)
            with self.changed:
                self.on_the_way.remove(message.id)
            if not answered:
                raise NotificationFailed("a message was not taken", cause="nobody answered")
            if self.breaks:
                raise RuntimeError("the sender is broken")
        with self.changed:
            self.got.append((address, message.id))
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, LONG)

    def wait_a_little(self, condition: Callable[[], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, LONG / 1000)

    def to(self, address: str) -> list[str]:
        return [message for at, message in self.got if at == address]


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def telling(new_catalog: Catalog, clock: FakeClock, post: Post) -> Notifier:
    made = Notifier(new_catalog, clock, post)
    with new_catalog.session() as session:
        made.targets.create(session, name="quiet", address=QUIET)
        made.targets.create(session, name="answering", address=ANSWERING)
        made.matchers.create(session, name="all", rule=Rule(targets=("quiet", "answering")))
    return made


def tell(catalog: Catalog, notifier: Notifier, count: int = 1) -> None:
    with catalog.session() as session:
        for number in range(count):
            notifier.notice(session, replace(NOTICE, subject=f"repository {number}"))


def written(catalog: Catalog) -> list[str]:
    """The messages for the quiet target, in the order in which they were written."""
    with catalog.reading() as session:
        theirs = select(OutboxMessage.message_id).join(Target, Target.id == OutboxMessage.target_id)
        return list(session.scalars(theirs.where(Target.address == QUIET).order_by(OutboxMessage.id)))


def test_others_do_not_wait_for_a_target_that_does_not_answer(
    new_catalog: Catalog, telling: Notifier, post: Post
) -> None:
    tell(new_catalog, telling, 3)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(telling.deliver_due)
        post.wait(lambda: len(post.to(ANSWERING)) == 3)
        assert post.to(QUIET) == []
        post.answers.set()
        assert done.result(LONG) == Delivered(sent=6)
    assert post.to(QUIET) == written(new_catalog)


def test_nor_does_what_comes_for_them_later(new_catalog: Catalog, telling: Notifier, post: Post) -> None:
    for number in range(1, 4):
        tell(new_catalog, telling)
        for _ in range(1000):  # as the service does: an earlier delivery may be about to end
            telling.begin_due()
            if post.wait_a_little(lambda number=number: len(post.to(ANSWERING)) == number):  # type: ignore[misc]
                break
        assert len(post.to(ANSWERING)) == number
    post.wait(lambda: len(post.on_the_way) == 1)  # the quiet one has its first yet, and is asked by nobody else
    post.answers.set()
    for _ in range(3):
        telling.join(LONG)
        telling.begin_due()
    telling.join(LONG)
    assert post.to(QUIET) == written(new_catalog)
    assert len(set(post.got)) == len(post.got) == 6


def test_a_target_gets_one_message_at_a_time_and_each_once_whoever_delivers(
    new_catalog: Catalog, telling: Notifier, post: Post
) -> None:
    tell(new_catalog, telling, 5)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(telling.deliver_due) for _ in range(3)]
        post.wait(lambda: len(post.on_the_way) == 1)
        telling.begin_due()
        post.answers.set()
        assert sum(one.result(LONG).sent for one in done) <= 10
    telling.join(LONG)
    telling.begin_due()
    assert post.most == 1
    assert post.to(QUIET) == written(new_catalog)
    assert len(post.got) == 10


def test_at_the_end_the_message_on_its_way_is_the_last(new_catalog: Catalog, telling: Notifier, post: Post) -> None:
    tell(new_catalog, telling, 3)
    telling.begin_due()
    post.wait(lambda: len(post.on_the_way) == 1 and len(post.to(ANSWERING)) == 3)
    telling.end()
    post.answers.set()
    telling.join(LONG)
    telling.begin_due()
    assert len(post.to(QUIET)) == 1
    assert Notifier(new_catalog, FakeClock(), post).deliver_due() == Delivered(sent=2)  # the next process


def test_who_broke_on_the_way_is_told_by_the_next_call_and_keeps_nobody_waiting(
    new_catalog: Catalog, telling: Notifier, post: Post
) -> None:
    post.breaks = True
    post.answers.set()
    tell(new_catalog, telling)
    telling.begin_due()
    post.wait(lambda: len(post.to(ANSWERING)) == 1)
    telling.join(LONG)
    with pytest.raises(RuntimeError, match="broken"):
        telling.begin_due()
    assert telling.begin_due() == Delivered()
