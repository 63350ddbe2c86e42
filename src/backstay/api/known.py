"""What a request means by a name: policies, their sources, backups, users, as far as the caller may know of them.

Of what somebody may not see they are told the very same as of what does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from sqlalchemy.orm import Session

from backstay.api.call import Call
from backstay.catalog.backup_search import scope_of
from backstay.catalog.models import Backup, PassedOver
from backstay.control.access.denied import not_allowed
from backstay.control.access.scopes import EVERYTHING, meet, policy_scope, source_scope
from backstay.control.access.users import UserView
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.policy import Policy
from backstay.errors import InvalidRequest, NotFound

ALL = "*"


@contextmanager
def told_as(missing: NotFound) -> Iterator[None]:
    """What is not found, told in the words that are used for what is hidden."""
    try:
        yield
    except NotFound:
        raise missing from None


def policies_of(call: Call) -> LoadedPolicies | None:
    """The policy file that the service runs with, if there is one."""
    return call.backing.policies


def policy_names(call: Call) -> list[str]:
    """The names of all policies."""
    found = policies_of(call)
    return [] if found is None else found.content.names


def no_policy(name: str) -> NotFound:
    """What somebody is told of a policy that is not there, or is none of their business."""
    return NotFound(f"there is no policy {name!r}", hint="`GET /api/policies` lists them")


def policy_named(call: Call, name: str | None) -> tuple[str, Policy]:
    """A policy of the file; without a name the only one that the caller sees. Raises NotFound, InvalidRequest."""
    names = policy_names(call)
    if name is None:
        reach = _reach(call)
        seen = [one for one in names if any(meet(policy_scope(one), own) is not None for own in reach)]
        if len(seen) != 1:
            raise InvalidRequest(
                "no policy is named", cause=f"there are {len(seen)} policies", hint="name one as `policy`"
            )
        name = seen[0]
    found = policies_of(call)
    if found is None or name not in names:
        raise no_policy(name)
    return name, found.policy(name)


def _reach(call: Call) -> tuple[str, ...]:
    """Where the caller sees what there is, or may do what it asks for."""
    return call.principal.scopes("backup:read") + call.principal.scopes("policy:read") + call.scopes


def sources_seen(call: Call, name: str, policy: Policy) -> list[str]:
    """The snapshots' names of the sources of a policy that the caller sees."""
    whole = [origin.snapshot_name(name) for origin in policy.sources]
    reach = _reach(call)
    return [one for one in whole if any(meet(source_scope(name, one), own) is not None for own in reach)]


def sources_meant(call: Call, name: str, policy: Policy, asked: Sequence[str]) -> list[str]:
    """The snapshots' names of the sources that a request names; empty for all of them. Raises NotFound."""
    if not asked or ALL in asked:
        return []
    seen = set(sources_seen(call, name, policy))
    known = {origin.snapshot_name(name): origin for origin in policy.sources if origin.snapshot_name(name) in seen}
    by_word = {origin.name or whole: whole for whole, origin in known.items()}
    found: list[str] = []
    for word in asked:
        whole = word if word in known else by_word.get(word)
        if whole is None:
            raise NotFound(
                f"the policy {name!r} has no source {word!r}",
                cause=f"it has {', '.join(sorted(by_word))}",
                hint="`GET /api/policies/NAME` shows its sources",
            )
        found.append(whole)
    chosen = list(dict.fromkeys(found))
    return [] if len(chosen) == len(policy.sources) else chosen


def run_scope(name: str, sources: Sequence[str]) -> str:
    """What the right to run a policy, or one source of it, is asked of."""
    return source_scope(name, sources[0]) if len(sources) == 1 else policy_scope(name)


def user_meant(call: Call, session: Session, name: str) -> UserView:
    """A user whom the caller manages: others are none of its business. Raises NotFound."""
    missing = NotFound(f"there is no user {name[:80]!r}", hint="`GET /api/users` lists those whom you manage")
    with told_as(missing):
        found = call.backing.access.users.get(session, name)
    if not call.manages(found):
        raise missing
    return found


def was_deleted(call: Call, ident: str) -> bool:
    """Whether this was a backup that somebody, or retention, has deleted; told only to who may delete all of them."""
    if not call.principal.may(call.needs, EVERYTHING):
        return False
    with call.backing.catalog.reading() as session:
        gone = session.get(PassedOver, ident[:26])
    if gone is None or gone.why != "dropped":
        return False
    call.about(f"backup/{gone.id}", deleted="before")
    return True


def _note_if_hidden(call: Call, text: str) -> None:
    """Write down that somebody asked for a backup that is none of their business."""
    with suppress(NotFound, InvalidRequest):
        found = call.backing.index.get(text)
        call.about(f"backup/{found.id}")
        call.refused(not_allowed(call.needs, scope_of(found)))


def backup_meant(call: Call, text: str) -> Backup:
    """A backup by id, beginning of an id or name, that the caller may do this to.

    Raises NotFound for those that the caller may not see, Forbidden for others.
    """
    missing = NotFound(f"there is no backup {text[:80]!r}", hint="`GET /api/backup/list` lists them")
    reach = list({*call.principal.scopes("backup:read"), *call.scopes})
    try:
        found = call.backing.index.get(text, scopes=reach)
    except NotFound:
        _note_if_hidden(call, text)
        raise missing from None
    call.about(f"backup/{found.id}", source=found.source, policy=found.policy)
    call.require(scope_of(found), seen="backup:read", missing=missing)
    return found
