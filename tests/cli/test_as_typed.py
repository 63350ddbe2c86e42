"""Values that need no conversion come out as the command line's own converter would give them, which stays away."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.main import get_command

from backstay.cli.as_typed import take_as_typed
from tests.cli.conftest import SOURCE

SEEN: list[dict[str, Any]] = []


def _upper(value: str | None) -> str | None:
    return None if value is None else value.upper()


def _command(
    word: Annotated[str, typer.Argument()],
    more: Annotated[list[str] | None, typer.Argument()] = None,
    text: Annotated[str | None, typer.Option()] = None,
    filled: Annotated[str, typer.Option()] = "filled",
    called: Annotated[str | None, typer.Option(callback=_upper)] = None,
    number: Annotated[int | None, typer.Option(min=1, max=9)] = None,
    counted: Annotated[int, typer.Option(min=1, max=9)] = 7,
    how: Annotated[Literal["fast", "slow"], typer.Option()] = "slow",
    tag: Annotated[list[str] | None, typer.Option()] = None,
    sure: Annotated[bool, typer.Option("--sure")] = False,
) -> None:
    SEEN.append(dict(locals()))


def _run(argv: list[str], *, short: bool) -> object:
    """What the function is given, or the words of the refusal."""
    app = typer.Typer(add_completion=False)
    app.command()(_command)
    command: Any = get_command(app)
    if short:
        take_as_typed(command)
    SEEN.clear()
    try:
        command.main(argv, prog_name="x", standalone_mode=False)
    except Exception as refused:  # noqa: BLE001 - compared with the other way's
        return type(refused), str(refused)
    return SEEN.pop()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a",
        "a b c",
        "a --text=",
        "a --text t --filled f --called c",
        "a --called=",
        "a --number 3 --counted 2",
        "a --number 0",
        "a --number x",
        "a --counted 10",
        "a --how fast",
        "a --how FAST",
        "a --how none",
        "a --tag x --tag y --tag=",
        "a --sure",
        "a --sure --text",
        "a --none",
    ],
)
def test_all_values_are_what_the_converter_makes_of_them(line: str) -> None:
    argv = line.split()
    assert _run(argv, short=True) == _run(argv, short=False)


def test_an_empty_word_and_bytes_that_are_no_text_come_through() -> None:
    argv = ["", "\udcff", "--text", "\udcff"]
    seen = _run(argv, short=True)
    assert seen == _run(argv, short=False)
    assert isinstance(seen, dict)
    assert (seen["more"], seen["text"]) == (["\udcff"], "\udcff")


LINES = [
    ["backup", "-n", "."],
    ["-r", "nowhere", "restore", "latest:/a", "--to", "b", "--include", "c"],
    ["verify", "--read-data", "-q"],
    ["list", "--json"],
    ["prune", "--keep-within", "1d"],
]


@pytest.mark.parametrize("argv", LINES, ids=" ".join)
def test_the_converters_are_not_loaded_for_a_line_without_numbers_and_paths(argv: list[str]) -> None:
    code = (
        "import os, sys; from backstay.cli.main import run; run(sys.argv[1:], {'HOME': '/nonexistent'}); "
        "print('pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, cwd="/"
    )
    assert done.stdout.splitlines()[-1] == "False"
