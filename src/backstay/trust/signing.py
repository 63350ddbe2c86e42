"""Ed25519 signatures over stored bytes, bound to the type of what is signed."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


def pre_authentication(kind: bytes, body: bytes) -> bytes:
    """What is signed: type and body with their lengths (the PAE of DSSE, github.com/secure-systems-lab/dsse)."""
    return b"DSSEv1 %d %s %d " % (len(kind), kind, len(body)) + body


class Signer:
    """Signs with one Ed25519 key (RFC 8032)."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, kind: bytes, body: bytes) -> bytes:
        """A 64-byte signature."""
        return self._key.sign(pre_authentication(kind, body))


def is_signed(public: bytes, signature: bytes, kind: bytes, body: bytes) -> bool:
    """Whether `signature` over `body` was made with the private half of `public`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, pre_authentication(kind, body))
    except (InvalidSignature, ValueError):
        return False
    return True
