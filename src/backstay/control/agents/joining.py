"""How a host becomes an agent, and stays one: its first certificate with a join token, further ones with the last.

The key is made here and never leaves. The server is believed for a pinned authority, or for one of the system's; the
token is not sent before that.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from datetime import timedelta
from typing import Final

from backstay.control.agents.home import Belonging, Home
from backstay.control.agents.server import Server
from backstay.core.clock import Clock
from backstay.errors import InvalidRequest, ServerUnreachable, Unauthorized
from backstay.trust.certificate_requests import new_request, validity_of

_REQUEST: Final = "-----BEGIN CERTIFICATE REQUEST-----"
_LEFT: Final = 0.5  # of its life, below which a certificate is renewed
_AGAIN: Final = timedelta(minutes=10)  # after a renewal that failed


def pinned_authority(address: str, fingerprint: str) -> str:
    """The authority of a server (PEM), fetched from it and compared with its SHA-256, which an administrator told.

    Raises InvalidRequest when it is another one, ServerUnreachable.
    """
    wanted = fingerprint.replace(":", "").strip().lower()
    told = Server(address=address, trusted=False).call("GET", "/api/agents/authority").get("certificate")
    try:
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(str(told))).hexdigest()
    except ValueError as error:
        raise ServerUnreachable(f"what answers at {address} gives no certificate", cause=str(error)) from error
    if not hmac.compare_digest(found, wanted):
        raise InvalidRequest(
            f"what answers at {address} is not the server that was meant",
            cause=f"its authority is {found}",
            hint="compare with what `backstay agent invite` told, and see who answers at this address",
        )
    return str(told)


def join(home: Home, address: str, token: str, *, authority: str | None) -> None:
    """Become the agent that a token is for.

    Order: the key is kept before the token is sent with it. After a crash, or an answer that got lost, the same token
    is good for that key. Raises Unauthorized for a token that is not good, InvalidRequest, ServerUnreachable.
    """
    text = home.joining()
    if text is None:
        key, request = new_request("agent")
        text = key + request
        home.begin_joining(text)
    key, request = text[: text.index(_REQUEST)], text[text.index(_REQUEST) :]
    server = Server(address=address, authority=authority)
    try:
        given = server.call("POST", "/api/agents/join", {"token": token.strip(), "request": request})
    except Unauthorized as error:
        raise Unauthorized(
            "the join token is not good",
            cause="it is unknown, too old, or was used for another key",
            hint="let an administrator run `backstay agent invite NAME` again",
        ) from error
    home.joined(key, _certificate_of(given, address), Belonging(server=address, authority=authority))


class Renewing:
    """Renews the certificate of a home in good time."""

    def __init__(self, home: Home, server: Server, clock: Clock) -> None:
        self._home, self._server, self._clock = home, server, clock
        self._begins, self._ends = home.validity()
        self._not_before = clock.now()

    def if_due(self) -> bool:
        """Renew when half of the certificate's life is over; whether that was done.

        Raises Unauthorized for a certificate that has ended, and what `Server.call` raises, once in a while.
        """
        now = self._clock.now()
        if now >= self._ends:
            raise Unauthorized(
                "the certificate of this agent has ended",
                cause=f"it was good until {self._ends:%Y-%m-%d %H:%M} UTC, and the agent was away",
                hint="let an administrator run `backstay agent invite NAME`, and run `backstay agent join` here",
            )
        if self._ends - now > (self._ends - self._begins) * _LEFT or now < self._not_before:
            return False
        self._not_before = now + _AGAIN
        key, request = new_request("agent")
        given = self._server.call("POST", "/api/agents/renew", {"request": request})
        self._home.renewed(key, _certificate_of(given, self._server.address))
        self._server.changed()
        self._begins, self._ends = self._home.validity()
        return True


def _certificate_of(given: dict[str, object], address: str) -> str:
    """The certificate in an answer. Raises ServerUnreachable."""
    text = str(given.get("certificate"))
    try:
        validity_of(text)
    except InvalidRequest as error:
        raise ServerUnreachable(f"what answers at {address} gives no certificate", cause=str(error)) from error
    return text
