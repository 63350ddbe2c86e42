"""--json: one document, always UTF-8, with the keys that programs rely on."""

from __future__ import annotations

import base64
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from backstay.cli import jsonout
from tests.cli.conftest import Account

BACKUP = {
    "snapshot", "kind", "parent", "files_new", "files_changed", "files_unchanged", "dirs", "bytes_scanned",
    "bytes_read", "bytes_added", "duration_s", "errors",
}  # fmt: skip
LIST = {"id", "name", "kind", "time", "host", "sources", "tags", "description", "files", "bytes"}


def test_backup_and_list(account: Account) -> None:
    first = account.json(
        "backup", account.documents, "--tag", "a", "--tag", "b", "--description", "weekly", "--host", "h"
    )
    second = account.json("backup", account.documents, "--host", "h", "--name", "docs")
    third = account.json("backup", account.documents, "--host", "h")
    assert first.keys() >= BACKUP
    assert (first["kind"], first["parent"], first["files_new"], first["errors"]) == ("full", None, 6, [])
    assert second["parent"] is None  # another source
    assert (third["kind"], third["parent"], third["files_new"]) == ("incremental", first["snapshot"], 0)
    rows = account.json("list")
    assert rows[0].keys() >= LIST
    assert (rows[0]["tags"], rows[0]["description"], rows[0]["host"]) == (["a", "b"], "weekly", "h")
    assert rows[0]["sources"] == [str(account.documents)]
    assert [row["name"] for row in rows] == [None, "docs", None]
    moment = datetime.fromisoformat(rows[0]["time"])
    assert moment.tzinfo == UTC
    assert [row["id"] for row in account.json("list", "--name", "docs")] == [second["snapshot"]]
    assert [row["id"] for row in account.json("list", "--tag", "a")] == [first["snapshot"]]
    assert account.json("list", "--host", "other") == []


def test_global_options_may_stand_anywhere(saved: Account) -> None:
    for argv in (("--json", "list"), ("list", "--json"), ("key", "--json", "list"), ("key", "list", "--json")):
        status = 0 if argv != ("key", "--json", "list") else None
        done = saved.run(*argv, status=status)
        if done.status == 0:
            assert json.loads(done.out)


def test_names_that_are_no_utf8(account: Account) -> None:
    raw = os.fsencode(account.documents) + b"/\xff\xfe"
    Path(os.fsdecode(raw)).write_text("x")
    (account.documents / "back\\slash").write_text("y")
    account.run("backup", account.documents)
    entries = {entry["path"]: entry for entry in account.json("ls", "latest")["entries"]}
    odd = entries[f"{account.documents}/\\xff\\xfe"]
    assert base64.b64decode(odd["path_base64"]) == raw
    assert "path_base64" not in entries[f"{account.documents}/back\\slash"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_a_document_is_ascii_where_the_output_is_no_utf8(encoding: str) -> None:
    document = {"path": "/Grüße/書/\U0001f600", "told": "\x9b31m"}
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    jsonout.write(document, stream)
    text = raw.getvalue().decode(encoding)
    assert text.isascii()
    assert json.loads(text) == document


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    odd = "Grüße \x1b[31m \x7f \x9b31m \u202e \ufeff \U000e0041 書"
    for stream in (Shown(), io.StringIO()):
        jsonout.write({odd: [odd]}, stream)
        text = stream.getvalue()
        assert text.replace("\n", "").isprintable()
        assert text.count("Grüße") == text.count("書") == 2
        assert json.loads(text) == {odd: [odd]}
    assert jsonout.line(odd).isascii()
    assert json.loads(jsonout.line(odd)) == odd
    assert "\x7f" not in jsonout.line(odd)


class Shown(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_every_command_prints_one_document(saved: Account) -> None:
    snapshot = saved.json("list")[0]["id"]
    (saved.documents / "new").write_text("new\n")
    saved.run("backup", saved.documents, "--name", "docs")
    assert saved.json("info", snapshot)["id"] == snapshot
    assert [e["path"] for e in saved.json("ls", "latest", saved.documents / "letters")["entries"]]
    assert saved.json("find", "letter-*")[0]["snapshots"] == 2
    changes = saved.json("diff", snapshot, "latest")
    assert (changes["added"], changes["changes"][0]["path"]) == (1, str(saved.documents / "new"))
    assert saved.json("stats")["snapshots"] == 2
    assert saved.json("verify", "--read-data=50%")["ok"] is True
    assert saved.json("restore", snapshot, "--to", saved.root / "out")["files"] == 6
    assert saved.json("restore", snapshot, "--to", saved.root / "out", "-n")["unchanged"] == 6
    assert len(saved.json("prune", "--keep-last", 1, "-n")["drop"]) == 1
    assert saved.json("delete", snapshot)["deleted"] == [snapshot]
    assert saved.json("gc", "-n")["dry_run"] is True
    assert saved.json("gc")["waiting_for"] == []
    assert {slot["kind"] for slot in saved.json("key", "list")["slots"]} == {"keyfile", "recovery"}
    assert saved.json("key", "rotate")["epoch"] == 2
    assert saved.json("repair", "index")["changed"] is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        ("caf\udcff", "caf\\xff"),
        (datetime(2026, 11, 18, 14, 30, tzinfo=UTC), "2026-11-18T14:30:00.000000Z"),
        (PurePosixPath("/a"), "/a"),
        ((1, None, True, 2.5), [1, None, True, 2.5]),
        ({"a": b"b"}, {"a": "b"}),
    ],
)
def test_plain(value: object, expected: Any) -> None:
    assert jsonout.plain(value) == expected
    json.loads(jsonout.line(value).encode("utf-8"))
