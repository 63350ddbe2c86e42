"""What a person holds to open a repository: a passphrase, a key file, a recovery key."""

from __future__ import annotations

import base64
import hashlib
import os
import unicodedata
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from backstay.core.ids import Random
from backstay.errors import InvalidRequest

SecretKind: TypeAlias = Literal["passphrase", "keyfile", "recovery"]
KEY_FILE_PREFIX: Final = "backstay-key-1:"
_SECRET_BYTES: Final = 32
_CHECK_BYTES: Final = 3


@dataclass(frozen=True, slots=True)
class Secret:
    """Something that opens a key slot of its kind; never shown by repr."""

    kind: SecretKind
    value: bytes = field(repr=False)

    @classmethod
    def passphrase(cls, text: str) -> Secret:
        """A passphrase as typed, in UTF-8 and NFC, since keyboards differ. Raises InvalidRequest if empty."""
        if not text:
            raise InvalidRequest(
                "the passphrase is empty", cause="everybody would guess it", hint="choose a passphrase of several words"
            )
        return cls("passphrase", unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape"))

    @classmethod
    def new_keyfile(cls, random: Random = os.urandom) -> Secret:
        return cls("keyfile", random(_SECRET_BYTES))

    @classmethod
    def new_recovery(cls, random: Random = os.urandom) -> Secret:
        return cls("recovery", random(_SECRET_BYTES))

    @classmethod
    def parse_keyfile(cls, text: str) -> Secret:
        """The secret of a key file's one line. Raises InvalidRequest."""
        line = text.strip()
        if not line.startswith(KEY_FILE_PREFIX):
            raise InvalidRequest(
                "this is not a backstay key file",
                cause=f"it does not begin with {KEY_FILE_PREFIX}",
                hint="give the file that `backstay` created",
            )
        return cls("keyfile", parse_words(line.removeprefix(KEY_FILE_PREFIX)))

    @classmethod
    def parse_recovery(cls, text: str) -> Secret:
        """The secret of a printed recovery key; case, spaces and dashes do not matter. Raises InvalidRequest."""
        return cls("recovery", parse_words(text))

    def printed(self) -> str:
        """The form in which a key file or recovery key is written down."""
        if self.kind == "passphrase":
            raise InvalidRequest("a passphrase is not printed")
        words = print_words(self.value)
        return KEY_FILE_PREFIX + words if self.kind == "keyfile" else words


def looks_like_recovery(text: str) -> bool:
    """Whether a typed secret is a recovery key, so that it may be given wherever a passphrase is asked for."""
    try:
        parse_words(text)
    except InvalidRequest:
        return False
    return True


def print_words(value: bytes) -> str:
    """32 secret bytes as people and files write them down, with a checksum."""
    checked = value + hashlib.sha256(b"backstay-secret" + value).digest()[:_CHECK_BYTES]
    text = base64.b32encode(checked).decode().rstrip("=")
    return "-".join(text[at : at + 7] for at in range(0, len(text), 7))


def parse_words(text: str) -> bytes:
    """The bytes of `print_words`; case, spaces and dashes do not matter. Raises InvalidRequest."""
    compact = "".join(text.split()).replace("-", "").upper()
    compact = compact.replace("0", "O").replace("1", "I").replace("8", "B")  # digits that base32 does not have
    try:
        checked = base64.b32decode(compact, casefold=False)
    except ValueError:
        checked = b""
    value, check = checked[:_SECRET_BYTES], checked[_SECRET_BYTES:]
    if (
        len(checked) != _SECRET_BYTES + _CHECK_BYTES
        or hashlib.sha256(b"backstay-secret" + value).digest()[:_CHECK_BYTES] != check
    ):
        raise InvalidRequest("this key was not typed as it was printed", cause="its checksum does not match")
    return value
