"""Give a dump to the client program of MariaDB or MySQL, statement by statement.

These servers commit each CREATE TABLE by itself: what a failure leaves behind is the part of the dump before it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain
from typing import Final

from backstay.codec.compression import Buffer
from backstay.errors import BackstayError, RestoreFailed
from backstay.sources.mysql.server import CHARSET, Server, quoted
from backstay.sources.program import Program

_SANDBOX: Final = b"/*M!999999"  # first line of MariaDB's dumps: its client then runs no shell commands
_ERROR: Final = re.compile(r"ERROR \d+ \(\w+\).*", re.DOTALL)
_LEFT_OVER: Final = "what stands before that line is restored; mend it, and restore again with --conflict overwrite"


def run_client(
    server: Server,
    database: str | None,
    dump: Iterable[Buffer],
    *,
    progress: Callable[[int], None],
    left_over: str = _LEFT_OVER,
) -> None:
    """Run the statements of a dump in a database, or in those that it names itself.

    `progress` is told how many bytes were given away; `left_over` says what a failure leaves, and what to do then.
    Raises RestoreFailed at the first statement that fails, and what reading the dump raises; the statements before
    that stay done.
    """
    program = server.client()
    command = [program.path, *server.address.arguments, CHARSET, "--batch", "--binary-mode", "--skip-force"]
    command += ["--no-auto-rehash", "--local-infile=0", "--max-allowed-packet=1G"]
    command += ["--skip-reconnect", "--loose-skip-print-query-on-error"]  # a new session would lack the dump's settings
    if database is not None:
        command.append(f"--database={database}")
    running = Program(command, server.environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    given = 0

    def counted() -> Iterator[Buffer]:
        nonlocal given
        for piece in dump if program.is_mariadb else _without_sandbox(dump):
            yield piece
            given += len(piece)

    # Closing kills it before its input ends: else it would take a dump that cannot be read further for a whole one.
    with closing(running):
        for _ in running.written(counted()):
            progress(given)
        running.close_input()
        if status := running.ended(lambda: progress(given)):
            raise _refused(running.failure(status), left_over)


def _without_sandbox(dump: Iterable[Buffer]) -> Iterator[Buffer]:
    """A dump less the line that MySQL's client takes for an unknown command of its own."""
    pieces = iter(dump)
    head = bytes(next(pieces, b""))
    if head.startswith(_SANDBOX):
        head = head.partition(b"\n")[2]
    return chain([head], pieces)


def renamed(dump: Iterable[Buffer], old: str, new: str) -> Iterator[Buffer]:
    """A dump of one database for another one.

    A dump names its database nowhere but around routines, triggers and events that were made when it had another
    character set: there it would alter the database that it was made of, or fail.
    """
    line = b"\nALTER DATABASE %s CHARACTER SET " % quoted(old).encode()
    instead = b"\nALTER DATABASE %s CHARACTER SET " % quoted(new).encode()
    held, kept = b"", len(line) - 1  # the beginning of such a line may lie at the end of a piece
    for piece in dump:
        held = (held + piece).replace(line, instead)
        yield held[:-kept]
        held = held[-kept:]
    yield held


def _refused(failure: BackstayError, left_over: str) -> RestoreFailed:
    told = _ERROR.search(failure.cause)
    cause = told[0] if told is not None else failure.cause  # without the statement, which may hold anybody's data
    hints = {
        "max_allowed_packet": "raise max_allowed_packet of that server to 64M; " + left_over,
        "larger than": "raise max_allowed_packet of that server to 64M; " + left_over,
        "out-of-order": "SET GLOBAL gtid_strict_mode = OFF on that server; " + left_over,
        "SUPER": "restore as a user who may create objects that belong to others (SUPER, SET USER); " + left_over,
        "Access denied": "restore as a user who may create what the dump holds; " + left_over,
        "command denied": "restore as a user who may create what the dump holds; " + left_over,
    }
    hint = next((text for sign, text in hints.items() if sign in cause), left_over)
    return RestoreFailed("the restore stopped half way", cause=cause, hint=hint)
