"""Reports for people: the page that the command line writes, which runs nothing and proves itself."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from backstay.catalog.models import Evidence as Row
from backstay.control.evidence.files import check
from backstay.control.evidence.kept import store
from backstay.control.evidence.seal import seal
from backstay.trust.signing import Signer
from tests.api.world import World
from tests.control.evidence.test_evidence import minimal

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@pytest.fixture
def kept(world: World, backup: Any) -> str:
    """A report whose every text wants to be a program, about a backup that there is."""
    report = minimal(HOSTILE)
    report["backups"] = [report["backups"][0] | {"id": backup["id"]}]
    with world.service.catalog.session() as session:
        (ident,) = store(session, seal(report, Signer(bytes(32))), now=world.service.clock.now(), random=os.urandom)
    return ident


def page(world: World, ident: str, who: str = "viewer") -> httpx.Response:
    return world[who].call("GET", f"/api/evidence/{ident}.html")


def test_the_page_is_that_of_the_command_line_and_proves_itself(world: World, backup: Any, tmp_path: Path) -> None:
    begun = world.admin.ok("POST", f"/api/backup/{backup['id']}/validate", {"level": "integrity"})
    world.ended(f"/api/backup/jobs/{begun['id']}")
    (report, *_) = world.admin.ok("GET", f"/api/backup/{backup['id']}/evidence")["items"]
    answer = page(world, report["id"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    file = tmp_path / "report.html"
    file.write_bytes(answer.content)
    checked = check(file)
    assert checked.page_matches
    assert checked.evidence.sha256 == report["digest"]
    assert checked.evidence.document() == world.admin.ok("GET", f"/api/evidence/{report['id']}")["report"]


def test_nothing_in_the_page_is_run_or_loaded_whatever_a_report_says(world: World, kept: str) -> None:
    answer = page(world, kept)
    assert re.findall(r"<(script|img|link|iframe|object|form)\b([^>]*)>", answer.text) == [
        ("script", ' type="application/json" id="evidence"')
    ]
    assert "&lt;script&gt;alert(1)" in answer.text
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "sandbox": "",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_a_report_that_was_changed_in_the_catalog_is_told_and_not_shown(world: World, kept: str) -> None:
    with world.service.catalog.session() as session:
        report = session.get_one(Row, kept).report
        changed = report | {"report": report["report"] | {"ok": True}}
        session.execute(update(Row).where(Row.id == kept).values(report=changed))
    problem = world["viewer"].refused(422, "GET", f"/api/evidence/{kept}.html")
    assert problem["code"] == "CorruptedBackup"


def test_who_may_not_see_the_backup_does_not_see_its_page(world: World, kept: str) -> None:
    """As if there were none."""
    told = world["stranger"].refused(404, "GET", f"/api/evidence/{kept}.html")
    absent = world["viewer"].refused(404, "GET", "/api/evidence/nothing.html")
    assert told["code"] == absent["code"] == "NotFound"
    world.nobody.refused(401, "GET", f"/api/evidence/{kept}.html")


def test_who_may_see_one_source_sees_no_report_about_others_too(world: World, backup: Any) -> None:
    report = minimal("rehearsal")
    (one,) = report["backups"][:1]
    report |= {"policy": "files", "backups": [one | {"id": backup["id"]}, one | {"id": "0" * 26, "name": "another's"}]}
    with world.service.catalog.session() as session:
        ident, _ = store(session, seal(report, None), now=world.service.clock.now(), random=os.urandom)
    own = world.token(scopes=[f"/policy/files/source/{backup['source']}"])
    for where in (f"/api/evidence/{ident}", f"/api/evidence/{ident}.html"):
        assert "another's" not in str(own.refused(403, "GET", where))
        assert world["viewer"].call("GET", where).status_code == 200
    begun = world.admin.ok("POST", f"/api/backup/{backup['id']}/validate", {"level": "integrity"})
    world.ended(f"/api/backup/jobs/{begun['id']}")
    for kept in world.admin.ok("GET", f"/api/backup/{backup['id']}/evidence")["items"]:
        if kept["job_id"] == begun["id"]:  # of this backup alone
            own.ok("GET", f"/api/evidence/{kept['id']}")
