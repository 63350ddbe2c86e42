"""What `s3://bucket/prefix?option=value`, `az://…` and `gs://…` say, and what they must not say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from backstay.errors import InvalidRequest
from backstay.storage.names import check_name

_LOCKS: Final = ("retain-days", "retain-mode")
_EVERYWHERE: Final = ("endpoint", "ca", "proxy", "storage-class")
OPTIONS: Final = {
    "s3": (*_EVERYWHERE, "region", "path-style", *_LOCKS, "retrieval"),
    "az": (*_EVERYWHERE, "account"),
    "gs": (*_EVERYWHERE, *_LOCKS),
}
CONTAINER: Final = {"s3": "bucket", "az": "container", "gs": "bucket"}  # what each calls its outermost place
_ADDRESSES: Final = ("endpoint", "proxy")
_SERVER: Final = re.compile(
    r"https?://(?:\[([0-9A-F:.]+)\]|([A-Z0-9_-]+(?:\.[A-Z0-9_-]+)*)\.?)(?::(\d{0,5}))?(?:/[A-Z0-9._~%+:/-]*)?",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)", re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Za-z0-9._-]+")
_CREDENTIALS_HINT: Final = "credentials come from the environment or the files that the provider's own tools use"


@dataclass(frozen=True, slots=True)
class CloudAddress:
    """One address, checked; `prefix` has no slash at either end and may be empty."""

    scheme: str
    bucket: str
    prefix: str
    options: tuple[tuple[str, str], ...] = ()

    def get(self, option: str) -> str | None:
        """An option's value, if it was given."""
        return dict(self.options).get(option)

    @property
    def server(self) -> str:
        """Who answers for it, and for other buckets too: the endpoint, else the provider's for a region or account."""
        if endpoint := self.get("endpoint"):
            return f"{self.scheme}://{urlsplit(endpoint).netloc}".lower()
        return f"{self.scheme}:{self.get('region') or self.get('account') or ''}"

    def __str__(self) -> str:
        place = f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")
        return f"{place}?{urlencode(self.options, safe=':/')}" if self.options else place


def is_server(text: str) -> bool:
    """Whether this is the address of an HTTP server; over one that is none obstore panics."""
    found = _SERVER.fullmatch(text)
    if found is None:
        return False
    address, name, port = found.groups()
    try:
        if address or _NUMBER.fullmatch(name):
            ip_address(address or name)
        elif "xn--" in name.lower():
            name.encode().decode("idna")
    except ValueError:
        return False
    return int(port or 0) < 1 << 16


def is_word(text: str) -> bool:
    """Whether this may be a region or an account, which become parts of host names."""
    return _WORD.fullmatch(text) is not None


def parse_address(url: str) -> CloudAddress:
    """The parts of an address. InvalidRequest, in which nothing of it is repeated that may be a secret."""
    parts = _split(url)
    scheme = parts.scheme.lower()
    if "@" in parts.netloc or parts.fragment:
        raise InvalidRequest(
            f"a {scheme}: address holds no credentials", cause="there is a '@' or a '#' in it", hint=_CREDENTIALS_HINT
        )
    what = CONTAINER[scheme]
    if not parts.netloc:
        raise InvalidRequest(f"the address names no {what}", hint=f"write {scheme}://{what.upper()}/prefix")
    prefix = parts.path.strip("/")
    for name in filter(None, (parts.netloc, prefix)):
        _check_part(name, scheme)
    return CloudAddress(scheme, parts.netloc, prefix, _options(scheme, parts.query))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InvalidRequest("the address cannot be read", cause="it is no URL") from error


def _check_part(name: str, scheme: str) -> None:
    try:
        check_name(name)
    except InvalidRequest as error:
        raise InvalidRequest(f"the {CONTAINER[scheme]} or the prefix has an odd name", hint=error.hint) from None


def _options(scheme: str, query: str) -> tuple[tuple[str, str], ...]:
    known = OPTIONS[scheme]
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise InvalidRequest(f"the options of the {scheme}: address cannot be read", hint=_told(known)) from None
    for name, value in pairs:
        if name in _LOCKS and name not in known:
            raise InvalidRequest(
                f"objects in {scheme}: addresses cannot be locked",
                cause=f"{name} is for S3 and Google; in Azure locks are set for a whole container",
                hint=f"leave {name} out, or use a bucket of S3 or Google",
            )
        if name not in known:  # the name is not repeated either: it may be a part of a secret
            raise InvalidRequest(
                f"the {scheme}: address has an option that there is not",
                cause="options are settings, never credentials",
                hint=f"{_told(known)}; {_CREDENTIALS_HINT}",
            )
        if not value:
            raise InvalidRequest(f"the option {name} of the address is empty", hint=f"write {name}=VALUE")
        if name in _ADDRESSES:
            _check_address(name, value)
    if len(dict(pairs)) < len(pairs):
        raise InvalidRequest("an option is given twice in the address", hint="give each once")
    return tuple(sorted(pairs))


def _check_address(option: str, value: str) -> None:
    parts = _split(value)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidRequest(
            f"the option {option} holds no credentials",
            cause="there is more in it than an address",
            hint=_CREDENTIALS_HINT,
        )
    if not is_server(value):
        raise InvalidRequest(f"the option {option} is no address", hint=f"write {option}=https://HOST:PORT")


def _told(known: tuple[str, ...]) -> str:
    return f"options are {', '.join(sorted(known))}"
