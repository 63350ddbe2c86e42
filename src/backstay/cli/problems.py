"""Failures: three lines for people, a problem document (RFC 9457) for programs, a status for both."""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import typer

from backstay.cli import jsonout
from backstay.cli.render import UNWRITABLE, err, write_err
from backstay.cli.signals import ASKED_TO_STOP
from backstay.cli.streams import ClosedOutput
from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    InternalError,
    Interrupted,
    InvalidRequest,
    Mistake,
    PolicyInvalid,
)
from backstay.errors.documents import meaning

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MORE_FILES = "let it open more files, as `ulimit -n 1024` does, and run the same command again"
_HINTS: Final[dict[int | None, str]] = {errno.EMFILE: _MORE_FILES, errno.ENFILE: _MORE_FILES}


def typed(error: BaseException) -> BackstayError:
    """Any failure as one of ours."""
    if isinstance(error, BackstayError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", cause=ASKED_TO_STOP)
    if isinstance(error, typer.TyperException):
        return _usage(error)
    if isinstance(error, typer.Abort):
        return Interrupted("stopped at a question", cause="there was no answer")
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, MemoryError):
        return BackstayError(
            "out of memory",
            cause="other programs, or a limit on this one, left too little",
            hint="close some and try again",
        )
    return InternalError("this is a mistake in backstay", cause=f"{type(error).__name__}: {error}")


def _usage(error: typer.TyperException) -> InvalidRequest:
    told = error.format_message().replace("Value error, ", "")  # which is how one library speaks to another
    title = " ".join(told.split()).rstrip(".")
    title = title[:1].lower() + title[1:]
    context = getattr(error, "ctx", None)
    if context is None:
        return InvalidRequest(title)
    command = context.command_path
    usage = [command, *context.command.collect_usage_pieces(context)]
    return InvalidRequest(title, cause=f"it is called as `{' '.join(usage)}`", hint=f"see `{command} --help`")


def _system(error: OSError) -> BackstayError:
    reason = error.strerror or str(error)
    if error.errno == errno.EBADF and isinstance(sys.stdout, ClosedOutput):
        return output_failed(error)
    if not error.filename and error.errno == errno.ENOENT and _current_directory_is_gone():
        return BackstayError(
            "the current directory is gone",
            cause="it was deleted, and a path that does not begin with a slash begins in it",
            hint="change to a directory that exists, or give whole paths",
        )
    if not error.filename:
        hint = "make room where the output goes" if error.errno in _FULL else _HINTS.get(error.errno, "")
        return BackstayError("the system refused to read or write", cause=reason, hint=hint)
    kind = InsufficientSpace if error.errno in _FULL else BackstayError
    return kind(f"cannot use {error.filename!s}", cause=reason, hint=_HINTS.get(error.errno, ""))


def _current_directory_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def output_failed(error: OSError) -> BackstayError:
    """A result that nobody can read is a failure."""
    cause = "it is closed" if isinstance(sys.stdout, ClosedOutput) else error.strerror or str(error)
    return BackstayError("cannot write the result to standard output", cause=cause, hint="check where the output goes")


def report(error: BaseException, *, json: bool, verbose: bool, command: str = "backstay") -> int:
    """Tell about a failure; the exit status of the process, whether it can be told or not."""
    failure = typed(error)
    if failure.hint == InvalidRequest.default_hint:
        failure.hint = f"see `{command} --help`"
    if verbose and not isinstance(error, (typer.TyperException, KeyboardInterrupt)):
        with suppress(*UNWRITABLE):
            write_err("".join(traceback.format_exception(error)))
    if not (json and _wrote(failure)):
        _tell(failure)
    return failure.exit_status


def _wrote(failure: BackstayError) -> bool:
    """Whether the failure could be told as a document; to a reader who has left, nothing needs to be told."""
    try:
        jsonout.write(problem(failure), sys.stdout)
    except BrokenPipeError:
        return True
    except UNWRITABLE:
        return False
    return True


def _tell(failure: BackstayError) -> None:
    if isinstance(failure, PolicyInvalid):
        for mistake in failure.mistakes:
            err(str(mistake))
    for line in lines(failure):
        err(line)


def lines(failure: BackstayError) -> tuple[str, str, str]:
    """What failed, why, and what to do next."""
    cause = failure.cause or meaning(failure)
    return f"error: {failure.title}", f"cause: {cause}", f"hint:  {failure.hint}"


def problem(failure: BackstayError) -> dict[str, Any]:
    """The failure as a problem document."""
    document = {
        "type": f"urn:backstay:problem:{failure.code}",
        "title": failure.title,
        "code": failure.code,
        "cause": failure.cause or meaning(failure),
        "hint": failure.hint,
        "exit_status": failure.exit_status,
        "transient": failure.transient,
    }
    if isinstance(failure, PolicyInvalid):
        document["errors"] = [mistake_document(mistake) for mistake in failure.mistakes]
    paths = getattr(failure, "paths", None)
    return document | ({"paths": list(paths)} if paths else {})


def mistake_document(mistake: Mistake) -> dict[str, object]:
    """A mistake, or a remark, at a place of a policy file."""
    return {
        "file": mistake.file,
        "line": mistake.line,
        "key": mistake.key,
        "message": mistake.message,
        "hint": mistake.hint,
    }
