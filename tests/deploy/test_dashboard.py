"""The dashboard is what its script makes, and asks for what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tools.make_dashboard import FILE, dashboard, queries, text

from backstay.control.metrics.names import BY_NAME
from tests.promtool import promtool

_PARTS = re.compile(r"_(bucket|sum|count)$")
_SELECTOR = re.compile(r"\b(backup_[a-z_]+)(?:\{([^}]*)\})?")


def test_the_file_is_what_the_script_makes() -> None:
    assert FILE.read_text() == text()


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_asks_for_metrics_and_labels_that_there_are(query: str) -> None:
    found = _SELECTOR.findall(query)
    assert found
    known: set[str] = set()
    for name, selected in found:
        metric = BY_NAME.get(name) or BY_NAME[_PARTS.sub("", name)]
        if name.endswith("_bucket"):
            assert metric.type == "histogram"
        labels = set(metric.labels) | ({"le"} if metric.type == "histogram" else set())
        assert set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\"", selected)) <= labels
        known |= labels
    for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",") if label.strip()} <= known


def test_every_query_is_one_that_prometheus_understands(tmp_path: Path) -> None:
    rules = []
    for number, query in enumerate(queries()):
        assert set(re.findall(r"\$\w+", query)) <= {"$__rate_interval"}  # Grafana's own
        rules.append({"record": f"test:query_{number}", "expr": query.replace("$__rate_interval", "5m")})
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_panels_have_numbers_of_their_own_and_do_not_cover_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {_PARTS.sub("", name) for query in queries() for name, _ in _SELECTOR.findall(query)}
    assert set(BY_NAME) - shown == set()


def test_legends_name_labels_that_their_metrics_have() -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            names = [name for name, _ in _SELECTOR.findall(target["expr"])]
            labels = {label for name in names for label in (BY_NAME.get(name) or BY_NAME[_PARTS.sub("", name)]).labels}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
