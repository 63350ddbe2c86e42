"""The metrics that there are: name, type, meaning and labels. The dashboard and the rules use no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

MetricType: TypeAlias = Literal["counter", "gauge", "histogram", "summary"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Sizes are in bytes, times in seconds; a label never holds a path or the id of a backup."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()


JOBS: Final = "backup_jobs_total"
DURATION: Final = "backup_job_duration_seconds"
SOURCE_BYTES: Final = "backup_source_bytes_total"
STORED_BYTES: Final = "backup_stored_bytes_total"
CORRUPTED: Final = "backup_corrupted_objects_total"
MISSING: Final = "backup_missing_objects_total"
REQUESTS: Final = "backup_storage_requests_total"
REQUEST_DURATION: Final = "backup_storage_request_duration_seconds"
HOLD: Final = "backup_hold"
DENIED: Final = "backup_auth_denied_total"
MISSED: Final = "backup_schedules_missed_total"

METRICS: Final = (
    Metric(JOBS, "counter", "Jobs that ended; source is the policy that they ran.", ("kind", "status", "source")),
    Metric(DURATION, "histogram", "How long jobs ran, from their start to their end.", ("kind",)),
    Metric("backup_jobs_running", "gauge", "Jobs that run now.", ("queue",)),
    Metric("backup_jobs_queued", "gauge", "Jobs that wait.", ("queue",)),
    Metric(
        "backup_last_success_timestamp_seconds",
        "gauge",
        "When the newest good backup of a source was made.",
        ("policy", "source"),
    ),
    Metric(
        "backup_rpo_seconds", "gauge", "How old the newest good backup of a source may become.", ("policy", "source")
    ),
    Metric(
        "backup_last_verify_timestamp_seconds",
        "gauge",
        "When a backup of the source was last verified and found good.",
        ("policy", "source"),
    ),
    Metric(
        "backup_last_restore_test_timestamp_seconds",
        "gauge",
        "When a backup of the source was last restored to try it.",
        ("policy", "source", "result"),
    ),
    Metric(SOURCE_BYTES, "counter", "Bytes of the sources that were backed up.", ("source",)),
    Metric(STORED_BYTES, "counter", "Bytes that backups added to the repository.", ("source",)),
    Metric("backup_repository_used_bytes", "gauge", "Bytes of the repository.", ("repository", "tier")),
    Metric("backup_repository_free_bytes", "gauge", "Free bytes of the repository's disk.", ("repository", "tier")),
    Metric("backup_repository_quota_bytes", "gauge", "How large the repository may become.", ("repository", "tier")),
    Metric("backup_dedup_ratio", "gauge", "Bytes of all backups for each byte that they added.", ("repository",)),
    Metric("backup_snapshots", "gauge", "Backups that there are.", ("repository",)),
    Metric(CORRUPTED, "counter", "Objects that verifications found damaged."),
    Metric(MISSING, "counter", "Objects that verifications found missing."),
    Metric("backup_wal_lag_seconds", "gauge", "Age of the newest stored log of a database.", ("source",)),
    Metric(REQUESTS, "counter", "Requests to the store.", ("backend", "op", "status")),
    Metric(REQUEST_DURATION, "summary", "How long requests to the store took.", ("backend", "op")),
    Metric(DENIED, "counter", "Requests that were refused.", ("reason",)),
    Metric(MISSED, "counter", "Times of schedules that did not run, or were made up for.", ("policy",)),
    Metric(
        "backup_agent_last_seen_timestamp_seconds",
        "gauge",
        "When an agent that policies need was last heard of.",
        ("agent",),
    ),
    Metric("backup_key_age_seconds", "gauge", "Age of the key that new data is encrypted with.", ("key",)),
    # A summary, because of its name: `promtool` wants no other type to have a `_count`.
    Metric(HOLD, "summary", "Backups that a hold keeps from being deleted, and their bytes."),
    Metric("backup_build_info", "gauge", "The version of the program, as a label of the value 1.", ("version",)),
)
BY_NAME: Final = {metric.name: metric for metric in METRICS}
