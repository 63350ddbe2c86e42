"""A scratch account with its own home, and the command line called inside this process or as a program."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backstay.cli.main import run

SOURCE = Path(__file__).parents[2] / "src"

_QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str


@dataclass
class Account:
    """One user of one machine."""

    root: Path
    capture: pytest.CaptureFixture[str]
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def documents(self) -> Path:
        return self.root / "documents"

    @property
    def repository(self) -> Path:
        return self.root / "home/.local/share/backstay/repository"

    @property
    def key_file(self) -> Path:
        return self.root / "home/.config/backstay/default.key"

    def run(self, *argv: object, status: int | None = 0, env: Mapping[str, str] | None = None) -> Done:
        """Call the command line; fails the test when it ends with another status."""
        self.capture.readouterr()
        found = run([str(arg) for arg in argv], {**self.environ, **(env or {})})
        out, err = self.capture.readouterr()
        assert status is None or found == status, f"{argv}: exit {found}\n{out}\n{err}"
        return Done(found, out, err)

    def json(self, *argv: object, status: int = 0, env: Mapping[str, str] | None = None) -> Any:
        """The one JSON document that a command prints."""
        return json.loads(self.run("--json", *argv, status=status, env=env).out)

    def backup(self, *argv: object) -> dict[str, Any]:
        """The result of one more backup."""
        result: dict[str, Any] = self.json("backup", self.documents, *argv)
        return result

    def program(self, *argv: object, env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[bytes]:
        """The command line as a process of its own."""
        words = [sys.executable, "-m", "backstay", *map(str, argv)]
        return subprocess.Popen(
            words,
            env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], **self.environ, **(env or {})},
            **{**_QUIET, "cwd": self.root, **more},
        )


class FullStream(io.StringIO):
    """A stream of which only the first `room` writes find room."""

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self._room = room

    def write(self, text: str) -> int:
        if self._room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= 1
        return super().write(text)


def shown_on(terminal: int) -> bytes:
    """All that programs write to a terminal until the last of them leaves it; then it is closed."""
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # how Linux says that nobody has the other end open any more
            os.close(terminal)
            return shown


@pytest.fixture
def account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Account:
    """An account with a few documents and nothing else."""
    (tmp_path / "home").mkdir()
    documents = tmp_path / "documents"
    (documents / "letters").mkdir(parents=True)
    for number in range(5):
        (documents / "letters" / f"letter-{number}.txt").write_text(f"Dear reader {number}\n" * 20)
    (documents / "note").write_text("a note\n")
    return Account(tmp_path, capsys, {"HOME": str(tmp_path / "home"), "TZ": "UTC"})


@pytest.fixture
def saved(account: Account) -> Account:
    """The same after a first backup, which created the default repository."""
    account.run("backup", account.documents, "--name", "docs")
    return account


@pytest.fixture
def flip() -> Callable[[Path], None]:
    """Damages a file all over, its head and tail excepted."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        for place in range(200, len(data) - 100, 50):
            data[place] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)

    return damage
