"""Only the parsers that a command line needs are built, and no line is understood otherwise for that."""

from __future__ import annotations

import pytest

from backstay.cli.commands import CLASSES, COMMANDS, GROUPS, called, load


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


@pytest.mark.parametrize("line", ["", "--help", "-h", "backup --help", "bakcup list", "-r list bakcup", "--version"])
def test_help_and_mistakes_need_all_commands(line: str) -> None:
    assert called(line.split()) is None
