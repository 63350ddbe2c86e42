"""Only the parsers that a command line needs are built, and no line is understood otherwise for that."""

from __future__ import annotations

import pytest
from typer import Exit

from backstay.cli.assist import PROGRAM
from backstay.cli.commands import CLASSES, COMMANDS, GROUPS, asks_for_list, called, load
from backstay.cli.main import command_tree, run


def test_every_command_is_where_the_table_says() -> None:
    places = [place for commands in COMMANDS.values() for place in commands.values()]
    places += [place for groups in GROUPS.values() for _, commands in groups.values() for place in commands.values()]
    assert all(callable(load(place)) for place in places)
    assert set(CLASSES) <= set(places)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("backup list", {"backup"}),
        ("--json ls latest", {"ls"}),
        ("-r /repo restore latest --to out", {"restore"}),
        ("-r list backup .", {"list", "backup"}),  # a repository in a directory of that name
        ("--progress=json pg backup", {"pg"}),
        ("-q -v cas store", {"cas"}),
    ],
)
def test_the_command_that_is_called_is_built(line: str, expected: set[str]) -> None:
    assert called(line.split()) == frozenset(expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("backup --help", {"backup"}), ("-r list pg --help", {"list", "pg"}), ("-r --help list", {"list"})],
)
def test_help_on_a_command_needs_that_command(line: str, expected: set[str]) -> None:
    assert not asks_for_list(line.split())
    assert called(line.split()) == frozenset(expected)


@pytest.mark.parametrize("line", ["bakcup list", "bakcup --help", "-r list bakcup", "--version", "-r --help"])
def test_mistakes_need_all_commands(line: str) -> None:
    assert not asks_for_list(line.split())
    assert called(line.split()) is None


@pytest.mark.parametrize("line", ["", "--help", "-h", "--json -q --help", "-r list -h backup", "--progress=json -h"])
def test_the_list_of_commands_is_asked_for_by_help_before_any_command(line: str) -> None:
    assert asks_for_list(line.split())


@pytest.mark.parametrize("line", ["", "--help", "-r backup --help"])
def test_the_list_is_that_of_the_commands_themselves(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split(), {}) == 0
    listed = capsys.readouterr().out
    with pytest.raises(Exit):
        command_tree().make_context(PROGRAM, ["--help"])
    assert listed == capsys.readouterr().out
