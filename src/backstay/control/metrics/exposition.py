"""All metrics in the text format of Prometheus, read from the catalog at each scrape: every process says the same."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import AgentProcess, Job, User
from backstay.catalog.models.jobs import AGENTS
from backstay.control.access.denied import REASONS
from backstay.control.metrics import names
from backstay.control.metrics.counters import counted
from backstay.control.metrics.expectations import Expectations
from backstay.control.metrics.freshness import freshness
from backstay.control.metrics.jobs import BUCKET, BUCKETS, SUM
from backstay.control.metrics.repositories import newest_samples
from backstay.control.metrics.requests import COUNT as REQUEST_COUNT
from backstay.control.metrics.requests import SUM as REQUEST_SUM
from backstay.control.metrics.sources import SourceFacts, facts_of_sources, newest
from backstay.core.clock import Clock, ns_from_datetime
from backstay.core.version import VERSION

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
Labels: TypeAlias = tuple[str, ...]
Values: TypeAlias = dict[Labels, float]

_ENDS: Final = ("succeeded", "failed", "cancelled")
_OF_POLICIES: Final = ("backup", "verification", "rehearsal")
_OF_NONE: Final = ("restore", "prune", "gc", "copy", "delete", "recovery")
QUEUES: Final = ("backup", "restore", "maintenance", "verify", "notify", AGENTS)


def exposition(catalog: Catalog, clock: Clock, *, expected: Expectations | None = None) -> bytes:
    """The metrics as they are now. Raises CatalogUnavailable."""
    registry = CollectorRegistry(auto_describe=False)
    with catalog.reading() as session:
        registry.register(_Collected(list(_families(session, clock.now(), expected or Expectations()))))
    return generate_latest(registry)


class _Collected(Collector):
    """Metrics that were read already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(session: Session, now: datetime, expected: Expectations) -> Iterator[Metric]:
    counters = _counters(session)
    gauges = _gauges(session, now, expected)
    known = sorted(set(expected.policies) | {labels[2] for labels in counters[names.JOBS]} - {""})
    _begin_at_zero(counters, known, [source for _, source in gauges["backup_rpo_seconds"]])
    for metric in names.METRICS:
        if metric.type == "histogram":
            yield _histogram(metric, counters)
        elif metric.type == "summary":
            yield _summary(metric, gauges if metric.name == names.HOLD else counters)
        else:
            yield _simple(metric, counters if metric.type == "counter" else gauges)


def _counters(session: Session) -> defaultdict[str, Values]:
    """What was counted, by name and labels in the order in which the metric has them."""
    found: defaultdict[str, Values] = defaultdict(dict)
    orders = {metric.name: metric.labels for metric in names.METRICS}
    orders |= {BUCKET: ("kind", "le"), SUM: ("kind",)}
    orders |= dict.fromkeys((REQUEST_COUNT, REQUEST_SUM), ("backend", "op"))
    for row in counted(session):
        labels = json.loads(row.labels)
        order = orders.get(row.name)
        if order is not None:  # else of another version
            found[row.name][tuple(labels.get(name, "") for name in order)] = row.value
    return found


def _begin_at_zero(counters: defaultdict[str, Values], policies: list[str], sources: list[str]) -> None:
    """Give what will be counted its 0: Prometheus sees no increase in a series that begins with a 1."""
    jobs = counters[names.JOBS]
    for end in _ENDS:
        for kind in _OF_NONE:
            jobs.setdefault((kind, end, ""), 0)
        for policy in policies:
            for kind in _OF_POLICIES:
                jobs.setdefault((kind, end, policy), 0)
    for policy in policies:
        counters[names.MISSED].setdefault((policy,), 0)
    for source in sources:
        counters[names.SOURCE_BYTES].setdefault((source,), 0)
        counters[names.STORED_BYTES].setdefault((source,), 0)
    for name in (names.CORRUPTED, names.MISSING):
        counters[name].setdefault((), 0)
    for reason in REASONS:  # so that the first of a kind is an increase
        counters[names.DENIED].setdefault((reason,), 0)


def _gauges(session: Session, now: datetime, expected: Expectations) -> defaultdict[str, Values]:
    found: defaultdict[str, Values] = defaultdict(dict)
    found["backup_build_info"][VERSION,] = 1
    _of_jobs(session, found)
    _of_agents(session, expected, found)
    _of_sources(session, now, expected, found)
    _of_repositories(session, now, found)
    return found


