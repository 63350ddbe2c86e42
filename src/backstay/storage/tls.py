"""TLS as every remote store uses it: version 1.2 or newer, certificates and host names checked, no way around it."""

from __future__ import annotations

import ssl
from typing import Final

from backstay.storage.paced_sockets import PacedTlsSocket

_CUT: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_GARBLED: Final = frozenset(
    {"DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "SSLV3_ALERT_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE"}
)

OWN_AUTHORITY: Final = "check the address; name the certificate of an authority of your own in SSL_CERT_FILE"
RENEW: Final = "have the server's certificate renewed; if it is good, set this machine's clock"
ANOTHER_NAME: Final = "use the name that the server's certificate is for, or give the server one for this name"
_CHECK_PORT: Final = "check the address: the server must speak TLS 1.2 or newer at that port"
_TIMES: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NAMES: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def client_context() -> ssl.SSLContext:
    """Trusts the system's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = PacedTlsSocket
    return context


def is_broken(error: BaseException | None) -> bool:
    """Whether the connection was cut, or its bytes changed on the way: that says nothing about who is at its end."""
    return isinstance(error, _CUT) or (isinstance(error, ssl.SSLError) and error.reason in _GARBLED)


def advice(error: ssl.SSLError, *, authority: str = OWN_AUTHORITY) -> str:
    """What to do about a server that cannot be trusted; `authority` is how one of one's own is named."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return _CHECK_PORT
    if error.verify_code in _TIMES:
        return RENEW
    return ANOTHER_NAME if error.verify_code in _NAMES else authority
