"""The command tree, the global options, and the way out: messages and exit statuses."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.main import get_command

from backstay import __version__
from backstay.cli import assist, jsonout
from backstay.cli.as_typed import take_as_typed
from backstay.cli.commands import CLASSES, COMMANDS, GROUPS, asks_for_list, called, load
from backstay.cli.context import Context, context_of
from backstay.cli.options import GLOBAL_PANEL, flag, option
from backstay.cli.problems import output_failed, report
from backstay.cli.render import out
from backstay.cli.signals import INTERRUPTED, Interrupts
from backstay.core.clock import Clock, SystemClock

BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
_SETTINGS = {"help_option_names": ["-h", "--help"]}


class _VersionAsked(Exception):
    """Ends the parsing at --version; what else stands on the command line says how it is told."""


def _version(wanted: bool) -> None:
    if wanted:
        raise _VersionAsked


def _options(
    ctx: typer.Context,
    repository: Annotated[
        str | None,
        option(
            "REPO",
            "The repository: a directory or URL; else BACKSTAY_REPO.",
            "--repository",
            "-r",
            rich_help_panel=GLOBAL_PANEL,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        option("FILE", "The policy file; else BACKSTAY_CONFIG.", rich_help_panel=GLOBAL_PANEL),
    ] = None,
    password_file: Annotated[
        Path | None,
        option(
            "FILE",
            "A file with the password, or a key file; else BACKSTAY_PASSWORD and its kin.",
            rich_help_panel=GLOBAL_PANEL,
        ),
    ] = None,
    mirror: Annotated[
        list[str] | None,
        option("REPO", "A further copy of the repository, kept up to date; repeatable.", rich_help_panel=GLOBAL_PANEL),
    ] = None,
    quorum: Annotated[
        int | None,
        option("N", "So many copies must have what is stored; all if not given.", min=1, rich_help_panel=GLOBAL_PANEL),
    ] = None,
    max_size: Annotated[
        str | None,
        option("SIZE", "Do not let the repository grow beyond, such as 500GiB.", rich_help_panel=GLOBAL_PANEL),
    ] = None,
    limit_upload: Annotated[
        str | None, option("SIZE", "Send so much per second at most, such as 2MiB.", rich_help_panel=GLOBAL_PANEL)
    ] = None,
    limit_download: Annotated[
        str | None, option("SIZE", "Fetch so much per second at most.", rich_help_panel=GLOBAL_PANEL)
    ] = None,
    limit_requests: Annotated[
        int | None,
        option("N", "Ask the store for something so often per second at most.", min=1, rich_help_panel=GLOBAL_PANEL),
    ] = None,
    json: Annotated[
        bool,
        flag("Print one JSON document on standard output; help stays text.", "--json", rich_help_panel=GLOBAL_PANEL),
    ] = False,
    quiet: Annotated[
        bool,
        flag("Only results that were asked for, warnings and errors.", "--quiet", "-q", rich_help_panel=GLOBAL_PANEL),
    ] = False,
    verbose: Annotated[
        bool, flag("Show where an error came from.", "--verbose", "-v", rich_help_panel=GLOBAL_PANEL)
    ] = False,
    progress: Annotated[
        Literal["auto", "json", "none"] | None,
        option(
            "HOW",
            "auto: a live line on a terminal; json: one event per line on standard error; none.",
            rich_help_panel=GLOBAL_PANEL,
        ),
    ] = None,
    version: Annotated[bool, flag("Print the version.", "--version", is_eager=True, callback=_version)] = False,
) -> None:
    """Encrypted, deduplicated backups that prove they can be restored.

    Begin with `backstay backup ~/Documents`; get it back with `backstay restore latest --to DIR`.
    """
    del version  # printed by its callback
    context_of(ctx).take(
        repository=repository,
        config=config,
        password_file=password_file,
        mirror=mirror,
        quorum=quorum,
        max_size=max_size,
        limit_upload=limit_upload,
        limit_download=limit_download,
        limit_requests=limit_requests,
        json=json,
        quiet=quiet,
        verbose=verbose,
        progress=progress,
    )


def _take(ctx: typer.Context, param: Any, value: Any) -> Any:  # noqa: ANN401 - typer's own types
    """A global option behind the command."""
    context_of(ctx).take(**{param.name: value})
    return value


def _shared(command: Any) -> Iterator[Any]:  # noqa: ANN401
    return (param for param in command.params if getattr(param, "rich_help_panel", None) == GLOBAL_PANEL)


def _bare_tree() -> typer.Typer:
    app = typer.Typer(
        name=assist.PROGRAM,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=_SETTINGS,
    )
    app.callback()(_options)
    return app


def _outline() -> Any:  # noqa: ANN401 - typer's own type
    """All commands and groups with nothing but what is said of them: enough for the list of them, in half the time."""
    app = _bare_tree()
    for panel, commands in COMMANDS.items():
        for name, place in commands.items():
            app.command(name, help=load(place).__doc__, rich_help_panel=panel)(_never_called)
    for panel, groups in GROUPS.items():
        for name, (text, _) in groups.items():
            app.add_typer(typer.Typer(help=text), name=name, rich_help_panel=panel)
    root = get_command(app)
    take_as_typed(root)
    return root


def _never_called() -> None:
    raise AssertionError("a command of the list was called")


def _tree(names: Collection[str] | None) -> typer.Typer:
    """The commands and groups of these names; None for all."""
    app = _bare_tree()
    for panel, commands in COMMANDS.items():
        for name, place in commands.items():
            if names is None or name in names:
                _add(app, name, place, rich_help_panel=panel)
    for panel, groups in GROUPS.items():
        for name, (text, commands) in groups.items():
            if names is None or name in names:
                app.add_typer(_group(text, commands), name=name, rich_help_panel=panel)
    return app


def _group(text: str, commands: dict[str, str]) -> typer.Typer:
    group = typer.Typer(help=text)
    for name, place in commands.items():
        _add(group, name, place)
    return group


def _add(app: typer.Typer, name: str, place: str, **options: Any) -> None:  # noqa: ANN401 - typer's own
    special = {"cls": load(CLASSES[place])} if place in CLASSES else {}
    app.command(name, **special, **options)(load(place))


@cache
def _command(names: frozenset[str] | None) -> Any:  # noqa: ANN401
    """The tree; every command takes the global options too, so that they may stand anywhere.

    Kept for whoever runs several command lines in a process: to build it takes longer than many a command does.
    """
    root = get_command(_tree(names))
    shared = list(_shared(root))
    for command in _all(root):
        if not hasattr(command, "commands"):
            command.params += [_hidden(param) for param in shared]
        take_as_typed(command)
    return root


def command_tree() -> Any:  # noqa: ANN401 - typer's own type
    """All commands with all their options."""
    return _command(None)


def _hidden(param: Any) -> Any:  # noqa: ANN401
    """A global option as one of a command's own, whose function does not see it."""
    again = copy.copy(param)
    again.expose_value, again.callback = False, _take
    return again


