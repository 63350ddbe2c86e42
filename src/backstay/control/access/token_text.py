"""What a token looks like: `bkp_`, eight characters that name it, and a secret whose end tells mistyped ones apart.

`bkp_<id>_<secret><check>`, or `bkj_…` where an agent joins with it: the id has 8 characters of Crockford's base32, the
secret 43 of base62 (256 bits), and the check 6 of base62, the CRC-32 of all before it. Scanners that look for leaked
secrets know tokens by that.
"""

from __future__ import annotations

import hashlib
import string
import zlib
from dataclasses import dataclass, field
from typing import Final

from backstay.core.ids import Random

PREFIX: Final = "bkp"
JOIN_PREFIX: Final = "bkj"
LONGEST: Final = 512  # characters of a token that is looked at; those that administrators choose are longer than ours
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_SECRET: Final = 43  # the least digits that hold 256 bits
_CHECK: Final = 6  # that hold 32 bits


@dataclass(frozen=True, kw_only=True, slots=True)
class NewToken:
    """A token at the only moment at which its text is known."""

    id: str
    text: str = field(repr=False)


def new_token(random: Random, prefix: str = PREFIX) -> NewToken:
    """A token that nobody has."""
    id_ = new_token_id(random)
    body = f"{prefix}_{id_}_{_base62(int.from_bytes(random(32), 'big'), _SECRET)}"
    return NewToken(id=id_, text=body + _check(body))


def new_token_id(random: Random) -> str:
    """Eight characters: 40 random bits, which name a token and are no secret."""
    value = int.from_bytes(random(5), "big")
    return "".join(_ID_DIGITS[value >> shift & 31] for shift in range(35, -1, -5))


def digest_of(text: str) -> str:
    """What is kept of a token: SHA-256 in hexadecimal. 256 random bits need no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK)


def _base62(value: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        value, digit = divmod(value, 62)
        text = _DIGITS[digit] + text
    return text
