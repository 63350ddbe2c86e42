"""Asking twice does it once: what a client's own key for a request stands for.

Order: the key is kept first, with the id that a job would have; then what is asked for is made. Jobs are made under
that id, and the answer is kept after them: a crash between leaves the key with its id, and whoever asks again gets the
job that was made under it, or it is made now. Of what else is made the answer is kept in the same transaction. A
request that failed leaves nothing, so that it may be sent again. Keys are forgotten after a day.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import IdempotencyKey
from backstay.core.clock import Clock
from backstay.core.ids import Random, new_ulid
from backstay.errors import InvalidRequest, JobConflict

KEPT: Final = timedelta(days=1)
AT_WORK: Final = timedelta(seconds=30)  # as long, a request of the same key is taken for one that still runs
_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a request with a key has to go by: the id of what it makes, and the answer if there is one already."""

    ident: str
    status: int | None = None
    response: dict[str, Any] | None = None
    location: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys of all clients; each client has its own."""

    catalog: Catalog
    clock: Clock
    random: Random = os.urandom

    def begin(self, principal: str, key: str, digest: str) -> Reservation:
        """Keep a key, or find what it stands for. Raises InvalidRequest, JobConflict."""
        if not _KEY.fullmatch(key):
            raise InvalidRequest(
                "this is no Idempotency-Key", cause="it has up to 128 visible characters of ASCII", hint="send a UUID"
            )
        now = self.clock.now()
        fresh = IdempotencyKey(
            principal=principal,
            key=key,
            request_digest=digest,
            response={"id": new_ulid(self.clock.now_ns(), self.random)},
            created_at=now,
        )
        ident = str((fresh.response or {})["id"])
        try:
            with self.catalog.session() as session:
                session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - KEPT))
                session.add(fresh)
                session.flush()
        except IntegrityError:
            return self._known(principal, key, digest)
        return Reservation(ident=ident)

    def _known(self, principal: str, key: str, digest: str) -> Reservation:
        with self.catalog.session() as session:
            found = session.get(IdempotencyKey, (principal, key), with_for_update=True)  # of two, one takes it over
            if found is None:
                raise JobConflict("this Idempotency-Key was just given up", hint="send the request again")
            if found.request_digest != digest:
                raise InvalidRequest(
                    "this Idempotency-Key stands for another request",
                    cause="it came before with another body or path",
                    hint="use a new key for each request, and the same one only to repeat it",
                )
            response = dict(found.response or {})
            if found.status is not None:
                return Reservation(
                    ident=str(response.get("id", "")),
                    status=found.status,
                    response=response,
                    location=found.location,
                    scope=found.scope,
                )
            now = self.clock.now()
            if timedelta() <= now - found.created_at < AT_WORK:  # a clock may have been set back
                raise JobConflict(
                    "a request with this Idempotency-Key is at work",
                    cause="it came a moment ago and is not done yet",
                    hint="send it again in half a minute",
                )
            found.created_at = now  # this one is at work now
            return Reservation(ident=str(response["id"]))

    def finish(
        self,
        session: Session,
        principal: str,
        key: str,
        *,
        status: int,
        response: dict[str, Any],
        location: str | None,
        scope: str | None,
    ) -> None:
        """Keep the answer, in a transaction that may be the one that makes what it tells of.

        `scope` is where whoever asks again must still have the right to it; None for anywhere.
        """
        found = session.get(IdempotencyKey, (principal, key))
        if found is not None:
            found.status, found.response, found.location, found.scope = status, response, location, scope

    def forget(self, principal: str, key: str) -> None:
        """Give a key up whose request made nothing."""
        with self.catalog.session() as session:
            found = session.get(IdempotencyKey, (principal, key))
            if found is not None and found.status is None:
                session.delete(found)
