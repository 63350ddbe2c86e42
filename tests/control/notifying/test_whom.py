"""Targets and matchers: who gets what, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from backstay.catalog.database import Catalog
from backstay.catalog.models import Target
from backstay.control.notifying.matchers import Rule, matches
from backstay.control.notifying.notices import Notice
from backstay.control.notifying.notifier import Notifier
from backstay.errors import BackstayError, InvalidRequest, NotFound, PreconditionFailed

FULL = Notice(severity="warning", kind="capacity", subject="repository", title="full")
FAILED = Notice(severity="error", kind="backup_failed", subject="backup of shop", title="failed", policy="shop")

RULES: list[tuple[dict[str, Any], bool, bool]] = [
    ({}, True, True),
    ({"severities": ("error",)}, False, True),
    ({"severities": ("warning", "error")}, True, True),
    ({"kinds": ("capacity",)}, True, False),
    ({"policies": ("shop",)}, False, True),
    ({"policies": ("sho",)}, False, False),
    ({"severities": ("error",), "kinds": ("capacity",)}, False, False),
]


@pytest.mark.parametrize(("rule", "full", "failed"), RULES)
def test_all_conditions_of_a_matcher_must_hold(rule: dict[str, Any], full: bool, failed: bool) -> None:
    made = Rule(targets=("t",), **rule)
    assert (matches(made, FULL), matches(made, FAILED)) == (full, failed)


def test_a_target_that_several_matchers_name_gets_one_message(new_catalog: Catalog, notifier: Notifier) -> None:
    with new_catalog.session() as session:
        notifier.targets.create(session, name="other", address="json://other.example/x")
        notifier.matchers.create(session, name="again", rule=Rule(targets=("everything", "other")))
        assert len(notifier.notice(session, FULL)) == 2


def test_a_matcher_that_is_switched_off_matches_nothing(new_catalog: Catalog, notifier: Notifier) -> None:
    with new_catalog.session() as session:
        (matcher,) = notifier.matchers.all(session)
        notifier.matchers.update(session, matcher.id, enabled=False)
        assert notifier.notice(session, FULL) == []


def test_addresses_are_never_shown(new_catalog: Catalog, notifier: Notifier) -> None:
    with new_catalog.session() as session:
        secret = "slack://TAAAAAAAA/BBBBBBBBB/CCCCCCCCCCCCCCCCCCCCCCCC"
        made = notifier.targets.create(session, name="chat", address=secret)
        changed = notifier.targets.update(session, made.id, name="talk")
        assert {made.address, changed.address, notifier.targets.get(session, made.id).address} == {"slack://***"}
        row = session.get(Target, made.id)
        assert row is not None
        assert row.address == secret


@pytest.mark.parametrize(
    "address",
    [
        "",
        "hunter2",
        "nothing://hunter2",
        "json://",
        "dbus://hunter2",
        "ping+https://",
        "ping+ftp://hunter2",
        "slack://hunter2",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(
    new_catalog: Catalog, notifier: Notifier, address: str
) -> None:
    with new_catalog.session() as session, pytest.raises(InvalidRequest) as caught:
        notifier.targets.create(session, name="x", address=address)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_a_version_that_is_not_the_last_changes_nothing(new_catalog: Catalog, notifier: Notifier) -> None:
    with new_catalog.session() as session:
        (target,), (matcher,) = notifier.targets.all(session), notifier.matchers.all(session)
        assert notifier.targets.update(session, target.id, version=1, enabled=True).version == 2
        assert notifier.matchers.update(session, matcher.id, version=1, name="m").version == 2
        calls: list[tuple[Any, str]] = [
            (notifier.targets.update, target.id),
            (notifier.targets.delete, target.id),
            (notifier.matchers.update, matcher.id),
            (notifier.matchers.delete, matcher.id),
        ]
        for call, of in calls:
            with pytest.raises(PreconditionFailed):
                call(session, of, version=1)


WRONG: list[tuple[Rule, str]] = [
    (Rule(targets=()), "a matcher needs a target"),
    (Rule(targets=("nobody",)), "there is no target 'nobody'"),
    (Rule(targets=("everything",), severities=("bad",)), "there is no severity 'bad'"),
    (Rule(targets=("everything",), kinds=("bad",)), "there is no kind 'bad'"),
    (Rule(targets=("everything",), policies=("p",) * 1001), "a matcher names too much"),
]


@pytest.mark.parametrize(("rule", "told"), WRONG)
def test_a_matcher_that_means_nothing_is_refused(
    new_catalog: Catalog, notifier: Notifier, rule: Rule, told: str
) -> None:
    with new_catalog.session() as session, pytest.raises(InvalidRequest, match=told):
        notifier.matchers.create(session, name="x", rule=rule)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 256, "everything"])
def test_a_name_is_short_printable_and_its_own(new_catalog: Catalog, notifier: Notifier, name: str) -> None:
    with new_catalog.session() as session:
        with pytest.raises(InvalidRequest):
            notifier.targets.create(session, name=name, address="json://x.example/y")
        with pytest.raises(InvalidRequest):
            notifier.matchers.create(session, name=name, rule=Rule(targets=("everything",)))


def test_what_is_not_there_is_not_found(new_catalog: Catalog, notifier: Notifier) -> None:
    with new_catalog.session() as session:
        for call in (notifier.targets.get, notifier.targets.delete, notifier.matchers.get, notifier.matchers.delete):
            with pytest.raises(NotFound):
                call(session, "nope")
    with pytest.raises(NotFound):
        notifier.send_test("nope")


def test_what_a_file_says_is_changed_in_the_file(new_catalog: Catalog, notifier: Notifier) -> None:
    with new_catalog.session() as session:
        notifier.targets.sync(session, {"of file": "json://x.example/y"})
        notifier.matchers.sync(session, {"of file": Rule(targets=("of file",))})
        target = session.scalars(select(Target).where(Target.name == "of file")).one()
        (matcher,) = [one for one in notifier.matchers.all(session) if one.name == "of file"]
        calls: list[tuple[Any, str]] = [
            (notifier.targets.update, target.id),
            (notifier.targets.delete, target.id),
            (notifier.matchers.update, matcher.id),
            (notifier.matchers.delete, matcher.id),
        ]
        for call, of in calls:
            with pytest.raises(BackstayError, match="is one of the policy file"):
                call(session, of)


def test_a_file_that_changes_takes_its_own_along_and_leaves_the_others(
    new_catalog: Catalog, notifier: Notifier
) -> None:
    def names() -> list[str]:
        with new_catalog.reading() as session:
            return [f"{one.name} {one.version}" for one in notifier.targets.all(session)]

    for given in ({"a": "json://a.example"}, {"a": "json://a.example"}, {"a": "json://b.example", "c": "json://c"}, {}):
        with new_catalog.session() as session:
            notifier.targets.sync(session, given)
        if given.get("a") == "json://a.example":
            assert names() == ["a 1", "everything 1"]
        elif given:
            assert names() == ["a 2", "c 1", "everything 1"]
    assert names() == ["everything 1"]
