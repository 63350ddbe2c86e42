"""Scopes: what lies within what, and what is no scope."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from backstay.catalog.models import Base, Job
from backstay.control.access.scopes import (
    EVERYTHING,
    REPOSITORY,
    covers,
    meet,
    outermost,
    parse_scope,
    policy_scope,
    source_scope,
    within,
)
from backstay.core.clock import SystemClock
from backstay.errors import InvalidRequest

# Few letters, so that one name is often the beginning of another; and the characters of known tricks.
NAMES = st.text("aAb%2F._-é\u0301*?\\ ", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
SCOPES = st.one_of(
    st.sampled_from([EVERYTHING, REPOSITORY]), st.builds(policy_scope, NAMES), st.builds(source_scope, NAMES, NAMES)
)


def segments(scope: str) -> list[str]:
    return [] if scope == "/" else scope[1:].split("/")


@given(SCOPES, SCOPES)
def test_a_scope_covers_those_that_begin_with_its_segments_and_no_others(one: str, other: str) -> None:
    mine, theirs = segments(one), segments(other)
    assert covers(one, other) == (theirs[: len(mine)] == mine)


@given(SCOPES, SCOPES, SCOPES)
def test_covering_is_an_order(a: str, b: str, c: str) -> None:
    assert covers(a, a)
    assert covers("/", a)
    assert not (covers(a, b) and covers(b, c)) or covers(a, c)
    assert not (covers(a, b) and covers(b, a)) or a == b


@given(SCOPES, SCOPES, SCOPES)
def test_what_two_scopes_share_is_what_both_cover(a: str, b: str, c: str) -> None:
    shared = meet(a, b)
    assert (covers(a, c) and covers(b, c)) == (shared is not None and covers(shared, c))


@given(st.lists(SCOPES), SCOPES)
def test_the_fewest_scopes_reach_as_far_as_all(scopes: list[str], scope: str) -> None:
    fewest = outermost(scopes)
    assert any(covers(s, scope) for s in scopes) == any(covers(s, scope) for s in fewest)
    assert not any(covers(a, b) for a in fewest for b in fewest if a != b)


def test_names_that_begin_alike_are_not_confused() -> None:
    assert not covers("/policy/a", "/policy/ab")
    assert not covers("/policy/a", "/policy/A")
    assert not covers("/policy/caf\u00e9", "/policy/cafe\u0301")
    assert not covers("/policy/a/source/b", "/policy/a")
    assert covers("/policy/a", "/policy/a/source/a")


def test_nothing_is_decoded() -> None:
    assert not covers("/policy/a", policy_scope("a%2fsource"))
    assert not covers("/policy/a", policy_scope("a\\source"))
    assert covers("/policy/a%2F", source_scope("a%2F", "b"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "policy/a",
        "//",
        "/policy",
        "/policy/",
        "/policy/a/",
        "/policy//source/b",
        "/policy/a/source",
        "/policy/a/source/",
        "/policy/a/source/b/c",
        "/policy/..",
        "/policy/.",
        "/policy/a/source/..",
        "/policy/../repository",
        "/repository/",
        "/repository/x",
        "/Policy/a",
        "/policies/a",
        "/policy/a\n",
        "/policy/a\0",
        "/policy/\ud800",
        "/policy/" + "a" * 600,
    ],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_scope(text)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\0"])
def test_a_name_cannot_leave_its_segment(name: str) -> None:
    with pytest.raises(InvalidRequest):
        policy_scope(name)
    with pytest.raises(InvalidRequest):
        source_scope("a", name)


@pytest.fixture(scope="module")
def engine() -> Engine:
    """SQLite with a table of scopes: making one for each example would take longest."""
    made = create_engine("sqlite://")
    Base.metadata.create_all(made)
    return made


@given(rows=st.lists(SCOPES, unique=True, max_size=8), scopes=st.lists(SCOPES, max_size=3))
def test_a_query_finds_what_the_scopes_cover(engine: Engine, rows: list[str], scopes: list[str]) -> None:
    with Session(engine) as session:  # which is rolled back
        made = SystemClock().now()
        session.add_all(Job(id=str(n), kind="gc", queue="q", scope=row, created_at=made) for n, row in enumerate(rows))
        session.flush()
        found = session.scalars(select(Job.scope).where(within(Job.scope, scopes)))
        assert sorted(found) == sorted(row for row in rows if any(covers(s, row) for s in scopes))
