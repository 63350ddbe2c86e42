"""`graph worker`: recompute nodes for a restore that runs elsewhere and talks through standard input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backstay.cli.options import option


def graph_worker(
    ctx: typer.Context,
    import_: Annotated[
        list[str],
        option("MODULE", "A module that registers functions with @recomputes; repeatable.", "--import"),
    ],
    path: Annotated[
        list[Path] | None, option("DIR", "Look for modules in this directory too; repeatable.", "--path")
    ] = None,
) -> int:
    """Answer the one that started it, such as `ssh HOST backstay graph worker --import pipeline`, until it is gone."""
    import sys

    from backstay.graph.worker import run_worker

    del ctx
    sys.path[:0] = [str(directory.absolute()) for directory in path or ()]
    run_worker(import_)
