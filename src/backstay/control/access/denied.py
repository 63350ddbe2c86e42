"""Why somebody was refused: for the audit log and for `backup_auth_denied_total{reason}`, never for who asked."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from backstay.errors import BackstayError, Forbidden, RateLimited, Unauthorized

Reason: TypeAlias = Literal[
    "no_credentials",
    "unknown_token",
    "expired_token",
    "revoked_token",
    "wrong_network",
    "disabled_user",
    "wrong_password",
    "bad_jwt",
    "bad_certificate",
    "bad_join_token",
    "missing_permission",
    "rate_limited",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


def reason_of(error: BackstayError) -> Reason:
    """Why an error refuses, in one of the few words that are counted."""
    told = getattr(error, "reason", "")
    for reason in REASONS:
        if reason == told:
            return reason
    if isinstance(error, RateLimited):
        return "rate_limited"
    return "no_credentials" if isinstance(error, Unauthorized) else "missing_permission"


def unrecognised(reason: Reason) -> Unauthorized:
    """The same answer for all tokens that are not valid: why stays with us."""
    return Unauthorized("nobody is known by these credentials", reason=reason)


def not_allowed(permission: str, scope: str) -> Forbidden:
    """This user or token may not do that there."""
    return Forbidden("this is not allowed", cause=f"it needs {permission} for {scope}", reason="missing_permission")
