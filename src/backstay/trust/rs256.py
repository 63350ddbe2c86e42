"""RS256, the signature by which a service account of Google says who it is."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from backstay.errors import InvalidRequest


def sign_rs256(private_key: str, data: bytes) -> bytes:
    """The signature of some bytes by a key in PEM form. Raises InvalidRequest, which repeats nothing of the key."""
    try:
        key = load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise InvalidRequest(
            "the private key of the service account cannot be used",
            cause="it is no RSA key in PEM form",
            hint="download the key file again",
        )
    return key.sign(data, PKCS1v15(), SHA256())
