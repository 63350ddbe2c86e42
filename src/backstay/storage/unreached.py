"""Why an HTTP server was not reached: what urllib3 says, alone or below boto3, and what to do about proxies."""

from __future__ import annotations

import re
from typing import Final

from backstay.errors import StorageRefused, StorageUnavailable

PROXY_WANTS_LOGIN: Final = "the proxy asks for another login"
NAME_A_LOGIN: Final = (
    "check user name and password in HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT), or name the server in NO_PROXY"
)
ASK_THE_PROXY: Final = "check what the proxy allows, or name the server in NO_PROXY"
_REFUSED_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")
_WANTS_LOGIN: Final = 407
_FORBIDS: Final = (401, 403, 405)


def innermost(error: BaseException) -> BaseException:
    """The first cause of an error."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def words(inner: BaseException) -> str:
    """A reason in one line and without addresses of objects."""
    strerror = inner.strerror if isinstance(inner, OSError) else None
    return strerror or str(inner) or type(inner).__name__


def proxy_refusal(inner: BaseException, title: str) -> StorageUnavailable | None:
    """The error to raise when a proxy does not lead to the server; None when it was not that."""
    found = _REFUSED_TUNNEL.search(str(inner))
    if found is None:
        return None
    status = int(found[1])
    if status == _WANTS_LOGIN:
        return StorageRefused(title, cause=PROXY_WANTS_LOGIN, hint=NAME_A_LOGIN)
    kind = StorageRefused if status in _FORBIDS else StorageUnavailable
    return kind(title, cause=f"the proxy does not lead to it: it answered with HTTP {status}", hint=ASK_THE_PROXY)
