"""S3's archive classes, GLACIER and DEEP_ARCHIVE: their objects are restored in place, for some days, by a job.

obstore has no call for that; boto3 does it, and is loaded only here.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from backstay.errors import InvalidRequest, ObjectNotFound, StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage.archive import Archive, ThawState
from backstay.storage.cloud_address import CloudAddress
from backstay.storage.cloud_credentials import AwsProfile

_AT_ONCE: Final = 16  # requests for restores at a time; each is for one object
_HOUR: Final = 3600.0
# By storage class, the slowest that the provider names for each kind of retrieval.
_USUAL_S: Final = {
    ("GLACIER", "Expedited"): 300.0,
    ("GLACIER", "Standard"): 5 * _HOUR,
    ("GLACIER", "Bulk"): 12 * _HOUR,
    ("DEEP_ARCHIVE", "Standard"): 12 * _HOUR,
    ("DEEP_ARCHIVE", "Bulk"): 48 * _HOUR,
}
_ONGOING: Final = re.compile(r'ongoing-request="(true|false)"')
_UNDER_WAY: Final = "RestoreAlreadyInProgress"
_NOT_FROZEN: Final = "InvalidObjectState"  # it is in no archive class: there is nothing to restore
_REFUSED: Final = (401, 403)
_NO_BUCKET: Final = "NoSuchBucket"
_GONE: Final = ("404", "NoSuchKey", "NotFound")


class S3Archive(Archive):
    """One bucket, below one prefix."""

    def __init__(self, address: CloudAddress, environ: Mapping[str, str]) -> None:
        self._bucket = address.bucket
        self._root = f"{address.prefix}/" if address.prefix else ""
        self._retrieval = (address.get("retrieval") or "standard").capitalize()
        self._class = (address.get("storage-class") or "").upper()
        if (self._class, self._retrieval) not in _USUAL_S:
            known = sorted(kind.lower() for class_, kind in _USUAL_S if class_ == self._class)
            raise InvalidRequest(f"{self._class} has no such retrieval", hint=f"retrieval is {' or '.join(known)}")
        self._client = _client(address, environ)

    @property
    def usual_s(self) -> float:
        return _USUAL_S[self._class, self._retrieval]

    def thaw(self, names: Iterable[str], days: int) -> None:
        with ThreadPoolExecutor(_AT_ONCE, "thaw") as pool:
            for _ in pool.map(lambda name: self._thaw(name, days), names):
                pass

    def _thaw(self, name: str, days: int) -> None:
        request = {"Days": days, "GlacierJobParameters": {"Tier": self._retrieval}}
        with self._told(f"cannot thaw {name}", name, fine=(_UNDER_WAY, _NOT_FROZEN)):
            self._client.restore_object(Bucket=self._bucket, Key=self._root + name, RestoreRequest=request)

    def thaw_state(self, name: str) -> ThawState:
        answer = self._head(name)
        if answer.get("StorageClass", "STANDARD") not in {"GLACIER", "DEEP_ARCHIVE"}:
            return "hot"
        ongoing = _ONGOING.search(answer.get("Restore", ""))
        if ongoing is None:
            return "cold"
        return "thawing" if ongoing[1] == "true" else "ready"

    def holds(self, name: str, data: bytes) -> bool:
        answer = self._head(name, ChecksumMode="ENABLED")
        if answer["ContentLength"] != len(data):
            return False
        if (checksum := answer.get("ChecksumSHA256")) is not None:
            return bool(checksum == b64encode(hashlib.sha256(data).digest()).decode())
        # Without encryption by another key the entity tag of a whole upload is its MD5 sum.
        return bool(answer["ETag"].strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest())

    def _head(self, name: str, **more: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        with self._told(f"cannot examine {name}", name):
            found.append(self._client.head_object(Bucket=self._bucket, Key=self._root + name, **more))
        return found[0]

    @contextmanager
    def _told(self, title: str, name: str, *, fine: tuple[str, ...] = ()) -> Iterator[None]:
        """Turn what boto3 raises into errors of ours, but for answers that are fine."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in fine:
                return
            if code == _NO_BUCKET:
                raise self._no_bucket(code) from error
            if code in _GONE:
                self._prove_bucket()  # the answer to a HEAD does not say what is missing
                raise ObjectNotFound(name) from None
            refused = error.response["ResponseMetadata"]["HTTPStatusCode"] in _REFUSED
            raise (StorageRefused if refused else StorageUnavailable)(title, cause=f"it answered {code}") from error
        except BotoCoreError as error:
            raise StorageUnavailable(title, cause=type(error).__name__) from error

    def _prove_bucket(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (ClientError, BotoCoreError) as error:
            raise self._no_bucket(str(error)) from error

    def _no_bucket(self, cause: str) -> StorageMissing:
        hint = "check the bucket's name, the endpoint and the credentials"
        return StorageMissing(f"the bucket {self._bucket} cannot be seen", cause=cause, hint=hint)


def _client(address: CloudAddress, environ: Mapping[str, str]) -> Any:  # noqa: ANN401 - boto3 makes its types at run time
    """A client with the credentials and settings that the other driver uses too. Raises InvalidRequest."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise InvalidRequest(
            "archive classes of S3 need boto3", cause=str(error), hint="pip install 'backstay[s3-admin]'"
        ) from error
    profile = AwsProfile(environ)
    endpoint = (
        address.get("endpoint")
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or profile.get("endpoint_url")
    )
    region = (
        address.get("region")
        or environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
        or profile.get("region")
        or "us-east-1"
    )
    style = "virtual" if address.get("path-style") == "false" or endpoint is None else "path"
    proxy = address.get("proxy")
    session = boto3.Session(
        aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environ.get("AWS_SESSION_TOKEN"),
        profile_name=environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE"),
    )
    return session.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        verify=address.get("ca"),
        config=Config(
            s3={"addressing_style": style},
            proxies={"http": proxy, "https": proxy} if proxy else None,
            max_pool_connections=_AT_ONCE,
            retries={"mode": "standard", "total_max_attempts": 5},
        ),
    )
