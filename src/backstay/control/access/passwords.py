"""Passwords of users: argon2id, with the parameters of RFC 9106 for machines where memory is scarce."""

from __future__ import annotations

import threading
import unicodedata
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY

from backstay.errors import InvalidRequest

LEAST: Final = 12  # characters
MOST: Final = 256
_AT_ONCE: Final = 2  # each takes 64 MiB: many that log in at once wait instead


class Passwords:
    """Makes and checks hashes, one by one; who waits does so without holding a transaction."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        # What a password is compared with where there is none, so that it takes as long.
        self._nobody = self._hasher.hash("nobody has this password")

    def hash(self, password: str, *, user: str) -> str:
        """What is kept of a new password. Raises InvalidRequest for one that is easily guessed."""
        text = _normal(password)
        if not LEAST <= len(text) <= MOST:
            raise InvalidRequest(
                "the password cannot be taken",
                cause=f"it has {len(text)} characters",
                hint=f"take {LEAST} to {MOST} of them, such as a few words by chance",
            )
        if user.casefold() in text.casefold() and len(text) < LEAST + len(user):
            raise InvalidRequest("the password cannot be taken", cause="it is the user's name and little more")
        with self._turns:
            return self._hasher.hash(text)

    def fits(self, password: str, kept: str | None) -> bool:
        """Whether it is the password that this was kept of; takes as long where nothing was kept."""
        text = _normal(password[: 4 * MOST])
        with self._turns:
            try:
                self._hasher.verify(kept or self._nobody, text)
            except VerifyMismatchError:
                return False
            except (InvalidHashError, VerificationError) as error:
                raise InvalidRequest(
                    "the password cannot be compared",
                    cause="what is kept of it is damaged",
                    hint="an administrator can set a new one: `backstay user password NAME`",
                ) from error
        return kept is not None

    def is_outdated(self, kept: str) -> bool:
        """Whether it was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(kept)


def _normal(password: str) -> str:
    """The same characters however a keyboard sends them (NIST SP 800-63B, section 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password.encode("utf-8", "replace").decode())
