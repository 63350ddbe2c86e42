"""How a host becomes an agent, and stays one: its first certificate with a join token, further ones with the last.

The key is made here and never leaves. The server is believed for a pinned authority, or for one of the system's; the
token is not sent before that.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from datetime import datetime
from typing import Final

from backstay.control.agents.home import Belonging, Home
from backstay.control.agents.server import Server
from backstay.core.clock import Clock
from backstay.errors import InvalidRequest, ServerUnreachable, Unauthorized
from backstay.trust.certificate_requests import is_for, new_request, validity_of

_REQUEST: Final = "-----BEGIN CERTIFICATE REQUEST-----"
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_LEFT: Final = 0.5  # of its life, below which a certificate is renewed
_AGAIN_S: Final = 600.0  # after a renewal that failed; not by a clock that somebody sets


def pinned_authority(address: str, fingerprint: str) -> str:
    """The authority of a server (PEM), fetched from it and compared with its SHA-256, which an administrator told.

    Only what was compared is given back: text that stands beside it may hold another authority. Raises InvalidRequest
    when it is another one, ServerUnreachable.
    """
    wanted = fingerprint.replace(":", "").strip().lower()
    if _FINGERPRINT.fullmatch(wanted) is None:
        raise InvalidRequest(
            "this is no fingerprint of an authority",
            cause="it is not the 64 hexadecimal digits of a SHA-256",
            hint="copy all of it from what `backstay agent invite` told",
        )
    told = Server(address=address, trusted=False).call("GET", "/api/agents/authority").get("certificate")
    try:
        compared = ssl.PEM_cert_to_DER_cert(str(told))
    except ValueError as error:
        raise ServerUnreachable(f"what answers at {address} gives no certificate", cause=str(error)) from error
    found = hashlib.sha256(compared).hexdigest()
    if not hmac.compare_digest(found, wanted):
        raise InvalidRequest(
            f"what answers at {address} is not the server that was meant",
            cause=f"its authority is {found}",
            hint="compare with what `backstay agent invite` told, and see who answers at this address",
        )
    return ssl.DER_cert_to_PEM_cert(compared)


def join(home: Home, address: str, token: str, *, authority: str | None) -> None:
    """Become the agent that a token is for.

    Order: the key is kept before the token is sent with it. After a crash, or an answer that got lost, the same token
    is good for that key. Raises Unauthorized for a token that is not good, InvalidRequest, ServerUnreachable.
    """
    text = home.joining() or ""
    if _REQUEST not in text:
        text = "".join(new_request("agent"))
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
    home.joined(key, _certificate_of(given, key, address), Belonging(server=address, authority=authority))


class Renewing:
    """Renews the certificate of a home in good time."""

    def __init__(self, home: Home, server: Server, clock: Clock) -> None:
        self._home, self._server, self._clock = home, server, clock
        self._begins, self._ends = home.validity()
        self._not_before = clock.monotonic()

    def if_due(self) -> bool:
        """Renew when half of the certificate's life is over; whether that was done.

        Raises Unauthorized for a certificate that has ended, and what `Server.call` raises, once in a while.
        """
        now = self._clock.now()
        if now >= self._ends:
            raise Unauthorized(
                "the certificate of this agent has ended",
                cause=f"it was good until {self._ends:%Y-%m-%d %H:%M} UTC, and here it is {now:%Y-%m-%d %H:%M} UTC",
                hint="if the clock is right, let an administrator run `backstay agent invite NAME`, and run "
                "`backstay agent join` here",
            )
        since = self._clock.monotonic()
        if self._ends - now > (self._ends - self._begins) * _LEFT or since < self._not_before:
            return False
        self._not_before = since + _AGAIN_S
        key, request = new_request("agent")
        given = self._server.call("POST", "/api/agents/renew", {"request": request})
        self._home.renewed(key, _certificate_of(given, key, self._server.address, until=self._ends))
        self._server.changed()
        self._begins, self._ends = self._home.validity()
        return True


def _certificate_of(given: dict[str, object], key: str, address: str, *, until: datetime | None = None) -> str:
    """The certificate in an answer, if it is for this key and does not end before `until`. Raises ServerUnreachable.

    What is kept takes the place of one that is good: nothing worse may.
    """
    text = str(given.get("certificate"))
    try:
        _, ends = validity_of(text)
        fits = is_for(text, key)
    except InvalidRequest as error:
        raise ServerUnreachable(f"what answers at {address} gives no certificate", cause=str(error)) from error
    if not fits:
        raise ServerUnreachable(
            f"what answers at {address} gives no certificate for this agent", cause="it is for another key"
        )
    if until is not None and ends < until:
        raise ServerUnreachable(
            f"the certificate that {address} gives ends before the one that is here",
            cause=f"it is good until {ends:%Y-%m-%d %H:%M} UTC",
            hint="check the clock of the server",
        )
    return text
