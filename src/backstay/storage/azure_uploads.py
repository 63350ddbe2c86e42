"""Uploads to Azure that the service checks by an MD5 sum.

obstore signs a request with the account's key before it adds headers of ours, and Azure wants Content-MD5 to be signed.
What is authorised by its address or by a token may carry any header. So an account's key signs an address here that is
good for writing into one container, for hours. A client has the same headers for all of its requests: each upload needs
one of its own, and those who have to fetch a token would fetch one for each. They send no sum.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from backstay.core.clock import Clock
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from obstore.store import AzureSASToken

Provider: TypeAlias = "Callable[[], AzureSASToken]"

# Where obstore finds what it would use, in its order.
_TOKEN: Final = ("AZURE_STORAGE_TOKEN",)
_KEY: Final = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY")
_FETCHED: Final = ("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE")
_SIGNATURE: Final = ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")

_VERSION: Final = "2023-11-03"
_SINCE: Final = timedelta(minutes=-30)  # clocks differ, and by more than 15 minutes Azure does not let them
_UNTIL: Final = timedelta(hours=2)  # looked at when a request begins


@dataclass(frozen=True, slots=True)
class UploadCredentials:
    """`provider` gives what obstore shall use; without one, what it finds by itself serves."""

    provider: Provider | None = None


def upload_credentials(
    container: str, settings: Mapping[str, str], environ: Mapping[str, str], clock: Clock
) -> UploadCredentials | None:
    """What lets an upload carry a sum, None where that would take a request for a token each time.

    `settings` are those of the address and the connection string, in obstore's words.
    """

    def has(names: tuple[str, ...], setting: str = "") -> str | None:
        return settings.get(setting) or next(filter(None, map(environ.get, names)), None)

    if has(_TOKEN):
        return UploadCredentials()
    if key := has(_KEY, "account_key"):
        account = settings.get("account_name") or environ.get("AZURE_STORAGE_ACCOUNT_NAME") or ""
        return UploadCredentials(lambda: _signed(account, key, container, clock.now()))
    if has(_FETCHED):
        return None
    return UploadCredentials() if has(_SIGNATURE, "sas_key") else None


def _signed(account: str, key: str, container: str, now: datetime) -> AzureSASToken:
    """A service shared access signature for one container, to create and to write."""
    since, until = (f"{now + span:%Y-%m-%dT%H:%M:%SZ}" for span in (_SINCE, _UNTIL))
    place = f"/blob/{account}/{container}"
    identifier = address = protocol = snapshot = scope = ""
    answers = [""] * 5  # headers that they shall have
    signed = ["cw", since, until, place, identifier, address, protocol, _VERSION, "c", snapshot, scope, *answers]
    try:
        secret = base64.b64decode(key, validate=True)
    except binascii.Error:
        raise InvalidRequest(
            "the storage account's key is none", cause="it is not in base64", hint="copy it anew from Azure"
        ) from None
    digest = hmac.digest(secret, "\n".join(signed).encode(), hashlib.sha256)
    return {
        "sas_token": [
            ("sv", _VERSION),
            ("sr", "c"),
            ("sp", "cw"),
            ("st", since),
            ("se", until),
            ("sig", base64.b64encode(digest).decode()),
        ],
        "expires_at": None,  # the client that asked for it makes one request
    }
