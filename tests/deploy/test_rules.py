"""The alert rules are good, and each has a test in which it comes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from backstay.cli.serve import PORT
from backstay.control.metrics.names import BY_NAME
from tests.promtool import promtool

PLACE = Path(__file__).parents[2] / "deploy/prometheus"
ASKED = {
    "BackupFailed", "BackupTooOld", "RepositoryAlmostFull", "BackupCorruption", "AccessViolation", "RestoreTestOverdue",
    "WalArchiveLag", "KeyRotationDue", "VerifyOverdue", "JobStuck", "ServiceDown",
}  # fmt: skip


def read(name: str) -> Any:
    return YAML(typ="safe").load((PLACE / name).read_text())


RULES = [rule for group in read("rules.yml")["groups"] for rule in group["rules"]]


def test_the_example_asks_where_a_service_listens() -> None:
    (job,) = read("prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{PORT}"]}]


def test_all_alerts_are_there_and_say_what_to_do() -> None:
    assert {rule["alert"] for rule in RULES} >= ASKED
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "error")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_rules_use_metrics_that_there_are() -> None:
    for rule in RULES:
        for name in re.findall(r"\bbackup_[a-z_]+", rule["expr"]):
            assert name in BY_NAME, rule["alert"]


def test_each_alert_comes_in_a_test() -> None:
    tests = [one for test in read("rules_test.yml")["tests"] for one in test["alert_rule_test"]]
    assert {one["alertname"] for one in tests if one["exp_alerts"]} == {rule["alert"] for rule in RULES}


def test_the_checker_of_prometheus_is_content() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", PLACE / "rules.yml")
    promtool("check", "config", "--syntax-only", PLACE / "prometheus.yml")


def test_the_tests_of_the_rules_pass() -> None:
    promtool("test", "rules", "rules_test.yml", directory=PLACE)
