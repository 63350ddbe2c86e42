"""What a policy file says of access: how often, and who is known by an identity provider."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator

from backstay.control.policies.values import Model, Text, Wrong, several, understood
from backstay.core.times import parse_length
from backstay.errors import InvalidRequest

# Only keys that the provider keeps to itself: a shared secret or none at all would let others make tokens.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"]
RoleName = Literal["viewer", "operator", "restorer", "auditor", "admin"]
_MOST: Final = 1_000_000
# The form alone: `control.access.scopes` says what it means.
_NAME: Final = r"(?!\.{1,2}(?:/|$))[^/\x00-\x1f]+"
_SCOPE: Final = re.compile(rf"/|/repository|/policy/{_NAME}(?:/source/{_NAME})?")


def parse_rate(text: str) -> tuple[int, float]:
    """How many times in how many seconds: `5/min`, `600/min`, `100/10min`. Raises InvalidRequest."""
    times, slash, length = text.partition("/")
    if not slash or not (times.isascii() and times.isdigit()) or not 1 <= int(times[:9]) <= _MOST:
        raise InvalidRequest(f"{text!r} is no rate", hint="write it like 5/min or 100/10min")
    seconds = parse_length(length if length[:1].isdigit() else f"1{length}").total_seconds()
    if not 0 < seconds <= 86400:
        raise InvalidRequest(f"{text!r} is no rate", hint="count within a day at most")
    return int(times), seconds


def _issuer(text: str) -> str:
    """An address whose answers nobody on the way can change. Raises Wrong."""
    parts = urlsplit(text)
    here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if (parts.scheme != "https" and not here) or not parts.hostname or parts.query or parts.fragment:
        raise Wrong(f"{text!r} is no issuer", "it is an https:// address, just as the provider's tokens say it")
    if parts.username is not None or parts.password is not None:
        raise Wrong("an issuer has no user or password")
    return text


def _scope(text: str) -> str:
    if _SCOPE.fullmatch(text) is None:
        raise Wrong(f"{text!r} is no scope", "write /, /policy/NAME, /policy/NAME/source/SNAPSHOT_NAME or /repository")
    return text


Rate = Annotated[str, AfterValidator(understood(parse_rate))]
Scope = Annotated[str, AfterValidator(_scope)]
Issuer = Annotated[str, AfterValidator(_issuer)]


class RateLimits(Model):
    """How often; what is not given has the limit of the page on access."""

    login: Rate | None = None
    login_address: Rate | None = None
    unrecognised: Rate | None = None
    api: Rate | None = None
    restore: Rate | None = None


class GroupRole(Model):
    """The role that members of a group have."""

    group: Text
    role: RoleName
    scope: Scope = "/"


class Oidc(Model):
    """Whose tokens are believed, and what its groups may."""

    issuer: Issuer
    audience: Text
    algorithms: Annotated[tuple[Algorithm, ...], several(1)] = ("RS256", "ES256")
    name_claim: Text = "preferred_username"
    groups_claim: Text = "groups"
    roles: tuple[GroupRole, ...] = ()


class AccessSettings(Model):
    """Who may use the service, as far as a file says it; users, roles and tokens are in the catalog."""

    rate_limits: RateLimits | None = None
    oidc: Oidc | None = None
