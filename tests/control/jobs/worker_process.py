"""A process that runs jobs which write down what they do: `python -m … DATA_DIR LOG [DATABASE]`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import Job
from backstay.control.jobs.execution import Execution
from backstay.control.service.context import ServiceContext
from backstay.control.service.options import ServiceOptions
from backstay.control.service.service import Service

LEASE_S: Final = 2.0


def options(data_dir: Path, database: str | None) -> ServiceOptions:
    return ServiceOptions(data_dir=data_dir, database=database, lease_s=LEASE_S, beat_s=0.3, sweep_s=0.3, poll_s=0.1)


def short(log: Path, job: Job, execution: Execution) -> Document:
    """Work for a short while, unless asked to end; only the end of an attempt that counts is in the row."""
    _write(log, "begin", job, execution)
    for _ in range(job.arguments["steps"]):
        time.sleep(0.02)
        execution.checkpoint()
    _write(log, "end", job, execution)
    return {"attempt": execution.attempt, "process": os.getpid()}


def _write(log: Path, what: str, job: Job, execution: Execution) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{what} {job.id} {execution.attempt} {os.getpid()}\n".encode())
    os.close(fd)


def main() -> None:
    data_dir, log, *database = sys.argv[1:]

    def work(context: ServiceContext, job: Job, execution: Execution) -> Document:
        return short(Path(log), job, execution)

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    chosen = options(Path(data_dir), database[0] if database else None)
    with Service.open(chosen, environ=os.environ, warn=print, handlers={"notification": work}) as service:
        service.start()
        print("ready", flush=True)
        while not ended.wait(0.05):
            pass
        service.stop()
    os._exit(0)


if __name__ == "__main__":
    main()
