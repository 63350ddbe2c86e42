"""What `serve` and `worker` have in common: where their data is, and how they end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from backstay.cli.context import Context
from backstay.cli.render import UNWRITABLE
from backstay.core.environment import data_directory, variable

if TYPE_CHECKING:
    from backstay.control.service.options import ServiceOptions
    from backstay.control.service.service import Service

DATABASE_HELP: Final = (
    "postgresql://user@host/database for catalog and jobs, shared by many hosts; else BACKSTAY_DATABASE, "
    "else files in the data directory. Passwords come from ~/.pgpass or PGPASSWORD."
)
DATA_DIR_HELP: Final = "Where the service keeps its keys and databases; ~/.local/share/backstay if not given."
_LEAVING_S: Final = 1.0  # for threads that are about to end anyway


def options_of(
    context: Context, data_dir: Path | None, database: str | None, queues: Sequence[str], *, alone: bool
) -> ServiceOptions:
    """The options of the service, from those of a command."""
    from backstay.control.service.options import ServiceOptions

    return ServiceOptions(
        data_dir=data_dir or data_directory(context.environ),
        config=context.policy_file(),
        database=database or variable(context.environ, "BACKSTAY_DATABASE"),
        queues=tuple(queues),
        own_schedules=not alone,
    )


@contextmanager
def started(context: Context, options: ServiceOptions) -> Iterator[Service]:
    """The service, running; at the end jobs are asked to end, and what does not is left to the next process."""
    from backstay.control.service.service import Service

    with (
        _hangups_taken(),
        Service.open(options, environ=context.environ, warn=context.warn, clock=context.clock) as service,
    ):
        try:
            service.start()
            yield service
        finally:
            ended = service.stop()
        if not ended:
            context.warn("jobs that did not come to a good place to stop are begun again by the next process")


@contextmanager
def _hangups_taken() -> Iterator[None]:
    """Within, SIGHUP does not end the process: it asks a service to read its files anew, which ours does anyway.

    A handler and not SIG_IGN, which the programs that jobs start would inherit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, _nothing_to_do)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _nothing_to_do(number: int, frame: FrameType | None) -> None:
    del number, frame


def leave(status: int) -> int:
    """End the process even if a thread of a job does not: all that counts is written, as for a crash.

    What did end returns to the caller, who tidies up.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(_LEAVING_S)
            if thread.is_alive():
                for stream in (sys.stdout, sys.stderr):
                    with suppress(*UNWRITABLE):
                        stream.flush()
                os._exit(status)
    return status
