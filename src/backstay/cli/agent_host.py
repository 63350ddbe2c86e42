"""`agent join` and `agent run`: what is done on the host of an agent."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.core.environment import data_directory
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backstay.control.agents.reporting import Reporting
    from backstay.control.agents.work import Work
    from backstay.control.agents.working import RunWork
    from backstay.control.runs.run import PolicyOutcome
    from backstay.core.events import EventSink

Dir = Annotated[
    Path | None, option("DIR", "Where this agent keeps its key; ~/.local/share/backstay/agent if not given.", "--dir")
]
_MOST_BYTES = 4096  # of a token, or a fingerprint
_MOST_OF_CA = 1 << 20  # bytes


def agent_join(
    ctx: typer.Context,
    server: Annotated[str, argument("SERVER", "https://HOST:PORT of `backstay serve`.")],
    token: Annotated[
        str | None, option("FILE", "The file with the join token; - for standard input, as if not given.")
    ] = None,
    authority: Annotated[
        str | None, option("SHA256", "The authority as `agent invite` told it: no other server is believed.")
    ] = None,
    ca: Annotated[
        Path | None, option("FILE", "The authority of the server's certificate, in PEM, in place of the system's.")
    ] = None,
    directory: Dir = None,
) -> int:
    """Make this host an agent: it makes a key, and gets a certificate for a join token."""
    from backstay.control.agents.home import Home
    from backstay.control.agents.joining import join, pinned_authority

    context = context_of(ctx)
    if authority is not None and ca is not None:
        raise InvalidRequest("one authority is pinned", cause="--authority and --ca name two", hint="give one of them")
    address = server.rstrip("/")
    home = Home.prepare(_directory(context, directory))
    with home.held():
        pinned = pinned_authority(address, authority) if authority is not None else _certificate(ca)
        join(home, address, _token(token), authority=pinned)
        _, ends = home.validity()
    document = {"server": address, "directory": str(home.path), "certificate_until": ends}
    context.result(document, lambda: context.say(f"joined {address}; `backstay -r REPOSITORY agent run` works for it"))
    return 0


def agent_run(
    ctx: typer.Context,
    directory: Dir = None,
    allow_programs: Annotated[
        bool, flag("Run the hooks and commands that policies of the server name.", "--allow-programs")
    ] = False,
) -> int:
    """Do the work that the server has for this host, until a signal ends it.

    The repository and its password are those of this host, as for `backstay backup`: the server sends neither.
    """
    from backstay.control.agents.home import Home
    from backstay.control.agents.server import Server
    from backstay.control.agents.working import Agent

    context = context_of(ctx)
    home = Home(_directory(context, directory)).checked()
    with home.held(), context.until_stopped() as (show, stopped):
        belonging = home.belonging()
        with context.open():  # what is wrong with repository or password is better told now than at night
            address = context.location().address
        agent = Agent(
            home=home,
            server=Server(address=belonging.server, authority=belonging.authority, identity=home.identity),
            run=_runs(context, show),
            clock=context.clock,
            random=os.urandom,
            warn=context.warn,
            say=_say(context),
            stopped=stopped,
            allow_programs=allow_programs,
        )
        document = {"server": belonging.server, "repository": address, "directory": str(home.path)}
        context.result(document, lambda: context.say(f"works for {belonging.server}, into {address}"))
        sys.stdout.flush()
        agent.work()
    return 0


def _runs(context: Context, show: EventSink) -> RunWork:
    """What does the work of a job, as `backstay run` does on a host of its own."""
    from backstay.control.policies.policy import Compression
    from backstay.control.runs.run import RunOptions, World, run_this_policy
    from backstay.sources.scratch import scratch_above

    def run(work: Work, reporting: Reporting, job_id: str, notices: list[str]) -> PolicyOutcome:
        def warn(text: str) -> None:
            reporting.log("warning", text)
            notices.append(text)

        def heard(event: object) -> None:
            show(event)  # type: ignore[arg-type]
            reporting.events(event)  # type: ignore[arg-type]

        @contextmanager
        def watching() -> Iterator[tuple[EventSink, Callable[[], None]]]:
            yield heard, reporting.checkpoint

        settings = work.settings()
        context.compressor = (settings.compression or Compression()).compressor()  # and not that of the last job
        world = World(
            prepare=lambda: None,  # the repository was there when the agent began
            open=lambda: context.open(grows=True),
            watching=watching,
            clock=context.clock,
            environ=context.environ,
            warn=warn,
            scratch=scratch_above(context.cache()),
        )
        options = RunOptions(
            kind=work.kind,
            host=socket.gethostname(),
            dry_run=work.dry_run,
            sources=work.sources,
            tags=work.tags,
            description=work.description,
            retention_days=work.retention_days,
            job=job_id,
        )
        return run_this_policy(work.policy, work.name, settings, options, world)

    return run


def _say(context: Context) -> Callable[[str], None]:
    """Told to people; programs have the one document."""

    def say(text: str) -> None:
        if not context.json:
            context.say(text)
            sys.stdout.flush()

    return say


def _directory(context: Context, named: Path | None) -> Path:
    return (named or data_directory(context.environ) / "agent").absolute()


def _certificate(ca: Path | None) -> str | None:
    if ca is None:
        return None
    try:
        with ca.open("rb") as file:
            found = file.read(_MOST_OF_CA + 1)
    except OSError as error:
        raise InvalidRequest(f"cannot read {ca}", cause=error.strerror or str(error)) from error
    if len(found) > _MOST_OF_CA:
        raise InvalidRequest(f"{ca} is too large", cause=f"it has more than {_MOST_OF_CA} bytes")
    return found.decode("utf-8", "replace")


def _token(named: str | None) -> str:
    """The token from a file or standard input, as what stands on a command line everybody sees; people are asked."""
    try:
        if named in (None, "-"):
            text = _typed() if sys.stdin.isatty() else sys.stdin.read(_MOST_BYTES)
        else:
            text = Path(named or "").read_text("utf-8", "replace")[:_MOST_BYTES]
    except OSError as error:
        raise InvalidRequest(f"cannot read {named}", cause=error.strerror or str(error)) from error
    if not text.strip():
        raise InvalidRequest(
            "there is no join token", cause="what was read is empty", hint="give --token FILE, or write it to the input"
        )
    return text.strip()


def _typed() -> str:
    """What somebody types or pastes at the terminal; it is not shown."""
    try:
        return getpass.getpass("join token: ", stream=sys.stderr)
    except EOFError:
        return ""
