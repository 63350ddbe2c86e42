"""The one who tells: from a notice to messages in the outbox, and from there to their targets."""

from __future__ import annotations

import os
from functools import partial

from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import Target
from backstay.control.notifying import outbox
from backstay.control.notifying.lanes import Lanes
from backstay.control.notifying.matchers import Matchers, targets_of
from backstay.control.notifying.messages import Message, body_of, title_of
from backstay.control.notifying.notices import Notice
from backstay.control.notifying.outbox import Delivered
from backstay.control.notifying.sending import NetworkSender, Sender
from backstay.control.notifying.targets import Targets
from backstay.core.clock import Clock
from backstay.core.ids import Random, new_ulid
from backstay.errors import NotFound


class Notifier:
    """Tells whom the matchers name. Any thread may call it, and any number of processes."""

    def __init__(
        self, catalog: Catalog, clock: Clock, sender: Sender | None = None, *, random: Random = os.urandom
    ) -> None:
        self._catalog, self._clock, self._random = catalog, clock, random
        self._sender = sender or NetworkSender()
        self._lanes = Lanes(partial(outbox.deliver_due, catalog, clock, self._sender), clock)
        self.targets = Targets(clock, random)
        self.matchers = Matchers(clock, random)

    def notice(self, session: Session, notice: Notice, *, but: frozenset[str] = frozenset()) -> list[str]:
        """Write a message for each target that a matcher names, in the caller's transaction; the ids of the messages.

        `but` are ids of targets that are left out.
        """
        targets = [target for target in targets_of(session, notice) if target.id not in but]
        return outbox.write(session, notice, targets, clock=self._clock, random=self._random)

    def deliver_due(self) -> Delivered:
        """Send what is due, and forget what was sent long ago. Raises CatalogUnavailable."""
        self._forget()
        return self._lanes.run(outbox.targets_due(self._catalog, self._clock))

    def begin_due(self) -> Delivered:
        """The same without waiting: for who calls it again soon. What became of deliveries that were begun earlier.

        A target that does not answer keeps neither others waiting nor what comes for them later.
        """
        self._forget()
        return self._lanes.begin(outbox.targets_due(self._catalog, self._clock))

    def end(self) -> None:
        """Send nothing more but what is on its way."""
        self._lanes.end()

    def join(self, until: float) -> None:
        """Wait for what `begin_due` has begun, until a time of the monotonic clock."""
        self._lanes.join(until)

    def _forget(self) -> None:
        """It is asked often and seldom has anything to do: only then it takes the right to write."""
        now = self._clock.now()
        with self._catalog.reading() as session:
            if not outbox.has_old(session, now):
                return
        with self._catalog.session() as session:
            outbox.forget_old(session, now)

    def send_test(self, target_id: str) -> str:
        """Send a message to one target now, without the outbox; its id. Raises NotFound, NotificationFailed."""
        notice = Notice(
            severity="info",
            kind="test",
            subject="test",
            title="this is a test",
            body="Messages of this kind reach you: you asked for a test.",
        )
        message_id = new_ulid(self._clock.now_ns(), self._random)
        with self._catalog.reading() as session:
            target = session.get(Target, target_id)
            if target is None:
                raise NotFound(f"there is no target {target_id!r}", hint="list the targets of notifications")
            address = target.address
        message = Message(
            id=message_id,
            severity=notice.severity,
            kind=notice.kind,
            policy=None,
            title=title_of(notice),
            body=body_of(notice, message_id),
        )
        self._sender.send(message, address)
        return message_id
