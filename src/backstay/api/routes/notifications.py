"""Notifications: targets, matchers, and the alerts that are on."""

from __future__ import annotations

from fastapi import Response

from backstay.api.answers import answer, done, page
from backstay.api.call import Call, Caller
from backstay.api.endpoints import Section
from backstay.api.models.base import Ident, PageOf, PageQuery
from backstay.api.models.notices import (
    AlertDocument,
    AskedMatcher,
    ChangedTarget,
    MatcherDocument,
    NewTarget,
    TargetDocument,
    Tested,
)
from backstay.api.paging import part_of
from backstay.api.versions import etag_of
from backstay.catalog.models import AlertState
from backstay.control.access.scopes import EVERYTHING
from backstay.control.notifying.matchers import MatcherInfo, Rule
from backstay.control.notifying.targets import TargetInfo

section = Section("notifications")
_TARGETS = "/api/notifications/targets"
_MATCHERS = "/api/notifications/matchers"


@section.get(_TARGETS, needs="settings:write", answers=PageOf[TargetDocument])
def list_targets(call: Caller, asked: PageQuery) -> Response:
    """List the targets of messages; their addresses are hidden."""
    _everything(call)
    with call.backing.catalog.reading() as session:
        shown, following = part_of(call.backing.notifier.targets.all(session), lambda one: one.name, asked)
    return page([_target(one) for one in shown], following)


@section.post(_TARGETS, needs="settings:write", does="target.create", answers={201: TargetDocument}, creates=True)
def create_target(call: Caller, body: NewTarget) -> Response:
    """Add a target. Its address is kept, and never shown again."""
    _everything(call)
    with call.backing.catalog.session() as session:
        made = call.backing.notifier.targets.create(session, name=body.name, address=body.address, enabled=body.enabled)
        call.about(f"target/{made.id}", name=made.name)
        where, tag = f"{_TARGETS}/{made.id}", etag_of(made.id, made.version)
        return call.made(session, answer(_target(made), 201, location=where, etag=tag))


@section.get(_TARGETS + "/{target}", needs="settings:write", answers=TargetDocument, refuses=(404,))
def get_target(call: Caller, target: Ident) -> Response:
    """Tell about one target."""
    _everything(call)
    with call.backing.catalog.reading() as session:
        found = call.backing.notifier.targets.get(session, target)
    return answer(_target(found), etag=etag_of(found.id, found.version))


@section.put(_TARGETS + "/{target}", needs="settings:write", does="target.update", answers=TargetDocument)
def update_target(call: Caller, target: Ident, body: ChangedTarget) -> Response:
    """Change a target; what is left out stays. Those of the policy file are changed there."""
    _everything(call)
    call.about(f"target/{target}", changed=sorted(body.model_fields_set))
    with call.backing.catalog.session() as session:
        before = call.backing.notifier.targets.get(session, target, to_change=True)
        call.match(before.id, before.version)
        changed = call.backing.notifier.targets.update(
            session, target, name=body.name, address=body.address, enabled=body.enabled
        )
        call.record(session)
    return answer(_target(changed), etag=etag_of(changed.id, changed.version))


@section.delete(_TARGETS + "/{target}", needs="settings:write", does="target.delete", refuses=(412,))
def delete_target(call: Caller, target: Ident) -> Response:
    """Remove a target; what waits for it is not sent."""
    _everything(call)
    with call.backing.catalog.session() as session:
        before = call.backing.notifier.targets.get(session, target, to_change=True)
        call.about(f"target/{before.id}", name=before.name)
        call.match(before.id, before.version)
        call.backing.notifier.targets.delete(session, target)
        call.record(session)
    return done()


@section.post(
    _TARGETS + "/{target}/test", needs="settings:write", does="target.test", answers={200: Tested}, refuses=(404, 502)
)
def try_target(call: Caller, target: Ident) -> Response:
    """Send a message to a target now, to see whether it arrives."""
    _everything(call)
    call.about(f"target/{target}")
    return answer(Tested(message_id=call.backing.notifier.send_test(target)))


@section.get(_MATCHERS, needs="settings:write", answers=PageOf[MatcherDocument])
def list_matchers(call: Caller, asked: PageQuery) -> Response:
    """List what decides which messages go to which targets."""
    _everything(call)
    with call.backing.catalog.reading() as session:
        shown, following = part_of(call.backing.notifier.matchers.all(session), lambda one: one.name, asked)
    return page([_matcher(one) for one in shown], following)


