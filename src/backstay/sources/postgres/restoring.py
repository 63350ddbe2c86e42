"""Give a dump to pg_restore, in one transaction: all of what was chosen is restored, or nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
# Whatever relies on what: a command that fails for something that another one drops is tried again after it.
_DROP_ALL: Final = """
DECLARE
    waiting text[] := ARRAY[{}]; failed text[]; command text; reason text; detail text;
BEGIN
    WHILE cardinality(waiting) > 0 LOOP
        failed := ARRAY[]::text[]; reason := NULL;
        FOREACH command IN ARRAY waiting LOOP
            BEGIN
                EXECUTE command;
            EXCEPTION WHEN dependent_objects_still_exist THEN
                GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
                failed := failed || command; reason := coalesce(reason, SQLERRM || ': ' || detail);
            END;
        END LOOP;
        IF failed = waiting THEN
            RAISE EXCEPTION USING MESSAGE = reason;
        END IF;
        waiting := failed;
    END LOOP;
END"""
_BLOCK: Final = 1 << 20


def run_pg_restore(
    programs: Programs,
    access: Login,
    entries: Sequence[Entry],
    dump: Iterable[Buffer],
    *,
    server: int,
    owners: bool,
    drops: Sequence[str] | None,
    progress: Callable[[int], None],
) -> None:
    """Restore the entries of a dump into a server of major version `server`.

    `drops` are commands that remove what is in the way, None when nothing may be removed; `progress` is told how many
    bytes of the dump were given away. Raises RestoreConflict when something turns out to be there already,
    RestoreFailed, and what reading the dump raises, after which the server has nothing of it either.
    """
    with ExitStack() as stack:
        wanted = stack.enter_context(open(os.memfd_create("list"), "w"))  # noqa: PTH123 - in memory
        wanted.writelines(f"{entry.ident};\n" for entry in entries)
        wanted.flush()
        run = _Run(stack, programs, access, wanted.fileno(), _Given(dump), progress)
        options = [] if owners else ["--no-owner", "--no-privileges"]
        if drops is not None:
            options += ["--clean", "--if-exists"]  # for what has no name that could be looked up
        if drops is not None or server < KNOWS_TIMEOUT <= programs.major:
            run.through_psql(options, drops or (), without=_TIMEOUT if server < KNOWS_TIMEOUT else b"")
        else:
            run.directly(options)


@dataclass(frozen=True, slots=True)
class _Run:
    """One restore; what it starts is stopped with `stack`. `wanted` is a descriptor of the list of entries."""

    stack: ExitStack
    programs: Programs
    access: Login
    wanted: int
    given: _Given
    progress: Callable[[int], None]

    def directly(self, options: Sequence[str]) -> None:
        """By pg_restore alone."""
        program = self._pg_restore(
            [*options, "--single-transaction", "--no-password", f"--dbname={self.access.conninfo}"], subprocess.DEVNULL
        )
        for _ in program.written(self.given):
            self._tick()
        program.close_input()
        _require_success(program, self._tick)

    def through_psql(self, options: Sequence[str], before: Sequence[str], *, without: bytes) -> None:
        """As commands, after some of ours, and without one that an older server does not know.

        pg_restore drops by the shape that objects had when they were dumped, and fails where it is another by now.
        COMMIT is sent last, when pg_restore has ended well: whatever ends before, ends without it.
        """
        psql, program = self._psql(), self._pg_restore([*options, "--file=-"], subprocess.PIPE)
        assert program.process.stdout is not None
        failure: list[BaseException] = []
        feeding = Thread(target=self._feed, args=(program, failure), name="pg_restore", daemon=True)
        feeding.start()
        wants_more = True
        try:
            ours = [f"{line};\n".encode("utf-8", "surrogateescape") for line in _beginning(before)]
            for taken in psql.written(chain(ours, _output(program, without))):
                wants_more = taken
                self._tick()
        finally:
            program.process.stdout.close()  # what psql does not want, pg_restore need not write
            feeding.join()
        if wants_more and failure:
            raise failure[0]
        if wants_more:
            _require_success(program, self._tick)
            for _ in psql.written([b"COMMIT;\n"]):
                self._tick()
        psql.close_input()
        _require_success(psql, self._tick)

    def _pg_restore(self, options: Sequence[str], output: int) -> Program:
        """Started; killed if the restore fails, after which the server forgets its transaction."""
        command = [
            self.programs["pg_restore"],
            "--exit-on-error",
            f"--use-list=/proc/self/fd/{self.wanted}",
            *options,
        ]
        program = Program(command, self.access.environ, stdin=subprocess.PIPE, stdout=output, pass_fds=[self.wanted])
        self.stack.callback(program.close)
        return program

    def _psql(self) -> Program:
        command = [self.programs["psql"], "-X", "-q", "-v", "ON_ERROR_STOP=1", "--no-password"]
        psql = Program(
            [*command, f"--dbname={self.access.conninfo}"],
            self.access.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.stack.callback(psql.close)
        return psql

    def _feed(self, program: Program, failure: list[BaseException]) -> None:
        try:
            for _ in program.written(self.given):
                pass
            program.close_input()
        except BaseException as error:  # noqa: BLE001 - handed over
            failure.append(error)
            program.process.kill()

    def _tick(self) -> None:
        self.progress(self.given.bytes)


class _Given:
    """The pieces of a dump, and how many bytes of it were given away."""

    def __init__(self, dump: Iterable[Buffer]) -> None:
        self._dump = dump
        self.bytes = 0

    def __iter__(self) -> Iterator[Buffer]:
        for piece in self._dump:
            yield piece
            self.bytes += len(piece)


def _beginning(drops: Sequence[str]) -> Iterator[str]:
    """The commands before those of pg_restore."""
    yield "BEGIN"
    if drops:
        yield "SET LOCAL client_encoding = 'UTF8'"
        yield "SET LOCAL standard_conforming_strings = on"
        yield "SET LOCAL client_min_messages = warning"
        yield f"DO {_literal(_DROP_ALL.format(', '.join(map(_literal, drops))))}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _output(program: Program, without: bytes) -> Iterator[bytes]:
    """What pg_restore writes, less a line that stands among the first."""
    assert program.process.stdout is not None
    head: bytes | None = b"" if without else None
    while block := program.process.stdout.read(_BLOCK):
        if head is None:
            yield block
            continue
        head += block
        if len(head) >= _BLOCK or without in head:
            yield head.replace(without, b"", 1)
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
        'role "': "create the role first: globals.sql of the snapshot has the command",
        "depend": "something else relies on what would be replaced: drop it, or restore into another database",
        "must be able to SET ROLE": "restore as a role that may give objects to their owners, or with --no-owner",
        "must be owner": "restore as the owner or a superuser, or with --no-owner",
        "permission denied": "restore as a role that may create objects there",
        "does not exist": "restore also what it needs, such as its schema or the type of a column, or all of the dump",
    }
    hint = next((text for sign, text in hints.items() if sign in said), "mend what it says, and restore again")
    return RestoreFailed(f"nothing was restored: {failure.title}", cause=failure.cause, hint=hint)
