"""The form of tokens as docs/access.md promises it to scanners, told without the code that makes them."""

from __future__ import annotations

import re
import string
import zlib

_FORM = re.compile(r"bk[pj]_[0-9a-hjkmnp-tv-z]{8}_[0-9A-Za-z]{43}([0-9A-Za-z]{6})")
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def is_well_formed(text: str) -> bool:
    """Whether a text is a token, copied without a slip."""
    if (found := _FORM.fullmatch(text)) is None:
        return False
    check = 0
    for digit in found[1]:
        check = check * 62 + _DIGITS.index(digit)
    return check == zlib.crc32(text[:-6].encode())
