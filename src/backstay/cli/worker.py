"""`worker`: runs jobs that others ask for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from backstay.cli.context import context_of
from backstay.cli.extras import server_extra
from backstay.cli.options import option
from backstay.cli.serving import DATA_DIR_HELP, DATABASE_HELP, leave, options_of, started
from backstay.core.clock import rest
from backstay.errors import InvalidRequest

_LOOK_S = 3600.0  # a signal ends it at once


def worker(
    ctx: typer.Context,
    database: Annotated[str | None, option("URL", DATABASE_HELP)] = None,
    queues: Annotated[
        str | None, option("LIST", "Run jobs of these only: backup,restore,verify,maintenance,notify.")
    ] = None,
    data_dir: Annotated[Path | None, option("DIR", DATA_DIR_HELP)] = None,
) -> int:
    """Run jobs, on this host, for a service that keeps them in PostgreSQL, until a signal ends it.

    It needs the policy file and the password of the repository, as `serve` does.
    """
    with server_extra("backstay worker"):
        from backstay.control.jobs.queues import queues_named

        context = context_of(ctx)
        options = options_of(context, data_dir, database, queues_named(queues), alone=True)
        if options.embedded:
            raise InvalidRequest(
                "a worker of its own needs a database that many processes share",
                cause="neither --database nor BACKSTAY_DATABASE names one",
                hint="give --database postgresql://user@host/database; `backstay serve` runs jobs by itself",
            )
        with context.until_stopped() as (_, stopped), started(context, options) as service:
            document = {"worker": service.engine.worker, "queues": list(options.queues)}
            context.result(
                document, lambda: context.say(f"{service.engine.worker} runs jobs of {', '.join(options.queues)}")
            )
            sys.stdout.flush()
            while not stopped():
                rest(context.clock, _LOOK_S, stopped)
    return leave(0)
