"""Validators: who says of a snapshot that it is good, each with an Ed25519 key of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final, Self

from backstay.core.ids import Random, is_digest
from backstay.errors import InvalidRequest
from backstay.trust.attestation import Statement, key_id, seal_statement
from backstay.trust.secrets import parse_words, print_words
from backstay.trust.signing import Signer

KEY_PREFIX: Final = "backstay-validator-1"
_SEED_BYTES: Final = 32
_MAX_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class KnownValidator:
    """What others know of a validator: a name for people, and the public key, 64 hexadecimal digits.

    Raises InvalidRequest for what cannot be one.
    """

    name: str
    public_key: str

    def __post_init__(self) -> None:
        if not (0 < len(self.name) <= _MAX_NAME and self.name.isprintable() and ":" not in self.name):
            raise InvalidRequest(
                f"{self.name[:_MAX_NAME]!r} is no name for a validator",
                cause=f"a name has 1 to {_MAX_NAME} printable characters, and no colon",
            )
        if not is_digest(self.public_key):
            raise InvalidRequest(
                f"validator {self.name} has no proper public key",
                cause="it is 64 hexadecimal digits, in lower case",
                hint="`backstay graph validator` prints it when the key is made",
            )

    @property
    def key_id(self) -> str:
        return key_id(bytes.fromhex(self.public_key))


@dataclass(frozen=True, slots=True)
class Validator:
    """A validator with the private key; repr does not show it."""

    name: str
    _seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, name: str, *, random: Random = os.urandom) -> Self:
        """A validator with a new key. Raises InvalidRequest for a name that cannot be."""
        made = cls(name, random(_SEED_BYTES))
        made.public  # noqa: B018 - refuses a bad name
        return made

    @classmethod
    def parse(cls, text: str) -> Self:
        """The validator of a key file's one line. Raises InvalidRequest."""
        prefix, _, rest = text.strip().partition(":")
        name, _, words = rest.partition(":")
        if prefix != KEY_PREFIX:
            raise InvalidRequest(
                "this is not the key file of a validator",
                cause=f"it does not begin with {KEY_PREFIX}:",
                hint="`backstay graph validator` makes one",
            )
        made = cls(name, parse_words(words))
        made.public  # noqa: B018 - refuses a bad name
        return made

    def printed(self) -> str:
        """The line of a key file: whoever has it can sign as this validator."""
        return f"{KEY_PREFIX}:{self.name}:{print_words(self._seed)}"

    @property
    def signer(self) -> Signer:
        """What signs with the key."""
        return Signer(self._seed)

    @property
    def public(self) -> KnownValidator:
        """What others may know."""
        return KnownValidator(self.name, self.signer.public.hex())

    def sign(self, *, repository: str, snapshot: str, digest: bytes, attested: str) -> bytes:
        """The attestation that the stored bytes with this SHA-256 are a good snapshot."""
        signer = self.signer
        return seal_statement(Statement(repository, snapshot, digest.hex(), signer.public.hex(), attested), signer)
