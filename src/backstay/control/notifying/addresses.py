"""Addresses of targets: what they look like, what is wrong with one, and how one is shown without its secrets.

Most are those of the notification library (`mailtos://…`, `slack://…`, `jsons://…`). `ping+https://…` is ours: an
address that is fetched, as dead man's switches want it.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from apprise import Apprise

PING: Final = "ping+"
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]{0,30})://.", re.ASCII | re.IGNORECASE)
_PINGED: Final = re.compile(r"ping\+https?://[^\s/?#]+[^\s]*", re.ASCII | re.IGNORECASE)
# They reach this machine and not people, or need what no service has: a desktop, a terminal, a helper program.
_LOCAL: Final = frozenset({"dbus", "qt", "glib", "kde", "gnome", "macosx", "windows", "syslog", "smpp", "vapid"})
_LONGEST: Final = 4096
_HINT: Final = "write for example mailtos://USER:PASSWORD@HOST?to=ADDRESS, slack://A/B/C or jsons://HOST/PATH"


def scheme_of(address: str) -> str:
    """What stands before `://`, in lower case; empty where nothing does."""
    found = _SCHEME.match(address.strip())
    return found[1].lower() if found else ""


def hidden(address: str) -> str:
    """An address as it may be shown: where it goes is nobody's business but the kind of it."""
    return f"{scheme_of(address) or 'unknown'}://***"


def is_ping(address: str) -> bool:
    """Whether the address is only fetched."""
    return scheme_of(address).startswith(PING)


def check_address(address: str) -> str:
    """The address itself. Raises InvalidRequest, which never repeats it: it may hold a secret."""
    if len(address) > _LONGEST:
        raise InvalidRequest("the address is too long", hint=f"it may have {_LONGEST} characters")
    scheme = scheme_of(address)
    if not scheme:
        raise InvalidRequest("this is no address", cause="it does not begin with a word and `://`", hint=_HINT)
    if is_ping(address):
        if not _PINGED.fullmatch(address):
            raise InvalidRequest("this is no address to fetch", hint="write ping+https://HOST/PATH")
        return address
    if scheme in _LOCAL:
        raise InvalidRequest(f"messages do not go to {scheme}://", cause="a service has no desktop", hint=_HINT)
    if not quiet().add(address):
        raise InvalidRequest(
            f"the address {scheme}://*** is not understood", cause="a part of it is missing or wrong", hint=_HINT
        )
    return address


def quiet() -> Apprise:
    """The notification library, made to load no pictures, follow no redirects and log nothing: it logs addresses."""
    from apprise import Apprise, AppriseAsset

    log = logging.getLogger("apprise")
    log.propagate = False
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    # What it speaks HTTP with would log paths, which are secrets of webhooks.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    asset = AppriseAsset(
        app_id="Backstay",
        app_desc="Backstay",
        app_url="",
        image_url_mask="",
        image_url_logo="",
        async_mode=False,
        http_redirects=False,
    )
    return Apprise(asset=asset)
