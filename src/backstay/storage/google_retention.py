"""Object Retention Lock of Google Cloud Storage: retention that can be extended, and holds.

In a bucket with Object Versioning a delete makes a locked object noncurrent; without, it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from backstay.core.clock import Clock
from backstay.errors import InvalidRequest, StorageRefused, StorageUnavailable
from backstay.storage.cloud_address import CloudAddress
from backstay.storage.cloud_clients import retention_of
from backstay.storage.google_api import GoogleApi
from backstay.storage.retention import LockState, Retention, told_moment

_TRIED: Final = timedelta(minutes=1)  # then an old version of what was tried out can be removed for good
_MODES: Final = {"COMPLIANCE": "Locked", "GOVERNANCE": "Unlocked"}  # what S3 and Google's XML interface call them


class GoogleRetention(Retention):
    """One bucket, below one prefix."""

    def __init__(self, address: CloudAddress, environ: Mapping[str, str], clock: Clock) -> None:
        self._days, mode = retention_of(address)
        self._mode = _MODES[mode]
        self._api, self._clock = GoogleApi(address, environ, clock), clock

    @property
    def days(self) -> int:
        return self._days

    def extend(self, name: str, until: datetime) -> None:
        try:
            self._lock(name, self._mode, until)
        except (InvalidRequest, StorageRefused):  # also the answer to who would shorten a lock, or change its mode
            found = self._look(name)
            ends, mode = self._end(name, found), _lock_in(found).get("mode")
            if ends is not None and ends >= until:  # another program may have been here
                return
            if mode in (None, self._mode):
                raise
            self._lock(name, str(mode), until)

    def _lock(self, name: str, mode: str, until: datetime) -> None:
        wanted = {"mode": mode, "retainUntilTime": until.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        self._api.patch(f"cannot extend the lock of {name}", name, {"retention": wanted})

    def hold(self, name: str, *, on: bool) -> None:
        what = f"cannot put a hold on {name}" if on else f"cannot take the hold off {name}"
        self._api.patch(what, name, {"temporaryHold": on})

    def state(self, name: str) -> LockState:
        found = self._look(name)
        held = bool(found.get("temporaryHold") or found.get("eventBasedHold"))
        return LockState(until=self._end(name, found), held=held)

    def try_out(self, name: str) -> None:
        """Any bucket takes a hold, also one that cannot lock."""
        self.extend(name, self._clock.now() + _TRIED)

    def _look(self, name: str) -> dict[str, Any]:
        return self._api.get(_title(name), name, "retention,temporaryHold,eventBasedHold")

    def _end(self, name: str, found: dict[str, Any]) -> datetime | None:
        text = _lock_in(found).get("retainUntilTime")
        try:
            return None if text is None else told_moment(datetime.fromisoformat(str(text)))
        except ValueError as error:
            raise StorageUnavailable(_title(name), cause="its answer has no time in it") from error


def _title(name: str) -> str:
    return f"cannot see the lock of {name}"


def _lock_in(found: dict[str, Any]) -> dict[str, Any]:
    lock = found.get("retention")
    return lock if isinstance(lock, dict) else {}
