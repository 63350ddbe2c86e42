"""What Prometheus reads: the names that were promised, with values of the catalog."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backstay.catalog.database import Catalog
from backstay.catalog.models import Backup
from backstay.control.metrics import count, exposition
from backstay.control.metrics.expectations import Expectations, PolicyExpectation
from backstay.control.metrics.jobs import BUCKETS, bound_of
from backstay.control.metrics.names import METRICS
from backstay.control.metrics.requests import count_requests
from backstay.control.notifying.alerts import Alerts
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.settling import Settling
from backstay.core.version import VERSION
from backstay.errors import ObjectNotFound
from backstay.storage.metered import Metered
from backstay.testing import MemoryStorage
from backstay.testing.clock import FakeClock
from tests.control.notifying.rows import REPOSITORY, Mailbox, add_agent_process, backup, job, sample, schedule
from tests.promtool import promtool

# As the study of the service lists them; a user's dashboards depend on these names.
PROMISED = [
    "backup_jobs_total",
    "backup_job_duration_seconds",
    "backup_jobs_running",
    "backup_jobs_queued",
    "backup_last_success_timestamp_seconds",
    "backup_rpo_seconds",
    "backup_last_verify_timestamp_seconds",
    "backup_last_restore_test_timestamp_seconds",
    "backup_source_bytes_total",
    "backup_stored_bytes_total",
    "backup_repository_used_bytes",
    "backup_repository_free_bytes",
    "backup_repository_quota_bytes",
    "backup_dedup_ratio",
    "backup_snapshots",
    "backup_corrupted_objects_total",
    "backup_missing_objects_total",
    "backup_wal_lag_seconds",
    "backup_storage_requests_total",
    "backup_storage_request_duration_seconds",
    "backup_auth_denied_total",
    "backup_schedules_missed_total",
    "backup_agent_last_seen_timestamp_seconds",
    "backup_key_age_seconds",
    "backup_hold_count",
    "backup_build_info",
]
SHOP = Expectations(
    policies={"shop": PolicyExpectation(sources=("shop", "shop-db"), rpo=timedelta(hours=26))}, agents=("web-1",)
)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read(catalog: Catalog, clock: FakeClock, expected: Expectations | None = None) -> dict[tuple[str, Any], float]:
    """Each sample by its name and labels, as Prometheus' own parser reads it."""
    text = exposition(catalog, clock, expected=expected).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def settled(catalog: Catalog, clock: FakeClock, *rows: Any) -> None:
    with catalog.session() as session:
        session.add_all(rows)
    notifier = Notifier(catalog, clock, Mailbox())
    Settling(catalog, clock, notifier, Alerts(catalog, clock, notifier)).sweep()


def full(catalog: Catalog, clock: FakeClock) -> None:
    """A catalog in which every metric has a value."""
    now = clock.now()
    good = backup(now, verified_at=now, verified_ok=True, rehearsed_at=now, rehearsed_ok=True, held=True)
    facts = {"key_ages": {"3": 100.0}, "wal_lags": {"orders": 12.0}, "disk_bytes": 5000}
    settled(
        catalog,
        clock,
        good,
        backup(now, source="shop-db", rehearsed_at=now, rehearsed_ok=False),
        job(now, result={"backups": [good.id]}),
        job(now, status="failed", kind="verification", result={"damaged_objects": 2, "missing_objects": 1}),
        job(now, status="running"),
        schedule(now, "0 2 * * *"),
        sample(now - timedelta(hours=1), 1, facts=facts),
        sample(now, 4000, free_bytes=1000, quota_bytes=9000, facts=facts),
        sample(now, 70, tier="cold"),
    )
    with catalog.session() as session:
        add_agent_process(session, now)
        add_agent_process(session, now, name="of-no-policy")
        count(session, "backup_auth_denied_total", {"reason": "forbidden"})
        count(session, "backup_schedules_missed_total", {"policy": "shop"})
        store = Metered(MemoryStorage(), clock=clock)
        store.store("a", b"x")
        with pytest.raises(ObjectNotFound):
            store.retrieve("b")
        count_requests(session, store)


def test_all_promised_names_are_there_with_their_types(new_catalog: Catalog, clock: FakeClock) -> None:
    full(new_catalog, clock)
    text = exposition(new_catalog, clock, expected=SHOP).decode()
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert types == {metric.name: metric.type for metric in METRICS}
    families = list(text_string_to_metric_families(text))
    assert all(family.samples for family in families)
    shown = {metric.name for metric in METRICS} | {sample.name for family in families for sample in family.samples}
    assert set(PROMISED) <= shown
    assert len(METRICS) == len(PROMISED)


def test_the_checker_of_prometheus_is_content(new_catalog: Catalog, clock: FakeClock) -> None:
    assert promtool("check", "metrics", stdin=exposition(new_catalog, clock)) == ""
    full(new_catalog, clock)
    assert promtool("check", "metrics", stdin=exposition(new_catalog, clock, expected=SHOP)) == ""


