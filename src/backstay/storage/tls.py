"""TLS as every remote store uses it: version 1.2 or newer, certificates and host names checked, no way around it."""

from __future__ import annotations

import ssl

from backstay.storage.paced_sockets import PacedTlsSocket


def client_context() -> ssl.SSLContext:
    """Trusts the system's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = PacedTlsSocket
    return context
