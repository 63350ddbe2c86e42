"""What was asked of the store, from the wrapper that counts it."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from backstay.control.metrics.counters import count
from backstay.control.metrics.names import REQUEST_DURATION, REQUESTS
from backstay.storage.assembly import meters
from backstay.storage.backend import StorageBackend

COUNT: Final = f"{REQUEST_DURATION}_count"
SUM: Final = f"{REQUEST_DURATION}_sum"


def count_requests(session: Session, store: StorageBackend) -> None:
    """Count what was asked since this store was opened: to be called once, before it is closed.

    Directories of this machine and stores in memory are not measured: a call costs next to nothing there.
    """
    for address, metered in meters(store).items():
        backend = urlsplit(address).scheme or "unknown"
        for operation, figure in metered.snapshot().items():
            if not figure.calls:
                continue
            failed = sum(figure.errors.values())
            for status, number in (*figure.errors.items(), ("ok", figure.calls - failed)):
                if number:
                    count(session, REQUESTS, {"backend": backend, "op": operation, "status": status}, number)
            count(session, COUNT, {"backend": backend, "op": operation}, figure.calls)
            count(session, SUM, {"backend": backend, "op": operation}, figure.seconds)