@section.post(_MATCHERS, needs="settings:write", does="matcher.create", answers={201: MatcherDocument}, creates=True)
def create_matcher(call: Caller, body: AskedMatcher) -> Response:
    """Add a matcher."""
    _everything(call)
    with call.backing.catalog.session() as session:
        made = call.backing.notifier.matchers.create(session, name=body.name, rule=_rule(body), enabled=body.enabled)
        call.about(f"matcher/{made.id}", name=made.name)
        where, tag = f"{_MATCHERS}/{made.id}", etag_of(made.id, made.version)
        return call.made(session, answer(_matcher(made), 201, location=where, etag=tag))


@section.get(_MATCHERS + "/{matcher}", needs="settings:write", answers=MatcherDocument, refuses=(404,))
def get_matcher(call: Caller, matcher: Ident) -> Response:
    """Tell about one matcher."""
    _everything(call)
    with call.backing.catalog.reading() as session:
        found = call.backing.notifier.matchers.get(session, matcher)
    return answer(_matcher(found), etag=etag_of(found.id, found.version))


@section.put(_MATCHERS + "/{matcher}", needs="settings:write", does="matcher.update", answers=MatcherDocument)
def update_matcher(call: Caller, matcher: Ident, body: AskedMatcher) -> Response:
    """Change all of a matcher. Those of the policy file are changed there."""
    _everything(call)
    call.about(f"matcher/{matcher}")
    with call.backing.catalog.session() as session:
        before = call.backing.notifier.matchers.get(session, matcher, to_change=True)
        call.match(before.id, before.version)
        changed = call.backing.notifier.matchers.update(
            session, matcher, name=body.name, rule=_rule(body), enabled=body.enabled
        )
        call.record(session)
    return answer(_matcher(changed), etag=etag_of(changed.id, changed.version))


@section.delete(_MATCHERS + "/{matcher}", needs="settings:write", does="matcher.delete", refuses=(412,))
def delete_matcher(call: Caller, matcher: Ident) -> Response:
    """Remove a matcher."""
    _everything(call)
    with call.backing.catalog.session() as session:
        before = call.backing.notifier.matchers.get(session, matcher, to_change=True)
        call.about(f"matcher/{before.id}", name=before.name)
        call.match(before.id, before.version)
        call.backing.notifier.matchers.delete(session, matcher)
        call.record(session)
    return done()


@section.get("/api/alerts", needs="backup:read", answers=PageOf[AlertDocument])
def list_alerts(call: Caller, asked: PageQuery) -> Response:
    """List the alerts that are on, for those who may see everything."""
    _everything(call)
    with call.backing.catalog.reading() as session:
        rows = session.query(AlertState).filter(AlertState.resolved_at.is_(None)).all()
    shown, following = part_of(rows, lambda row: row.fingerprint, asked)
    return page([_alert(row) for row in shown], following)


def _everything(call: Call) -> None:
    """What is set up here is of the whole service. Raises Forbidden."""
    call.require(EVERYTHING, seen=call.needs)


def _rule(body: AskedMatcher) -> Rule:
    return Rule(
        targets=tuple(body.targets),
        severities=tuple(body.severities),
        kinds=tuple(body.kinds),
        policies=tuple(body.policies),
    )


def _target(info: TargetInfo) -> TargetDocument:
    return TargetDocument(
        id=info.id,
        name=info.name,
        origin=info.origin,
        address=info.address,
        enabled=info.enabled,
        created_at=info.created_at,
    )


def _matcher(info: MatcherInfo) -> MatcherDocument:
    return MatcherDocument(
        id=info.id,
        name=info.name,
        origin=info.origin,
        targets=list(info.rule.targets),
        severities=list(info.rule.severities),
        kinds=list(info.rule.kinds),
        policies=list(info.rule.policies),
        enabled=info.enabled,
        created_at=info.created_at,
    )


def _alert(row: AlertState) -> AlertDocument:
    return AlertDocument(
        fingerprint=row.fingerprint,
        kind=row.kind,
        subject=row.subject,
        severity=row.severity,
        title=row.title,
        details=row.details,
        began_at=row.began_at,
        count=row.count,
    )
