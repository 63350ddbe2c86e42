"""What S3 can do besides storing, through boto3, which is loaded only here: obstore has no calls for it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

from backstay.errors import InvalidRequest, ObjectNotFound, StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage.cloud_address import CloudAddress
from backstay.storage.cloud_credentials import AwsProfile
from backstay.storage.cloud_errors import AUTHORITY, BETWEEN, Answer, failure_of
from backstay.storage.tls import ANOTHER_NAME, advice, is_broken
from backstay.storage.unreached import innermost, proxy_refusal, words

AT_ONCE: Final = 16  # requests at a time; each is about one object
_NO_BUCKET: Final = "NoSuchBucket"
_REDIRECTIONS: Final = range(300, 400)
_ODD: Final = (
    ValueError,
    TypeError,
    OverflowError,
    RuntimeError,
)  # what boto3 lets out over times and XML that are none
_GONE: Final = ("404", "NoSuchKey", "NotFound")


class S3Control:
    """One bucket, below one prefix. Any thread may call it. `allow` is the hint when a key has no right."""

    def __init__(self, address: CloudAddress, environ: Mapping[str, str], *, what_for: str, allow: str) -> None:
        self._allow = allow
        self._bucket = address.bucket
        self._root = f"{address.prefix}/" if address.prefix else ""
        self._client = _client(address, environ, what_for)

    def call(
        self,
        title: str,
        operation: str,
        name: str,
        *,
        fine: tuple[str, ...] = (),
        gone: tuple[str, ...] = (),
        **request: object,
    ) -> dict[str, Any] | str:
        """What S3 answers to one of boto3's operations on one object; the code of a refusal that is among `fine`.

        Raises ObjectNotFound, also for the codes in `gone`; StorageMissing, StorageUnavailable.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._client, operation)(
                Bucket=self._bucket, Key=self._root + name, **request
            )
        except ClientError as error:
            code = str(error.response["Error"].get("Code") or "")
            if code in fine:
                return code
            if code == _NO_BUCKET:
                raise self._no_bucket(code) from error
            if code in _GONE or code in gone:
                self._prove_bucket()  # the answer to a HEAD does not say what is missing
                raise ObjectNotFound(name) from None
            told = "" if code.isdigit() else code  # in place of what an answer to HEAD has no body for
            refusal = Answer(error.response["ResponseMetadata"]["HTTPStatusCode"], told, "")
            raise failure_of(refusal, title, allow=self._allow) from error
        except BotoCoreError as error:
            raise _unreached(error, title) from error
        except _ODD as error:
            raise StorageUnavailable(title, cause="its answer cannot be understood", hint=BETWEEN) from error
        if operation.startswith("put_") and _is_page(answer):  # boto3 minds only bodies that it reads
            raise StorageUnavailable(title, cause="a web page came instead of an answer", hint=BETWEEN)
        return answer

    def _prove_bucket(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.head_bucket(Bucket=self._bucket)
        except BotoCoreError as error:
            raise _unreached(error, f"cannot tell whether {self._bucket} is there") from error
        except ClientError as error:
            answer = Answer(error.response["ResponseMetadata"]["HTTPStatusCode"], "", "")
            if answer.may_pass:
                raise failure_of(answer, f"cannot tell whether {self._bucket} is there") from error
            raise self._no_bucket(str(error)) from error

    def _no_bucket(self, cause: str) -> StorageMissing:
        hint = "check the bucket's name, the endpoint and the credentials"
        return StorageMissing(f"the bucket {self._bucket} cannot be seen", cause=cause, hint=hint)


def _unreached(error: BaseException, title: str) -> StorageUnavailable:
    from botocore.exceptions import SSLError

    inner = innermost(error)
    if isinstance(error, SSLError) and not is_broken(inner):  # it will not be another one by being asked again
        hint = advice(inner, authority=AUTHORITY) if isinstance(inner, ssl.SSLError) else ANOTHER_NAME  # urllib3's own
        return StorageRefused(title, cause=words(inner), hint=hint)
    # Other texts than those of the operating system may repeat the password of a proxy.
    cause = words(inner) if isinstance(inner, OSError) else type(error).__name__
    return proxy_refusal(inner, title) or StorageUnavailable(title, cause=cause)


def _is_page(answer: Mapping[str, Any]) -> bool:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return str(headers.get("content-type", "")).startswith("text/html")


def _client(address: CloudAddress, environ: Mapping[str, str], what_for: str) -> Any:  # noqa: ANN401 - boto3 makes its types at run time
    """A client with the credentials and settings that the other driver uses too. Raises InvalidRequest."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise InvalidRequest(
            f"{what_for} need boto3", cause=str(error), hint="pip install 'backstay[s3-admin]'"
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
    client = session.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        verify=address.get("ca"),
        config=Config(
            s3={"addressing_style": style},
            proxies={"http": proxy, "https": proxy} if proxy else None,
            max_pool_connections=AT_ONCE,
            retries={"mode": "standard", "total_max_attempts": 1},  # one wrapper does it for all
        ),
    )
    client.meta.events.register_first("needs-retry.s3", _refuse_redirection)
    return client


def _refuse_redirection(*, response: tuple[Any, dict[str, Any]] | None, operation: Any, **_: object) -> None:  # noqa: ANN401 - boto3's own types
    """Ends a request that is answered with another address.

    boto3 would ask that answer for a region with a request of its own, which is answered likewise, and so without end.
    """
    from botocore.exceptions import ClientError

    if response is not None and response[0] is not None and response[0].status_code in _REDIRECTIONS:
        raise ClientError(response[1], operation.name)
