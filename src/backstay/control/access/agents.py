"""Agents: programs on other hosts that show a client certificate of our own authority instead of a token.

An administrator invites one and gives its host the join token; the agent makes a key, sends a request and the token,
and gets a certificate of a short life, which it renews with itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from backstay.catalog.models import AgentCertificate, JoinToken, User
from backstay.control.access import authority as power
from backstay.control.access.denied import unrecognised
from backstay.control.access.permissions import OF_AGENTS
from backstay.control.access.principal import Grant, Principal
from backstay.control.access.recognition import principal_of, recognise_again
from backstay.control.access.scopes import EVERYTHING
from backstay.control.access.token_text import JOIN_PREFIX, LONGEST, digest_of, new_token
from backstay.control.access.turns import take_turn
from backstay.control.access.users import Users
from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.errors import Forbidden, InvalidRequest, NotFound
from backstay.trust.authority import Authority, Issued
from backstay.trust.certificate_requests import request_key_digest

CERTIFICATE_LIFE: Final = timedelta(days=7)
JOIN_LIFE: Final = timedelta(hours=1)
_OWN: Final = (Grant(scope=EVERYTHING, permissions=OF_AGENTS),)  # by its certificate, whatever its roles are


@dataclass(frozen=True, kw_only=True, slots=True)
class Invitation:
    """A join token, at the only moment at which its text is known."""

    agent: str
    expires_at: datetime
    text: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateView:
    """A certificate that an agent was given."""

    serial: str
    agent: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


def valid_until(given: Iterable[CertificateView]) -> datetime | None:
    """When the last of some certificates ends that was not revoked; it may have ended already."""
    return max((one.expires_at for one in given if one.revoked_at is None), default=None)


class Agents:
    """The agents of a catalog. Each change is part of the caller's transaction, with its line in the audit log."""

    def __init__(self, clock: Clock, random: Random, users: Users, authority: Authority | None) -> None:
        self._clock, self._random, self._users, self._given = clock, random, users, authority

    @property
    def authority(self) -> Authority:
        """Who signs. Raises InvalidRequest where there is none."""
        if self._given is None:
            raise InvalidRequest(
                "agents cannot join here",
                cause="this server was started without an authority for certificates",
                hint="ask the server that has `authority.pem` in its data directory",
            )
        return self._given

    def invite(self, session: Session, *, by: Principal, name: str, life: timedelta = JOIN_LIFE) -> Invitation:
        """A join token for an agent, which becomes a user without roles if it is none yet.

        Raises Forbidden, InvalidRequest.
        """
        _ = self.authority
        if not timedelta() < life <= timedelta(days=7):
            raise InvalidRequest("a join token cannot be valid for so long", hint="let it end within seven days")
        take_turn(session)
        agent = session.scalar(select(User).where(User.name == name))
        if agent is None:
            self._users.add(session, by=by, name=name, kind="agent")
            agent = session.scalars(select(User).where(User.name == name)).one()
        elif agent.kind != "agent":
            self._users.require_power(by, self._users.get(session, agent.id))
            raise InvalidRequest(f"{name} is a user, and no agent", hint="choose another name for the agent")
        self._users.require_power(by, self._users.get(session, agent.id))
        made, now = new_token(self._random, JOIN_PREFIX), self._clock.now()
        session.add(
            JoinToken(
                id=made.id,
                user_id=agent.id,
                secret_digest=digest_of(made.text),
                created_at=now,
                expires_at=now + life,
            )
        )
        session.flush()
        return Invitation(agent=name, expires_at=now + life, text=made.text)

    def join(self, session: Session, text: str, request: str, *, life: timedelta = CERTIFICATE_LIFE) -> Issued:
        """The first certificate of whoever has a join token, for the key of this request and for no other.

        The token is used up by the same transaction that keeps the certificate: a crash before leaves both undone,
        and one after it, before the agent has its answer, lets the agent ask again with the same key.

        Raises Unauthorized, InvalidRequest.
        """
        key = request_key_digest(request)
        take_turn(session)
        digest, now = digest_of(text[: LONGEST + 1]), self._clock.now()
        taken = session.execute(
            update(JoinToken)
            .where(
                JoinToken.secret_digest == digest,
                JoinToken.expires_at > now,
                or_(JoinToken.used_for.is_(None), JoinToken.used_for == key),
            )
            .values(used_at=now, used_for=key)
            .returning(JoinToken.user_id)
        ).scalar_one_or_none()
        agent = None if taken is None else session.get(User, taken)
        if agent is None:
            raise unrecognised("bad_join_token")
        if agent.disabled:
            raise unrecognised("disabled_user")
        return self._issue(session, agent, request, life)

    def renew(self, session: Session, *, by: Principal, request: str, life: timedelta = CERTIFICATE_LIFE) -> Issued:
        """A further certificate for an agent that showed a valid one; the old one stays valid until it ends.

        Raises Unauthorized for one that does not count any more, Forbidden, InvalidRequest.
        """
        if by.certificate is None:
            raise Forbidden(
                "only an agent renews its certificate", cause="no certificate was shown", reason="missing_permission"
            )
        take_turn(session)
        by = recognise_again(session, by, now=self._clock.now())
        return self._issue(session, session.get_one(User, by.user_id), request, life)

    def recognise(self, session: Session, certificate: bytes, *, address: str) -> Principal:
        """Which agent a certificate (DER) belongs to. Raises Unauthorized."""
        found = self.authority.identify(certificate, now=self._clock.now())
        row = None if found is None else session.get(AgentCertificate, found.serial)
        agent = None if row is None else session.get(User, row.user_id)
        if found is None or row is None or agent is None:
            raise unrecognised("bad_certificate")
        if row.fingerprint != found.fingerprint or agent.name != found.name or row.revoked_at is not None:
            raise unrecognised("bad_certificate")
        return principal_of(session, agent, address=address, more=_OWN, certificate=found.serial)

    def revoke(self, session: Session, *, by: Principal, name: str) -> int:
        """Make all certificates and join tokens of an agent worthless from now on; how many certificates it had.

        It may be invited again. Raises NotFound, Forbidden.
        """
        take_turn(session)
        agent, now = self._managed(session, by, name), self._clock.now()
        session.execute(
            update(JoinToken).where(JoinToken.user_id == agent.id, JoinToken.expires_at > now).values(expires_at=now)
        )
        valid = session.scalars(
            select(AgentCertificate).where(
                AgentCertificate.user_id == agent.id,
                AgentCertificate.revoked_at.is_(None),
                AgentCertificate.expires_at > now,
            )
        ).all()
        for certificate in valid:
            certificate.revoked_at = now
        session.flush()
        return len(valid)

    def certificates(self, session: Session, *, by: Principal, name: str) -> list[CertificateView]:
        """The certificates that an agent was given, the newest first. Raises NotFound, Forbidden."""
        agent = self._managed(session, by, name)
        rows = session.scalars(
            select(AgentCertificate)
            .where(AgentCertificate.user_id == agent.id)
            .order_by(AgentCertificate.issued_at.desc(), AgentCertificate.serial)
        )
        return [
            CertificateView(
                serial=row.serial,
                agent=name,
                issued_at=row.issued_at,
                expires_at=row.expires_at,
                revoked_at=row.revoked_at,
            )
            for row in rows
        ]

    def _managed(self, session: Session, by: Principal, name: str) -> User:
        power.demand_somewhere(by, "user:admin")
        agent = session.scalar(select(User).where(User.name == name, User.kind == "agent"))
        if agent is None:
            raise NotFound(f"there is no agent {name[:80]!r}", hint="`backstay user list` shows users and agents")
        self._users.require_power(by, self._users.get(session, agent.id))
        return agent

    def _issue(self, session: Session, agent: User, request: str, life: timedelta) -> Issued:
        issued = self.authority.issue(request, agent.name, clock=self._clock, life=life)
        session.add(
            AgentCertificate(
                serial=issued.serial,
                user_id=agent.id,
                fingerprint=issued.fingerprint,
                issued_at=self._clock.now(),
                expires_at=issued.expires_at,
            )
        )
        session.flush()
        return issued
