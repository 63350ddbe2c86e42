"""Keeps obstore's requests from following a server's answer to another host.

Its HTTP client follows redirections, and takes along what authorises: the token of temporary credentials in a header of
Amazon's, a shared access signature in the address that it came from. It cannot be told not to. So whatever is not the
endpoint goes by a proxy that there never is. Through a real proxy everything goes to that one, and this cannot be done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from obstore.store import ClientConfig

NOWHERE: Final = "0.0.0.0:0"  # nobody can listen there
_PROXIES: Final = frozenset({"http", "https", "all"})
_METADATA: Final = ("169.254.0.0/16", "fd00:ec2::/32")  # of Amazon's machines and containers
_NAMED: Final = ("AWS_METADATA_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_ENDPOINT_URL_STS")
_WEB_IDENTITY: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"


def bound_to(endpoint: str, options: ClientConfig, others: Iterable[str] = ()) -> ClientConfig:
    """The same options for a client that reaches the endpoint's host and the others, and no more."""
    host = _host(endpoint)
    proxies = getproxies().keys() & _PROXIES
    if "proxy_url" in options or not host or (proxies and (others or not proxy_bypass(host))):
        return options
    return {**options, "proxy_url": f"https://{NOWHERE}", "proxy_excludes": ",".join((host, *others))}


def aws_token_hosts(environ: Mapping[str, str], region: str) -> tuple[str, ...]:
    """Who gives temporary credentials to obstore itself."""
    named = tuple(filter(None, (_host(environ.get(name, "")) for name in _NAMED)))
    if not environ.get(_WEB_IDENTITY):
        return (*_METADATA, *named)
    return (*_METADATA, *named, f"sts.{region}.amazonaws.com", "sts.amazonaws.com")


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # whoever uses it will say so
        return ""
