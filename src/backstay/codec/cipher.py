"""AES-256-GCM and HKDF-Expand, the only ciphers of format 1."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from backstay.errors import CorruptedBackup

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
COMMITMENT_BYTES: Final = 32


def expand(key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-Expand with SHA-512 (RFC 5869 section 2.3) of a uniformly random key."""
    return HKDFExpand(SHA512(), length, info).derive(key)


class Cipher:
    """Seals and opens under one key; the caller never repeats a nonce."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, nonce: bytes, data: bytes | bytearray | memoryview, bound: bytes) -> bytes:
        """Ciphertext and tag; `bound` is authenticated but not stored."""
        return self._aead.encrypt(nonce, data, bound)

    def open(self, nonce: bytes, data: bytes | bytearray | memoryview, bound: bytes) -> bytes:
        """The plaintext. Raises CorruptedBackup when anything was changed."""
        try:
            return self._aead.decrypt(nonce, data, bound)
        except (InvalidTag, ValueError) as error:
            raise CorruptedBackup(
                "encrypted data was changed", cause="its authentication tag does not match"
            ) from error
