"""The program itself, killed by SIGKILL in the middle of a switch: what it leaves can be undone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import SOURCE
from tests.operations.in_place_world import backed_up, changed, seen

pytestmark = pytest.mark.crash


@pytest.fixture(autouse=True)
def _tracer() -> None:
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed, but this is where it must be")
        pytest.skip("strace is not installed")


class Killed:
    """A home with a snapshot of a tree that has changed since, and a restore in place that was killed."""

    def __init__(self, place: Path) -> None:
        self.place, self.tree = place, place / "data"
        (place / "home").mkdir()
        backed_up(self.tree)
        self.new = seen(self.tree)
        self.run("backup", self.tree)
        shutil.rmtree(self.tree)
        changed(self.tree)
        self.old = seen(self.tree)

    def run(self, *argv: object, before: tuple[str, ...] = ()) -> int:
        words = [*before, sys.executable, "-m", "backstay", *map(str, argv)]
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "HOME": str(self.place / "home")}
        done = subprocess.run(words, env=environ, capture_output=True, check=False, timeout=120)
        return done.returncode

    def kill_at(self, number: int) -> None:
        """At its so-and-so-manieth exchange or rename that replaces nothing."""
        inject = f"inject=renameat2:signal=KILL:when={number}"
        tracer = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2", "-e", inject)
        argv = ("restore", "latest", "--in-place", "--conflict", "overwrite", "--delete")
        assert self.run(*argv, before=tracer) in (-signal.SIGKILL, 128 + signal.SIGKILL)

    @property
    def left(self) -> Path:
        (found,) = [path for path in self.place.iterdir() if path.name.startswith(".backstay-restore-")]
        return found


def test_killed_in_the_middle_it_can_be_undone(place: Path) -> None:
    world = Killed(place)
    world.kill_at(5)
    assert seen(world.tree) not in (world.old, world.new)
    assert world.run("restore", "--rollback", world.left) == 0
    assert seen(world.tree) == world.old
