"""One call of an endpoint: who makes it, what they may, and what is written down about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response
from sqlalchemy.orm import Session

from backstay.api.backing import Backing
from backstay.api.endpoints import Endpoint
from backstay.api.idempotency import Reservation
from backstay.api.versions import require_match
from backstay.control.access.denied import not_allowed, reason_of
from backstay.control.access.permissions import Permission
from backstay.control.access.principal import Principal
from backstay.control.access.scopes import meet
from backstay.control.access.users import UserView
from backstay.control.metrics.counters import count
from backstay.control.metrics.names import DENIED
from backstay.core.ids import new_ulid
from backstay.errors import BackstayError, Forbidden, NotFound, RateLimited


@dataclass(slots=True, kw_only=True)
class Call:
    """What an endpoint knows of the request that it answers, beside the parameters that it declares."""

    backing: Backing
    endpoint: Endpoint
    principal: Principal
    address: str
    request_id: str
    path: str
    authorization: str | None = field(default=None, repr=False)  # the header
    credentials: str = field(default="", repr=False)  # the token in it
    certificate: bytes | None = field(default=None, repr=False)  # of the client, in DER
    if_match: str | None = None
    key: str | None = None  # the Idempotency-Key, until its answer is kept
    scope: str | None = None  # of what the call is about
    reservation: Reservation | None = None
    object: str = ""  # what the audit log says that it was about
    details: dict[str, Any] = field(default_factory=dict)
    hidden: dict[str, Any] = field(default_factory=dict)  # what is told once and never again: null in kept answers
    recorded: bool = False

    @property
    def needs(self) -> Permission:
        """The permission of the endpoint."""
        assert isinstance(self.endpoint.needs, str)
        return self.endpoint.needs  # type: ignore[return-value]  # a test sees that all of them exist

    @property
    def scopes(self) -> tuple[str, ...]:
        """Where the caller may do this: lists show what lies there and nothing else."""
        return self.principal.scopes(self.needs)

    def require(self, scope: str, *, seen: Permission, missing: NotFound | None = None) -> None:
        """See that this may be done to what has this scope.

        Who may not even see it is told what somebody would be told for whom it does not exist. Raises Forbidden, or
        `missing`.
        """
        self.scope = scope
        if self.principal.may(self.needs, scope):
            return
        refusal = not_allowed(self.needs, scope)
        self.refused(refusal)
        if missing is not None and not self.principal.may(seen, scope):
            raise missing
        raise refusal

    def require_somewhere_in(self, scope: str, *, seen: Permission, missing: NotFound) -> None:
        """See that this may be done to something within a scope; each thing is asked for by itself then."""
        if any(meet(scope, own) is not None for own in self.scopes):
            return
        self.require(scope, seen=seen, missing=missing)

    def recognised(self) -> Principal:
        """Who calls, by a token, else by a client certificate. Raises Unauthorized, RateLimited."""
        access = self.backing.access
        if not self.credentials and self.certificate is not None:
            return access.authenticate_certificate(self.certificate, self.address)
        return access.authenticate_bearer(self.credentials, self.address)

    def manages(self, user: UserView) -> bool:
        """Whether the caller manages this user."""
        try:
            self.backing.access.users.require_power(self.principal, user)
        except Forbidden:
            return False
        return True

    def still_allowed(self) -> None:
        """For bodies that come slowly, and answers that last: see again that the caller may.

        Raises Unauthorized, RateLimited, Forbidden.
        """
        self.principal = self.recognised()
        if self.scope is not None:
            self.backing.access.check(self.principal, self.needs, self.scope)
        elif not self.scopes:
            raise not_allowed(self.needs, "any scope")

    def take_turn(self, session: Session) -> None:
        """For what gives or takes rights, before it reads anything: wait for others who do so, and look again.

        Raises Unauthorized, Forbidden.
        """
        self.principal = self.backing.access.take_turn(session, self.principal)
        if not self.scopes:
            raise not_allowed(self.needs, "any scope")

    def also(self, permission: Permission, scope: str) -> None:
        """See that the caller has a further permission. Raises Forbidden."""
        if not self.principal.may(permission, scope):
            raise not_allowed(permission, scope)

    def made(self, session: Session, answer: Response) -> Response:
        """Write what is made into the audit log and keep the answer, in the transaction that makes it."""
        self.record(session)
        self.keep(session, answer)
        return answer

    def keep(self, session: Session, answer: Response) -> None:
        """Keep the answer for repetitions of a request that has an Idempotency-Key."""
        if self.key is None or self.reservation is None:
            return
        document = json.loads(bytes(answer.body)) if answer.body else {}
        location = answer.headers.get("location")
        self.backing.keys.finish(
            session,
            self.owner,
            self.key,
            status=answer.status_code,
            response=document | self.hidden,
            location=location,
            scope=self.scope,
        )
        self.key = None

    @property
    def owner(self) -> str:
        """Whose keys and limits these are."""
        return (self.principal.token_id or self.principal.user_id)[:64]

    def about(self, what: str, **details: Any) -> None:  # noqa: ANN401 - any JSON
        """Say what the call is about, for the audit log. No secrets."""
        self.object = what
        self.details.update(details)

    def record(self, session: Session) -> None:
        """Write what is done into the audit log, in the transaction that does it."""
        self._write(session, "allow", "")

    def write(self, outcome: Literal["allow", "deny", "error"], *, reason: str = "") -> None:
        """Write what became of it into the audit log, by itself."""
        with self.backing.catalog.session() as session:
            self._write(session, outcome, reason)

    def refused(self, error: BackstayError) -> None:
        """Write a refusal into the audit log, once."""
        if self.recorded:
            return
        reason = reason_of(error)
        if isinstance(error, RateLimited) and not self.backing.is_news(f"{self.address} {self.principal.name}"):
            return
        with self.backing.catalog.session() as session:
            self._write(session, "deny", reason)
            count(session, DENIED, {"reason": reason})

    def _write(self, session: Session, outcome: Literal["allow", "deny", "error"], reason: str) -> None:
        self.backing.audit.record(
            session,
            actor=self.principal.name,
            action=self.endpoint.does or f"read.{self.endpoint.section}",
            object=self.object,
            outcome=outcome,
            reason=reason,
            details=self.details,
            actor_details=self.actor_details,
        )
        self.recorded = True

    def new_id(self) -> str:
        """The id of what this call makes: the same one, if it is a repetition."""
        if self.reservation is not None:
            return self.reservation.ident
        return new_ulid(self.backing.clock.now_ns(), self.backing.random)

    def match(self, ident: str, version: int) -> None:
        """See that the caller means this version. Raises PreconditionFailed."""
        require_match(self.if_match, ident, version)

    @property
    def actor_details(self) -> Mapping[str, Any]:
        """What the audit log says of who called, beside the name."""
        found = {
            "address": self.address,
            "request_id": self.request_id,
            "user_id": self.principal.user_id or None,
            "token_id": self.principal.token_id,
        }
        return {key: value for key, value in found.items() if value is not None}


async def _current(request: Request) -> Call:
    found: Call = request.state.call
    return found


Caller = Annotated[Call, Depends(_current)]