def _all(command: Any) -> Iterator[Any]:  # noqa: ANN401
    """A command, and those below it."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _all(below)


def run(argv: Sequence[str], environ: Mapping[str, str], *, clock: Clock | None = None) -> int:
    """Run one command line; the exit status."""
    clock = clock or SystemClock()
    context = Context(environ, clock, Interrupts(clock))
    _harden_streams()
    try:
        with context.interrupts.installed():
            return _run(argv, context)
    except KeyboardInterrupt:  # one that came while the first was being told
        return INTERRUPTED
    finally:
        _flush()


def _run(argv: Sequence[str], context: Context) -> int:
    try:
        status = _status(argv, context)
        _finish_output()
    except BrokenPipeError:
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told as three lines, whatever it is
        return report(error, json=_wants_json(argv, context), verbose=context.verbose, command=context.command)
    return status


def _status(argv: Sequence[str], context: Context) -> int:
    try:
        return _invoke(list(argv), context)  # whose parser takes its list apart
    except typer.Exit as leave:
        return leave.exit_code
    except _VersionAsked:
        return _tell_version(json=_wants_json(argv, context))
    except SystemExit:  # by which rich ends a help whose reader has left
        return BROKEN_PIPE


def _invoke(argv: list[str], context: Context) -> int:
    if context.environ.get(assist.COMPLETE_VARIABLE):
        return assist.complete(command_tree())
    command = _outline() if asks_for_list(argv) else _command(called(argv))
    if not argv:
        argv = ["--help"]
    with command.make_context(assist.PROGRAM, argv, obj=context) as ctx:
        return int(command.invoke(ctx) or 0)


def _wants_json(argv: Sequence[str], context: Context) -> bool:
    """Whether --json stands anywhere: the parsing may have ended before the option was seen."""
    given = argv[: argv.index("--")] if "--" in argv else argv
    return context.json or "--json" in given


def _tell_version(*, json: bool) -> int:
    if json:
        jsonout.write({"version": __version__}, sys.stdout)
    else:
        out(f"backstay {__version__}")
    return 0


def _finish_output() -> None:
    """Write what is still buffered; a result that nobody can read is a failure."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_failed(error) from error


def _harden_streams() -> None:
    """Nothing that is printed may fail for its characters."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Let the interpreter find nothing to write at its end, where a closed pipe would be told with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
