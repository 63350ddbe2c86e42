"""Key slots: the repository's root key, wrapped once for each secret that may open it (docs/format.md, "Key slots")."""

from __future__ import annotations

import hmac
import os
import threading
from typing import Final

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from backstay.codec.cipher import COMMITMENT_BYTES, KEY_BYTES, Cipher, expand
from backstay.core.ids import Random
from backstay.errors import CorruptedBackup, UnsupportedFormat
from backstay.trust.secrets import Secret, SecretKind

ROOT_BYTES: Final = 32
SLOT_MAX: Final = 64 << 10  # bytes of a slot object
# OpenSSL 3 has one pool of threads for the lanes of all derivations: two at once fail or wait for each other for ever.
_DERIVING: Final = threading.Lock()
_NONCE: Final = bytes(12)  # a wrapping key is derived from a fresh salt and used once


class Argon2Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Argon2id parameters (RFC 9106); the defaults are its second recommended option."""

    memory_kib: int = 64 << 10
    iterations: int = 3
    lanes: int = 4

    def check(self) -> None:
        """Bounds on both sides: the least that Argon2id takes, and what would exhaust the machine."""
        if not (1 <= self.iterations <= 64 and 1 <= self.lanes <= 64 and 8 * self.lanes <= self.memory_kib <= 2 << 20):
            raise CorruptedBackup("a key slot asks for absurd key derivation costs", cause=repr(self))


class Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One wrapped copy of the root key, as stored (JSON, keys in this order)."""

    version: int
    kind: str
    created: str
    salt: str
    commitment: str
    sealed: str
    note: str
    cost: Argon2Cost | None = None

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Slot:
        """Raises CorruptedBackup."""
        if len(data) > SLOT_MAX:
            raise CorruptedBackup("a key slot is too large to be one")
        try:
            slot = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptedBackup("a key slot cannot be read", cause=str(error)) from error
        if slot.version != 1:
            raise UnsupportedFormat("a key slot of a newer version", cause=f"slot version {slot.version}")
        return slot


def wrap(
    secret: Secret,
    root: bytes,
    repository: bytes,
    *,
    created: str,
    note: str,
    cost: Argon2Cost | None = None,
    random: Random = os.urandom,
) -> Slot:
    """A slot that `secret` opens; `repository` is the SHA-256 of repo.json, sealed in with the root key."""
    salt = random(32)
    cost = (cost or Argon2Cost()) if secret.kind == "passphrase" else None
    key, commitment = _wrapping_key(secret, salt, cost)
    return Slot(
        version=1,
        kind=secret.kind,
        created=created,
        salt=salt.hex(),
        commitment=commitment.hex(),
        sealed=Cipher(key).seal(_NONCE, root + repository, _bound(secret.kind)).hex(),
        note=seal_note(root, salt, note),
        cost=cost,
    )


def unwrap(slot: Slot, secret: Secret) -> tuple[bytes, bytes] | None:
    """(root key, SHA-256 of repo.json), or None when this secret does not open the slot.

    Raises CorruptedBackup when it does open it, but the content was changed.
    """
    if slot.kind != secret.kind:
        return None
    salt, commitment, sealed = _hex(slot.salt, 32), _hex(slot.commitment, COMMITMENT_BYTES), _hex(slot.sealed, 80)
    key, expected = _wrapping_key(secret, salt, slot.cost)
    if not hmac.compare_digest(commitment, expected):
        return None
    opened = Cipher(key).open(_NONCE, sealed, _bound(secret.kind))
    return opened[:ROOT_BYTES], opened[ROOT_BYTES:]


def seal_note(root: bytes, salt: bytes, note: str) -> str:
    """A short remark about a slot, readable only with the root key."""
    key = expand(root, b"backstay/v1/slot-note" + salt)
    return Cipher(key).seal(_NONCE, note.encode()[:200].ljust(200, b"\0"), b"").hex()


def open_note(root: bytes, slot: Slot) -> str:
    """The remark. Raises CorruptedBackup."""
    key = expand(root, b"backstay/v1/slot-note" + _hex(slot.salt, 32))
    return Cipher(key).open(_NONCE, _hex(slot.note, 216), b"").rstrip(b"\0").decode("utf-8", "replace")


def _wrapping_key(secret: Secret, salt: bytes, cost: Argon2Cost | None) -> tuple[bytes, bytes]:
    strong = secret.value
    if secret.kind == "passphrase":
        if cost is None:
            raise CorruptedBackup("a passphrase slot lacks its key derivation costs")
        cost.check()
        derivation = Argon2id(
            salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
        )
        with _DERIVING:
            strong = derivation.derive(secret.value)
    keys = expand(strong, b"backstay/v1/slot/" + secret.kind.encode() + salt, KEY_BYTES + COMMITMENT_BYTES)
    return keys[:KEY_BYTES], keys[KEY_BYTES:]


def _bound(kind: SecretKind) -> bytes:
    return b"backstay/v1/slot/" + kind.encode()


def _hex(text: str, length: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != length or value.hex() != text:
        raise CorruptedBackup("a key slot holds malformed hexadecimal")
    return value
