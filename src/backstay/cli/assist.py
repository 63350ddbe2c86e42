"""`benchmark` and `completion`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from backstay.cli.care import parse_size
from backstay.cli.context import context_of
from backstay.errors import InvalidRequest

PROGRAM = "backstay"
COMPLETE_VARIABLE = "_BACKSTAY_COMPLETE"


def benchmark(
    ctx: typer.Context,
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Where to measure; a scratch directory is made in it and removed.", show_default=False)] = None,
    size: Annotated[str, typer.Option(metavar="N", help="Bytes to work on, such as 256MiB.")] = "256MiB",
) -> int:
    """Measure how fast this machine backs up, verifies and restores."""
    from backstay.operations.benchmark import run_benchmark

    context = context_of(ctx)
    amount = parse_size(size)
    with tempfile.TemporaryDirectory(prefix="backstay-benchmark-", dir=directory) as scratch, context.watching() as events:
        result = run_benchmark(Path(scratch), amount, events=events)
    context.result(result, lambda: print(result))
    return 0


def completion(
    ctx: typer.Context,
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="bash|zsh|fish", help="The shell.", show_default=False)],
) -> int:
    """Print a script that completes commands in a shell."""
    from typer.completion import get_completion_script

    if context_of(ctx).json:
        raise InvalidRequest("completion has no JSON form", cause="it prints a shell script", hint="leave --json out")
    sys.stdout.write(get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, shell=shell) + "\n")
    return 0
