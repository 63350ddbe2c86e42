"""JSON Web Tokens of an OpenID Connect provider, as bearer tokens: whom they speak of, and what its groups may.

RFC 7519, with the advice of RFC 8725: one issuer, keys from nowhere but that issuer, algorithms by a list, and no token
that was made for another purpose. The code flow in a browser has a nonce; a token that has one was made for that, and
is no bearer token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key
from joserfc.jws import extract_compact

from backstay.control.access.claims import Claims, looks_like_jwt, subject_of
from backstay.control.access.denied import unrecognised
from backstay.control.access.permissions import parse_role
from backstay.control.access.principal import grants_of_roles
from backstay.control.access.provider import Provider
from backstay.control.access.scopes import parse_scope
from backstay.control.policies.access import Oidc
from backstay.core.clock import Clock

_LEEWAY_S: Final = 60  # clocks differ
_LEAST_RSA_DIGITS: Final = 342  # of 2048 bits in base64
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_KINDS: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class OidcTokens:
    """Checks the tokens of one issuer."""

    def __init__(self, settings: Oidc, clock: Clock, *, provider: Provider | None = None) -> None:
        self._settings, self._clock = settings, clock
        self._provider = provider or Provider(settings.issuer, clock)
        self._roles: dict[str, list[tuple[str, str]]] = {}
        for entry in settings.roles:
            role, scope = parse_role(entry.role), parse_scope(entry.scope)
            self._roles.setdefault(entry.group, []).append((role, scope))

    def check(self, text: str, *, nonce: str | None = None) -> Claims:
        """Whom a token speaks of. With a nonce it is the answer to a login that had this one.

        Raises Unauthorized, IdentityProviderUnavailable.
        """
        claims = self._signed(text)
        self._check_purpose(claims, nonce)
        self._check_time(claims)
        return self._claims(claims)

    def _signed(self, text: str) -> Mapping[str, Any]:
        """The claims, if a key of the issuer signed them."""
        if not looks_like_jwt(text):
            raise unrecognised("bad_jwt")
        try:
            header = extract_compact(text.encode()).headers()
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise unrecognised("bad_jwt") from error
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms or "crit" in header:
            raise unrecognised("bad_jwt")
        if str(header.get("typ", "JWT")).lower() not in _TYPES or not isinstance(key_id, (str, type(None))):
            raise unrecognised("bad_jwt")
        for key in self._keys(str(algorithm), key_id):
            try:
                return jwt.decode(text, key, algorithms=[str(algorithm)]).claims
            except (JoseError, ValueError, TypeError, RecursionError):
                continue
        raise unrecognised("bad_jwt")

    def _keys(self, algorithm: str, key_id: str | None) -> list[Key]:
        """The issuer's keys that could have signed so; keys of other kinds and uses are passed over."""
        found: list[Key] = []
        for document in self._provider.keys(key_id):
            if not _could_sign(document, algorithm):
                continue
            try:
                found.append(import_key(document))
            except (JoseError, ValueError, TypeError, KeyError):
                continue
        return found

    def _check_purpose(self, claims: Mapping[str, Any], nonce: str | None) -> None:
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if claims.get("iss") != self._settings.issuer:
            raise unrecognised("bad_jwt")
        if not isinstance(audiences, list) or self._settings.audience not in audiences:
            raise unrecognised("bad_jwt")
        if claims.get("nonce") != nonce:
            raise unrecognised("bad_jwt")

    def _check_time(self, claims: Mapping[str, Any]) -> None:
        now = self._clock.now().timestamp()
        end = _seconds(claims, "exp")
        if end is None:
            raise unrecognised("bad_jwt")
        if end <= now - _LEEWAY_S:
            raise unrecognised("expired_token")
        for name in ("nbf", "iat"):
            begin = _seconds(claims, name)
            if begin is not None and begin > now + _LEEWAY_S:
                raise unrecognised("bad_jwt")

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        subject, name = claims.get("sub"), claims.get(self._settings.name_claim)
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise unrecognised("bad_jwt")
        groups = claims.get(self._settings.groups_claim, ())
        if isinstance(groups, str):
            groups = [groups]
        if not isinstance(groups, (list, tuple)):
            raise unrecognised("bad_jwt")
        roles = [role for group in groups if isinstance(group, str) for role in self._roles.get(group, ())]
        return Claims(
            subject=subject_of(self._settings.issuer, subject),
            name=name.lower() if isinstance(name, str) else None,
            grants=grants_of_roles(roles),
        )


def _could_sign(document: Mapping[str, Any], algorithm: str) -> bool:
    if document.get("kty") != _KINDS[algorithm[:2]] or document.get("use", "sig") != "sig":
        return False
    if document.get("alg", algorithm) != algorithm:
        return False
    return document["kty"] != "RSA" or len(str(document.get("n", ""))) >= _LEAST_RSA_DIGITS


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate. Raises Unauthorized for what is none."""
    found = claims.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not abs(found) < 1e12:
        raise unrecognised("bad_jwt")
    return float(found)
