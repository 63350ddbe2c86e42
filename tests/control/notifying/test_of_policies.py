"""What a policy file says of messages holds in the catalog."""

from __future__ import annotations

import pytest

from backstay.catalog.database import Catalog
from backstay.control.notifying.matchers import Rule
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.of_policies import sync_from_policies
from backstay.errors import InvalidRequest
from tests.control.policies.files import loaded

HOOK = "hook: {type: webhook, url: 'https://x.example/y'}"
TEXT = f"""
backup_manager:
  notifications:
    targets: {{{HOOK}}}
policies:
  shop:
    sources: [{{type: sqlite, path: /x}}]
    notifications: {{targets: [hook], severities: [info], ping: 'https://hc.example/uuid'}}
"""


def rules(catalog: Catalog, notifier: Notifier) -> dict[str, Rule]:
    with catalog.reading() as session:
        return {one.name: one.rule for one in notifier.matchers.all(session) if one.origin == "file"}


def sync(catalog: Catalog, notifier: Notifier, text: str | None) -> None:
    with catalog.session() as session:
        sync_from_policies(session, notifier, None if text is None else loaded(text))


def test_all_targets_get_warnings_and_errors_and_a_policy_may_say_more(
    new_catalog: Catalog, notifier: Notifier
) -> None:
    for _ in range(2):
        sync(new_catalog, notifier, TEXT)
        assert rules(new_catalog, notifier) == {
            "all targets": Rule(targets=("hook",), severities=("warning", "error")),
            "of shop": Rule(targets=("hook",), severities=("info",), policies=("shop",)),
            "ping of shop": Rule(targets=("ping of shop",), kinds=("backup_succeeded",), policies=("shop",)),
        }
        with new_catalog.reading() as session:
            shown = {one.name: (one.address, one.version) for one in notifier.targets.all(session)}
        assert shown["ping of shop"] == ("ping+https://***", 1)
        assert shown["hook"] == ("jsons://***", 1)
    sync(new_catalog, notifier, None)
    assert rules(new_catalog, notifier) == {}


def test_matchers_of_the_file_take_the_place_of_that_for_all(new_catalog: Catalog, notifier: Notifier) -> None:
    matchers = "matchers: {bad: {targets: [hook], severities: [error], kinds: [corruption]}}"
    sync(new_catalog, notifier, f"backup_manager: {{notifications: {{targets: {{{HOOK}}}, {matchers}}}}}")
    assert rules(new_catalog, notifier) == {
        "bad": Rule(targets=("hook",), severities=("error",), kinds=("corruption",))
    }


def test_an_address_that_the_library_does_not_know_is_refused(new_catalog: Catalog, notifier: Notifier) -> None:
    wrong = "backup_manager: {notifications: {targets: {t: {type: apprise, url: 'nothing://hunter2'}}}}"
    with pytest.raises(InvalidRequest, match=r"nothing://\*\*\* is not understood"):
        sync(new_catalog, notifier, wrong)
