"""TLS as every remote store uses it: version 1.2 or newer, certificates and host names checked, no way around it."""

from __future__ import annotations

import ssl
from typing import Final

from backstay.storage.paced_sockets import PacedTlsSocket

_CUT: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_GARBLED: Final = frozenset(
    {"DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "SSLV3_ALERT_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE"}
)


def client_context() -> ssl.SSLContext:
    """Trusts the system's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = PacedTlsSocket
    return context


def is_broken(error: BaseException | None) -> bool:
    """Whether the connection was cut, or its bytes changed on the way: that says nothing about who is at its end."""
    return isinstance(error, _CUT) or (isinstance(error, ssl.SSLError) and error.reason in _GARBLED)
