"""S3's archive classes, GLACIER and DEEP_ARCHIVE: their objects are restored in place, for some days, by a job."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from backstay.errors import InvalidRequest
from backstay.storage.archive import Archive, ThawState
from backstay.storage.cloud_address import CloudAddress
from backstay.storage.s3_control import AT_ONCE, S3Control

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


class S3Archive(Archive):
    """One bucket, below one prefix."""

    def __init__(self, address: CloudAddress, environ: Mapping[str, str]) -> None:
        self._retrieval = (address.get("retrieval") or "standard").capitalize()
        self._class = (address.get("storage-class") or "").upper()
        if (self._class, self._retrieval) not in _USUAL_S:
            known = sorted(kind.lower() for class_, kind in _USUAL_S if class_ == self._class)
            raise InvalidRequest(f"{self._class} has no such retrieval", hint=f"retrieval is {' or '.join(known)}")
        self._control = S3Control(
            address,
            environ,
            what_for="archive classes of S3",
            allow="allow this key to restore objects, and to see them",
        )

    @property
    def usual_s(self) -> float:
        return _USUAL_S[self._class, self._retrieval]

    def thaw(self, names: Iterable[str], days: int) -> None:
        with ThreadPoolExecutor(AT_ONCE, "thaw") as pool:
            for _ in pool.map(lambda name: self._thaw(name, days), names):
                pass

    def _thaw(self, name: str, days: int) -> None:
        request = {"Days": days, "GlacierJobParameters": {"Tier": self._retrieval}}
        self._control.call(
            f"cannot thaw {name}", "restore_object", name, fine=(_UNDER_WAY, _NOT_FROZEN), RestoreRequest=request
        )

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

    def _head(self, name: str, **more: object) -> dict[str, Any]:
        found = self._control.call(f"cannot examine {name}", "head_object", name, fine=(), gone=(), **more)
        assert isinstance(found, dict)
        return found
