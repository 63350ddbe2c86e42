"""Record ids (ULID) and the hexadecimal form of digests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final, TypeAlias

from backstay.errors import InvalidRequest

Random: TypeAlias = Callable[[int], bytes]  # a source of n random bytes; os.urandom outside of tests

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base32, lower case
ULID: Final = re.compile(rf"[0-7][{_ALPHABET}]{{25}}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def new_ulid(now_ns: int, random: Random = os.urandom) -> str:
    """A 26-character id that sorts by time: 48 bits of milliseconds, 80 random bits (ulid specification)."""
    value = (now_ns // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(random(10), "big")
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    return ULID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def parse_digest(text: str) -> bytes:
    """The 32 bytes of 64 lower-case hexadecimal digits. Raises InvalidRequest."""
    if not is_digest(text):
        raise InvalidRequest(f"{text!r} is not a SHA-256 in hexadecimal")
    return bytes.fromhex(text)
