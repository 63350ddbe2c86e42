"""Public ids of values: `sha256:` and the SHA-256 of their bytes in hexadecimal."""

from __future__ import annotations

from typing import Final

from backstay.core.ids import is_digest
from backstay.errors import InvalidRequest

PREFIX: Final = "sha256:"


def value_id(digest: bytes) -> str:
    """The id of the value with this SHA-256."""
    return PREFIX + digest.hex()


def parse_value_id(text: object) -> bytes:
    """The 32 bytes of an id, with or without its prefix. Raises InvalidRequest, also for what is no text."""
    digits = text.removeprefix(PREFIX) if isinstance(text, str) else ""
    if not is_digest(digits):
        raise InvalidRequest(
            f"{text!r} is not the id of a value",
            cause="an id is sha256: and 64 hexadecimal digits in lower case",
            hint="`backstay cas list` shows the ids there are",
        )
    return bytes.fromhex(digits)
