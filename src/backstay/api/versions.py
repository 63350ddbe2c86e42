"""Versions of what people change: `ETag` tells one, `If-Match` says which the change was made for."""

from __future__ import annotations

from backstay.errors import PreconditionFailed


def etag_of(ident: str, version: int) -> str:
    """The tag of one version of a thing."""
    return f'"{ident}.{version}"'


def require_match(if_match: str | None, ident: str, version: int) -> None:
    """See that a change was made for this version; one that names none is for any. Raises PreconditionFailed."""
    if if_match is None:
        return
    tags = [tag.strip() for tag in if_match.split(",")]
    if "*" in tags or etag_of(ident, version) in tags:
        return
    raise PreconditionFailed(
        f"{ident} is not as you have seen it",
        cause=f"it is {etag_of(ident, version)} by now, and the change is for {if_match}",
    )
