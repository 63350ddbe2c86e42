"""Sizes as people write them."""

from __future__ import annotations

import pytest

from backstay.core.sizes import parse_size
from backstay.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1k", 1024),
        ("2 MiB", 2 << 20),
        (" 3gb ", 3 << 30),
        ("1T", 1 << 40),
        ("7b", 7),
        ("9" * 18, int("9" * 18)),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "1.5k", "-1", "1 kk", "٣", "9" * 19, "9" * 5000, "9" * 5000 + "TiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_size(text)
    assert "500MiB" in caught.value.hint
