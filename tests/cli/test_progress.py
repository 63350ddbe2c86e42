"""Events on stderr: JSON lines, a live line on a terminal, silence elsewhere."""

from __future__ import annotations

import io
import json
import os

import pytest

from backstay.cli import progress
from backstay.cli.live import LiveLine
from backstay.core.events import Finished, Progress, Started, Warned
from backstay.storage.local import LocalStorage
from tests.cli.conftest import Account, FullStream, shown_on


def test_json_lines(saved: Account) -> None:
    for argv in (
        ("backup", saved.documents),
        ("restore", "latest", "--to", saved.root / "out"),
        ("verify", "--read-data"),
        ("gc",),
    ):
        done = saved.run("--progress", "json", *argv)
        events = [json.loads(line) for line in done.err.splitlines()]
        assert events
        assert {event["event"] for event in events} <= {"started", "progress", "warned", "finished"}
        assert "operation" in events[0]


def test_json_result_and_json_progress_do_not_mix(saved: Account) -> None:
    done = saved.run("--json", "--progress", "json", "backup", saved.documents)
    assert json.loads(done.out)["snapshot"]
    assert all(json.loads(line) for line in done.err.splitlines())


def test_quiet_when_piped(saved: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "room", lambda _: None)  # the disk of this test may be full
    assert saved.run("backup", saved.documents).err == ""
    done = saved.run("-q", "backup", saved.documents)
    assert (done.out, done.err) == ("", "")


def test_warnings_are_always_told(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.watching("auto", {}, quiet=True) as sink:
        sink(Warned(message="look \x1b[31mhere"))
        sink(Warned(message="told with the result", path="/a"))
        sink(Progress(files=1, bytes=1))
    assert capsys.readouterr().err == "warning: look \\x1b[31mhere\n"


def test_a_warning_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", FullStream())
    with progress.watching("auto", {}, quiet=False) as sink:
        sink(Warned(message="something"))


def test_json_lines_end_with_the_first_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FullStream(room=1)
    monkeypatch.setattr("sys.stderr", stream)
    with progress.watching("json", {}, quiet=False) as sink:
        sink(Started(operation="first"))
        sink(Started(operation="lost"))
        monkeypatch.setattr(stream, "_room", 1)
        sink(Started(operation="after a gap"))
    assert [json.loads(line)["operation"] for line in stream.getvalue().splitlines()] == ["first"]


def test_a_terminal_that_went_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(FullStream):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Gone())
    line = LiveLine({"TERM": "xterm"})
    with line.shown() as sink:
        sink(Started(operation="backup"))
        sink(Warned(message="something"))


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    line = LiveLine({"TERM": "xterm", "COLUMNS": "100"})
    with line.shown() as sink:
        sink(Progress(files=1, bytes=1))
        sink(Started(operation="backup", total_files=10, total_bytes=1000))
        sink(Progress(files=5, bytes=1 << 20, current="/a"))
        assert line._bars is not None
        line._bars.refresh()
        sink(Warned(message="something"))
        sink(Started(operation="second"))
        sink(Finished(operation="second"))
    shown = terminal.getvalue()
    assert "5 items  1.0 MiB" in shown
    assert "warning: something" in shown


def test_on_a_terminal_the_line_goes_away(saved: Account) -> None:
    terminal, inner = os.openpty()
    run = saved.program("verify", stderr=inner, env={"TERM": "xterm"})
    os.close(inner)
    shown = shown_on(terminal)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0
    assert b"check snapshots" in shown
    assert shown.index(b"\x1b[?25l") < shown.index(b"\x1b[?25h")
    assert b"\x1b" not in out
