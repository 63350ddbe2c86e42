"""Where the service listens, and how: off this machine only with TLS 1.3."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backstay.errors import InvalidRequest, ServiceRunning


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The certificate of the service with its key, and the authority (PEM) whose clients are known by theirs.

    `renew` is called again and again, and makes the files anew when it is time; it raises InvalidRequest.
    """

    certificate: Path
    key: Path
    clients: str | None = None
    renew: Callable[[], None] | None = None


def tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.3 and nothing older. A client may show a certificate; one of another authority is refused.

    Raises InvalidRequest.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise InvalidRequest(
            f"the certificate {tls.certificate} cannot be used with the key {tls.key}",
            cause=_told(error),
            hint="give the chain and its key in PEM, the key without a password",
        ) from error
    if tls.clients is not None:
        context.load_verify_locations(cadata=tls.clients)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class _Newest(ssl.SSLContext):
    """Stands for the context that was shown last, which each new connection is made of, and keeps."""

    _shown: ssl.SSLContext

    def show(self, context: ssl.SSLContext) -> None:
        self._shown = context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - as of ssl
        return self._shown.wrap_bio(*arguments, **options)


class Shown:
    """What a server shows to those who connect: the certificate that lies in its files now.

    Certificates live for weeks, and servers longer. One that cannot be used is told of, and the old one goes on. Who
    connects gets either whole: a context that serves connections is never changed, because it would show a new
    certificate before it has its key.
    """

    def __init__(self, tls: Tls, warn: Callable[[str], None]) -> None:
        """Raises InvalidRequest for a certificate that cannot be used."""
        self._tls, self._warn = tls, warn
        self._seen, self._told = _stamps(tls), ""
        self.context = _Newest(ssl.PROTOCOL_TLS_SERVER)
        self.context.show(tls_context(tls))

    def look(self) -> None:
        """Show a certificate that is new; connections that are there stay as they are."""
        try:
            if self._tls.renew is not None:
                self._tls.renew()
            found = _stamps(self._tls)
            if found != self._seen:
                self.context.show(tls_context(self._tls))
                self._seen = found
            self._told = ""
        except (InvalidRequest, OSError) as error:
            if str(error) != self._told:
                self._told = str(error)
                self._warn(f"the old certificate is shown on: {error}")


def listening(host: str, port: int, *, encrypted: bool) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises InvalidRequest for a place that is not of this machine or would be open to others without TLS, and
    ServiceRunning when somebody else listens there.
    """
    family, address = _address(host, port)
    if not encrypted and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise InvalidRequest(
            f"this does not listen at {host} without TLS",
            cause="tokens and data would be readable on the way",
            hint="give --tls-cert and --tls-key, or listen at 127.0.0.1 behind a proxy",
        )
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind(address)
        found.listen(2048)
        found.set_inheritable(False)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise ServiceRunning(
                f"somebody listens at {host} port {port} already",
                cause="one address is served by one process",
                hint="choose another --port; 0 takes a free one",
            ) from error
        raise InvalidRequest(f"nothing can listen at {host} port {port}", cause=error.strerror or "") from error
    return found


def address_of(listener: socket.socket, *, encrypted: bool) -> str:
    """Where clients find it."""
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if encrypted else 'http'}://{name}:{port}"


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise InvalidRequest(f"{host!r} is no address of this machine", cause=str(error)) from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _no_password() -> bytes:
    raise ValueError("the key has a password")


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)


def _stamps(tls: Tls) -> list[tuple[int, int, int] | None]:
    """What tells whether the files changed."""
    found: list[tuple[int, int, int] | None] = []
    for path in (tls.certificate, tls.key):
        try:
            status = path.stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return found