def _of_jobs(session: Session, found: defaultdict[str, Values]) -> None:
    for queue in QUEUES:
        found["backup_jobs_running"][queue,] = found["backup_jobs_queued"][queue,] = 0
    rows = session.execute(
        select(Job.status, Job.queue, func.count())
        .where(Job.status.in_(("running", "queued")))
        .group_by(Job.status, Job.queue)
    )
    for status, queue, number in rows:
        found[f"backup_jobs_{status}"][queue,] = number


def _of_agents(session: Session, expected: Expectations, found: defaultdict[str, Values]) -> None:
    seen = select(User.name, func.max(AgentProcess.seen_at)).join(User, User.id == AgentProcess.user_id)
    for name, at in session.execute(seen.where(User.name.in_(expected.agents)).group_by(User.name)):
        found["backup_agent_last_seen_timestamp_seconds"][name,] = _unix(at)


def _of_sources(session: Session, now: datetime, expected: Expectations, found: defaultdict[str, Values]) -> None:
    facts = facts_of_sources(session)
    for one in freshness(session, facts, expected, now):
        labels = (one.policy or "", one.source)
        if one.newest is not None:
            found["backup_last_success_timestamp_seconds"][labels] = _unix(one.newest)
        if one.rpo is not None:
            found["backup_rpo_seconds"][labels] = one.rpo.total_seconds()
    for (policy, source), at in newest(facts, "verified_at").items():
        found["backup_last_verify_timestamp_seconds"][policy or "", source] = _unix(at)
    for result, what in (("success", "rehearsed_at"), ("failure", "failed_rehearsal_at")):
        for (policy, source), at in newest(facts, what).items():
            found["backup_last_restore_test_timestamp_seconds"][policy or "", source, result] = _unix(at)
    _of_backups(facts, found)


def _of_backups(facts: Sequence[SourceFacts], found: defaultdict[str, Values]) -> None:
    for repository in {one.repository for one in facts}:
        ours = [one for one in facts if one.repository == repository]
        found["backup_snapshots"][repository,] = sum(one.backups for one in ours)
        if stored := sum(one.stored_bytes for one in ours):
            found["backup_dedup_ratio"][repository,] = sum(one.bytes for one in ours) / stored
    found[f"{names.HOLD}_count"][()] = sum(one.held for one in facts)
    found[f"{names.HOLD}_sum"][()] = float(sum(one.held_bytes for one in facts))


def _of_repositories(session: Session, now: datetime, found: defaultdict[str, Values]) -> None:
    for sample in newest_samples(session):
        labels = (sample.repository, sample.tier)
        for word in ("used", "free", "quota"):
            if (value := getattr(sample, f"{word}_bytes")) is not None:
                found[f"backup_repository_{word}_bytes"][labels] = value
        age = (now - sample.time).total_seconds()
        for key, seconds in sample.facts.get("key_ages", {}).items():
            found["backup_key_age_seconds"][key,] = seconds + age
        for source, seconds in sample.facts.get("wal_lags", {}).items():
            found["backup_wal_lag_seconds"][source,] = seconds  # as measured: logs come while nobody looks


def _simple(metric: names.Metric, found: Mapping[str, Values]) -> Metric:
    make = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in sorted(found.get(metric.name, {}).items()):
        family.add_metric(labels, value)
    return family


def _histogram(metric: names.Metric, counters: Mapping[str, Values]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    sums, parts = counters.get(SUM, {}), counters.get(BUCKET, {})
    kinds = {*_OF_POLICIES, *_OF_NONE, *(kind for (kind,) in sums)}
    for kind in sorted(kinds):
        buckets, total = [], 0.0
        for bound in (*map(str, BUCKETS), "+Inf"):
            total += parts.get((kind, bound), 0)
            buckets.append((bound, total))
        family.add_metric([kind], buckets, sums.get((kind,), 0.0))
    return family


def _summary(metric: names.Metric, found: Mapping[str, Values]) -> Metric:
    family = SummaryMetricFamily(metric.name, metric.help, labels=metric.labels)
    sums = found.get(f"{metric.name}_sum", {})
    for labels, number in sorted(found.get(f"{metric.name}_count", {}).items()):
        family.add_metric(labels, int(number), sums.get(labels, 0.0))
    return family


def _unix(moment: datetime) -> float:
    return ns_from_datetime(moment) / 1e9
