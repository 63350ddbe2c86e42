"""The file in which a recovery notes what it did: what it takes for one, and what it leaves alone."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from backstay.control.recovery.state import RecoveryState
from backstay.errors import InvalidRequest
from backstay.testing import FakeClock
from tests.synced import Synced

CLOCK = FakeClock()
FOREIGN = {
    "no newline": b'{"my": "only copy"}',
    "no newline at its end": b"line 1\nline 2",
    "lines": b'{"recovery": 1}\n{"my": "only copy"}\n',
    "an empty line": b"\n",
    "begins like one": b'{"recovery": 1, "begun": "once upon a time',
    "nested": b"[" * 100_000 + b"\n",
    "binary": bytes(range(128, 256)) * 10,
    "large": bytes((16 << 20) + 1),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.state"


@pytest.fixture
def noted(path: Path) -> bytes:
    """What is in the file after one step was begun."""
    with RecoveryState.open(path, CLOCK) as state:
        state.note("one", "begun", digest="x")
    return path.read_bytes()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_no_recovery_made_stays_as_it_is(path: Path, data: bytes, restart: bool) -> None:
    path.write_bytes(data)
    for look in (RecoveryState.open, RecoveryState.peek):
        with pytest.raises(InvalidRequest, match="no state of a recovery") as caught:
            look(path, CLOCK, restart=restart)
        assert caught.value.hint == "name another file with --state"
    assert path.read_bytes() == data


@pytest.mark.crash
def test_wherever_a_crash_tore_it_off_it_is_gone_on_with(path: Path, noted: bytes) -> None:
    first = noted.index(b"\n") + 1
    torn = [noted[:length] for length in range(len(noted))]
    for left in (*torn, *(data + bytes(100) for data in torn[:first])):  # what was not durable may read as zeros
        path.write_bytes(left)
        assert RecoveryState.peek(path, CLOCK).steps == {}
        assert path.read_bytes() == left
        with RecoveryState.open(path, CLOCK) as state:
            state.note("two", "begun", digest="x")
        assert path.read_bytes()[:first] == noted[:first]
        assert list(RecoveryState.peek(path, CLOCK).steps) == ["two"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ((b'"recovery": 1', b'"recovery": 2'), "another version"),
        ((b'"digest"', b'"other"'), "digest"),
        ((b'+00:00", "digest"', b'", "digest"'), "no zone"),
        ((b'+00:00"}', b'"}'), "no zone"),
    ],
)
def test_a_state_that_cannot_be_read_is_forgotten_only_on_demand(
    path: Path, noted: bytes, change: tuple[bytes, bytes], cause: str
) -> None:
    data = noted.replace(*change) + b"torn"
    assert data != noted + b"torn"
    path.write_bytes(data)
    with pytest.raises(InvalidRequest, match="cannot be read") as caught:
        RecoveryState.open(path, CLOCK)
    assert cause in str(caught.value.cause)
    assert "--restart" in caught.value.hint
    assert path.read_bytes() == data
    RecoveryState.open(path, CLOCK, restart=True).close()
    assert path.read_bytes() == noted[: noted.index(b"\n") + 1]


def _half(write: Callable[[int, bytes], int], fd: int, data: bytes) -> int:
    return write(fd, data[:20])


def _refuse(number: int, *_: object) -> NoReturn:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("call", "instead", "number"),
    [
        ("write", partial(_half, os.write), errno.ENOSPC),
        ("write", partial(_refuse, errno.ENOSPC), errno.ENOSPC),
        ("fsync", partial(_refuse, errno.EIO), errno.EIO),
    ],
    ids=["half a line", "no line", "not durable"],
)
def test_a_line_that_could_not_be_noted_is_not_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, instead: Callable[..., int], number: int
) -> None:
    """Nobody acts on it later, another line may still follow, and the error says which file it is about."""
    with RecoveryState.open(path, CLOCK) as state:
        monkeypatch.setattr(os, call, instead)
        with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
            state.note("a", "writing")
        monkeypatch.undo()
        assert (caught.value.errno, caught.value.filename) == (number, str(path))
        assert state.steps == {}
        state.note("b", "begun", digest="x")
    assert list(RecoveryState.peek(path, CLOCK).steps) == ["b"]


@pytest.mark.crash
def test_each_line_is_durable_on_return(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = Synced(path.parent, monkeypatch)
    with RecoveryState.open(path, CLOCK) as state:
        assert synced.calls == [f"fsync {path.name}", "fsync ."]
        for event in ("begun", "writing"):
            state.note("one", event, digest="x")
            assert synced.contents[path.name] == path.read_bytes()
    assert synced.calls[2:] == [f"fsync {path.name}"] * 2
