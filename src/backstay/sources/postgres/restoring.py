"""Give a dump to pg_restore, in one transaction: all of what was chosen is restored, or nothing."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from threading import Thread
from typing import Final

from backstay.codec.compression import Buffer
from backstay.errors import BackstayError, RestoreConflict, RestoreFailed
from backstay.sources.postgres.archive import Entry
from backstay.sources.postgres.login import Login
from backstay.sources.postgres.programs import Programs
from backstay.sources.program import Program

KNOWS_TIMEOUT: Final = 17  # the version since which servers know what pg_restore sets first
_TIMEOUT: Final = b"SET transaction_timeout = 0;\n"
_BLOCK: Final = 1 << 20


def run_pg_restore(
    programs: Programs,
    access: Login,
    entries: Sequence[Entry],
    dump: Iterable[Buffer],
    *,
    server: int,
    owners: bool,
    clean: bool,
    progress: Callable[[int], None],
) -> None:
    """Restore the entries of a dump; `progress` is told how many bytes of it were given away.

    Raises RestoreConflict when something turns out to be there already, RestoreFailed; and what reading the dump
    raises, after which the server has nothing either.
    """
    with ExitStack() as stack:
        wanted = stack.enter_context(tempfile.NamedTemporaryFile("w", prefix="backstay-", suffix=".list"))
        wanted.writelines(f"{entry.ident};\n" for entry in entries)
        wanted.flush()
        command = [programs["pg_restore"], "--exit-on-error", f"--use-list={wanted.name}"]
        if not owners:
            command += ["--no-owner", "--no-privileges"]
        if clean:
            command += ["--clean", "--if-exists"]
        if server < KNOWS_TIMEOUT <= programs.major:
            _through_psql(stack, command, programs, access, dump, progress)
        else:
            _directly(stack, command, access, dump, progress)


def _directly(
    stack: ExitStack, command: list[str], access: Login, dump: Iterable[Buffer], progress: Callable[[int], None]
) -> None:
    command += ["--single-transaction", "--no-password", f"--dbname={access.conninfo}"]
    program = Program(command, access.environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    stack.callback(program.close)  # kills it if this fails, and the server forgets the transaction
    given = _Given(dump)
    for _ in program.written(given):
        progress(given.bytes)
    program.close_input()
    _require_success(program, lambda: progress(given.bytes))


def _through_psql(
    stack: ExitStack,
    command: list[str],
    programs: Programs,
    access: Login,
    dump: Iterable[Buffer],
    progress: Callable[[int], None],
) -> None:
    """For a server that is older than the program: as commands, without the one that such a server does not know.

    COMMIT is sent last, when pg_restore has ended well: whatever ends before, ends without it.
    """
    psql = Program(
        [programs["psql"], "-X", "-q", "-v", "ON_ERROR_STOP=1", "--no-password", f"--dbname={access.conninfo}"],
        access.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    stack.callback(psql.close)
    program = Program([*command, "--file=-"], access.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stack.callback(program.close)
    given, failure = _Given(dump), list[BaseException]()

    def feed() -> None:
        try:
            for _ in program.written(given):
                pass
            program.close_input()
        except BaseException as error:  # noqa: BLE001 - handed over
            failure.append(error)
            program.process.kill()

    feeding = Thread(target=feed, name="pg_restore", daemon=True)
    feeding.start()
    try:
        for _ in psql.written(chain([b"BEGIN;\n"], _without_timeout(program))):
            progress(given.bytes)
    finally:
        if psql.process.poll() is not None:
            program.process.kill()
        feeding.join()
    if failure:
        raise failure[0]
    if psql.process.poll() is None:
        _require_success(program, lambda: progress(given.bytes))
        for _ in psql.written(iter([b"COMMIT;\n"])):
            progress(given.bytes)
    psql.close_input()
    _require_success(psql, lambda: progress(given.bytes))


class _Given:
    """The pieces of a dump, and how many bytes of it were given away."""

    def __init__(self, dump: Iterable[Buffer]) -> None:
        self._dump = dump
        self.bytes = 0

    def __iter__(self) -> Iterator[Buffer]:
        for piece in self._dump:
            yield piece
            self.bytes += len(piece)


def _without_timeout(program: Program) -> Iterator[bytes]:
    """What pg_restore writes, less the line, which stands among the first."""
    assert program.process.stdout is not None
    head: bytes | None = b""
    while block := program.process.stdout.read(_BLOCK):
        if head is None:
            yield block
            continue
        head += block
        if len(head) >= _BLOCK or _TIMEOUT in head:
            yield head.replace(_TIMEOUT, b"", 1)
            head = None
    if head:
        yield head


def _require_success(program: Program, tick: Callable[[], None]) -> None:
    """Wait for the end, as long as indexes take; `tick` may end it before."""
    if status := program.ended(tick):
        raise _refused(program.failure(status), program.said())


def _refused(failure: BackstayError, said: str) -> BackstayError:
    if "already exists" in said:
        return RestoreConflict(
            "the database holds something that the dump would create, nothing was restored",
            cause=said,
            hint="restore into an empty database, or give --conflict overwrite",
        )
    hints = {
        "depend": "something else relies on what would be replaced: drop it, or restore into another database",
        "must be able to SET ROLE": "restore as a role that may give objects to their owners, or with --no-owner",
        "must be owner": "restore as the owner or a superuser, or with --no-owner",
        "permission denied": "restore as a role that may create objects there",
        "does not exist": "restore also what it needs, such as its schema or the type of a column, or all of the dump",
    }
    hint = next((text for sign, text in hints.items() if sign in said), "mend what it says, and restore again")
    return RestoreFailed(f"nothing was restored: {failure.title}", cause=failure.cause, hint=hint)
