"""How a message leaves: through the notification library, or by fetching an address."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, unquote

from backstay.control.notifying.addresses import PING, is_ping, quiet, scheme_of
from backstay.control.notifying.messages import Message
from backstay.control.policies.notifications import Severity
from backstay.core.version import VERSION
from backstay.errors import NotificationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apprise import NotifyLogEntry

_TIMEOUT_S: Final = 15
_LONGEST_S: Final = 4 * _TIMEOUT_S  # of one delivery
_HIDE_FROM: Final = 4  # characters: shorter parts of an address are words, such as `to` or `com`
_TYPES: Final[Mapping[Severity, str]] = {"info": "info", "warning": "warning", "error": "failure"}
_JSON: Final = ("json", "jsons")
_MAIL: Final = ("mailto", "mailtos")


class Sender(Protocol):
    """What delivers messages."""

    def send(self, message: Message, address: str) -> None:
        """Hand a message over. Raises NotificationFailed, which tells nothing of the address but its kind."""
        ...


class NetworkSender:
    """Sends for real. It keeps nothing, and any thread may call it."""

    def send(self, message: Message, address: str) -> None:
        if is_ping(address):
            _fetch(address)
        else:
            _notify(message, address)


def _fetch(address: str) -> None:
    """Fetch an address in a bounded time: a server may answer a byte at a time, which no timeout of a socket ends."""
    failures: list[Exception] = []

    def fetch() -> None:
        try:
            _fetched(address)
        except Exception as error:  # noqa: BLE001 - raised below, where somebody can catch it
            failures.append(error)

    thread = threading.Thread(target=fetch, name="backstay-ping", daemon=True)
    thread.start()
    thread.join(_LONGEST_S)
    if thread.is_alive():
        raise _failed(address, f"there was no whole answer within {_LONGEST_S} seconds")
    for error in failures:
        raise error


def _fetched(address: str) -> None:
    url = address[len(PING) :]
    request = urllib.request.Request(url, headers={"User-Agent": f"backstay/{VERSION}"})  # noqa: S310 - http or https
    try:
        with _NO_REDIRECTS.open(request, timeout=_TIMEOUT_S) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        error.close()
        raise _failed(address, f"the server answered {error.code}") from None
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _failed(address, str(reason) or type(reason).__name__) from None


def _notify(message: Message, address: str) -> None:
    library = quiet()
    told: list[str] = []

    def listen(entry: NotifyLogEntry, service: object) -> None:
        del service
        told.append(str(entry.message))

    if not library.add(_with_facts(message, address)):
        raise _failed(address, "the address is not understood")
    taken = library.notify(
        title=message.title,
        body=message.body,
        notify_type=_TYPES[message.severity],
        body_format="text",
        timeout=_LONGEST_S,
        log_callback=listen,
    )
    if not taken:
        raise _failed(address, "; ".join(told))


def _with_facts(message: Message, address: str) -> str:
    """The address with what a program would look for, as fields of JSON or of a mail's head; and without pictures."""
    scheme = scheme_of(address)
    if scheme in _MAIL:
        facts = {"+X-Backstay-Message": message.id, "+X-Backstay-Kind": message.kind, "format": "text"}
    elif scheme in _JSON:
        facts = {":message_id": message.id, ":severity": message.severity, ":kind": message.kind}
        facts |= {":policy": message.policy} if message.policy else {}
    else:
        facts = {"image": "no"}
    given = "&".join(f"{quote(name, safe=':')}={quote(value, safe='')}" for name, value in facts.items())
    return f"{address}{'&' if '?' in address else '?'}{given}"


def _failed(address: str, cause: str) -> NotificationFailed:
    kind = scheme_of(address)
    return NotificationFailed(f"a message was not taken by {kind}://***", cause=redacted(cause, address))


def redacted(text: str, address: str) -> str:
    """The text without any part of the address that is long enough to be a secret or a name."""
    parts = {piece for whole in (address, unquote(address)) for piece in re.split(r"[:/@?&=,;#+\s]+", whole)}
    for part in sorted(parts - {scheme_of(address)}, key=len, reverse=True):
        if len(part) >= _HIDE_FROM:
            text = text.replace(part, "***")
    return " ".join(text.split())[:500]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows none: an address that was checked does not lead elsewhere."""

    def redirect_request(self, *args: object) -> None:
        del args


_NO_REDIRECTS: Final = urllib.request.build_opener(_Redirects)
