"""The server as an agent sees it: one HTTPS request for each thing, with the agent's certificate, answers checked."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from backstay.core.version import VERSION
from backstay.errors import (
    BackstayError,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerUnreachable,
    Unauthorized,
    VersionUnsupported,
)

TIMEOUT_S: Final = 30.0
_MOST_BYTES: Final = 16 << 20  # of an answer
_KINDS: Final[dict[int, type[BackstayError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    501: VersionUnsupported,
}
_REFUSALS: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")  # alerts of TLS about what we showed
_JOIN_AGAIN: Final = "let an administrator invite this agent again, and run `backstay agent join`"


@dataclass(slots=True, kw_only=True)
class Server:
    """One server. `authority` (PEM) is the only one believed, the system's if it is None; `identity` a file with key
    and certificate. Without `trusted` nobody is believed or asked who they are: what comes must be checked otherwise.
    """

    address: str
    authority: str | None = None
    identity: Path | None = None
    trusted: bool = True
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise InvalidRequest(
                f"{self.address!r} is no address of a server",
                cause="agents speak with it over TLS alone, and with all of it",
                hint="write https://HOST:PORT, as `backstay serve` tells it",
            )

    def changed(self) -> None:
        """Show the certificate from now on that lies in its file now."""
        self._context = None

    def call(self, method: str, path: str, body: object = None, *, timeout_s: float = TIMEOUT_S) -> Any:  # noqa: ANN401 - any JSON
        """The document of a good answer.

        Raises ServerUnreachable, and for a refusal what the server says: Unauthorized, Forbidden, NotFound,
        InvalidRequest, RateLimited, VersionUnsupported.
        """
        parts = urlsplit(self.address)
        try:
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, context=self._tls(), timeout=timeout_s
            )
            try:
                headers = {"User-Agent": f"backstay-agent/{VERSION}", "Content-Type": "application/json"}
                connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
                answer = connection.getresponse()
                data = answer.read(_MOST_BYTES + 1)
            finally:
                connection.close()
        except ssl.SSLCertVerificationError as error:
            raise ServerUnreachable(
                f"what answers at {self.address} is not believed to be the server",
                cause=error.verify_message,
                hint="check the address, and that it stands in the certificate of the server; "
                "join again if the server has another authority now",
            ) from error
        except ssl.SSLError as error:
            if any(word in (error.reason or "") for word in _REFUSALS):
                raise Unauthorized(
                    "the server does not take the certificate of this agent",
                    cause=(error.reason or "").replace("_", " ").lower(),
                    hint=_JOIN_AGAIN,
                ) from error
            raise self._away(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error
        return self._told(answer.status, data)

    def _told(self, status: int, data: bytes) -> Any:  # noqa: ANN401
        try:
            document = msgspec.json.decode(data) if len(data) <= _MOST_BYTES else None
        except msgspec.DecodeError:
            document = None
        if not isinstance(document, dict):
            raise ServerUnreachable(
                f"what answers at {self.address} is no server of Backstay", cause=f"HTTP {status} without a document"
            )
        if status < 300:
            return document
        kind = _KINDS.get(status, ServerUnreachable)
        title, cause, hint = (str(document.get(key) or "") for key in ("title", "cause", "solution"))
        if kind is Unauthorized:
            hint = _JOIN_AGAIN
        raise kind(title or f"the server answered with HTTP {status}", cause=cause, hint=hint)

    def _away(self, error: Exception) -> ServerUnreachable:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ServerUnreachable(f"the server at {self.address} does not answer", cause=cause)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            context = _believing(self.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            if not self.trusted:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if self.identity is not None:
                try:
                    context.load_cert_chain(self.identity)
                except (OSError, ssl.SSLError) as error:
                    raise InvalidRequest(
                        f"{self.identity} cannot be used", cause=str(error), hint=_JOIN_AGAIN
                    ) from error
            self._context = context
        return self._context


def _believing(authority: str | None) -> ssl.SSLContext:
    """What believes this authority and no other; those of the system for None. Raises InvalidRequest."""
    try:
        if authority == "":  # which the library takes for None
            raise ValueError("empty")
        return ssl.create_default_context(cadata=authority)
    except (ValueError, ssl.SSLError) as error:
        raise InvalidRequest(
            "the authority of the server cannot be used",
            cause="it is no certificate in PEM form",
            hint="name the certificate of the authority that signed the server's",
        ) from error
