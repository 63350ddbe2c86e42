"""Real processes, killed by the kernel's own tracer at chosen system calls."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Repository
from backstay.storage.local import LocalStorage
from tests.crash import driver
from tests.crash.scenarios import NIGHTLY
from tests.crash.small_world import content

pytestmark = pytest.mark.crash
CALLS: Final = ("write", "fsync", "link", "linkat", "rename", "renameat2", "unlink", "unlinkat", "mkdir")
KILLS: Final = 20
INTERRUPTS: Final = 4
_CALL: Final = re.compile(r"^(\d+) +(\w+)\(")


@pytest.fixture(autouse=True)
def _tracer() -> None:
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed, but this is where it must be")
        pytest.skip("strace is not installed")


@pytest.fixture
def base(place: Path) -> Path:
    """A repository and two trees."""
    made = place / "base"
    made.mkdir()
    for number, tree in enumerate(("one", "two")):
        for at in range(14):
            file = made / tree / f"d{at % 3}" / f"f{at}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content(100 * number + at, 200 * at))
    Repository.create(LocalStorage(made / "repository", create=True), driver.SECRET).close()
    return made


@dataclass(slots=True)
class Told:
    """What the program said before it ended."""

    snapshots: dict[str, str] = field(default_factory=dict)  # id -> tree
    dropping: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    is_complete: bool = False

    @classmethod
    def by(cls, place: Path) -> Told:
        told = cls()
        file = place / "acknowledged"
        for line in file.read_text().splitlines() if file.exists() else ():
            word, ulid = line.split()
            if word == "dropping":
                told.dropping.add(ulid)
            elif word == "dropped":
                told.dropped.add(ulid)
            elif word == "collected":
                told.is_complete = True
            else:
                told.snapshots[ulid] = word
        return told


def trace(place: Path, *options: str) -> int:
    """Run the program under the tracer; its exit status."""
    # Not with --seccomp-bpf: it is faster, and then injects nothing.
    command = ["strace", "-f", "-qq", "-o", str(place / "trace"), *options]
    program = [sys.executable, "-B", driver.__file__, str(place)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run([*command, *program], env=environment, capture_output=True, timeout=120).returncode


def points(base: Path, place: Path) -> list[tuple[str, int]]:
    """(system call, how many of it one thread has made) of everything that an undisturbed run does."""
    whole = place / "whole"
    shutil.copytree(base, whole)
    assert trace(whole, "-e", "trace=" + ",".join(CALLS)) == 0
    seen: Counter[tuple[str, str]] = Counter()
    found: set[tuple[str, int]] = set()
    for line in (whole / "trace").read_text().splitlines():
        if match := _CALL.match(line):
            thread, call = match.groups()
            seen[thread, call] += 1
            found.add((call, seen[thread, call]))
    assert Told.by(whole).is_complete
    return sorted(found)


def some(found: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    return found if NIGHTLY or len(found) <= count else sorted(random.Random(5).sample(found, count))


def assert_good(place: Path) -> None:
    """Everything that was acknowledged is there, the next backup works, a collection and a sweep clean up."""
    told = Told.by(place)
    assert_restores(place, told)
    with driver.open_repository(place) as repository:
        told.snapshots[driver.back_up(repository, place / "two")] = "two"
        collector = Collector(repository, lease=timedelta(0))
        assert not collector.execute(collector.plan()).waiting_for
        backend = repository.backend
        assert isinstance(backend, LocalStorage)
        backend.sweep_temporaries(0)
        assert not list((place / "repository").rglob(".tmp-*"))
    assert_restores(place, told)


def assert_restores(place: Path, told: Told) -> None:
    with driver.open_repository(place) as repository:
        live = {manifest.id: manifest for manifest in repository.snapshots.live()}
        assert told.snapshots.keys() - told.dropping <= live.keys()
        assert not live.keys() & told.dropped
        for ulid, manifest in live.items():
            target = place / "restored"
            result = run_restore(repository, manifest, target, RestoreOptions())
            assert not result.errors
            tree = place / told.snapshots.get(ulid, "two" if told.snapshots else "one")
            below = target / tree.relative_to("/")
            assert contents(below) == contents(tree)
            shutil.rmtree(target)
        report = run_verify(repository, options=VerifyOptions(read_data=1.0))
        assert report.ok, report.findings


def contents(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGINT"])
def test_a_killed_process_leaves_everything_acknowledged(base: Path, place: Path, signal: str) -> None:
    found = points(base, place)
    assert len(found) > KILLS
    stopped = 0
    for call, number in some(found, KILLS if signal == "SIGKILL" else INTERRUPTS):
        world = place / "world"
        shutil.copytree(base, world)
        status = trace(world, "-e", f"trace={call}", "-e", f"inject={call}:signal={signal}:when={number}")
        stopped += status != 0
        try:
            assert_good(world)
        except BaseException as error:
            error.add_note(f"{signal} at {call} number {number}; the program ended with status {status}")
            raise
        shutil.rmtree(world)
    assert stopped
