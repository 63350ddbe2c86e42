"""Errors of validators, what they attest, and quorums."""

from __future__ import annotations

from backstay.errors.base import BackstayError, InvalidRequest
from backstay.errors.repositories import CorruptedBackup


class InvalidQuorum(InvalidRequest):
    """A quorum policy cannot be read, or could never be reached, or counts somebody twice."""

    default_hint = "it has `required`, and `validators` with a `name` and a `public_key` each"


class UnknownValidator(InvalidRequest):
    """A key attests that the quorum policy does not know."""

    default_hint = "add it to the policy, if its holder is to be trusted"


class BadAttestation(CorruptedBackup):
    """What lies among the attestations is none: torn, forged, or about something else. It counts for nothing."""

    default_hint = "find out what put it there; the validator can attest anew"


class QuorumNotReached(BackstayError):
    """Too few validators attested a snapshot; `missing` are the names of those who have not."""

    exit_status = 16
    default_hint = "let them attest it, or take an accepted one"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", missing: tuple[str, ...] = ()) -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.missing = missing
