"""A service tells of its jobs and of what is wrong, all by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backstay.control.metrics import exposition
from backstay.control.metrics.expected import expectations_of
from backstay.control.metrics.monitor import monitor_status
from backstay.control.service import upkeep
from tests.control.jobs.recording import eventually
from tests.control.notifying.sink import Sink, sink
from tests.control.service.conftest import Place, ended

__all__ = ["sink"]


def test_jobs_are_told_of_counted_and_alerts_end(place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    for period in ("SETTLE_S", "DELIVER_S", "EVALUATE_S"):
        monkeypatch.setattr(upkeep, period, 0.1)
    place.file.write_text(
        place.file.read_text().replace(
            "policies:\n",
            "  notifications:\n"
            f"    targets: {{hook: {{type: webhook, url: 'http://{sink.place}/hook'}}}}\n"
            "    matchers: {all: {targets: [hook]}}\n"
            "policies:\n"
            "  lost:\n"
            f"    sources: [{{type: filesystem, paths: [{place.root}/later]}}]\n"
            f"    notifications: {{ping: 'http://{sink.place}/alive'}}\n",
        )
    )

    def told() -> list[Any]:
        return [json.loads(data) for _, path, _, data in list(sink.got) if path == "/hook"]

    def kinds() -> set[tuple[str, str]]:
        return {(one["kind"], one["title"].split()[1]) for one in told()}

    with place.open() as service:
        service.start()
        job = service.jobs.create("backup", {}, policy="lost", actor="somebody")
        assert ended(service.jobs, job).status == "failed"
        eventually(lambda: ("backup_failed", "error:") in kinds(), "the message of the failure")
        assert monitor_status(service.catalog, "lost").status == "failure"
        assert [path for _, path, _, _ in sink.got if path == "/alive"] == []
        (place.root / "later").mkdir()
        (place.root / "later" / "file").write_bytes(b"there")
        job = service.jobs.create("backup", {}, policy="lost", actor="somebody")
        assert ended(service.jobs, job).status == "succeeded"
        wanted = {("backup_failed", "resolved:"), ("backup_succeeded", "info:")}
        eventually(lambda: wanted <= kinds(), "the messages of the success")
        eventually(lambda: "/alive" in [path for _, path, _, _ in sink.got], "the sign of life")
        assert monitor_status(service.catalog, "lost").status == "success"
        text = exposition(service.catalog, service.clock, expected=expectations_of(service.policies.loaded)).decode()
        service.stop()
    for status in ("failed", "succeeded"):
        assert f'backup_jobs_total{{kind="backup",source="lost",status="{status}"}} 1.0' in text
    assert 'backup_source_bytes_total{source="lost"} 5.0' in text
    assert len(told()) == 3
    assert place.warnings == []
