"""What an OpenID Connect provider says of itself: its keys, fetched when they are needed and kept for a while.

OpenID Connect Discovery 1.0, RFC 8414, RFC 7517.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
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
_GIVEN_UP_S: Final = 600.0  # after which a fetch that does not end is done without
_WAIT_S: Final = 1.0  # at most, since a try began, somebody is kept waiting for it
_TIMEOUT_S: Final = 10.0  # of each read
_LONGEST_S: Final = 30.0  # of one document
_FIRST: Final = "its keys were not fetched yet; ask again in a moment"
_MOST_BYTES: Final = 1 << 20
_MOST_KEYS: Final = 100


class Provider:
    """The keys of one issuer."""

    def __init__(self, issuer: str, clock: Clock, *, fetch: Fetch | None = None, wait_s: float = _WAIT_S) -> None:
        self._issuer, self._clock, self._wait_s = issuer, clock, wait_s
        self._fetch = fetch or (lambda address: fetch_document(address, clock))
        self._lock = threading.Lock()
        self._keys: tuple[Document, ...] = ()
        self._fetched: float | None = None
        self._trouble = _FIRST
        self._tried: float | None = None
        self._ended: threading.Event | None = None  # of the fetch that is at work

    def keys(self, key_id: str | None) -> tuple[Document, ...]:
        """The keys that may have signed something under this key id; new ones are looked for if there is none.

        Whoever comes right after they began to be fetched waits a moment for them. Otherwise those that are kept answer
        at once: no provider can hold up whoever asks. Raises IdentityProviderUnavailable when there are none that could
        be used, or those may come that are missing.
        """
        with self._lock:
            ended, left = self._renewed(key_id)
        if ended is not None and left > 0:
            ended.wait(left)
        with self._lock:
            if self._fetched is None or self._clock.monotonic() - self._fetched > _STALE_S:
                raise _unavailable(self._issuer, self._trouble)
            found = _chosen(self._keys, key_id)
            if not found and self._ended is not None:
                raise _unavailable(self._issuer, "it is being asked whether it has a new key")
            return found

    def _renewed(self, key_id: str | None) -> tuple[threading.Event | None, float]:
        """Begin to fetch the keys if they are old or lack this one: what tells the end of that, and how long to wait.

        It is done by one thread at a time, so that a provider that keeps it for ever keeps no other but one each time
        that it is given up.
        """
        now = self._clock.monotonic()
        fresh = self._fetched is not None and now - self._fetched < _FRESH_S
        if fresh and _chosen(self._keys, key_id):
            return None, 0
        pause = _PAUSE_S if self._ended is None else _GIVEN_UP_S
        if self._tried is None or now - self._tried >= pause:
            self._tried, ended = now, threading.Event()
            thread = threading.Thread(target=self._renew, args=(now, ended), name="backstay-provider", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system lets us have no more
                raise _unavailable(self._issuer, str(error)) from error
            self._ended = ended
        return self._ended, self._tried + self._wait_s - now

    def _renew(self, now: float, ended: threading.Event) -> None:
        keys, trouble = None, "looking for its keys failed"
        try:
            keys = self._asked()
        except IdentityProviderUnavailable as error:
            trouble = error.cause
        finally:
            with self._lock:
                self._trouble = trouble
                if self._ended is ended:
                    self._ended = None
                if keys is not None:
                    self._keys, self._fetched = keys, now
            ended.set()

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


def fetch_document(address: str, clock: Clock) -> bytes:
    """What lies at an address. Not led elsewhere, not through a proxy for this machine, and not endless.

    Raises OSError, HTTPException, ValueError.
    """
    handlers: list[Any] = [HTTPSHandler(), _NoRedirects()]
    if urlsplit(address).scheme == "http":  # this machine itself
        handlers.append(ProxyHandler({}))
    opener = build_opener(*handlers)
    try:
        with opener.open(address, timeout=_TIMEOUT_S) as answer:
            data = _whole(answer, clock)
    except HTTPError as error:
        error.close()  # it is an answer too, with a connection of its own
        raise ConnectionError(f"it answers with status {error.code}") from None
    return data


def _whole(answer: HTTPResponse, clock: Clock) -> bytes:
    """All of an answer, in a bounded time: one byte at a time would be in time for each read."""
    end, data = clock.monotonic() + _LONGEST_S, b""
    while piece := answer.read1(_MOST_BYTES):
        data += piece
        if len(data) > _MOST_BYTES:
            raise ValueError("it is too long")
        if clock.monotonic() > end:
            raise TimeoutError(f"there was no whole answer within {_LONGEST_S:.0f} seconds")
    return data


class _NoRedirects(HTTPRedirectHandler):
    """An answer that leads elsewhere is an error: its key would not be the provider's."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _as_safe(address: str, issuer: str) -> bool:
    """Keys come by TLS, unless the issuer is on this machine, and they are too."""
    try:
        parts, theirs = urlsplit(address), urlsplit(issuer)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == theirs.scheme == "http" and parts.hostname == theirs.hostname)


def _chosen(keys: tuple[Document, ...], key_id: str | None) -> tuple[Document, ...]:
    """The keys of this id; without an id, all that there are if they are few."""
    if key_id is None:
        return keys
    return tuple(key for key in keys if key.get("kid") == key_id)


def _unavailable(issuer: str, cause: str) -> IdentityProviderUnavailable:
    return IdentityProviderUnavailable(f"the identity provider {issuer} cannot be asked", cause=cause)
