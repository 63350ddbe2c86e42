"""Servers that stumble over requests at the same time are reached as the program reaches them."""

from __future__ import annotations

from backstay.core.clock import SystemClock
from backstay.storage.backend import StorageBackend
from backstay.storage.retrying import Retrying, RetryPolicy

_PATIENT = RetryPolicy(first_s=0.05, longest_s=1.0, deadline_s=15.0)


def reached(backend: StorageBackend) -> StorageBackend:
    """With retries, which rclone and WsgiDAV need when several threads work."""
    return Retrying(backend, policy=_PATIENT, clock=SystemClock())
