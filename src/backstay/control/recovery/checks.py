"""Steps that look or run something: programs, queries, files, verifications."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from backstay.control.policies.values import expanded
from backstay.control.recovery.doing import Doing
from backstay.control.recovery.plan import CommandStep, FileStep, QueryStep, VerifyStep
from backstay.control.runs.hooks import without_secrets
from backstay.core.sizes import parse_size
from backstay.errors import BackstayError, CorruptedBackup, StepFailed
from backstay.operations.verify.answers import is_true
from backstay.sources.mysql.address import parse_address
from backstay.sources.mysql.server import Server
from backstay.sources.postgres.connection import Connection
from backstay.sources.program import Program
from backstay.sources.sqlite.database import path_of

_PIECE: Final = 1 << 20
_OPCODES: Final = 100_000  # of SQLite's virtual machine between two looks at the time, some milliseconds
_SHOWN: Final = 2000  # characters of an output
_FALSE: Final = ("f", "false", "0", "no", "")


def command(step: CommandStep, doing: Doing) -> dict[str, Any]:
    """Run a program to its end, without the repository's password in its environment. Raises StepFailed."""
    environ = without_secrets(doing.environ) | {**step.environment, "BACKSTAY_STEP": doing.name}
    with tempfile.TemporaryFile() as output:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output}
        if step.directory is not None:
            streams["cwd"] = expanded(step.directory, doing.environ)
        try:
            program = Program(step.command, environ, **streams)
        except (BackstayError, OSError) as error:
            raise StepFailed(
                f"{step.command[0]} cannot be started", cause=getattr(error, "cause", "") or str(error)
            ) from error
        try:
            status = program.ended(doing.checkpoint)
            if status != 0:
                ended, _, said = program.failure(status).cause.partition(": ")
                raise StepFailed(f"{step.command[0]} failed", cause=ended, quoted=said)
        finally:
            if program.process.poll() is None:  # what it started goes with it: it has a session of its own
                with suppress(ProcessLookupError):
                    os.killpg(program.process.pid, signal.SIGKILL)
            program.close()
        output.seek(0)
        text = output.read(_PIECE).decode("utf-8", "replace").strip()
    if step.expect is not None and text != step.expect.strip():
        raise StepFailed(
            f"{step.command[0]} printed something else",
            cause="it is not what the plan expects",
            quoted=f"{text[:200]!r} and not {step.expect.strip()[:200]!r}",
        )
    return {"program": step.command[0], "output": text[-_SHOWN:]}


def query(step: QueryStep, doing: Doing) -> dict[str, Any]:
    """Ask a database for one value. Raises StepFailed when it is another, SourceUnreachable, SourceRefused."""
    found = _asked(step.connection, step.query, doing)
    wanted = True if step.expect is None else step.expect
    if not _is_wanted(found, wanted):
        raise StepFailed(
            "a query gave another value than it should",
            cause="it is not what the plan expects",
            quoted=f"{found!r} and not {wanted!r}",
            hint="look into the restored database; the same plan asks again",
        )
    return {"value": found}


def _asked(address: str, sql: str, doing: Doing) -> str:
    if address.startswith("sqlite:"):
        return _asked_sqlite(path_of(address), sql, doing)
    if address.startswith(("mysql:", "mariadb:")):
        rows: list[list[Any]] = [*Server(parse_address(address), doing.environ).query(sql, doing.checkpoint)]
    else:
        with Connection(address) as connection:
            rows = connection.watched_query(sql, doing.checkpoint)
    if not rows or not rows[0]:
        return ""
    return "" if rows[0][0] is None else str(rows[0][0])


def _asked_sqlite(path: bytes, sql: str, doing: Doing) -> str:
    uri = Path(os.fsdecode(path)).as_uri() + "?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.set_progress_handler(doing.must_end, _OPCODES)
            row = connection.execute(sql).fetchone()
    except sqlite3.Error as error:
        doing.checkpoint()  # it may have been this that ended the query
        raise StepFailed("the database cannot be asked", cause=str(error)) from error
    return "" if row is None or row[0] is None else str(row[0])


def _is_wanted(found: str, wanted: str | float | bool) -> bool:
    """Whether a value as text is what a plan wants."""
    if isinstance(wanted, bool):
        return is_true(found) if wanted else found.lower() in _FALSE
    if isinstance(wanted, str):
        return found == wanted
    try:
        return float(found) == float(wanted)
    except ValueError:
        return False


def file(step: FileStep, doing: Doing) -> dict[str, Any]:
    """See that something is there. Raises StepFailed."""
    path = Path(expanded(step.path, doing.environ))
    if not path.exists():
        raise StepFailed(f"{path} is not there", cause="no file or directory has this name")
    try:
        files, size = _measured(path)
        if step.min_bytes is not None and size < parse_size(step.min_bytes):
            raise StepFailed(f"{path} is too small", cause=f"it has {size} bytes, not {step.min_bytes}")
        if step.count is not None and files < step.count:
            raise StepFailed(f"too few files are in {path}", cause=f"there are {files}, not {step.count}")
        if step.sha256 is not None and (digest := _digest(path, doing)) != step.sha256:
            raise StepFailed(f"{path} is another file", cause=f"its SHA-256 is {digest}")
        if step.contains is not None and not _holds(path, step.contains.encode(), doing):
            raise StepFailed(f"{path} does not hold {step.contains!r}", cause="the text is nowhere in it")
    except OSError as error:
        raise StepFailed(f"{path} cannot be read", cause=error.strerror or str(error)) from error
    return {"path": str(path), "files": files, "bytes": size}


def _measured(path: Path) -> tuple[int, int]:
    """(Files at or below a path, their bytes)."""
    if not path.is_dir():
        return 1, path.stat().st_size
    sizes = [one.lstat().st_size for one in path.rglob("*") if one.is_file() and not one.is_symlink()]
    return len(sizes), sum(sizes)


def _pieces(path: Path, doing: Doing) -> Iterator[bytes]:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise StepFailed(f"{path} cannot be read", cause="it is no regular file")
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            doing.checkpoint()
            yield piece


def _digest(path: Path, doing: Doing) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(path, doing):
        digest.update(piece)
    return digest.hexdigest()


def _holds(path: Path, wanted: bytes, doing: Doing) -> bool:
    kept = b""
    for piece in _pieces(path, doing):
        if wanted in kept + piece:
            return True
        kept = piece[-len(wanted) :]
    return False


def verify(step: VerifyStep, doing: Doing) -> dict[str, Any]:
    """Verify a backup. Raises CorruptedBackup."""
    assert doing.backup is not None
    found = doing.manager.verify(
        doing.backup,
        checks=step.checks,
        min_bytes=step.min_bytes,
        read_data=step.read_data / 100,
        events=doing.events,
        job_id=doing.job_id,
    )
    for outcome in found:
        if not outcome.ok:
            raise CorruptedBackup(f"the backup {doing.backup} is not good: {outcome.check}", cause=outcome.error)
    return {"backup": doing.backup, "checks": {one.check: one.details for one in found}}
