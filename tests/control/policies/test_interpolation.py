"""Variables and files in values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.control.policies.interpolation import MAX_FILE, CannotFill, escaped, fill
from backstay.control.policies.origins import PostgresqlOrigin
from tests.control.policies.files import loaded, mistakes

ENVIRON = {"A": "one", "EMPTY": "", "ODD": "${A} $$ x: [y]\n- z", "N": "7"}


@pytest.mark.parametrize(
    ("text", "value", "outside"),
    [
        ("plain", "plain", False),
        ("${A}", "one", True),
        ("x${A}y${A}", "xoneyone", True),
        ("$${A}", "${A}", False),
        ("$A costs $5", "$A costs $5", False),
        ("${EMPTY}", "", True),
        ("${EMPTY:-two}", "two", False),
        ("${NONE:-}", "", False),
        ("${NONE:-a:-b}", "a:-b", False),
        ("${A:-two}", "one", True),
        ("${A:?needed}", "one", True),
        ("${ODD}", "${A} $$ x: [y]\n- z", True),  # what is put in is not looked at again
    ],
)
def test_filling(text: str, value: str, outside: bool) -> None:
    assert fill(text, ENVIRON) == (value, outside)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NONE}", "the variable NONE is not set"),
        ("${NONE:?ask Ann}", "the variable NONE is not set: ask Ann"),
        ("${EMPTY:?}", "the variable EMPTY is not set"),
        ("${A", "`${` has no end"),
        ("${}", "${} is no variable"),
        ("${1A}", "${1A} is no variable"),
        ("${A-b}", "${A-b} is no variable"),
        ("${NONE:-${A}}", "a variable stands in the default of NONE"),
        ("${file:x}", "the path 'x' does not begin with a slash"),
        ("${file:/no/such}", "/no/such cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_filled(text: str, message: str) -> None:
    with pytest.raises(CannotFill) as told:
        fill(text, ENVIRON)
    assert told.value.message == message


def test_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    assert fill(f"a-${{file:{secret}}}", {}) == ("a-hunter2", True)
    secret.write_bytes(b"\xff")
    with pytest.raises(CannotFill, match="is not UTF-8"):
        fill(f"${{file:{secret}}}", {})
    secret.write_bytes(b"x" * (MAX_FILE + 1))
    with pytest.raises(CannotFill, match="larger than 64 KiB"):
        fill(f"${{file:{secret}}}", {})


@pytest.mark.property
@settings(deadline=None)
@given(st.text())
def test_an_escaped_text_comes_out_as_it_was(text: str) -> None:
    assert fill(escaped(text), {}) == (text, False)


@pytest.mark.property
@settings(deadline=None)
@given(st.text(), st.text(st.characters(exclude_characters="$"), max_size=9))
def test_a_variable_is_put_in_as_it_is(value: str, around: str) -> None:
    assert fill(f"{around}${{V}}{around}", {"V": value}) == (f"{around}{value}{around}", True)


POLICY = "policies:\n  p:\n    sources:\n      - type: postgresql\n        connection: ${DB}\n"


def test_an_unset_variable_is_told_with_its_place_and_nothing_else_of_the_value() -> None:
    (told,) = mistakes(POLICY)
    assert told == ("5: policies.p.sources[0].connection: the variable DB is not set (set it, or write ${DB:-default})")


def test_what_comes_from_outside_is_not_told_in_mistakes() -> None:
    (told,) = mistakes(POLICY + "    schedule: {full: '${DB}'}\n", {"DB": "postgresql://u:hunter2@h/d"})
    assert told.startswith("6: policies.p.schedule.full: *** is no cron expression")
    assert "hunter2" not in told


def test_a_variable_adds_no_keys_and_becomes_a_number_where_one_is_asked_for() -> None:
    text = POLICY + "    retention: {keep_daily: '${N}'}\n    tags: ['${N}', '${ODD}']\n"
    policy = loaded(text, {**ENVIRON, "DB": "postgresql://h/d"}).policy("p")
    assert policy.retention is not None
    assert policy.retention.keep_daily == 7
    assert policy.tags == ("7", ENVIRON["ODD"])
    (source,) = policy.sources
    assert isinstance(source, PostgresqlOrigin)


def test_a_number_from_outside_is_checked_as_one() -> None:
    text = POLICY + "    retention: {keep_daily: '${A}'}\n"
    (told,) = mistakes(text, {**ENVIRON, "DB": "postgresql://h/d"})
    assert told == "6: policies.p.retention.keep_daily: must be a whole number, not the text ***"
