"""How options and arguments are declared: with the word for their value, and a sentence."""

from __future__ import annotations

from typing import Any

import typer

GLOBAL_PANEL = "Global options"  # heads the options that every command takes
SNAPSHOT_HELP = "The beginning of an id, a name, latest or latest:NAME."


def option(metavar: str, text: str, *names: str, **more: Any) -> Any:  # noqa: ANN401 - typer's own type varies
    """An option with a value; its default is shown only when `show_default` says so."""
    return typer.Option(*names, metavar=metavar, help=text, **{"show_default": False, **more})


def flag(text: str, *names: str, **more: Any) -> Any:  # noqa: ANN401
    """An option without a value."""
    return typer.Option(*names, metavar=" ", help=text, show_default=False, **more)


def argument(metavar: str, text: str) -> Any:  # noqa: ANN401
    """A word that stands by itself."""
    return typer.Argument(metavar=metavar, help=text, show_default=False)
