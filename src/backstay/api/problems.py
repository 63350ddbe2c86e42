"""Failures as answers: each error of the program has its status, and each answer is a problem document (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from backstay.errors import BackstayError, InvalidRequest, RateLimited
from backstay.errors.documents import problem_document, problem_type

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5  # what is told of a transient failure that does not say itself

# The status of each error. 4xx: the request, or the state that it met; 5xx: this service or what it stands on.
STATUS: Final[Mapping[str, int]] = {
    "BackstayError": 500,
    "InvalidRequest": 422,
    "BadWalName": 422,
    "InvalidQuorum": 422,
    "PlanInvalid": 422,
    "KeyProviderUnsupported": 422,
    "NaiveTimestamp": 422,
    "PolicyInvalid": 422,
    "ServerExtraMissing": 501,
    "TargetAmbiguousTimeline": 422,
    "UnknownValidator": 422,
    "NotFound": 404,
    "ObjectNotFound": 404,
    "ObjectExists": 409,
    "RepositoryExists": 409,
    "BackupFailed": 500,
    "HookFailed": 500,
    "RestoreFailed": 500,
    "RestoreConflict": 409,
    "UnsupportedFormat": 500,
    "WrongKey": 500,
    "CorruptedBackup": 422,
    "BadAttestation": 422,
    "MachineFault": 500,
    "SnapshotFenced": 409,
    "CollectionBusy": 409,
    "RepositoryBusy": 409,
    "InsufficientSpace": 507,
    "QuotaExceeded": 507,
    "StorageUnavailable": 503,
    "StorageMissing": 503,
    "NoRepository": 503,  # such as of a disk that is not mounted: what is asked for may well be there
    "StorageRefused": 503,
    "StorageUnfit": 503,
    "ObjectUnreadable": 503,
    "TierNotAttached": 503,
    "ObjectFrozen": 409,
    "ThawPending": 409,
    "HoldViolation": 409,
    "ValueInUse": 409,
    "ValueBusy": 409,
    "QuorumNotReached": 409,
    "CatalogUnavailable": 503,
    "CatalogOutdated": 503,
    "Unauthorized": 401,
    "Forbidden": 403,
    "IdentityProviderUnavailable": 503,
    "AccessRefused": 403,
    "RateLimited": 429,
    "PreconditionFailed": 412,
    "JobConflict": 409,
    "JobLost": 500,
    "ServerUnreachable": 503,
    "NotificationFailed": 502,
    "SourceUnreachable": 503,
    "SourceRefused": 502,
    "ReplicationDenied": 502,
    "SlotInUse": 409,
    "WalLevelTooLow": 502,
    "CorruptedSource": 502,
    "ChecksumFailure": 502,
    "IdentityMismatch": 409,
    "VersionUnsupported": 501,
    "ClientTooOld": 501,
    "DumpFailed": 502,
    "SlotLost": 502,
    "WalGap": 409,
    "SnapshotIncomplete": 409,
    "WalConflict": 409,
    "WalWrongSize": 422,
    "ServiceRunning": 409,
    "TargetNotCovered": 409,
    "TargetBeforeSnapshot": 409,
    "RecoveryFailed": 500,
    "RecoveryTimeout": 504,
    "StepFailed": 500,
    "StepTimeout": 504,
    "GraphError": 422,
    "InvalidNode": 422,
    "InvalidDocument": 422,
    "DuplicateNode": 409,
    "UnknownNode": 404,
    "MissingDependency": 422,
    "CycleFound": 422,
    "OutputConflict": 409,
    "OutputMissing": 404,
    "OutputMismatch": 409,
    "OutputsBusy": 409,
    "InputLost": 409,
    "RecomputeFailed": 500,
    "RecomputeTimeout": 504,
    "WorkerLost": 500,
    "Interrupted": 503,
    "InternalError": 500,
}

# What is refused before any error of the program: code, title, cause, what to do.
_PLAIN: Final[Mapping[int, tuple[str, str, str, str]]] = {
    400: ("BadRequest", "the request cannot be read", "it is no request that HTTP knows", "see /api/openapi.json"),
    404: ("NotFound", "there is no such address", "no endpoint has this path", "see /api/openapi.json"),
    405: ("MethodNotAllowed", "this address has no such method", "see the header Allow", "see /api/openapi.json"),
    406: ("NotAcceptable", "no answer of that kind is made", "see the header Accept", "leave Accept out"),
    413: ("RequestTooLarge", "the request is too large", "its body has more bytes than are taken", "send less"),
    415: (
        "UnsupportedMediaType",
        "the body is of a kind that is not read",
        "bodies are JSON",
        "send `Content-Type: application/json`",
    ),
    500: (
        "InternalError",
        "this is a mistake in backstay",
        "the program met something that it was not made for",
        "tell who runs this service the request_id: its log has more",
    ),
}


def instance_of(path: str) -> str:
    """The path of a request as a URI reference, which `instance` is (RFC 9457, 3.1.5; RFC 3986, 3.3)."""
    return quote(path, safe="/:@!$&'()*+,;=~")


def status_of(error: BackstayError) -> int:
    """The status of an answer that tells this error."""
    return STATUS[next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in STATUS)]


def document_of(error: BackstayError, *, instance: str, request_id: str) -> dict[str, Any]:
    """The problem document of an error, as an answer to one request."""
    found = {**problem_document(error), "status": status_of(error), "instance": instance, "request_id": request_id}
    if error.hint == InvalidRequest.default_hint:  # it speaks of commands
        found["solution"] = "see /api/openapi.json"
    return found


def plain_document(
    status: int, *, instance: str, request_id: str, cause: str = "", errors: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The problem document of a request that no endpoint has seen."""
    code, title, why, solution = _PLAIN.get(status, _PLAIN[500 if status >= 500 else 400])
    cause = cause or why
    found: dict[str, Any] = {
        "type": problem_type(code),
        "title": title,
        "status": status,
        "detail": f"{title}: {cause}",
        "instance": instance,
        "code": code,
        "cause": cause,
        "solution": solution,
        "transient": False,
        "request_id": request_id,
    }
    return found | ({"errors": list(errors)} if errors else {})


def headers_of(error: BackstayError) -> dict[str, str]:
    """What else an answer says: how to prove who one is, or when to come again."""
    if status_of(error) == 401:
        return {"WWW-Authenticate": 'Bearer realm="backstay"'}
    if isinstance(error, RateLimited):
        return {"Retry-After": str(max(1, error.retry_after))}
    if status_of(error) == 503:
        wait = getattr(error, "retry_after", None)
        return {"Retry-After": str(RETRY_AFTER_S if wait is None else max(1, round(wait)))}
    return {}


def job_problem(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The error of a job as answers show it: with the status that the same failure has as an answer."""
    if document is None:
        return None
    return {**document, "status": STATUS.get(str(document.get("code")), 500)}
