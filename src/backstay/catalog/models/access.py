"""Who may do what: users, their tokens, and roles bound to scopes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from backstay.catalog.models.base import Base, JsonDocument, Moment


class User(Base):
    """A person or a program. `password_hash` is argon2id, None where nobody logs in with one."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(8), default="user")  # user, agent, oidc
    subject: Mapped[str | None] = mapped_column(String(512), unique=True)  # issuer and subject of an OIDC provider
    password_hash: Mapped[str | None] = mapped_column(String(255))
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(Moment)
    version: Mapped[int] = mapped_column(default=1)


class Binding(Base):
    """A role that a user has within a scope, such as `/` or `/policy/files`."""

    __tablename__ = "bindings"
    __table_args__ = (UniqueConstraint("user_id", "role", "scope"),)

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(String(32))
    scope: Mapped[str] = mapped_column(String(512))


class Token(Base):
    """A secret that speaks for a user, never with more rights than the user has. Only its SHA-256 is kept.

    The id has eight characters and stands in the token itself, so that one that was found can be named.
    `permissions` and `scopes` are what it is limited to, None for all that the user may.
    """

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    secret_digest: Mapped[str] = mapped_column(String(64), unique=True)
    permissions: Mapped[list[str] | None] = mapped_column(JsonDocument)
    scopes: Mapped[list[str] | None] = mapped_column(JsonDocument)
    networks: Mapped[list[str] | None] = mapped_column(JsonDocument)  # CIDR; None: from anywhere
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime | None] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
    last_used_at: Mapped[datetime | None] = mapped_column(Moment)


class JoinToken(Base):
    """A secret by which one agent gets its first certificate. Only its SHA-256 is kept.

    The first key that it is used for is the only one: an agent that did not see the answer may ask again.
    """

    __tablename__ = "join_tokens"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    secret_digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    used_at: Mapped[datetime | None] = mapped_column(Moment)
    used_for: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the public key


class AgentProcess(Base):
    """A process of an agent, and when it was last heard of. `worker` is what rows of jobs call it.

    The newest of each agent stays when it is gone: it says since when the agent is silent.
    """

    __tablename__ = "agent_processes"

    worker: Mapped[str] = mapped_column(String(255), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    host: Mapped[str] = mapped_column(String(255))
    version: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime] = mapped_column(Moment)
    seen_at: Mapped[datetime] = mapped_column(Moment)


class AgentCertificate(Base):
    """A client certificate that an agent was given. One without a row here is not believed, whoever signed it."""

    __tablename__ = "agent_certificates"

    serial: Mapped[str] = mapped_column(String(40), primary_key=True)  # hexadecimal
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)  # SHA-256 of its DER form
    issued_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
