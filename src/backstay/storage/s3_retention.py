"""Object Lock of S3: retention that can be extended, and legal holds.

Everything is about the current version of an object. A delete does not remove it: in a bucket with Object Lock it puts
a marker before it, and the locked version stays behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from backstay.errors import InvalidRequest, StorageRefused, StorageUnavailable
from backstay.storage.cloud_address import CloudAddress
from backstay.storage.cloud_clients import retention_of
from backstay.storage.retention import LockState, Retention, told_moment
from backstay.storage.s3_control import S3Control

# Two names for an object without a lock, and one for an object without a hold; stores differ.
_NONE: Final = ("NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "NoSuchObjectLegalHold")
_RIGHTS: Final = "allow this key to see and set the retention and the legal hold of objects"
_MARKER: Final = ("MethodNotAllowed",)  # what is current is a marker: the object was deleted
_NO_LOCKS: Final = ("InvalidRequest",)  # what a bucket answers that was made without Object Lock


class S3Retention(Retention):
    """One bucket, below one prefix."""

    def __init__(self, address: CloudAddress, environ: Mapping[str, str]) -> None:
        self._bucket = address.bucket
        self._days, self._mode = retention_of(address)
        self._control = S3Control(address, environ, what_for="locks of S3", allow=_RIGHTS)

    @property
    def days(self) -> int:
        return self._days

    def extend(self, name: str, until: datetime) -> None:
        try:
            self._lock(name, self._mode, until)
        except StorageRefused:  # also the answer to who would shorten a lock, or change its mode
            found, mode = self._lock_of(name)
            if found is not None and found >= until:  # another program may have been here
                return
            if mode in (None, self._mode):
                raise
            self._lock(name, mode, until)

    def _lock(self, name: str, mode: str, until: datetime) -> None:
        wanted = {"Mode": mode, "RetainUntilDate": until}
        self._put(f"cannot extend the lock of {name}", "put_object_retention", name, Retention=wanted)

    def hold(self, name: str, *, on: bool) -> None:
        what = f"cannot put a legal hold on {name}" if on else f"cannot take the legal hold off {name}"
        self._put(what, "put_object_legal_hold", name, LegalHold={"Status": "ON" if on else "OFF"})

    def state(self, name: str) -> LockState:
        # Not from the headers of the object: they leave out what the caller has no right to see.
        hold = self._get(f"cannot see the legal hold of {name}", "get_object_legal_hold", name)
        return LockState(until=self._lock_of(name)[0], held=hold.get("LegalHold", {}).get("Status") == "ON")

    def _lock_of(self, name: str) -> tuple[datetime | None, str | None]:
        """When the lock of an object ends, and its mode."""
        title = f"cannot see the lock of {name}"
        found = self._get(title, "get_object_retention", name).get("Retention", {})
        until = found.get("RetainUntilDate")
        try:
            return told_moment(until) if isinstance(until, datetime) else None, found.get("Mode")
        except ValueError as error:
            raise StorageUnavailable(title, cause="its answer has no time in it") from error

    def _get(self, title: str, operation: str, name: str) -> dict[str, Any]:
        """What the store tells; nothing where it says that there is nothing."""
        answer = self._call(title, operation, name)
        if isinstance(answer, dict):
            return answer
        if answer in _NO_LOCKS:
            raise self._no_locks(title)
        return {}

    def _put(self, title: str, operation: str, name: str, **request: object) -> None:
        """What says of an object that it has no lock says of a change that there cannot be one."""
        if not isinstance(self._call(title, operation, name, **request), dict):
            raise self._no_locks(title)

    def _call(self, title: str, operation: str, name: str, **request: object) -> dict[str, Any] | str:
        return self._control.call(title, operation, name, fine=(*_NONE, *_NO_LOCKS), gone=_MARKER, **request)

    def _no_locks(self, title: str) -> InvalidRequest:
        return InvalidRequest(
            title,
            cause=f"the bucket {self._bucket} was made without Object Lock",
            hint="make one with Object Lock, or leave retain-days out of the address",
        )
