"""`python -m backstay` and the `backstay` command."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # as in the package: signals are heard before anything large is loaded
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process and leave with its status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)  # until the command line has its own handler: nothing is begun yet
    from backstay.cli.streams import open_closed

    open_closed()
    from backstay.core.memory import collect_less_often

    collect_less_often()  # while modules are loaded, that takes 12 ms of each start
    from backstay.cli.main import run

    status = run(sys.argv[1:], os.environ)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # everything is done, and the status is known
    if status == INTERRUPTED:
        # The interpreter would wait for threads, and die of SIGINT if the interrupt fell into an import.
        os._exit(status)
    sys.exit(status)


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
