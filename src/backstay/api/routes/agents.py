"""Agents: programs on other hosts that are known by certificates of the service's own authority."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Response
from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from backstay.api.answers import answer, done, page
from backstay.api.call import Caller
from backstay.api.endpoints import PUBLIC, Section
from backstay.api.known import told_as, user_meant
from backstay.api.models.base import Asked, Ident, PageOf, PageQuery
from backstay.api.models.people import UserName
from backstay.api.paging import part_of
from backstay.control.access.agents import valid_until
from backstay.control.agents.processes import last_seen
from backstay.errors import NotFound

section = Section("agents")


class InviteAgent(Asked):
    """Which agent, and for how long its join token is good."""

    name: UserName
    minutes: Annotated[int, Field(ge=1, le=10_080)] = 60


class JoinAgent(Asked):
    """A join token and a certificate request (PKCS #10, PEM) for a key that the agent keeps."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    request: Annotated[str, StringConstraints(min_length=1, max_length=16_384)]


class RenewAgent(Asked):
    """A certificate request (PKCS #10, PEM)."""

    request: Annotated[str, StringConstraints(min_length=1, max_length=16_384)]


class InvitationDocument(TypedDict):
    """A join token: it is shown now and never again."""

    agent: str
    token: str | None
    expires_at: datetime


class CertificateDocument(TypedDict):
    """A new certificate, with that of its authority; in PEM."""

    certificate: str
    serial: str
    expires_at: datetime
    authority: str


class GivenCertificate(TypedDict):
    """A certificate that an agent was given."""

    serial: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class AgentDocument(TypedDict):
    """An agent: when it last asked for work and what it said of itself, until when it has a certificate that counts,
    and all that it was given.
    """

    name: str
    disabled: bool
    last_seen_at: datetime | None
    host: str | None
    version: str | None
    certificate_until: datetime | None
    certificates: list[GivenCertificate]


@section.get("/api/agents", needs="user:admin", answers=PageOf[AgentDocument])
def list_agents(call: Caller, asked: PageQuery) -> Response:
    """List the agents that the caller manages: when each was last seen, its version, and its certificates."""
    access, found = call.backing.access, []
    with call.backing.catalog.reading() as session:
        seen = last_seen(session)
        for user in access.users.all(session):
            if user.kind == "agent" and call.manages(user):
                given = access.agents.certificates(session, by=call.principal, name=user.name)
                found.append((user, given))
    shown, following = part_of(found, lambda one: one[0].name, asked)
    return page(
        [
            AgentDocument(
                name=user.name,
                disabled=user.disabled,
                last_seen_at=seen[user.name].at if user.name in seen else None,
                host=seen[user.name].host if user.name in seen else None,
                version=seen[user.name].version if user.name in seen else None,
                certificate_until=valid_until(given),
                certificates=[
                    GivenCertificate(
                        serial=one.serial,
                        issued_at=one.issued_at,
                        expires_at=one.expires_at,
                        revoked_at=one.revoked_at,
                    )
                    for one in given
                ],
            )
            for user, given in shown
        ],
        following,
    )


@section.post(
    "/api/agents",
    needs="user:admin",
    does="agent.invite",
    answers={201: InvitationDocument},
    refuses=(404,),
    creates=True,
)
def invite_agent(call: Caller, body: InviteAgent) -> Response:
    """Give an agent a join token, which is good for one key; the agent begins without roles.

    It takes `user:admin` over each policy that the agent runs; over everything for one that runs none.
    """
    call.about(f"agent/{body.name}", minutes=body.minutes)
    with call.backing.catalog.session() as session:
        call.take_turn(session)
        made = call.backing.access.agents.invite(
            session, by=call.principal, name=body.name, life=timedelta(minutes=body.minutes)
        )
        call.hidden["token"] = None
        document = InvitationDocument(agent=made.agent, token=made.text, expires_at=made.expires_at)
        return call.made(session, answer(document, 201))


@section.post("/api/agents/join", needs=PUBLIC, does="agent.join", answers={200: CertificateDocument}, refuses=(401,))
def join_agents(call: Caller, body: JoinAgent) -> Response:
    """Get the first certificate, with a join token."""
    access = call.backing.access
    call.about("agent/join")
    with access.slowing_guesses(call.address), call.backing.catalog.session() as session:
        issued = access.agents.join(session, body.token, body.request)
        call.about("agent/join", serial=issued.serial)
        call.record(session)
    return answer(
        CertificateDocument(
            certificate=issued.pem,
            serial=issued.serial,
            expires_at=issued.expires_at,
            authority=access.agents.authority.certificate,
        )
    )


@section.post("/api/agents/renew", needs="agent:work", does="agent.renew", answers={200: CertificateDocument})
def renew_agent(call: Caller, body: RenewAgent) -> Response:
    """Get a further certificate, with one that is still valid."""
    access = call.backing.access
    with call.backing.catalog.session() as session:
        call.take_turn(session)
        issued = access.agents.renew(session, by=call.principal, request=body.request)
        call.about(f"agent/{call.principal.name}", serial=issued.serial)
        call.record(session)
    return answer(
        CertificateDocument(
            certificate=issued.pem,
            serial=issued.serial,
            expires_at=issued.expires_at,
            authority=access.agents.authority.certificate,
        )
    )


@section.delete("/api/agents/{agent}", needs="user:admin", does="agent.revoke")
def revoke_agent(call: Caller, agent: Ident) -> Response:
    """Make all certificates and join tokens of an agent worthless from now on."""
    call.about(f"agent/{agent}")
    with call.backing.catalog.session() as session:
        call.take_turn(session)
        missing = NotFound(f"there is no agent {agent[:80]!r}", hint="`GET /api/agents` lists those whom you manage")
        with told_as(missing):
            found = user_meant(call, session, agent)
            call.backing.access.agents.revoke(session, by=call.principal, name=found.name)
        call.record(session)
    return done()
