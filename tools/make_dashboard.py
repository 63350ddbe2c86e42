"""Write the Grafana dashboard: `uv run python -m tools.make_dashboard`. What is in deploy/grafana was made by it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

FILE: Final = Path(__file__).parents[1] / "deploy/grafana/backstay.json"
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_AGE: Final = "time() - "


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture: its queries with their legends. `limits` colour a number: above the first yellow, the second red."""

    title: str
    kind: Literal["stat", "timeseries", "table", "bargauge"]
    queries: Sequence[tuple[str, str]]
    about: str
    unit: str = "short"
    width: int = 8
    height: int = 7
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Pictures under one heading."""

    title: str
    panels: Sequence[Panel]


ROWS: Final = (
    Row(
        title="Is all well?",
        panels=(
            Panel(
                title="Sources without a fresh backup",
                kind="stat",
                queries=[
                    (
                        (
                            "count(time() - backup_last_success_timestamp_seconds > on (policy, source) "
                            "backup_rpo_seconds) or vector(0)"
                        ),
                        "too old",
                    ),
                    (
                        (
                            "count(backup_rpo_seconds unless on (policy, source) "
                            "backup_last_success_timestamp_seconds) or vector(0)"
                        ),
                        "never",
                    ),
                ],
                about="Sources whose newest good backup is older than their policy allows, or that never had one.",
                width=6,
                height=5,
                limits=(1, 2),
            ),
            Panel(
                title="Failed backups in a day",
                kind="stat",
                queries=[('sum(increase(backup_jobs_total{kind="backup",status="failed"}[1d]))', "failed")],
                about="Backups that ended with an error.",
                width=6,
                height=5,
                limits=(0.5, 3),
            ),
            Panel(
                title="Damage found in a day",
                kind="stat",
                queries=[
                    ("sum(increase(backup_corrupted_objects_total[1d]))", "damaged"),
                    ("sum(increase(backup_missing_objects_total[1d]))", "missing"),
                ],
                about="Objects that verifications found damaged or missing.",
                width=6,
                height=5,
                limits=(0.5, 1),
            ),
            Panel(
                title="Version",
                kind="stat",
                queries=[("count by (version) (backup_build_info)", "{{version}}")],
                about="Versions of the processes that tell of themselves.",
                width=6,
                height=5,
            ),
        ),
    ),
    Row(
        title="Freshness",
        panels=(
            Panel(
                title="Age of the newest good backup",
                kind="table",
                queries=[(f"{_AGE}backup_last_success_timestamp_seconds", "{{source}}")],
                about="Of each source.",
                unit="s",
                height=9,
            ),
            Panel(
                title="Allowed age",
                kind="table",
                queries=[("backup_rpo_seconds", "{{source}}")],
                about="What the policy says, or what follows from its schedule.",
                unit="s",
                height=9,
            ),
            Panel(
                title="Age of the last verification and rehearsal",
                kind="table",
                queries=[
                    (f"{_AGE}backup_last_verify_timestamp_seconds", "{{source}}: verified"),
                    (f"{_AGE}backup_last_restore_test_timestamp_seconds", "{{source}}: restored, {{result}}"),
                ],
                about="A backup that was never restored is a hope.",
                unit="s",
                height=9,
            ),
        ),
    ),
    Row(
        title="Jobs",
        panels=(
            Panel(
                title="Jobs that ended",
                kind="timeseries",
                queries=[
                    ("sum by (kind, status) (increase(backup_jobs_total[$__rate_interval]))", "{{kind}} {{status}}")
                ],
                about="By kind and how they ended.",
            ),
            Panel(
                title="How long backups take",
                kind="timeseries",
                queries=[
                    (
                        (
                            f"histogram_quantile({share}, sum by (le) "
                            '(rate(backup_job_duration_seconds_bucket{kind="backup"}[1d])))'
                        ),
                        name,
                    )
                    for share, name in ((0.5, "half of them"), (0.95, "19 of 20"))
                ],
                about="Over the day before.",
                unit="s",
            ),
            Panel(
                title="Running and waiting",
                kind="timeseries",
                queries=[
                    ("sum by (queue) (backup_jobs_running)", "{{queue}} runs"),
                    ("sum by (queue) (backup_jobs_queued)", "{{queue}} waits"),
                ],
                about="Jobs in each queue.",
            ),
            Panel(
                title="Agents",
                kind="timeseries",
                queries=[("time() - backup_agent_last_seen_timestamp_seconds", "{{agent}}")],
                about="How long ago each agent was heard of that a policy needs.",
                unit="s",
            ),
        ),
    ),
    Row(
        title="Repository",
        panels=(
            Panel(
                title="Size",
                kind="timeseries",
                queries=[
                    ("backup_repository_used_bytes", "{{repository}} {{tier}} used"),
                    ("backup_repository_free_bytes", "{{repository}} {{tier}} free"),
                    ("backup_repository_quota_bytes", "{{repository}} {{tier}} allowed"),
                ],
                about="As last measured.",
                unit="bytes",
            ),
            Panel(
                title="Full",
                kind="bargauge",
                queries=[
                    ("backup_repository_used_bytes / backup_repository_quota_bytes", "{{repository}} quota"),
                    (
                        "backup_repository_used_bytes / (backup_repository_used_bytes + backup_repository_free_bytes)",
                        "{{repository}} disk",
                    ),
                ],
                about="Of its quota, and of what its disk could give it.",
                unit="percentunit",
                limits=(0.8, 0.9),
            ),
            Panel(
                title="Read and stored",
                kind="timeseries",
                queries=[
                    ("sum(increase(backup_source_bytes_total[1d]))", "backed up in a day"),
                    ("sum(increase(backup_stored_bytes_total[1d]))", "stored in a day"),
                ],
                about="What backups covered, and what of it was new.",
                unit="bytes",
            ),
            Panel(
                title="Deduplication and compression",
                kind="stat",
                queries=[("backup_dedup_ratio", "{{repository}}")],
                about="Bytes of all backups for each byte that they added.",
                height=5,
                width=6,
            ),
            Panel(
                title="Backups",
                kind="stat",
                queries=[("backup_snapshots", "{{repository}}"), ("backup_hold_count", "held")],
                about="How many there are, and how many a hold keeps.",
                height=5,
                width=6,
            ),
            Panel(
                title="Age of the key",
                kind="stat",
                queries=[("backup_key_age_seconds", "{{key}}")],
                about="`backstay key rotate` makes a new one.",
                unit="s",
                height=5,
                width=6,
                limits=(80 * 86400, 90 * 86400),
            ),
            Panel(
                title="Age of the newest log of databases",
                kind="stat",
                queries=[("backup_wal_lag_seconds", "{{source}}")],
                about="What would be lost at most if the database were lost now.",
                unit="s",
                height=5,
                width=6,
                limits=(900, 3600),
            ),
        ),
    ),
    Row(
        title="Store and access",
        panels=(
            Panel(
                title="Requests to the store",
                kind="timeseries",
                queries=[
                    (
                        "sum by (backend, op, status) (rate(backup_storage_requests_total[$__rate_interval]))",
                        "{{backend}} {{op}} {{status}}",
                    )
                ],
                about="Counted when a job ends.",
                unit="reqps",
            ),
            Panel(
                title="Time of a request",
                kind="timeseries",
                queries=[
                    (
                        (
                            "sum by (backend, op) (rate(backup_storage_request_duration_seconds_sum[1h])) / "
                            "sum by (backend, op) (rate(backup_storage_request_duration_seconds_count[1h]))"
                        ),
                        "{{backend}} {{op}}",
                    )
                ],
                about="On average.",
                unit="s",
            ),
            Panel(
                title="Refused requests",
                kind="timeseries",
                queries=[("sum by (reason) (increase(backup_auth_denied_total[$__rate_interval]))", "{{reason}}")],
                about="The audit log has each.",
            ),
            Panel(
                title="Missed times",
                kind="timeseries",
                queries=[("sum by (policy) (increase(backup_schedules_missed_total[1h]))", "{{policy}}")],
                about="Times of schedules that did not run; the audit log says why.",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "backstay",
        "title": "Backstay",
        "description": "Backups: whether they are fresh, run well and can be restored.",
        "tags": ["backup"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-7d", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "annotations": {"list": []},
        "panels": list(_laid_out()),
    }


def queries() -> Iterator[str]:
    """Every query of the dashboard."""
    for row in ROWS:
        for panel in row.panels:
            for query, _ in panel.queries:
                yield query


def _laid_out() -> Iterator[dict[str, Any]]:
    number = y = 0
    for row in ROWS:
        number += 1
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": _place(0, y, _WIDTH, 1)}
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield _panel(panel, number, _place(x, y, panel.width, panel.height))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind != "timeseries"
    shown: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **_colours(panel)}, "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for at, (query, legend) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "table":
        hidden = dict.fromkeys(("Time", "__name__", "instance", "job"), True)
        shown["transformations"] = [{"id": "merge"}, {"id": "organize", "options": {"excludeByName": hidden}}]
    return shown


def _colours(panel: Panel) -> dict[str, Any]:
    if panel.limits is None:
        return {}
    yellow, red = panel.limits
    steps = [{"color": "green", "value": None}, {"color": "yellow", "value": yellow}, {"color": "red", "value": red}]
    return {"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    newest = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "stat":
        return {**newest, "textMode": "name" if panel.title == "Version" else "auto"}
    return {**newest, "orientation": "horizontal"} if panel.kind == "bargauge" else {"showHeader": True}


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text())
