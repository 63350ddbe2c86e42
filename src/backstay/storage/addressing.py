"""Objects whose name says what their bytes are."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from backstay.storage.backend import Buffer

# Packs, their metadata kin, index segments and key slots are named by the SHA-256 of what is stored.
_ADDRESSED: Final = re.compile(r"(?:packs/[0-9a-f]{2}|meta/[0-9a-f]{2}|index|keys/slots)/([0-9a-f]{64})")


def is_addressed(name: str) -> bool:
    """Whether all who store an object under this name store the same bytes."""
    return _ADDRESSED.fullmatch(name) is not None


def contradicts_name(name: str, data: Buffer) -> bool:
    """Whether the name says that the bytes are others; never for a name that says nothing about them."""
    match = _ADDRESSED.fullmatch(name)
    return match is not None and hashlib.sha256(data).hexdigest() != match[1]
