"""Requests to one HTTP server: pooled connections, whole answers or errors, failures in our words."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from backstay.core.clock import Clock
from backstay.errors import BackstayError, InsufficientSpace, InvalidRequest, StorageRefused, StorageUnavailable
from backstay.storage.http_login import HttpLogin
from backstay.storage.logins import Login
from backstay.storage.paced_sockets import PacedSocket, pace_socket, paced
from backstay.storage.patience import REMOTE, Patience
from backstay.storage.tls import OWN_AUTHORITY, advice, client_context, is_broken
from backstay.storage.unreached import NAME_A_LOGIN, PROXY_WANTS_LOGIN, innermost, proxy_refusal, words

_CONNECTIONS: Final = 16
_LARGEST_ANSWER: Final = 1 << 30  # bytes; a pack is 16 MiB, a listing of one directory a few MiB
_PIECE: Final = 1 << 20
_DIGITS: Final = 18  # of an exabyte

# What servers answer, as far as it means the same everywhere.
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_REFUSED: Final = (_UNAUTHORIZED, _FORBIDDEN)
_PROXY_WANTS_LOGIN: Final = 407
_TOO_LARGE: Final = 413
# Refusals of the request itself: the same one is never taken later.
_NOT_TAKEN: Final = (400, 405, 411, _TOO_LARGE, 414, 415, 431, 501, 505)
_BUSY: Final = (429, 503)
_FULL: Final = 507

_RAISE_THE_LIMIT: Final = "raise the limit for uploads of the server, or of a proxy before it, above 64 MiB"
_LOOK_FOR_A_PORTAL: Final = "look whether a proxy or a login page of the network answers in the server's place"
_LOOK_WHO_ANSWERS: Final = "the server takes no such request: check the address, and what answers there"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `headers` are found by any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def number(self, header: str) -> int | None:
        """A header that counts something, or None if it is absent, no number, or more than anything has."""
        return _number(self.headers.get(header, ""))

    def moment(self, header: str) -> datetime | None:
        """A header that gives a time, aware, or None if it is absent or means nothing."""
        try:
            found = parsedate_to_datetime(self.headers.get(header, ""))
        except (ValueError, OverflowError):
            return None
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)  # "-0000" is UTC too


class HttpClient:
    """Knows one server. `origin` is `http://host:port`; a request is sent once, and follows no redirection."""

    def __init__(self, origin: str, login: Login | None = None, *, clock: Clock, patience: Patience = REMOTE) -> None:
        self._origin = origin
        self._clock, self._patience = clock, patience
        self._login = HttpLogin(login) if login else None
        self._pool = _pool(origin)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        most: int | None = None,
    ) -> Answer:
        """Send and wait for the whole answer, or for its first `most` bytes. StorageUnavailable without one."""
        sent = self._login.answer(method, target) if self._login else None
        answer = self._send(method, target, _with(headers, sent), body, most)
        challenge = answer.headers.get("WWW-Authenticate", "") if answer.status == _UNAUTHORIZED else ""
        if challenge and self._login is not None and self._login.learn(challenge, sent):
            # Nothing was done yet: the server wants to know first who we are.
            again = _with(headers, self._login.answer(method, target))
            answer = self._send(method, target, again, body, most)
        return answer

    def failure(self, title: str, answer: Answer) -> BackstayError:
        """The error for an answer that its caller has no better word for."""
        cause = f"the server answered with HTTP {answer.status}"
        if answer.status == _UNAUTHORIZED and "WWW-Authenticate" not in answer.headers:
            # RFC 9110, section 15.5.2, demands it: the head of this answer was cut off.
            return StorageUnavailable(
                title, cause=f"{cause} and did not say how to log in", hint="see the server's log"
            )
        if answer.status == _PROXY_WANTS_LOGIN:
            return StorageRefused(title, cause=PROXY_WANTS_LOGIN, hint=NAME_A_LOGIN)
        if answer.status in _REFUSED:
            return StorageRefused(title, cause=cause, hint="check user name and password, and what they allow")
        if answer.status == _FULL:
            return InsufficientSpace(title, cause=cause)
        if answer.status in _BUSY:
            return StorageUnavailable(title, cause=cause, retry_after=self._wait(answer))
        if answer.status in _NOT_TAKEN:
            too_large = answer.status == _TOO_LARGE
            return StorageRefused(title, cause=cause, hint=_RAISE_THE_LIMIT if too_large else _LOOK_WHO_ANSWERS)
        if "Location" in answer.headers:
            return StorageUnavailable(title, cause=f"{cause}, a redirection", hint="use the address that it leads to")
        if answer.status == _OK:
            return StorageUnavailable(
                title, cause=f"{cause}, but did not do what it was asked", hint=_LOOK_FOR_A_PORTAL
            )
        return StorageUnavailable(title, cause=cause, hint="see the server's log")

    def close(self) -> None:
        self._pool.clear()

    def _wait(self, answer: Answer) -> float | None:
        """How long the server wants to be left alone, in seconds: it may say so, or give the time when that ends."""
        if (seconds := answer.number("Retry-After")) is not None:
            return float(seconds)
        end = answer.moment("Retry-After")
        return None if end is None else max((end - self._clock.now()).total_seconds(), 0.0)

    def _send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, most: int | None
    ) -> Answer:
        with paced(self._patience, self._clock):
            response, data = self._exchange(method, target, headers, body, most)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise StorageUnavailable(
                f"{self._origin} does not give back what it was given",
                cause="it encodes its answers although it was told not to",
                hint="switch off compression in the server or in the proxy before it",
            )
        return Answer(response.status, response.headers, data)

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, most: int | None
    ) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        timeout = urllib3.Timeout(connect=self._patience.connect, read=self._patience.silence)
        try:
            response = self._pool.request(
                method,
                self._origin + target,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=timeout,
            )
            try:
                data = self._whole(response, most)
            except BaseException:
                response.close()  # the connection still carries what was not read
                raise
            response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from error
        return response, data

    def _whole(self, response: urllib3.BaseHTTPResponse, most: int | None) -> bytes:
        limit = _LARGEST_ANSWER if most is None else most
        announced = _number(response.headers.get("Content-Length", ""))
        if most is None and announced is not None and announced > limit:
            raise self._too_much()
        pieces: list[bytes] = []
        left = limit
        while left and (piece := response.read(min(left, 16 * _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        if not left:
            rest = response.read(1)
            if rest and most is None:
                raise self._too_much()
            if rest:
                response.close()  # the connection still carries the rest
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _too_much(self) -> BackstayError:
        return StorageUnavailable(f"{self._origin} sends more than any object has", cause="over 1 GiB in one answer")

    def _unreachable(self, error: urllib3.exceptions.HTTPError) -> BackstayError:
        inner = innermost(error)
        if isinstance(error, urllib3.exceptions.SSLError) and not is_broken(inner):
            return StorageRefused(
                f"{self._origin} cannot be trusted",
                cause=words(inner),
                hint=advice(inner) if isinstance(inner, ssl.SSLError) else OWN_AUTHORITY,
            )
        if refusal := proxy_refusal(inner, f"{self._origin} cannot be reached"):
            return refusal
        if isinstance(error, (urllib3.exceptions.ProtocolError, urllib3.exceptions.SSLError)):
            return StorageUnavailable(f"{self._origin} broke off", cause=words(inner), hint="see the server's log")
        return StorageUnavailable(
            f"{self._origin} cannot be reached",
            cause=words(inner),
            hint="check the address, the network, and that the server runs",
        )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def _with(headers: Mapping[str, str] | None, authorization: str | None) -> dict[str, str]:
    ours = {"Accept-Encoding": "identity", "User-Agent": "backstay", **(headers or {})}
    return ours if authorization is None else {**ours, "Authorization": authorization}


class _Connection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> PacedSocket:
        return pace_socket(super()._new_conn())


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


def _pool(origin: str) -> urllib3.PoolManager:
    """Connections to the server, or to the proxy that the environment names for it."""
    manager = _manager(origin)
    manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "http": _Pool}  # with TLS its sockets are paced
    return manager


def _manager(origin: str) -> urllib3.PoolManager:
    parts = urlsplit(origin)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ""):
        context = client_context() if parts.scheme == "https" else None  # it takes a while to read all certificates
        return urllib3.PoolManager(num_pools=1, maxsize=_CONNECTIONS, block=False, ssl_context=context)
    try:
        return _through(proxy)
    except ValueError:  # its text may repeat a password
        raise InvalidRequest(
            f"the proxy that {parts.scheme.upper()}_PROXY names cannot be used",
            cause="its address makes no sense, or is of a kind that is not known here",
            hint="write http://HOST:PORT or https://HOST:PORT, with a user name and a password before it if it wants "
            "them, or name the server in NO_PROXY",
        ) from None


def _through(proxy: str) -> urllib3.ProxyManager:
    """Raises ValueError."""
    at = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not at.hostname:
        raise ValueError("it names no host")
    host = f"[{at.hostname}]" if ":" in at.hostname else at.hostname
    login = f"{unquote(at.username)}:{unquote(at.password or '')}" if at.username else None
    return urllib3.ProxyManager(
        f"{at.scheme}://{host}:{at.port or 3128}",
        maxsize=_CONNECTIONS,
        ssl_context=client_context(),
        proxy_headers=urllib3.make_headers(proxy_basic_auth=login) if login else None,
    )
