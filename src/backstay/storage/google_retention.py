"""Object Retention Lock of Google Cloud Storage: retention that can be extended, and holds.

In a bucket with Object Versioning a delete makes a locked object noncurrent; without, it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from backstay.core.clock import Clock
from backstay.errors import InvalidRequest, StorageRefused, StorageUnavailable
from backstay.storage.cloud_address import CloudAddress
from backstay.storage.cloud_clients import retention_of
from backstay.storage.google_api import GoogleApi
from backstay.storage.retention import LockState, Retention

_MODES: Final = {"COMPLIANCE": "Locked", "GOVERNANCE": "Unlocked"}  # what S3 and Google's XML interface call them


class GoogleRetention(Retention):
    """One bucket, below one prefix."""

    def __init__(self, address: CloudAddress, environ: Mapping[str, str], clock: Clock) -> None:
        self._days, mode = retention_of(address)
        self._mode = _MODES[mode]
        self._api = GoogleApi(address, environ, clock)

    @property
    def days(self) -> int:
        return self._days

    def extend(self, name: str, until: datetime) -> None:
        wanted = {"mode": self._mode, "retainUntilTime": until.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        try:
            self._api.patch(f"cannot extend the lock of {name}", name, {"retention": wanted})
        except (InvalidRequest, StorageRefused):  # also the answer to who would shorten a lock
            if (found := self.state(name).until) is None or found < until:
                raise

    def hold(self, name: str, *, on: bool) -> None:
        what = f"cannot put a hold on {name}" if on else f"cannot take the hold off {name}"
        self._api.patch(what, name, {"temporaryHold": on})

    def state(self, name: str) -> LockState:
        title = f"cannot see the lock of {name}"
        found = self._api.get(title, name, "retention,temporaryHold,eventBasedHold")
        retention = found.get("retention")
        text = retention.get("retainUntilTime") if isinstance(retention, dict) else None
        try:
            until = None if text is None else datetime.fromisoformat(str(text)).astimezone(UTC)
        except ValueError as error:
            raise StorageUnavailable(title, cause="its answer has no time in it") from error
        return LockState(until=until, held=bool(found.get("temporaryHold") or found.get("eventBasedHold")))
