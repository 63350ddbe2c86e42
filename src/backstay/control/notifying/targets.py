"""Targets: whom messages go to. Addresses come in and are never given out again but to what sends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.models import Target
from backstay.control.notifying.addresses import check_address, hidden, is_ping
from backstay.control.notifying.named import (
    FROM_API,
    FROM_FILE,
    changeable,
    check_name,
    drop_others_of_file,
    found,
    take_turn,
)
from backstay.core.clock import Clock
from backstay.core.ids import Random, new_ulid


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInfo:
    """A target as anybody may see it; `version` counts its changes."""

    id: str
    name: str
    origin: str
    address: str  # hidden: slack://***
    enabled: bool
    created_at: datetime
    version: int


class Targets:
    """The targets of a catalog; each call is part of the caller's transaction."""

    def __init__(self, clock: Clock, random: Random = os.urandom) -> None:
        self._clock, self._random = clock, random

    def all(self, session: Session) -> list[TargetInfo]:
        """All of them, by name."""
        return [_info(row) for row in session.scalars(select(Target).order_by(Target.name))]

    def get(self, session: Session, target_id: str, *, to_change: bool = False) -> TargetInfo:
        """One of them; `to_change` it, nobody else does until the transaction ends. Raises NotFound."""
        return _info(found(session, Target, target_id, to_change=to_change))

    def pings(self, session: Session) -> frozenset[str]:
        """The ids of those that are only fetched, as a sign of life."""
        return frozenset(row.id for row in session.scalars(select(Target)) if is_ping(row.address))

    def create(self, session: Session, *, name: str, address: str, enabled: bool = True) -> TargetInfo:
        """Add one. Raises InvalidRequest."""
        check_name(session, Target, name)
        row = self._new(name, check_address(address), FROM_API)
        row.enabled = enabled
        session.add(row)
        session.flush()
        return _info(row)

    def update(
        self,
        session: Session,
        target_id: str,
        *,
        version: int | None = None,
        name: str | None = None,
        address: str | None = None,
        enabled: bool | None = None,
    ) -> TargetInfo:
        """Change what is given. Raises NotFound, InvalidRequest, and PreconditionFailed for another version."""
        row = changeable(session, Target, target_id, version)
        if name is not None and name != row.name:
            check_name(session, Target, name)
            row.name = name
        if address is not None:
            row.address = check_address(address)
        if enabled is not None:
            row.enabled = enabled
        row.version += 1
        session.flush()
        return _info(row)

    def delete(self, session: Session, target_id: str, *, version: int | None = None) -> None:
        """Remove one; what waits for it is not sent. Raises NotFound, InvalidRequest, PreconditionFailed."""
        session.delete(changeable(session, Target, target_id, version))
        session.flush()

    def sync(self, session: Session, addresses: Mapping[str, str]) -> None:
        """Make the targets of policy files these: name to address. Those of the API that have such a name give way."""
        take_turn(session)
        rows = {row.name: row for row in session.scalars(select(Target))}
        for name, address in addresses.items():
            row = rows.get(name)
            if row is None:
                session.add(self._new(name, address, FROM_FILE))
            elif (row.address, row.origin, row.enabled) != (address, FROM_FILE, True):
                row.address, row.origin, row.enabled = address, FROM_FILE, True
                row.version += 1
        drop_others_of_file(session, rows, addresses)

    def _new(self, name: str, address: str, origin: str) -> Target:
        now = self._clock.now()
        return Target(
            id=new_ulid(self._clock.now_ns(), self._random),
            name=name,
            origin=origin,
            address=address,
            enabled=True,
            created_at=now,
            version=1,
        )


def _info(row: Target) -> TargetInfo:
    return TargetInfo(
        id=row.id,
        name=row.name,
        origin=row.origin,
        address=hidden(row.address),
        enabled=row.enabled,
        created_at=row.created_at,
        version=row.version,
    )
