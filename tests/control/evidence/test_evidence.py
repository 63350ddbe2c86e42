"""A report says what was checked; sealed, it cannot be changed unnoticed, in either form."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.control.evidence.files import check, require_form, write
from backstay.control.evidence.levels import LEVELS, options_of
from backstay.control.evidence.page import as_html
from backstay.control.evidence.report import Occasion, report_of
from backstay.control.evidence.seal import SIGNED_AS, Evidence, opened, seal
from backstay.core.clock import SystemClock
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace, InvalidRequest
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.operations.verify.trial import Trial, TriedCommand
from backstay.repository.repository import Environment, Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.memory import MemoryStorage
from backstay.trust.signing import Signer
from tests.crash.small_world import SECRET
from tests.synced import Synced

SIGNER = Signer(bytes(range(32)))
BEGAN = datetime(2026, 11, 29, 12, tzinfo=UTC)
ODD = "<script>alert(1)</script>&\"'\udce9"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("evidence")
    (place / "tree").mkdir()
    (place / "tree/file").write_text("a file")
    with Repository.create(MemoryStorage(), SECRET, environment=Environment(threads=1)) as repository:
        source = FilesystemSource([os.fsencode(place / "tree")], filters=Filters(()), clock=SystemClock())
        made = run_backup(repository, source, BackupOptions(host="host", name="tree")).snapshot
        assert made is not None
        commands = (TriedCommand(words=("true",)), TriedCommand(words=("sh", "-c", f"echo '{ODD[:25]}' >&2; exit 1")))
        options = VerifyOptions(rehearse=place / "scratch", trial=Trial(commands=commands), read_data=1.0)
        found = run_verify(repository, [made], options)
        occasion = Occasion(
            id="01m8jxsyjrnk9gf6s19s8yvh7d",
            host=ODD,
            started=BEGAN,
            finished=BEGAN + timedelta(seconds=61),
            policy="p",
        )
        return report_of(repository, [repository.snapshots.get(made)], options, found, occasion) | {
            "_digest": repository.snapshots.digest(made).hex()
        }


@pytest.fixture
def evidence(report: dict[str, Any]) -> Evidence:
    return seal({key: value for key, value in report.items() if key != "_digest"} | {"host": "host <&>"}, SIGNER)


def test_it_says_what_was_checked(report: dict[str, Any]) -> None:
    (backup,) = report["backups"]
    assert (report["kind"], report["ok"], report["duration_ms"]) == ("rehearsal", False, 61_000)
    assert report["scope"]["data"] == "complete"
    assert backup["sha256"] == report["_digest"]
    done = backup["rehearsal"]
    assert (done["files"], done["bytes"], done["files_compared"]) == (1, 6, 1)
    assert [one["status"] for one in done["checks"]] == ["ok", "ok", "ok", "failed"]
    assert done["rto_ms"] <= done["duration_ms"]
    assert {one["check"] for one in report["checks"]} >= {"integrity", "completeness", "signature", "rehearsal"}
    assert not any(isinstance(number, float) for number in _leaves(report))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def test_anybody_can_check_it_with_public_tools_alone(evidence: Evidence, tmp_path: Path) -> None:
    """Canonical JSON, SHA-256 and Ed25519, as docs/verification.md says."""
    import base64
    import hashlib

    write(evidence, tmp_path / "e.json")
    document = json.loads((tmp_path / "e.json").read_bytes())
    body = rfc8785.dumps(document["report"])
    assert hashlib.sha256(body).hexdigest() == document["sha256"]
    signed = b"DSSEv1 %d %s %d %s" % (len(SIGNED_AS), SIGNED_AS, len(body), body)
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(document["signature"]["public_key"]))
    key.verify(base64.b64decode(document["signature"]["value"]), signed)


@pytest.mark.parametrize("name", ["e.json", "e.html", "E.HTM"])
def test_files_of_both_forms_are_checked(evidence: Evidence, tmp_path: Path, name: str) -> None:
    write(evidence, tmp_path / name)
    found = check(tmp_path / name, trusted={SIGNER.public.hex()})
    assert found.evidence == evidence
    assert found.page_matches is (None if name.endswith("json") else True)
    with pytest.raises(CorruptedBackup, match="not trusted"):
        check(tmp_path / name, trusted={"00" * 32})
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_unsigned_evidence_is_whole_but_not_trusted(evidence: Evidence, tmp_path: Path) -> None:
    write(seal(evidence.report), tmp_path / "e.json")
    assert check(tmp_path / "e.json").evidence.key is None
    with pytest.raises(CorruptedBackup, match="signed by nobody"):
        check(tmp_path / "e.json", trusted={SIGNER.public.hex()})


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    yield at
    for key, below in inner:
        yield from _paths(below, (*at, key))


def test_no_value_can_be_changed_or_left_out(evidence: Evidence) -> None:
    for path in list(_paths(evidence.document()))[1:]:
        for change in ("other", None):
            document = json.loads(evidence.as_json())
            place = document
            for key in path[:-1]:
                place = place[key]
            if change is None:
                del place[path[-1]]
            else:
                place[path[-1]] = change
            with pytest.raises((CorruptedBackup, InvalidRequest)):
                opened(document)


def test_nothing_can_be_put_in_beside_what_counts(evidence: Evidence, tmp_path: Path) -> None:
    """Names that stand twice, of which a reader may take the other; members and bits that nobody looks at."""
    text = evidence.as_json().decode()
    signature = json.loads(text)["signature"]["value"]
    swapped = signature[:-3] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[signature[-3]] + "=="
    for old, new in (
        ('"report": {', '"report": {"ok": true}, "report": {'),
        ('"algorithm"', '"signed_for": "you", "algorithm"'),
        (signature, swapped),
    ):
        assert old in text
        (tmp_path / "e.json").write_text(text.replace(old, new, 1))
        with pytest.raises((CorruptedBackup, InvalidRequest)):
            check(tmp_path / "e.json")


def test_a_page_shows_what_was_sealed_and_nothing_else(evidence: Evidence, tmp_path: Path) -> None:
    page = tmp_path / "e.html"
    write(evidence, page)
    text = page.read_text()
    for old, new in (("FAILED", "passed"), ("</body>", "<p>all is well</p></body>"), ("host &lt;", "other &lt;")):
        assert old in text
        page.write_text(text.replace(old, new, 1))
        with pytest.raises(CorruptedBackup, match="does not show what was sealed"):
            check(page)


def test_a_page_of_another_version_is_checked_by_its_report(evidence: Evidence, tmp_path: Path) -> None:
    older = seal(evidence.report | {"program": "backstay 0.0.9"}, SIGNER)
    page = tmp_path / "e.html"
    page.write_text(as_html(older).replace("<h2>", "<h2 >"))
    assert check(page).page_matches is False


class _Markup(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_whatever_a_report_holds_is_text_on_the_page(text: str) -> None:
    report = minimal(text)
    page = as_html(seal(report))
    parsed, plain = _Markup(), _Markup()
    parsed.feed(page)
    plain.feed(as_html(seal(minimal("x"))))
    assert parsed.tags == plain.tags
    assert parsed.links == []


def minimal(text: str) -> dict[str, Any]:
    outcome = {"check": text, "status": "failed", "details": text, "duration_ms": 1}
    rehearsal = {
        "ok": False, "files": 1, "bytes": 1, "files_compared": 1, "rto_ms": 70_000, "bytes_per_s": 1,
        "duration_ms": 4_000_000, "checks": [outcome],
    }  # fmt: skip
    backup = {
        "id": text, "sha256": text, "name": text, "kind": text, "source": text, "host": text, "time": text,
        "files": 1, "bytes": 1, "rehearsal": rehearsal,
    }  # fmt: skip
    return {
        "format": "backstay-evidence-1", "kind": "rehearsal", "id": text, "ok": False, "program": text, "host": text,
        "repository": text, "policy": text, "job": text, "actor": text, "started": text, "finished": text,
        "duration_ms": 5, "scope": {"data": "sampled", "percent": 5},
        "checks": [{"check": text, "ok": True, "details": text, "duration_ms": 2}],
        "backups": [backup, backup | {"rehearsal": None}],
        "findings": [{"subject": text, "message": text, "hint": text, "check": text, "severity": "error"}],
        "findings_in_all": 1,
    }  # fmt: skip


def test_the_page_loads_nothing_and_is_one_sheet(evidence: Evidence) -> None:
    page = as_html(evidence)
    assert "default-src 'none'" in page
    assert "@page" in page
    assert not re.search(r"https?://", page)


@pytest.mark.parametrize("name", ["e", "e.txt", "no/such/e.json"])
def test_a_bad_name_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        require_form(tmp_path / name)


@pytest.mark.parametrize("name", ["key.json", "page.html"])
def test_evidence_replaces_evidence_and_no_other_file(evidence: Evidence, tmp_path: Path, name: str) -> None:
    other = tmp_path / name
    other.write_text('{"private_key": "the only one"}')
    with pytest.raises(InvalidRequest, match="no evidence of a verification"):
        require_form(other)
    with pytest.raises(InvalidRequest, match="no evidence of a verification"):
        write(evidence, other)
    assert "the only one" in other.read_text()
    other.write_text("")
    write(evidence, other)
    other.write_bytes(other.read_bytes().replace(evidence.sha256.encode(), b"0" * 64))
    write(evidence, other)
    assert check(other).evidence == evidence


def test_a_file_that_cannot_be_looked_at_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be written"):
        require_form(tmp_path / ("long" * 80 + ".json"))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b"<html></html>", b'<script type="application/json" id="evidence">{</script>',
             b'{"report":{"format":"backstay-evidence-9"},"sha256":"","signature":null}']
)  # fmt: skip
def test_what_is_no_evidence_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "e").write_bytes(data)
    with pytest.raises(InvalidRequest):
        check(tmp_path / "e")


# -- levels


def test_each_level_does_more_than_the_one_before(tmp_path: Path) -> None:
    levels = [options_of(level, scratch=tmp_path) for level in LEVELS]
    assert [len(one.checks) for one in levels] == [3, 4, 4, 4]
    assert [one.read_data for one in levels] == [0.0, 0.0, 1.0, 1.0]
    assert [one.rehearse for one in levels] == [None, None, None, tmp_path]


def test_unknown_levels_and_missing_places_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="there is no level"):
        options_of("thorough")
    with pytest.raises(InvalidRequest, match="needs a place"):
        options_of("restore_test")


@pytest.mark.crash
def test_a_file_of_evidence_is_durable_before_it_has_its_name(
    tmp_path: Path, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(tmp_path, monkeypatch)
    write(evidence, tmp_path / "some.json")
    assert synced.calls == ["fsync some.json.new", "replace some.json.new some.json"]
    assert synced.contents["some.json.new"] == (tmp_path / "some.json").read_bytes()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, InsufficientSpace), (errno.EACCES, InvalidRequest)])
def test_what_cannot_be_written_is_told_by_its_reason_and_leaves_nothing(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[BackstayError]
) -> None:
    def refused(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(kind, match="the evidence cannot be written to"):
        write(evidence, tmp_path / "evidence.html")
    assert list(tmp_path.iterdir()) == []
