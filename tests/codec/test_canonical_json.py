"""Canonical JSON: equal values have equal bytes, and what JSON cannot hold is refused, never changed."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.codec.canonical_json import Json, canonical, parse_given, parse_json, parse_stored
from backstay.errors import CorruptedBackup, InvalidRequest

SAFE = 2**53 - 1  # whole numbers beyond are not all doubles, and come back as integers
NUMBERS = st.integers(-SAFE, SAFE) | st.floats(-SAFE, SAFE) | st.floats(1e22, 1e308)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def is_text(value: Json) -> bool:
    """Whether all texts of a value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.property
@given(VALUES.filter(is_text))
def test_a_value_comes_back_and_its_bytes_are_the_same_again(value: Json) -> None:
    data = canonical(value)
    assert parse_json(data, what="it") == value
    assert parse_given(data, what="it") == value
    assert canonical(parse_json(data, what="it")) == data


def test_the_order_of_names_and_the_form_of_numbers_do_not_matter() -> None:
    assert canonical({"b": 1.0, "a": [1e2]}) == canonical({"a": [100], "b": 1}) == b'{"a":[100],"b":1}'


def endless() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**53, {1: 2}, b"bytes", {"a": object()}, endless()],
    ids=lambda value: str(value)[:20],
)
def test_what_json_cannot_hold_is_refused(value: Json) -> None:
    with pytest.raises(InvalidRequest, match="the answer cannot be written as canonical JSON"):
        canonical(value, what="the answer")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 200_000, b"{'a': 1}"], ids=lambda data: str(data[:9]))
def test_a_text_that_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="x is no JSON value"):
        parse_json(data, what="x")
    with pytest.raises(InvalidRequest, match="x is no JSON value"):
        parse_given(data, what="x")


def test_an_object_with_a_name_twice_is_not_taken() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_given(b'[{"a": {"name": 1, "other": 2, "name": 3}}]', what="x")
    assert "'name' stands twice" in str(refused.value.cause)


def test_metadata_that_is_none_is_an_empty_object() -> None:
    assert parse_stored(None) == {}
    assert parse_stored(b'{"a":1}') == {"a": 1}


@pytest.mark.parametrize("data", [b"", b"[1]", b"\xff", b"7", b"[" * 200_000], ids=lambda data: str(data[:9]))
def test_stored_metadata_that_is_no_object_is_damage(data: bytes) -> None:
    with pytest.raises(CorruptedBackup, match="metadata of a value"):
        parse_stored(data)
