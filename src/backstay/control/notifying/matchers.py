"""Matchers: which messages go to which targets. An empty condition matches all; without a match nothing is sent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.models import Matcher, Target
from backstay.control.notifying.named import (
    FROM_API,
    FROM_FILE,
    changeable,
    check_name,
    drop_others_of_file,
    found,
    take_turn,
)
from backstay.control.notifying.notices import KINDS, SEVERITIES, Notice
from backstay.core.clock import Clock
from backstay.core.ids import Random, new_ulid
from backstay.errors import InvalidRequest

_LIST_MOST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a matcher says. `targets` are names of targets."""

    targets: tuple[str, ...]
    severities: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MatcherInfo:
    """A matcher; `version` counts its changes."""

    id: str
    name: str
    origin: str
    rule: Rule
    enabled: bool
    created_at: datetime
    version: int


class Matchers:
    """The matchers of a catalog; each call is part of the caller's transaction."""

    def __init__(self, clock: Clock, random: Random = os.urandom) -> None:
        self._clock, self._random = clock, random

    def all(self, session: Session) -> list[MatcherInfo]:
        """All of them, by name."""
        return [_info(row) for row in session.scalars(select(Matcher).order_by(Matcher.name))]

    def get(self, session: Session, matcher_id: str, *, to_change: bool = False) -> MatcherInfo:
        """One of them; `to_change` it, nobody else does until the transaction ends. Raises NotFound."""
        return _info(found(session, Matcher, matcher_id, to_change=to_change))

    def create(self, session: Session, *, name: str, rule: Rule, enabled: bool = True) -> MatcherInfo:
        """Add one. Raises InvalidRequest."""
        check_name(session, Matcher, name)
        _check(session, rule)
        row = self._new(name, rule, FROM_API)
        row.enabled = enabled
        session.add(row)
        session.flush()
        return _info(row)

    def update(
        self,
        session: Session,
        matcher_id: str,
        *,
        version: int | None = None,
        name: str | None = None,
        rule: Rule | None = None,
        enabled: bool | None = None,
    ) -> MatcherInfo:
        """Change what is given. Raises NotFound, InvalidRequest, and PreconditionFailed for another version."""
        row = changeable(session, Matcher, matcher_id, version)
        if name is not None and name != row.name:
            check_name(session, Matcher, name)
            row.name = name
        if rule is not None:
            _check(session, rule)
            _put(row, rule)
        if enabled is not None:
            row.enabled = enabled
        row.version += 1
        session.flush()
        return _info(row)

    def delete(self, session: Session, matcher_id: str, *, version: int | None = None) -> None:
        """Remove one. Raises NotFound, InvalidRequest, PreconditionFailed."""
        session.delete(changeable(session, Matcher, matcher_id, version))
        session.flush()

    def sync(self, session: Session, rules: dict[str, Rule]) -> None:
        """Make the matchers of policy files these, by name. Those of the API that have such a name give way."""
        take_turn(session)
        rows = {row.name: row for row in session.scalars(select(Matcher))}
        for name, rule in rules.items():
            row = rows.get(name)
            if row is None:
                session.add(self._new(name, rule, FROM_FILE))
            elif (_rule(row), row.origin, row.enabled) != (rule, FROM_FILE, True):
                _put(row, rule)
                row.origin, row.enabled = FROM_FILE, True
                row.version += 1
        drop_others_of_file(session, rows, rules)

    def _new(self, name: str, rule: Rule, origin: str) -> Matcher:
        row = Matcher(
            id=new_ulid(self._clock.now_ns(), self._random),
            name=name,
            origin=origin,
            enabled=True,
            created_at=self._clock.now(),
            version=1,
        )
        _put(row, rule)
        return row


def targets_of(session: Session, notice: Notice) -> list[Target]:
    """The targets that a notice goes to, each once, by name."""
    rules = [_rule(row) for row in session.scalars(select(Matcher).where(Matcher.enabled))]
    names = {name for rule in rules if matches(rule, notice) for name in rule.targets}
    if not names:
        return []
    rows = session.scalars(select(Target).where(Target.enabled).order_by(Target.name))
    return [row for row in rows if row.name in names]


def matches(rule: Rule, notice: Notice) -> bool:
    """Whether a notice is one that the rule means."""
    return (
        _holds(rule.severities, notice.severity)
        and _holds(rule.kinds, notice.kind)
        and _holds(rule.policies, notice.policy)
    )


def _holds(allowed: Sequence[str], value: str | None) -> bool:
    return not allowed or value in allowed


def _check(session: Session, rule: Rule) -> None:
    if not rule.targets:
        raise InvalidRequest("a matcher needs a target", hint="name at least one in `targets`")
    if max(map(len, (rule.targets, rule.policies))) > _LIST_MOST:
        raise InvalidRequest("a matcher names too much", hint=f"a list has at most {_LIST_MOST} names")
    known = session.scalars(select(Target.name))
    _check_words("target", rule.targets, known)
    _check_words("severity", rule.severities, SEVERITIES)
    _check_words("kind", rule.kinds, KINDS)


def _check_words(what: str, words: Sequence[str], known: Iterable[str]) -> None:
    known = list(known)
    for word in words:
        if word not in known:
            told = ", ".join(known) or "none yet"
            raise InvalidRequest(f"there is no {what} {word!r}", cause=f"there are: {told}")


def _put(row: Matcher, rule: Rule) -> None:
    for name, words in asdict(rule).items():
        setattr(row, name, list(words))


def _rule(row: Matcher) -> Rule:
    return Rule(
        targets=tuple(row.targets),
        severities=tuple(row.severities),
        kinds=tuple(row.kinds),
        policies=tuple(row.policies),
    )


def _info(row: Matcher) -> MatcherInfo:
    return MatcherInfo(
        id=row.id,
        name=row.name,
        origin=row.origin,
        rule=_rule(row),
        enabled=row.enabled,
        created_at=row.created_at,
        version=row.version,
    )
