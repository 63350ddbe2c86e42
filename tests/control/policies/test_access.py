"""What a policy file says of access."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.control.access.scopes import parse_scope
from backstay.control.policies.access import GroupRole, parse_rate
from backstay.errors import InvalidRequest
from tests.control.access.test_scopes import SCOPES


@pytest.mark.parametrize(
    ("text", "rate"),
    [("5/min", (5, 60)), ("600/1min", (600, 60)), ("10/h", (10, 3600)), ("100/10min", (100, 600)), ("1/s", (1, 1))],
)
def test_rates_are_read_as_people_write_them(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "5", "5/", "/min", "0/min", "-1/min", "1.5/min", "5/2d", "5/soon", "٥/min", "9999999/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_rate(text)


@given(SCOPES | st.text("/policyrest.ou\n ", max_size=24))
def test_a_scope_of_the_file_is_one_of_the_program(text: str) -> None:
    try:
        GroupRole(group="g", role="viewer", scope=text)
    except ValueError:
        with pytest.raises(InvalidRequest):
            parse_scope(text)
    else:
        assert parse_scope(text) == text
