"""What an OpenID Connect provider says of itself: its keys, fetched when they are needed and kept for a while.

OpenID Connect Discovery 1.0, RFC 8414, RFC 7517.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, build_opener

from backstay.core.clock import Clock
from backstay.errors import IdentityProviderUnavailable

Document = dict[str, Any]
Fetch = Callable[[str], bytes]

_FRESH_S: Final = 3600.0  # so long the keys are used without asking again
_STALE_S: Final = 86400.0  # so long they are used while the provider does not answer
_PAUSE_S: Final = 60.0  # at least, between two tries: strangers can make us look for keys that there are not
_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 1 << 20
_MOST_KEYS: Final = 100


class Provider:
    """The keys of one issuer."""

    def __init__(self, issuer: str, clock: Clock, *, fetch: Fetch | None = None) -> None:
        self._issuer, self._clock, self._fetch = issuer, clock, fetch or fetch_document
        self._lock = threading.Lock()
        self._keys: tuple[Document, ...] = ()
        self._fetched: float | None = None
        self._tried: float | None = None

    def keys(self, key_id: str | None) -> tuple[Document, ...]:
        """The keys that may have signed something under this key id; new ones are looked for if there is none.

        Raises IdentityProviderUnavailable when there are no keys at all that could be used.
        """
        with self._lock:
            now = self._clock.monotonic()
            fresh = self._fetched is not None and now - self._fetched < _FRESH_S
            if not (fresh and _chosen(self._keys, key_id)) and self._may_try(now):
                self._renew(now)
            if self._fetched is None or now - self._fetched > _STALE_S:
                raise _unavailable(self._issuer, "its keys could not be fetched; the next try is within a minute")
            return _chosen(self._keys, key_id)

    def _may_try(self, now: float) -> bool:
        return self._tried is None or now - self._tried >= _PAUSE_S

    def _renew(self, now: float) -> None:
        self._tried = now
        try:
            self._keys = self._asked()
        except IdentityProviderUnavailable:
            if self._fetched is None or now - self._fetched > _STALE_S:
                raise
            return
        self._fetched = now

    def _asked(self) -> tuple[Document, ...]:
        said = self._document(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if said.get("issuer") != self._issuer:
            raise _unavailable(self._issuer, f"it says that it is {str(said.get('issuer'))[:200]!r}")
        address = said.get("jwks_uri")
        if not isinstance(address, str) or not _as_safe(address, self._issuer):
            raise _unavailable(self._issuer, "it names no https:// address of its keys")
        found = self._document(address).get("keys")
        if not isinstance(found, list):
            raise _unavailable(self._issuer, "its keys are no list")
        return tuple(key for key in found[:_MOST_KEYS] if isinstance(key, dict))

    def _document(self, address: str) -> Document:
        try:
            found = json.loads(self._fetch(address))
        except (OSError, URLError, HTTPException) as error:
            raise _unavailable(self._issuer, f"{address}: {getattr(error, 'reason', None) or error}") from error
        except (ValueError, RecursionError) as error:
            raise _unavailable(self._issuer, f"{address} is no JSON") from error
        if not isinstance(found, dict):
            raise _unavailable(self._issuer, f"{address} is no JSON object")
        return found


def fetch_document(address: str) -> bytes:
    """What lies at an address. Not led elsewhere, not through a proxy for this machine, and not endless.

    Raises OSError, HTTPException, ValueError.
    """
    handlers: list[Any] = [HTTPSHandler(), _NoRedirects()]
    if urlsplit(address).scheme == "http":  # this machine itself
        handlers.append(ProxyHandler({}))
    opener = build_opener(*handlers)
    try:
        with opener.open(address, timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read(_MOST_BYTES + 1)
    except HTTPError as error:
        error.close()  # it is an answer too, with a connection of its own
        raise ConnectionError(f"it answers with status {error.code}") from None
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too long")
    return data


class _NoRedirects(HTTPRedirectHandler):
    """An answer that leads elsewhere is an error: its key would not be the provider's."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _as_safe(address: str, issuer: str) -> bool:
    """Keys come by TLS, unless the issuer is on this machine, and they are too."""
    parts, theirs = urlsplit(address), urlsplit(issuer)
    return parts.scheme == "https" or (parts.scheme == theirs.scheme == "http" and parts.hostname == theirs.hostname)


def _chosen(keys: tuple[Document, ...], key_id: str | None) -> tuple[Document, ...]:
    """The keys of this id; without an id, all that there are if they are few."""
    if key_id is None:
        return keys
    return tuple(key for key in keys if key.get("kid") == key_id)


def _unavailable(issuer: str, cause: str) -> IdentityProviderUnavailable:
    return IdentityProviderUnavailable(f"the identity provider {issuer} cannot be asked", cause=cause)
