"""Measure an open repository: how large it is, how much room is left, how old its key and its stored logs are."""

from __future__ import annotations

from datetime import datetime

from backstay.catalog.models import RepositorySample
from backstay.catalog.models.base import Document
from backstay.core.clock import ns_from_datetime
from backstay.repository.repository import Repository


def measure(repository: Repository, now: datetime, *, quota_bytes: int | None = None) -> list[RepositorySample]:
    """A sample of each tier. It lists all objects: a request for each thousand on a cloud, so not every minute.

    `quota_bytes` is how large the repository may become. Raises StorageUnavailable and its kin.
    """
    tiered = repository.tiered
    cold = {} if tiered is None else tiered.only_cold()
    used = sum(info.size for info in repository.backend.list() if info.name not in cold)
    room = repository.backend.room()
    facts: Document = {"key_ages": _key_ages(repository, now), "wal_lags": _wal_lags(repository, now)}
    if room is not None:
        facts["disk_bytes"] = room.total
    name = repository.keyring.repository.hex()
    samples = [
        RepositorySample(
            time=now,
            repository=name,
            tier="hot",
            used_bytes=used,
            free_bytes=None if room is None else room.free,
            quota_bytes=quota_bytes,
            facts=facts,
        )
    ]
    if tiered is not None:
        total = sum(info.size for info in cold.values())
        samples.append(RepositorySample(time=now, repository=name, tier="cold", used_bytes=total, facts={}))
    return samples


def _key_ages(repository: Repository, now: datetime) -> dict[str, float]:
    """The age of the key that new data gets, in seconds, by its number."""
    current = repository.keyring.current
    return {str(current.number): _age(current.created_ns, now)}


def _wal_lags(repository: Repository, now: datetime) -> dict[str, float]:
    """How long ago the newest log of each cluster was stored, in seconds, by its name."""
    newest = {name: repository.wal.newest_ns(system) for name, system in repository.wal.names().items()}
    return {name: _age(stored_ns, now) for name, stored_ns in newest.items() if stored_ns}


def _age(then_ns: int, now: datetime) -> float:
    return max(0.0, (ns_from_datetime(now) - then_ns) / 1e9)
