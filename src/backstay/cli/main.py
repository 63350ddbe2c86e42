"""The command tree, the global options, and the way out: messages and exit statuses."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.main import get_command

from backstay import __version__
from backstay.cli import assist, backup, care, keys, look, restore
from backstay.cli.context import Context
from backstay.cli.problems import report
from backstay.cli.signals import INTERRUPTED, interruptible
from backstay.core.clock import Clock, SystemClock

BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
_GLOBAL_PANEL = "Global options"
_SETTINGS = {"help_option_names": ["-h", "--help"]}


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        print(f"backstay {__version__}")
        raise typer.Exit


def _options(
    ctx: typer.Context,
    repository: Annotated[str | None, typer.Option("--repository", "-r", metavar="REPO", help="The repository: a directory or URL.  [env: BACKSTAY_REPO]", show_default=False, rich_help_panel=_GLOBAL_PANEL)] = None,
    password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A file with the password, recovery key or key file line.  [env: BACKSTAY_PASSWORD_FILE]", show_default=False, rich_help_panel=_GLOBAL_PANEL)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.", rich_help_panel=_GLOBAL_PANEL)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results that were asked for, warnings and errors.", rich_help_panel=_GLOBAL_PANEL)] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error came from.", rich_help_panel=_GLOBAL_PANEL)] = False,
    progress: Annotated[Literal["auto", "json", "none"] | None, typer.Option(help="json: one event per line on standard error.", show_default=False, rich_help_panel=_GLOBAL_PANEL)] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)] = False,
) -> None:
    """Encrypted, deduplicated backups that prove they can be restored.

    Begin with `backstay backup ~/Documents`; get it back with `backstay restore latest --to DIR`.
    """
    for param in _shared(ctx.command):
        _set(ctx, param, ctx.params[param.name])


def _set(ctx: typer.Context, param: Any, value: Any) -> Any:  # noqa: ANN401 - typer's own types
    """Take a global option, wherever on the line it stood."""
    if value not in (None, False):
        setattr(ctx.obj, param.name, value)
    return value


def _shared(command: Any) -> Iterator[Any]:  # noqa: ANN401
    return (param for param in command.params if getattr(param, "rich_help_panel", None) == _GLOBAL_PANEL)


def _tree() -> typer.Typer:
    app = typer.Typer(
        name=assist.PROGRAM,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings=_SETTINGS,
    )
    app.callback()(_options)
    for panel, commands in _COMMANDS.items():
        for name, function in commands.items():
            special = {"cls": care.VerifyCommand} if function is care.verify else {}
            app.command(name, rich_help_panel=panel, **special)(function)  # type: ignore[arg-type]
    for name, (text, commands) in _GROUPS.items():
        group = typer.Typer(help=text)
        for inner, function in commands.items():
            group.command(inner)(function)
        app.add_typer(group, name=name, rich_help_panel="Keep it good")
    return app


_COMMANDS: dict[str, dict[str, Callable[..., int]]] = {
    "Back up and restore": {"init": backup.init, "backup": backup.backup, "restore": restore.restore},
    "Look": {
        "list": look.list_snapshots,
        "info": look.info,
        "ls": look.ls,
        "find": look.find,
        "diff": look.diff,
        "cat": restore.cat,
        "stats": look.stats,
    },
    "Keep it good": {"verify": care.verify, "prune": care.prune, "delete": care.delete, "gc": care.gc},
    "Help": {"benchmark": assist.benchmark, "completion": assist.completion},
}
_GROUPS: dict[str, tuple[str, dict[str, Callable[..., int]]]] = {
    "repair": (
        "Mend a damaged repository.",
        {"index": care.repair_index, "snapshots": care.repair_snapshots, "packs": care.repair_packs},
    ),
    "key": (
        "Passwords, key files and recovery keys.",
        {
            "list": keys.list_keys,
            "add": keys.add_key,
            "remove": keys.remove_key,
            "rotate": keys.rotate_key,
            "recovery": keys.recovery_key,
        },
    ),
}


def _command() -> Any:  # noqa: ANN401
    """The whole tree; every command takes the global options too, so that they may stand anywhere."""
    root = get_command(_tree())
    shared = list(_shared(root))
    for command in _leaves(root):
        for param in shared:
            again = copy.copy(param)
            again.expose_value, again.callback = False, _set
            command.params.append(again)
    return root


def _leaves(group: Any) -> Iterator[Any]:  # noqa: ANN401
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from _leaves(command)
        else:
            yield command


def run(argv: Sequence[str], environ: Mapping[str, str], *, clock: Clock | None = None) -> int:
    """Run one command line; the exit status."""
    context = Context(environ, clock or SystemClock())
    _harden_streams()
    try:
        with interruptible(context.clock):
            return _run(list(argv), context)
    except KeyboardInterrupt:  # one that came while the first was being told
        return INTERRUPTED
    finally:
        _flush()


def _run(argv: list[str], context: Context) -> int:
    try:
        status = _invoke(argv, context)
        sys.stdout.flush()
    except typer.Exit as leave:
        return leave.exit_code
    except BrokenPipeError:
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told as three lines, whatever it is
        return _report(error, argv, context)
    return status


def _invoke(argv: list[str], context: Context) -> int:
    command = _command()
    if context.environ.get(assist.COMPLETE_VARIABLE):
        return int(command.main(argv, prog_name=assist.PROGRAM, complete_var=assist.COMPLETE_VARIABLE) or 0)
    if not argv:
        argv = ["--help"]
    with command.make_context(assist.PROGRAM, argv, obj=context) as ctx:
        return int(command.invoke(ctx) or 0)


def _report(error: BaseException, argv: list[str], context: Context) -> int:
    given = argv[: argv.index("--")] if "--" in argv else argv
    json = context.json or "--json" in given  # a usage error may come before the option was seen
    try:
        return report(error, json=json, verbose=context.verbose)
    except BrokenPipeError:
        return BROKEN_PIPE


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
