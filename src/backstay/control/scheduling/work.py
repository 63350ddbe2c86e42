"""What there is to do for a schedule, if anything: what has nothing to do would fail every time."""

from __future__ import annotations

from collections.abc import Sequence

from backstay.control.policies.configuration_paths import configuration_paths
from backstay.control.policies.effective import effective
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.origins import DATABASES
from backstay.control.policies.policy import Policy
from backstay.control.policies.values import told_words
from backstay.control.scheduling.kinds import OF_REPOSITORY, ON_CHANGE
from backstay.errors import InvalidRequest, NotFound


def databases_of(name: str, policy: Policy) -> tuple[str, ...]:
    """The sources of a policy that are databases, by the names of their snapshots."""
    return tuple(origin.snapshot_name(name) for origin in policy.sources if origin.type in DATABASES)


def configuration_of(name: str, policy: Policy) -> tuple[str, ...]:
    """The sources of a policy that hold configuration, by the names of their snapshots."""
    return tuple(origin.snapshot_name(name) for origin in policy.sources if configuration_paths(origin))


def sources_to_back_up(kind: str, policy: str, sources: Sequence[str], policies: LoadedPolicies) -> Sequence[str]:
    """The sources that a backup of this type is about; none for all. Raises InvalidRequest, NotFound."""
    if kind not in ("transaction_logs", "configuration", ON_CHANGE):
        return sources
    found = policies.policy(policy)
    if kind == "transaction_logs":
        fitting, none_does, others_do = databases_of(policy, found), "is a database", "is no database"
    else:
        fitting, none_does, others_do = configuration_of(policy, found), "holds configuration", "holds no configuration"
    if not fitting:
        raise InvalidRequest(
            "policy cannot be so",
            cause=f"no source of the policy {policy} {none_does}",
            hint="choose another type, such as incremental",
        )
    named = {origin.snapshot_name(policy) for origin in found.sources if origin.name in sources} | {*sources}
    if others := sorted(named & {origin.snapshot_name(policy) for origin in found.sources} - {*fitting}):
        raise InvalidRequest(
            "sources cannot be so",
            cause=f"{told_words(others)} {others_do}",
            hint=f"there are {told_words(fitting)}; leave them out for all of these",
        )
    return sources or fitting


def require_work(kind: str, policy: str, sources: Sequence[str], policies: LoadedPolicies) -> None:
    """Raises InvalidRequest, whose title begins with the field of a schedule that cannot be."""
    if kind == "copy":
        require_copies(policies, title="type cannot be so")
    if kind in OF_REPOSITORY:
        return
    try:
        found = policies.policy(policy)
    except NotFound as error:
        raise InvalidRequest(
            "policy cannot be so", cause=str(error), hint="name a policy of the policy file"
        ) from error
    if kind == "prune":
        require_retention(policy, policies)
    known = {origin.name for origin in found.sources} | {origin.snapshot_name(policy) for origin in found.sources}
    for source in sources:
        if source not in known:
            raise InvalidRequest(
                "sources cannot be so",
                cause=f"the policy {policy} has no source {source[:80]!r}",
                hint=f"there are {told_words(sorted(filter(None, known)))}",
            )
    sources_to_back_up(kind, policy, sources, policies)


def require_retention(policy: str, policies: LoadedPolicies) -> None:
    """See that a policy has rules by which backups are dropped. Raises InvalidRequest, NotFound."""
    if effective(policies.policy(policy), policies.content.backup_manager).retention is None:
        raise InvalidRequest(
            "policy cannot be so",
            cause=f"the policy {policy} keeps everything: neither it nor `backup_manager` has a `retention`",
            hint="write one in the policy file, for example retention: {keep_daily: 7}",
        )


def require_copies(policies: LoadedPolicies | None, *, title: str = "there is no copy to bring up to date") -> None:
    """See that the policy file names copies of the repository. Raises InvalidRequest."""
    storage = None if policies is None else policies.content.backup_manager.storage
    if storage is None or not storage.copies:
        raise InvalidRequest(
            title,
            cause="the policy file names no `copies`",
            hint="write them under `backup_manager.storage.copies`",
        )
