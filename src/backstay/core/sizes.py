"""Sizes as people write them in options and policy files."""

from __future__ import annotations

import re
from typing import Final

from backstay.errors import InvalidRequest

_SIZE = re.compile(r"([0-9]+)\s*(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE)
_MOST_DIGITS: Final = 18


def parse_size(text: str) -> int:
    """The number of bytes that `500MiB`, `2g` or `4096` means; units are binary."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(
            f"cannot read the size {text!r}",
            cause="it is no whole number with a unit",
            hint="write for example 500MiB or 2g",
        )
    if len(found[1]) > _MOST_DIGITS:
        raise InvalidRequest(
            f"a size of {len(found[1])} digits is too large",
            cause="no store holds so much",
            hint="write for example 500MiB or 2g",
        )
    return int(found[1]) << 10 * (" kmgt".index((found[2] or " ").lower()))
