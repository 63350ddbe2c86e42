"""`pg archive`: archive_command, by itself or by a process that keeps the repository open."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.pg import NAME_HELP
from backstay.cli.problems import report
from backstay.core import environment
from backstay.core.quantities import format_size, plural
from backstay.errors import BackstayError, InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.archiving.service import ArchiveServiceOptions

# Not the one that runs us: it may lie in a virtual environment that the server's user cannot enter.
_PYTHON_PATH = "/usr/bin:/usr/local/bin:/bin"


def archive(
    ctx: typer.Context,
    name: Annotated[str, option("NAME", NAME_HELP)],
    path: Annotated[Path | None, argument("PATH", "The file, %p of archive_command.")] = None,
    serve: Annotated[bool, flag("Run until stopped, and store what archive_command asks for.", "--serve")] = False,
    socket: Annotated[
        Path | None, option("PATH", "Where to be asked; a file of the NAME in /run/backstay, or in what systemd gives.")
    ] = None,
    user: Annotated[str | None, option("USER", "Who runs the server, if it is another user than this one.")] = None,
    ahead: Annotated[
        int, option("N", "Segments stored before they are asked for.", min=0, max=64, show_default=True)
    ] = 4,
) -> int:
    """Store WAL for archive_command, which ends with 0 only when a file is durable; else the server tries again.

    `archive_command = 'backstay pg archive --name NAME %p'` needs no other process, and half a second for each file.
    With --serve a process keeps the repository open, which saves most of that; it prints its archive_command.
    """
    context = context_of(ctx)
    if serve:
        return _serve(context, path, _service(context, name, socket, user, ahead))
    try:
        _archive(context, path, name)
    except BackstayError as error:  # other statuses mean something else to PostgreSQL
        report(error, json=context.json, verbose=context.verbose)
        return 1
    return 0


def _archive(context: Context, path: Path | None, name: str) -> None:
    from backstay.operations.archiving.wal_file import archive_file
    from backstay.operations.backup.request import check_name

    check_name(name)
    if path is None:
        raise InvalidRequest("no file is given", cause="neither PATH nor --serve is there", hint="pass %p")
    with context.open(index=False, grows=True) as repository:
        result = archive_file(repository, path, name)
    verb = "stored" if result.stored else "was stored before:"
    context.result(
        {**jsonout.plain(result), "system": str(result.system)}, lambda: context.say(f"{verb} {result.file}")
    )


def _service(context: Context, name: str, socket: Path | None, user: str | None, ahead: int) -> ArchiveServiceOptions:
    from backstay.operations.archiving.service import ArchiveServiceOptions
    from backstay.operations.backup.request import check_name

    check_name(name)
    place = (socket or environment.runtime_directory(context.environ) / name).absolute()
    return ArchiveServiceOptions(name=name, socket=place, user=_server_user(user), ahead=ahead)


def _server_user(name: str | None) -> int:
    """The number of the user who runs the server. Raises InvalidRequest."""
    if name is None:
        if os.geteuid() == 0:
            raise InvalidRequest(
                "nobody could ask",
                cause="only root would be let in, and PostgreSQL never runs as root",
                hint="name the server's user: --user postgres",
            )
        return os.geteuid()
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise InvalidRequest(
            f"there is no user {name}", cause="this machine does not know the name", hint="it is often postgres"
        ) from error


def _serve(context: Context, path: Path | None, options: ArchiveServiceOptions) -> int:
    from backstay.operations.archiving.service import archive_command, run_archive_service

    if path is not None:
        raise InvalidRequest(
            "--serve takes no file", cause=f"{path} is given", hint="archive_command hands files to the process"
        )
    python = shutil.which("python3", path=_PYTHON_PATH) or os.path.realpath(sys.executable)

    def ready() -> None:
        if not context.json:
            context.say(f"archiving {options.name} at {options.socket}; postgresql.conf needs")
            context.say("archive_mode = on")
            context.say(archive_command(options.client, python))
            sys.stdout.flush()  # a log shows it now

    with context.open(index=False, grows=True) as repository, context.until_stopped() as (events, stopped):
        result = run_archive_service(repository, options, stopped, events=events, ready=ready)
    context.result(
        jsonout.plain(result),
        lambda: context.say(f"stopped: {plural(result.files, 'file')} archived ({format_size(result.bytes)})"),
    )
    return 0
