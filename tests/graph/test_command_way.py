"""Nodes that commands make: placeholders, failures, deadlines, and what they may see."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backstay.errors import InvalidRequest
from tests.graph.worlds import World, actions, result

# What `World.make` gives, from the files that are named on the command line.
JOIN = "import hashlib, sys, pathlib as p; sha = lambda f: hashlib.sha256(p.Path(f).read_bytes()).hexdigest(); "
TO_STDOUT = JOIN + "sys.stdout.write('\\n'.join([sys.argv[1], *map(sha, sys.argv[2:])]))"
TO_FILE = JOIN + "p.Path(sys.argv[1]).write_text('\\n'.join([sys.argv[2], *map(sha, sys.argv[3:])]))"


def world_of(*command: str, name: str = "c") -> World:
    """A node `c` made from `a` and `b/1` by a command, whose output is lost."""
    world = World()
    world.add("a")
    world.add("b/1")
    world.add(name, ["a", "b/1"], command=command, capability="")
    world.lose(name)
    return world


@pytest.mark.parametrize(
    "command",
    [
        ("{python}", "-c", TO_STDOUT, "{node}", "{inputs}"),
        ("{python}", "-c", TO_FILE, "{output}", "{node}", "{inputs}"),
        (sys.executable, "-c", TO_FILE, "{output}", "c", "{input:a}", "{input:b/1}"),
        ("sh", "-c", f"exec {sys.executable} -c '''{TO_FILE}''' \"$@\"", "sh", "{output}", "{node}", "{inputs}"),
    ],
)
def test_a_command_makes_a_node(command: tuple[str, ...]) -> None:
    if command[0] == "sh":
        command = (*command[:2], f'exec {sys.executable} -c "$0" "$@"', TO_FILE, *command[4:])
    world = world_of(*command)
    report = world.restore(run_commands=True)
    assert report.ok, report
    assert actions(report)["c"] == "recomputed"


def test_a_registered_command_needs_no_leave_and_comes_first() -> None:
    world = world_of("false")
    metadata = world.graph["c"].metadata.model_copy(update={"capability": "joining"})
    world.graph.replace(world.graph["c"].model_copy(update={"metadata": metadata}))
    world.recomputers.command("joining", ["{python}", "-c", TO_STDOUT, "{node}", "{inputs}"])
    assert world.restore().ok


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("false",), "false failed: exit status 1; it said: nothing"),
        (("sh", "-c", "echo too bad >&2; exit 3"), "exit status 3; it said: too bad"),
        (("sh", "-c", "kill -9 $$"), "signal SIGKILL"),
        (("sh", "-c", "kill -40 $$"), "sh failed: signal 40"),
        (("no-such-program-anywhere",), "cannot start no-such-program-anywhere"),
        (("true", "{output}"), "wrote no output"),
        (("ln", "-s", "/etc/passwd", "{output}"), "wrote no output"),
        (("mkdir", "{output}"), "wrote no output"),
        (("echo", "other"), "gave another output than the recorded one"),
        (("cat", "{input:ghost}"), "ghost is none of its dependencies"),
    ],
)
def test_a_command_that_fails_is_told(command: tuple[str, ...], told: str) -> None:
    report = world_of(*command).restore(run_commands=True)
    assert actions(report)["c"] == "failed"
    assert told in result(report, "c").reason


def test_other_braces_are_the_commands_own() -> None:
    world = World()
    world.add("a")
    world.add("awk", ["a"], command=("awk", 'BEGIN { print "{}" } {x} END {}', "{input:a}"), capability="")
    data = b"{}\n"
    world.graph.replace(world.graph["awk"].model_copy(update={"hash": world.values.store(data)}))
    metadata = world.graph["awk"].metadata.model_copy(update={"output_hashes": ()})
    world.graph.replace(world.graph["awk"].model_copy(update={"metadata": metadata}))
    world.lose("awk")
    assert world.restore(run_commands=True).ok


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    world = world_of("sh", "-c", f"sleep 60 & echo $! > {place}; wait")
    begun = time.monotonic()
    report = world.restore(run_commands=True, deadline=2)  # time enough to start
    assert time.monotonic() - begun < 50
    assert "its process was killed" in result(report, "c").reason
    assert_gone(int(place.read_text()))


def assert_gone(pid: int) -> None:
    """The process is dead, or will be in a moment."""
    until = time.monotonic() + 50
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} still runs")


def test_a_command_does_not_see_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSTAY_PASSWORD", "secret")
    monkeypatch.setenv("OTHER", "seen")
    world = world_of("sh", "-c", "echo $BACKSTAY_PASSWORD $OTHER")
    world.graph.replace(world.graph["c"].model_copy(update={"hash": world.values.store(b"seen\n")}))
    metadata = world.graph["c"].metadata.model_copy(update={"output_hashes": ()})
    world.graph.replace(world.graph["c"].model_copy(update={"metadata": metadata}))
    world.lose("c")
    assert world.restore(run_commands=True).ok


@pytest.mark.parametrize("command", ["true", [], [""], ["true", "\0"]])
def test_what_is_no_command_is_refused(command: Any) -> None:
    with pytest.raises(InvalidRequest):
        World().recomputers.command("joining", command)


def test_no_node_without_a_capability_can_be_registered_for() -> None:
    with pytest.raises(InvalidRequest):
        World().recomputers.command("", ["true"])


assert os.name == "posix"
