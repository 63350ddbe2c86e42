"""Write the page of all commands: `uv run python -m tools.make_commands`. docs/commands.md was made by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from backstay.cli.assist import PROGRAM
from backstay.cli.commands import COMMANDS, GROUPS
from backstay.cli.main import command_tree
from backstay.cli.options import GLOBAL_PANEL

FILE: Final = Path(__file__).parents[1] / "docs/commands.md"

HEAD: Final = """# Commands

Each command with its options, as `--help` tells them. What they are for is told by the [tutorial](tutorial.md) and
the pages that the [overview](README.md) lists; exit statuses are in the [tutorial](tutorial.md#scripts-and-timers).

`backstay completion bash`, `zsh` or `fish` prints a script that completes all of this on a terminal: for bash,
`source <(backstay completion bash)` in `~/.bashrc`.
"""

VARIABLES: Final = {
    "BACKSTAY_REPO": "the repository, if there is no `-r`; it may be unset, but not empty",
    "BACKSTAY_CONFIG": "the policy file, if there is no `--config`",
    "BACKSTAY_PASSWORD": "the password itself",
    "BACKSTAY_PASSWORD_FILE": "a file with the password or a key, if there is no `--password-file`",
    "BACKSTAY_PASSWORD_COMMAND": "a command that prints the password, run without a shell",
    "BACKSTAY_NEW_PASSWORD": "the password that `key add` and `user password` are to set",
    "BACKSTAY_TO_PASSWORD": "the password of the other repository of `copy ID --to`",
    "BACKSTAY_QUORUM_POLICY": "the file that says whose attestations a restore demands",
    "BACKSTAY_DATABASE": "the database of catalog and jobs, if there is no `--database`",
    "BACKSTAY_ADMIN_TOKEN": "the token of the service's first administrator ([access](access.md))",
    "BACKSTAY_SFTP_PASSWORD": "the password of an SFTP server ([remote protocols](storage-remote.md))",
    "BACKSTAY_CACHE_DIR": "where the cache lies, which may be deleted at any time",
    "XDG_DATA_HOME": "repository and service lie in `backstay` below it by default; `~/.local/share` if not set",
    "XDG_CONFIG_HOME": "key files lie in `backstay` below it; `~/.config` if not set",
    "XDG_CACHE_HOME": "the cache lies in `backstay` below it; `~/.cache` if not set",
    "XDG_RUNTIME_DIR": "sockets of users other than root lie in `backstay` below it; `/run` if not set",
    "TZ": "the zone of the times that are typed and shown",
    "NO_COLOR": "no colours, if it is set; nor are there where the output is no terminal",
}


def text() -> str:
    """The page."""
    root = command_tree()
    return "\n".join([HEAD, *_globals(root), *_variables(), *_all(root)])


def _globals(root: Any) -> Iterator[str]:  # noqa: ANN401 - typer's own types, here and below
    yield "## Global options\n"
    yield "They may stand anywhere on the command line.\n"
    yield from _table(param for param in root.params if _is_global(param) or param.name == "version")


def _variables() -> Iterator[str]:
    yield "## Variables\n"
    yield "| variable | says |"
    yield "|---|---|"
    for name, meaning in VARIABLES.items():
        yield f"| `{name}` | {meaning} |"
    yield ""


def _all(root: Any) -> Iterator[str]:  # noqa: ANN401
    for panel in {**COMMANDS, **GROUPS}:
        yield f"## {panel}\n"
        for name in COMMANDS.get(panel, {}):
            yield from _command(name, root.commands[name])
        for group, (about, commands) in GROUPS.get(panel, {}).items():
            yield f"**{group}**: {about}\n"
            for name in commands:
                yield from _command(f"{group} {name}", root.commands[group].commands[name])


def _command(path: str, command: Any) -> Iterator[str]:  # noqa: ANN401
    yield f"### {path}\n"
    own = [param for param in command.params if not _is_global(param)]
    words = [_word(param) for param in own if param.param_type_name == "argument"]
    yield f"`{' '.join([PROGRAM, path, *words])}`\n"
    yield "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n")) + "\n"
    yield from _table(own)


def _word(param: Any) -> str:  # noqa: ANN401
    word = param.metavar if param.required else f"[{param.metavar}]"
    return f"{word}..." if param.nargs == -1 else str(word)


def _is_global(param: Any) -> bool:  # noqa: ANN401
    return bool(getattr(param, "rich_help_panel", None) == GLOBAL_PANEL)


def _table(params: Any) -> Iterator[str]:  # noqa: ANN401
    rows = [f"| {_name(param)} | {_meaning(param)} |" for param in params]
    if rows:
        yield from ("| | |", "|---|---|", *rows, "")


def _name(param: Any) -> str:  # noqa: ANN401
    if param.param_type_name == "argument":
        return f"`{_cell(param.metavar)}`"
    names = ", ".join(sorted([*param.opts, *param.secondary_opts], key=len))
    return f"`{names} {_cell(param.metavar or '')}".rstrip() + "`"


def _meaning(param: Any) -> str:  # noqa: ANN401
    told = _cell(" ".join((param.help or "").split()))
    return f"{told} Needed." if param.required and param.param_type_name != "argument" else told


def _cell(text: str) -> str:
    """In a table a bar ends the cell, even within code."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(text())
