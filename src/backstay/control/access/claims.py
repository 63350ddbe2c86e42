"""What an identity provider says of somebody."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from backstay.control.access.principal import Grant

LONGEST: Final = 16 << 10  # characters of a token that is looked at
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """`subject` is theirs among all issuers, `name` what the provider calls them, `grants` what their groups may."""

    subject: str
    name: str | None
    grants: tuple[Grant, ...]


def looks_like_jwt(text: str) -> bool:
    """Whether a bearer token is a JSON Web Token, and none of ours."""
    return len(text) <= LONGEST and _FORM.fullmatch(text) is not None


def subject_of(issuer: str, subject: str) -> str:
    """One text for an issuer and a subject of it, which no other pair has."""
    return hashlib.sha256(f"{len(issuer)} {issuer} {subject}".encode("utf-8", "surrogatepass")).hexdigest()
