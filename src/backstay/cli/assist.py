"""`benchmark` and `completion`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, option
from backstay.cli.render import out, print_table
from backstay.core.quantities import format_count, format_duration, format_size
from backstay.core.sizes import parse_size
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.trials.benchmark import BenchmarkResult

PROGRAM = "backstay"
COMPLETE_VARIABLE = "_BACKSTAY_COMPLETE"


def benchmark(
    ctx: typer.Context,
    directory: Annotated[
        Path | None, argument("DIR", "Where to measure; a scratch directory is made in it and removed.")
    ] = None,
    size: Annotated[str, option("N", "Bytes to work on, such as 256MiB.", show_default=True)] = "256MiB",
) -> int:
    """Measure how fast this machine backs up, verifies and restores."""
    from backstay.operations.trials.benchmark import run_benchmark

    context = context_of(ctx)
    amount = parse_size(size)
    with context.watching() as events:
        place = directory or Path(tempfile.gettempdir())
        result = run_benchmark(place, size=amount, events=events, clock=context.clock)
    document = {
        **asdict(result),
        "stages": [asdict(stage) | {"rate": stage.rate} for stage in result.stages],
        "runs": [asdict(run) | {"rate": run.rate, "files_rate": run.files_rate} for run in result.runs],
    }
    context.result(document, lambda: _show_benchmark(context, result))
    return 0


def _show_benchmark(context: Context, result: BenchmarkResult) -> None:
    out(f"{format_size(result.bytes)} in {format_count(result.files)} files, {result.threads} threads")
    runs = [
        (run.name, format_duration(run.seconds), f"{format_size(round(run.rate))}/s", f"{round(run.files_rate)}/s")
        for run in result.runs
    ]
    print_table(("Whole run", ">Time", ">Data", ">Files"), runs, context.environ)
    out()
    stages = [(stage.name, f"{format_size(round(stage.rate))}/s") for stage in result.stages]
    print_table(("One thread", ">Data"), stages, context.environ)
    out(f"stored as {format_size(result.stored_bytes)}")


def completion(
    ctx: typer.Context,
    shell: Annotated[Literal["bash", "zsh", "fish"], argument("SHELL", "bash, zsh or fish.")],
) -> int:
    """Print a script that completes commands in a shell."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if context_of(ctx).json:
        raise InvalidRequest("completion has no JSON form", cause="it prints a shell script", hint="leave --json out")
    sys.stdout.write(get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, shell=shell) + "\n")
    return 0


def complete(command: Any) -> int:  # noqa: ANN401 - typer's own type
    """Answer a completion script, which asks by variables; the status."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
    return int(command.main([], prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False) or 0)
