"""Targets and matchers of a policy file, in the catalog."""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from backstay.control.notifying.addresses import PING, check_address
from backstay.control.notifying.matchers import Rule
from backstay.control.notifying.notifier import Notifier
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.notifications import SERIOUS, Notifications

_ALL: Final = "all targets"
_PING: Final = "ping of"  # names with spaces, which no name of a file has


def sync_from_policies(session: Session, notifier: Notifier, loaded: LoadedPolicies | None) -> None:
    """Make the targets and matchers of the file those of the catalog; none for no file.

    Raises InvalidRequest for an address that the notification library does not understand.
    """
    addresses, rules = _of_file(loaded) if loaded is not None else ({}, {})
    for address in addresses.values():
        check_address(address)
    notifier.targets.sync(session, addresses)
    notifier.matchers.sync(session, rules)


def _of_file(loaded: LoadedPolicies) -> tuple[dict[str, str], dict[str, Rule]]:
    """Addresses by the names of targets, and rules by the names of matchers."""
    given = loaded.content.backup_manager.notifications or Notifications()
    addresses = {name: target.address() for name, target in given.targets.items()}
    rules = {
        name: Rule(
            targets=matching.targets,
            severities=matching.severities,
            kinds=matching.kinds,
            policies=matching.policies,
        )
        for name, matching in given.matchers.items()
    }
    if addresses and not rules:
        rules[_ALL] = Rule(targets=tuple(addresses), severities=SERIOUS)
    for policy, content in loaded.content.policies.items():
        own = content.notifications
        if own is None:
            continue
        if own.targets:
            rules[f"of {policy}"] = Rule(targets=own.targets, severities=own.severities, policies=(policy,))
        if own.ping is not None:
            name = f"{_PING} {policy}"
            addresses[name] = f"{PING}{own.ping}"
            rules[name] = Rule(targets=(name,), kinds=("backup_succeeded",), policies=(policy,))
    return addresses, rules
