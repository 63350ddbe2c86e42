"""What an object store's refusal means: obstore's exceptions in the words of `backstay.errors`.

obstore's own text is never shown: it has many lines, and with a shared access signature its addresses are secrets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from obstore.exceptions import AlreadyExistsError, BaseError

from backstay.errors import InsufficientSpace, ObjectFrozen, StorageRefused, StorageUnavailable

FAILURES: Final = (BaseError, OSError, ValueError, NotImplementedError)  # all that obstore raises

_STATUS: Final = re.compile(r"non-2xx status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9._-]{1,80})</Code>")
_REASONS: Final = (
    re.compile(r'message: "([^"\n]{1,120})"'),  # what the operating system said
    re.compile(r"(InvalidCertificate\(\s*[A-Za-z]+|AlertReceived\(\s*[A-Za-z]+|InvalidMessage\(\s*[A-Za-z]+)"),
    re.compile(r"(failed to lookup address information|dns error)"),
    re.compile(r"(IncompleteMessage|IncompleteBody|UnexpectedEof|ConnectionReset|BrokenPipe)"),
    re.compile(r"(TimedOut|Timeout)"),
    re.compile(r"(Received non-partial response when range requested|Got invalid list response)"),
)
_OPENING: Final = re.compile(r"\(\s*")
_NO_KEY: Final = frozenset({"NoSuchKey", "BlobNotFound"})
_NO_BUCKET: Final = frozenset({"NoSuchBucket", "ContainerNotFound"})
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"})
_FROZEN: Final = "InvalidObjectState"  # it lies in an archive class and was not thawed
_LOST_RACE: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})  # not "exists": try again
_CREDENTIALS: Final = "check the credentials: which key, for which store, and until when it is good"
_HINTS: Final = {
    "RequestTimeTooSkewed": "set this machine's clock",
    "ExpiredToken": "get new temporary credentials",
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "AuthenticationFailed": _CREDENTIALS,
    "AccessDenied": "allow this key to list the bucket, and to get, put and delete its objects",
    "AuthorizationHeaderMalformed": "name the bucket's region: ?region=REGION",
    "PermanentRedirect": "name the bucket's region: ?region=REGION",
    "InvalidStorageClass": "choose a storage class that this store knows",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a failure: HTTP status (0 without an answer), the store's code, the reason in few words."""

    status: int
    code: str
    reason: str

    def __str__(self) -> str:
        said = " ".join(filter(None, (str(self.status) if self.status else "", self.code)))
        return f"it answered {said}" if said else self.reason

    @property
    def says_no_key(self) -> bool:
        """Whether the store itself said that there is no such object; a status 404 alone may come from anywhere."""
        return self.status == 404 and self.code in _NO_KEY

    @property
    def says_no_bucket(self) -> bool:
        return self.status == 404 and self.code in _NO_BUCKET


def read_answer(error: BaseException) -> Answer:
    """Status, code and reason out of the text of an exception of obstore, which keeps them nowhere else."""
    text = str(error)
    told = text.partition("Debug source:")[0]
    status, code = _STATUS.search(told), _CODE.search(told)
    return Answer(int(status[1]) if status else 0, code[1] if code else "", _reason(text))


def _reason(text: str) -> str:
    for pattern in _REASONS:
        if found := pattern.search(text):
            return _OPENING.sub(": ", found[1])
    if "redential" in text or "169.254.169.254" in text:
        return "no credentials were found"
    return "it gave no answer that could be understood"


def says_exists(error: BaseException) -> bool:
    """Whether a create failed because the object is there, and for no other reason."""
    return isinstance(error, AlreadyExistsError) and read_answer(error).code not in _LOST_RACE


def failure(error: BaseException, title: str) -> StorageUnavailable | InsufficientSpace:
    """The error to raise for anything but an object that exists, and objects and buckets that do not."""
    answer = read_answer(error)
    cause, hint = str(answer), _HINTS.get(answer.code, "")
    if answer.status == 507 or answer.code in _FULL:
        return InsufficientSpace(title, cause=cause)
    if answer.code == _FROZEN:
        return ObjectFrozen(title, cause="it lies in an archive class of the store")
    if answer.status in (401, 403) or (hint and answer.status < 500) or "no credentials" in answer.reason:
        return StorageRefused(title, cause=cause, hint=hint or _CREDENTIALS)
    return StorageUnavailable(title, cause=cause, hint=hint)
