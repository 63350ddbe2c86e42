"""An error as a problem document (RFC 9457): the same for a command, a job, an answer of the service and a message."""

from __future__ import annotations

from typing import Any

from backstay.errors.base import BackstayError
from backstay.errors.policies import PolicyInvalid


def problem_document(error: BackstayError) -> dict[str, Any]:
    """Its type, title, detail, code, cause and solution, and the conflicts or mistakes where there are some.

    It has no `status`: that is HTTP's word, and whoever answers adds it.
    """
    cause = error.cause or meaning(error)
    document: dict[str, Any] = {
        "type": problem_type(error.code),
        "title": error.title,
        "detail": str(error),
        "code": error.code,
        "cause": cause,
        "solution": error.hint,
        "transient": error.transient,
    }
    if isinstance(error, PolicyInvalid):
        document["errors"] = [
            {"file": one.file, "line": one.line, "key": one.key, "message": one.message, "hint": one.hint}
            for one in error.mistakes
        ]
    paths = getattr(error, "paths", None)
    if paths:
        document["conflicts"] = [{"path": path, "reason": "the target holds something else"} for path in paths]
    return document


def problem_type(code: str) -> str:
    """The `type` of a problem: a name, not an address that anybody should fetch."""
    return f"urn:backstay:problem:{code}"


def meaning(error: BackstayError) -> str:
    """What this kind of failure means, for one that tells no cause of its own."""
    words = (type(error).__doc__ or error.code).strip().partition("\n")[0].rstrip(".")
    return words[:1].lower() + words[1:]
