"""The pages on verification and on restores in place: what they tell to type works, and does what they say."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent

from backstay.control.evidence.seal import SIGNED_AS
from backstay.control.runs.verifying import trial_of
from tests.control.policies.files import loaded
from tests.tutorials import ROOT, blocks_of, run_as_reader


def test_restoring_in_place(tmp_path: Path) -> None:
    done = run_as_reader(tmp_path, "\n".join(blocks_of("docs/restoring-in-place.md")))
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "as it was\nnew since\n" in done.stdout
    assert done.stdout.endswith("another change\n")
    assert not list((tmp_path / "home").glob(".backstay-restore-*"))


def test_verification(tmp_path: Path) -> None:
    done = run_as_reader(tmp_path, "\n".join(blocks_of("docs/verification.md")))
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout.count("it says: rehearsal of 1 backup passed") == 2
    assert list((tmp_path / "home/scratch").iterdir()) == []


def test_the_type_that_is_signed_is_told() -> None:
    page = (ROOT / "docs/verification.md").read_text()
    assert f"DSSEv1 {len(SIGNED_AS)} {SIGNED_AS.decode()} " in page


def test_the_policy_of_the_page_is_one() -> None:
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/verification.md").read_text(), re.DOTALL)
    assert text is not None
    sources = "sources: [{type: filesystem, name: files, paths: [/etc]}, {type: sqlite, name: db, path: /db}]\n"
    policy = loaded("policies:\n  shop:\n" + indent(sources + text[1], "    ")).policy("shop")
    assert policy.verification is not None
    assert policy.verification.queries[1].expect == (("basic", True), ("large", True))
    trial = trial_of(policy.verification, "shop", policy, environ={"BACKSTAY_PASSWORD": "canary", "PATH": "/bin"})
    assert [*(one.name for one in trial.questions), *(one.name for one in trial.commands)] == [
        "shop-db",
        "shop-db",
        "shop-files",
    ]
    assert trial.environ == {"PATH": "/bin"}


def test_questions_of_all_policies_are_asked_where_they_are_meant() -> None:
    asked = "queries: [{sql: a}, {sql: b, source: db}], commands: [{command: [x], source: db}]"
    file = loaded(
        f"backup_manager: {{verification: {{each_run: true, restore_test: true, {asked}}}}}\n"
        "policies:\n"
        "  p: {sources: [{type: sqlite, name: db, path: /a}, {type: sqlite, path: /b}]}\n"
        "  q: {sources: [{type: filesystem, paths: [/c]}]}\n"
    )
    wanted = file.content.backup_manager.verification
    assert wanted is not None
    p, q = (trial_of(wanted, name, file.policy(name), environ={}) for name in "pq")
    assert [(one.sql, one.name) for one in p.questions] == [("a", "p-db"), ("a", "p"), ("b", "p-db")]
    assert [one.name for one in p.commands] == ["p-db"]
    assert (q.questions, q.commands) == ((), ())
