"""What an object store's refusal means: obstore's exceptions in the words of `backstay.errors`.

obstore's own text is never shown: it has many lines, and with a shared access signature its addresses are secrets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from obstore.exceptions import AlreadyExistsError, BaseError

from backstay.errors import InsufficientSpace, ObjectFrozen, StorageRefused, StorageUnavailable, StorageUnfit
from backstay.storage.cloud_redirections import NOWHERE
from backstay.storage.tls import ANOTHER_NAME, RENEW
from backstay.storage.unreached import ASK_THE_PROXY, NAME_A_LOGIN, PROXY_WANTS_LOGIN

FAILURES: Final = (BaseError, OSError, ValueError, NotImplementedError)  # all that obstore raises

_STATUS: Final = re.compile(r"non-2xx status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9._-]{1,80})</Code>")
_WHOLE: Final = "it gave the whole object instead of a part"
_ELSEWHERE: Final = "it leads to another server, which is not followed"
_PROXY_REFUSES: Final = "the proxy does not lead to it"
# What to look for in obstore's text, and how to say it; with "" as it was found.
_REASONS: Final = (
    (re.compile(rf"(\s{re.escape(NOWHERE)},)"), _ELSEWHERE),
    (re.compile(r'message: "([^"\n]{1,120})"'), ""),  # the operating system's own words
    (re.compile(r"(InvalidCertificate\(\s*[A-Za-z]+|AlertReceived\(\s*[A-Za-z]+|InvalidMessage\(\s*[A-Za-z]+)"), ""),
    (re.compile(r"(ProxyAuthRequired)"), PROXY_WANTS_LOGIN),
    (re.compile(r"(TunnelUnsuccessful)"), _PROXY_REFUSES),
    (re.compile(r"(failed to lookup address information|dns error)"), "the name of its host is not known"),
    (re.compile(r"(TimedOut|kind: Timeout)"), "it did not answer in time"),
    (
        re.compile(r"(IncompleteMessage|IncompleteBody|UnexpectedEof|ConnectionReset|BrokenPipe)"),
        "the connection broke",
    ),
    (re.compile(r"(non-partial response)"), _WHOLE),
    (re.compile(r"(redirect without LOCATION)"), "it says that the bucket is elsewhere: name its region (?region=…)"),
    (re.compile(r"(invalid list response)"), "its listing cannot be read"),
)
_METADATA: Final = re.compile(r"/latest/api/token|/latest/meta-data|/computeMetadata/|/metadata/identity|token request")
_NO_CREDENTIALS: Final = "no credentials were found, here or at the machine's metadata service"
_OPENING: Final = re.compile(r"\(\s*")
_NO_KEY: Final = frozenset({"NoSuchKey", "BlobNotFound"})
_NO_BUCKET: Final = frozenset({"NoSuchBucket", "ContainerNotFound"})
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"})
_FROZEN: Final = "InvalidObjectState"  # it lies in an archive class and was not thawed
_LOST_RACE: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})  # not "exists": try again
# What may be answered differently when the same is asked again. From 520 on they are those of Cloudflare, for a store
# behind it that it does not reach.
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 525)})
_PASSING_CODES: Final = _LOST_RACE | {
    "RequestTimeout",  # S3 gives these with the status 400, though only the way here was at fault
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "Md5Mismatch",
}
_CREDENTIALS: Final = "check the credentials: which key, for which store, and until when it is good"
BETWEEN: Final = "see that no proxy and no login page answers in place of the store"
_DENIED: Final = "AccessDenied"
_HINTS: Final = {
    "RequestTimeTooSkewed": "set this machine's clock",
    "ExpiredToken": "get new temporary credentials",
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "AuthenticationFailed": _CREDENTIALS,
    _DENIED: "allow this key to list the bucket, and to get, put and delete its objects",
    "AuthorizationHeaderMalformed": "name the bucket's region: ?region=REGION",
    "PermanentRedirect": "name the bucket's region: ?region=REGION",
    "RetentionPolicyNotMet": "turn on Object Versioning for the bucket, so that deleting hides what is locked",
    "ObjectUnderActiveHold": "turn on Object Versioning for the bucket, so that deleting hides what is held",
    "InvalidStorageClass": "choose a storage class that this store knows",
}
_NOT_TRUSTED: Final = "InvalidCertificate"
AUTHORITY: Final = "check the endpoint; name the certificate of an authority of your own: ?ca=/path/ca.pem"
_TOO_LARGE: Final = "raise the limit for uploads of the store, or of a proxy before it, above 64 MiB"
_NOT_TAKEN: Final = "the store takes no such request: check the endpoint, and what answers there"


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
    def may_pass(self) -> bool:
        """Whether the same request may succeed by itself later; when no answer came, it may."""
        return self.status < 400 or self.status in _PASSING or self.code in _PASSING_CODES

    @property
    def says_no_bucket(self) -> bool:
        return self.status == 404 and self.code in _NO_BUCKET


def read_answer(error: BaseException) -> Answer:
    """Status, code and reason out of the text of an exception of obstore, which keeps them nowhere else."""
    text = str(error)
    told = text.partition("Debug source:")[0]
    status, code = _STATUS.search(told), _CODE.search(told)
    if _METADATA.search(told):  # it is not the store that has failed or refused
        return Answer(0, "", _NO_CREDENTIALS)
    return Answer(int(status[1]) if status else 0, code[1] if code else "", _reason(text))


def _reason(text: str) -> str:
    for pattern, words in _REASONS:
        if found := pattern.search(text):
            return words or _OPENING.sub(": ", found[1])
    return "it gave no answer that could be understood"


def says_exists(error: BaseException) -> bool:
    """Whether a create failed because the object is there, and for no other reason."""
    return isinstance(error, AlreadyExistsError) and read_answer(error).code not in _LOST_RACE


def gave_whole(error: BaseException) -> bool:
    """Whether something other than the asked range came, with a status that is that of a whole object."""
    return read_answer(error).reason == _WHOLE


def lacks_locks(error: BaseException) -> bool:
    """Whether this may be the answer to a lock of a bucket that was made without: S3's and Google's words."""
    answer = read_answer(error)
    return answer.status == 400 and answer.code in ("InvalidRequest", "InvalidArgument")


def failure(error: BaseException, title: str) -> StorageUnavailable | InsufficientSpace:
    """The error to raise for anything but an object that exists, and objects and buckets that do not."""
    return failure_of(read_answer(error), title)


def failure_of(answer: Answer, title: str, *, allow: str = "") -> StorageUnavailable | InsufficientSpace:
    """The same for an answer of whatever library. `allow` is the hint at what a key must be allowed to."""
    cause, hint = str(answer), _HINTS.get(answer.code, "")
    if answer.code == _DENIED:
        hint = allow or hint
    if answer.status == 507 or answer.code in _FULL:
        return InsufficientSpace(title, cause=cause)
    if answer.code == _FROZEN:
        return ObjectFrozen(title, cause="it lies in an archive class of the store")
    if answer.reason == _NO_CREDENTIALS:  # that service may answer the next time
        return StorageUnavailable(title, cause=cause, hint=_CREDENTIALS)
    if answer.reason == _ELSEWHERE:
        return StorageUnavailable(title, cause=cause, hint=f"{BETWEEN}, and that the endpoint is the store's own")
    if answer.reason == _WHOLE:  # a store that knows no ranges will not learn them by being asked again
        return StorageUnfit(title, cause=cause)
    if answer.reason.startswith(_NOT_TRUSTED):  # it will not be another one by being asked again
        return StorageRefused(title, cause=cause, hint=_distrusted(answer.reason))
    if answer.status == 407 or answer.reason == PROXY_WANTS_LOGIN:
        return StorageRefused(title, cause=cause, hint=NAME_A_LOGIN)
    if answer.reason == _PROXY_REFUSES:  # with what status is not known: it may not reach the store for the moment
        return StorageUnavailable(title, cause=cause, hint=ASK_THE_PROXY)
    if answer.status in (401, 403) or (hint and answer.status < 500):
        return StorageRefused(title, cause=cause, hint=hint or _CREDENTIALS)
    if not answer.may_pass:
        return StorageRefused(title, cause=cause, hint=_TOO_LARGE if answer.status == 413 else _NOT_TAKEN)
    return StorageUnavailable(title, cause=cause, hint=hint)


def _distrusted(reason: str) -> str:
    """What to do about a certificate, by what the driver calls its fault."""
    if "NotValidForName" in reason:
        return ANOTHER_NAME
    return RENEW if "Expired" in reason or "NotValidYet" in reason else AUTHORITY