def test_the_values_are_those_of_the_catalog(new_catalog: Catalog, clock: FakeClock) -> None:
    full(new_catalog, clock)
    now = clock.now().timestamp()
    clock.advance(50)
    found = read(new_catalog, clock, SHOP)
    shop = (("policy", "shop"), ("source", "shop"))
    place = (("repository", REPOSITORY), ("tier", "hot"))
    memory = (("backend", "memory"), ("op", "retrieve"))
    wanted: dict[tuple[str, Any], float] = {
        ("backup_jobs_total", (("kind", "backup"), ("source", "shop"), ("status", "succeeded"))): 1,
        ("backup_jobs_total", (("kind", "verification"), ("source", "shop"), ("status", "failed"))): 1,
        ("backup_job_duration_seconds_bucket", (("kind", "backup"), ("le", "5.0"))): 0,
        ("backup_job_duration_seconds_bucket", (("kind", "backup"), ("le", "15.0"))): 1,
        ("backup_job_duration_seconds_bucket", (("kind", "backup"), ("le", "+Inf"))): 1,
        ("backup_job_duration_seconds_sum", (("kind", "backup"),)): 7,
        ("backup_jobs_running", (("queue", "backup"),)): 1,
        ("backup_jobs_queued", (("queue", "restore"),)): 0,
        ("backup_jobs_queued", (("queue", "agents"),)): 0,
        ("backup_agent_last_seen_timestamp_seconds", (("agent", "web-1"),)): now,
        ("backup_last_success_timestamp_seconds", shop): now,
        ("backup_rpo_seconds", shop): 26 * 3600,
        ("backup_last_verify_timestamp_seconds", shop): now,
        ("backup_last_restore_test_timestamp_seconds", (shop[0], ("result", "success"), shop[1])): now,
        ("backup_source_bytes_total", (("source", "shop"),)): 1000,
        ("backup_stored_bytes_total", (("source", "shop"),)): 100,
        ("backup_repository_used_bytes", place): 4000,
        ("backup_repository_free_bytes", place): 1000,
        ("backup_repository_quota_bytes", place): 9000,
        ("backup_repository_used_bytes", (("repository", REPOSITORY), ("tier", "cold"))): 70,
        ("backup_dedup_ratio", (("repository", REPOSITORY),)): 10,
        ("backup_snapshots", (("repository", REPOSITORY),)): 2,
        ("backup_corrupted_objects_total", ()): 2,
        ("backup_missing_objects_total", ()): 1,
        ("backup_wal_lag_seconds", (("source", "orders"),)): 12,
        ("backup_storage_requests_total", (*memory, ("status", "ObjectNotFound"))): 1,
        ("backup_storage_request_duration_seconds_count", memory): 1,
        ("backup_auth_denied_total", (("reason", "forbidden"),)): 1,
        ("backup_key_age_seconds", (("key", "3"),)): 150,
        ("backup_hold_count", ()): 1,
        ("backup_hold_sum", ()): 1000,
        ("backup_build_info", (("version", VERSION),)): 1,
    }
    assert {key: found.get(key) for key in wanted} == wanted


def test_what_will_be_counted_begins_at_0(new_catalog: Catalog, clock: FakeClock) -> None:
    """Prometheus sees no increase in a series that begins with its first event."""
    found = read(new_catalog, clock, SHOP)
    for status in ("succeeded", "failed", "cancelled"):
        assert found["backup_jobs_total", (("kind", "backup"), ("source", "shop"), ("status", status))] == 0
    assert found["backup_auth_denied_total", (("reason", "unknown_token"),)] == 0
    assert found["backup_corrupted_objects_total", ()] == 0
    assert found["backup_stored_bytes_total", (("source", "shop-db"),)] == 0


def test_a_damaged_backup_is_no_success(new_catalog: Catalog, clock: FakeClock) -> None:
    before = clock.now()
    with new_catalog.session() as session:
        session.add_all([backup(before), backup(before + timedelta(hours=1), damaged=True)])
    found = read(new_catalog, clock)
    last = "backup_last_success_timestamp_seconds", (("policy", "shop"), ("source", "shop"))
    assert found[last] == before.timestamp()


def test_labels_of_any_text_are_read_back(new_catalog: Catalog, clock: FakeClock) -> None:
    odd = 'a"b\\c\nd{e="f"} ü'
    with new_catalog.session() as session:
        session.add(backup(clock.now(), source=odd, policy=None))
    found = read(new_catalog, clock)
    assert ("backup_last_success_timestamp_seconds", (("policy", ""), ("source", odd))) in found
    promtool("check", "metrics", stdin=exposition(new_catalog, clock))


def test_no_label_holds_the_id_of_a_job_or_of_a_backup(new_catalog: Catalog, clock: FakeClock) -> None:
    full(new_catalog, clock)
    text = exposition(new_catalog, clock, expected=SHOP).decode()
    with new_catalog.reading() as session:
        assert not any(row.id in text for row in session.query(Backup))


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0, "1.0"), (1, "1.0"), (1.01, "5.0"), (86400, "86400.0"), (86401, "+Inf")]
)
def test_a_duration_belongs_to_the_first_bucket_that_holds_it(seconds: float, bound: str) -> None:
    assert bound_of(seconds) == bound
    assert list(BUCKETS) == sorted(BUCKETS)
