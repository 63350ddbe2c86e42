"""Tables and lists for people, in which no name can steer the terminal."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backstay.cli import render
from tests.cli.conftest import Account, shown_on

EVIL = "evil\x1b[31m\nname\u202e"


def test_list(saved: Account) -> None:
    saved.run("backup", saved.documents, "--name", "docs", "--tag", "a", "--description", "before the move")
    saved.run("backup", saved.documents, "--host", "other")
    lines = saved.run("list").out.splitlines()
    headings = [line for line in lines if line and not line.startswith(" ")]
    assert len(headings) == 2
    assert headings[0].startswith(f"docs: {saved.documents} on ")
    assert headings[1] == f"{saved.documents} on other"
    assert "just now" in lines[2]
    assert lines[3].endswith("a, “before the move”")


def test_evil_names(account: Account) -> None:
    (account.documents / EVIL).write_text("x")
    (account.documents / os.fsdecode(b"\xff\xfe")).symlink_to(EVIL)
    account.run("backup", account.documents, "--description", EVIL, "--tag", EVIL)
    (account.documents / EVIL).write_text("changed")
    account.run("backup", account.documents)
    first = account.json("list")[0]["id"]
    for argv in (("ls", "latest"), ("find", "evil*"), ("diff", first, "latest"), ("list",), ("info", first)):
        done = account.run(*argv)
        assert not set("\x1b\u202e") & set(done.out), argv
        assert "evil" in done.out, argv
    done = account.run("ls", "latest", account.documents / EVIL / "x", status=1)
    assert "\x1b" not in done.err


def test_ls(saved: Account) -> None:
    (saved.documents / "link").symlink_to("note")
    (saved.documents / "note").chmod(0o640)
    saved.run("backup", saved.documents, "--name", "docs")
    lines = saved.run("ls", "latest").out.splitlines()
    assert [line.split()[-1] for line in lines if "letters" in line] == [f"{saved.documents}/letters/"]
    assert any(line.startswith("-rw-r-----") and line.endswith("/note") for line in lines)
    assert any(line.endswith("/link -> note") for line in lines)
    recursive = saved.run("ls", f"latest:{saved.documents}", "-R").out
    assert "letters/letter-4.txt" in recursive
    one = saved.run("ls", "latest", saved.documents / "note").out
    assert len(one.splitlines()) == 1


def test_ls_tells_what_was_named_twice_once(account: Account) -> None:
    (account.documents / "a/b").mkdir(parents=True)
    (account.documents / "a/b/file").touch()
    account.run("backup", account.documents, account.documents / "a/b", account.documents / "a/b/file")
    recursive = [entry["path"] for entry in account.json("ls", "latest", "-R")["entries"]]
    assert len(recursive) == len(set(recursive))
    assert str(account.documents / "a/b/file") in recursive
    places = [entry["path"] for entry in account.json("ls", "latest")["entries"]]
    assert places.count(str(account.documents / "a/b/file")) == 2, "each of the named places shows what it holds"


@pytest.mark.parametrize("command", ["ls", "cat"])
def test_two_paths_that_differ_are_not_taken_for_one(saved: Account, command: str) -> None:
    note, letter = saved.documents / "note", saved.documents / "letters/letter-0.txt"
    told = saved.run(command, f"latest:{letter}", note, status=2)
    assert f"{letter} stands behind the id, and {note} by itself" in told.err
    saved.run(command, f"latest:{note}", note)


def test_find_tells_each_version_once(saved: Account) -> None:
    (saved.documents / "note").write_text("another note\n")
    saved.run("backup", saved.documents)
    saved.run("backup", saved.documents)
    versions = saved.json("find", "note")
    assert [version["snapshots"] for version in versions] == [2, 1]
    assert len(saved.json("find", "note", "--snapshot", "latest")) == 1
    assert saved.json("find", "no-such-thing") == []
    assert "nothing matches" in saved.run("find", "no-such-thing").out


def test_find_of_directories_tells_no_file_that_lay_at_the_same_path(saved: Account) -> None:
    (saved.documents / "note").unlink()
    (saved.documents / "note").mkdir()
    saved.run("backup", saved.documents)
    assert [version["type"] for version in saved.json("find", "note/")] == ["dir"]


def test_find_refuses_a_pattern_that_can_match_nothing(saved: Account) -> None:
    (saved.documents / "!important").touch()
    saved.run("backup", saved.documents)
    told = saved.run("find", "!important", status=2)
    assert r"'\!important'" in told.err
    assert len(saved.json("find", r"\!important")) == 1


def test_diff(saved: Account) -> None:
    first = saved.json("list")[0]["id"]
    (saved.documents / "note").write_text("a longer note\n" * 1000)
    (saved.documents / "letters/letter-0.txt").unlink()
    (saved.documents / "new").touch()
    (saved.documents / "letters/letter-1.txt").chmod(0o600)
    saved.run("backup", saved.documents)
    lines = saved.run("diff", first, "latest").out.splitlines()
    marks = {line.split()[1].rsplit("/", 1)[1]: line[0] for line in lines[:-1]}
    assert marks == {"note": "M", "letter-0.txt": "-", "new": "+"}
    assert lines[-1] == "1 added, 1 removed, 1 changed"
    assert "U " in saved.run("diff", first, "latest", "--metadata").out
    assert "hold the same" in saved.run("diff", first, first).out


def test_the_same_bytes_at_another_place_of_a_file_with_holes_are_a_change(saved: Account) -> None:
    for at in (65536, 131072):
        with (saved.documents / "sparse").open("wb") as file:
            file.truncate(1 << 20)
            file.seek(at)
            file.write(b"data" * 1024)
        saved.backup()
    first, second = [snapshot["id"] for snapshot in saved.json("list")][-2:]
    (change,) = saved.json("diff", first, second)["changes"]
    assert (change["change"], change["path"]) == ("changed", f"{saved.documents}/sparse")
    versions = saved.json("find", "sparse", "--snapshot", second, "--snapshot", first, "--snapshot", second)
    assert [version["snapshots"] for version in versions] == [1, 1]
    assert not any("sha256" in version for version in versions)  # that of the data alone says little


def test_info_and_stats(saved: Account) -> None:
    shown = saved.run("info", "docs").out
    assert f"Paths     {saved.documents}" in shown
    assert "6 files" in shown
    assert "Snapshots" in saved.run("stats").out


def test_ids_and_names(saved: Account) -> None:
    ident = saved.json("list")[0]["id"]
    for text in (ident, ident.upper(), ident[:6], "docs", "latest", "latest:docs"):
        assert saved.json("info", text)["id"] == ident


def test_a_time_that_is_yet_to_come(saved: Account) -> None:
    first = saved.json("list")[0]["id"]
    assert "yet to come" not in saved.run("list").err
    soon = (datetime.now(UTC) + timedelta(hours=20)).isoformat()
    ahead = saved.json("backup", saved.documents, "--time", soon)["snapshot"]
    for argv in (("list",), ("info", "latest"), ("info", "latest", "--json")):
        assert f"1 snapshot claims a time that is yet to come, such as {ahead}" in saved.run(*argv).err
    assert saved.json("info", "latest")["id"] == first
    assert "yet to come" not in saved.run("info", ahead).err


def test_an_empty_repository(account: Account) -> None:
    account.run("init")
    assert "no snapshot yet" in account.run("list").out
    assert account.json("list") == []


def test_colours_only_on_a_terminal(saved: Account) -> None:
    shown = {}
    for name, env in (("plain", {"NO_COLOR": "1"}), ("dumb", {"TERM": "dumb"}), ("colour", {"TERM": "xterm"})):
        terminal, inner = os.openpty()
        run = saved.program("list", stdout=inner, env={"TERM": "xterm", **env})
        os.close(inner)
        shown[name] = shown_on(terminal)
        run.communicate(timeout=60)
    assert b"\x1b" not in shown["plain"] + shown["dumb"]
    assert b"\x1b[1m" in shown["colour"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode", "plain ünïcode"),
        ("a\\b", "a\\b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\udcff", "\\xff"),
        ("a\nb", "a\\nb"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert render.safe(text) == shown


def test_wide_characters_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_table(("A", ">B"), [("漢字", "1"), ("abcd", "22")], {})
    assert capsys.readouterr().out == "A      B\n漢字   1\nabcd  22\n"


def test_home_is_looked_up_without_the_variable() -> None:
    from backstay.core import environment

    assert environment.home({}) == Path("~").expanduser() or environment.home({}).is_absolute()
