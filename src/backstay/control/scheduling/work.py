"""Whether there is anything to do for a schedule: what has nothing to do would fail every time."""

from __future__ import annotations

from collections.abc import Sequence

from backstay.control.policies.effective import effective
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.values import told_words
from backstay.control.scheduling.kinds import OF_REPOSITORY
from backstay.errors import InvalidRequest, NotFound


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
