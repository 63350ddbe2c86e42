"""`agent`: programs on other hosts that show a certificate instead of a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from backstay.cli.context import context_of
from backstay.cli.options import argument, option
from backstay.cli.people import Database, DataDir, people
from backstay.cli.render import local_time, out, print_table
from backstay.core.quantities import plural

if TYPE_CHECKING:
    from datetime import datetime

    from backstay.control.access.agents import CertificateView

Name = Annotated[str, argument("NAME", "An agent's name, such as that of its host.")]


def agent_invite(
    ctx: typer.Context,
    name: Name,
    valid_for: Annotated[str, option("LENGTH", "So long it may join, at most 7d.", show_default=True)] = "1h",
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Print a token, once, by which one agent gets its first certificate.

    An agent may nothing without a role: see `backstay user grant`.
    """
    from backstay.core.times import parse_length

    context = context_of(ctx)
    life = parse_length(valid_for)
    with people(context, data_dir, database, command="agent invite", agents=True, begins=True) as found:
        with found.changing("agent.invite", f"user/{name}") as session:
            invited = found.access.agents.invite(session, by=found.by, name=name, life=life)
        fingerprint = found.access.agents.authority.fingerprint

    def show() -> None:
        out(invited.text)
        context.warn(f"it is good until {local_time(invited.expires_at)}, and is not shown again")
        context.say(f"authority: {fingerprint}")

    document = {
        "agent": name,
        "token": invited.text,
        "expires_at": invited.expires_at,
        "authority_fingerprint": fingerprint,
    }
    context.result(document, show)
    return 0


def agent_list(ctx: typer.Context, data_dir: DataDir = None, database: Database = None) -> int:
    """List the agents: when each was last seen, its version, and until when its certificate is good."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="agent list") as found, found.catalog.reading() as session:
        from backstay.control.access.agents import valid_until
        from backstay.control.agents.processes import last_seen

        seen, shown = last_seen(session), list[dict[str, Any]]()
        for user in found.access.users.all(session):
            if user.kind == "agent":
                given = found.access.agents.certificates(session, by=found.by, name=user.name)
                last = seen.get(user.name)
                shown.append(
                    {
                        "name": user.name,
                        "last_seen_at": None if last is None else last.at,
                        "host": None if last is None else last.host,
                        "version": None if last is None else last.version,
                        "certificate_until": valid_until(given),
                    }
                )

    def show() -> None:
        rows = [
            (
                one["name"],
                local_time(one["last_seen_at"]) if one["last_seen_at"] else "never",
                one["host"] or "",
                one["version"] or "",
                local_time(one["certificate_until"]) if one["certificate_until"] else "none",
            )
            for one in shown
        ]
        print_table(("Agent", "Seen", "Host", "Version", "Certificate"), rows, context.environ)

    context.result({"agents": shown}, show)
    return 0


def agent_certificates(ctx: typer.Context, name: Name, data_dir: DataDir = None, database: Database = None) -> int:
    """List the certificates that an agent was given."""
    context = context_of(ctx)
    with (
        people(context, data_dir, database, command="agent certificates") as found,
        found.catalog.reading() as session,
    ):
        shown = found.access.agents.certificates(session, by=found.by, name=name)
    now = context.clock.now()

    def show() -> None:
        rows = [(view.serial, local_time(view.issued_at), _state(view, now)) for view in shown]
        print_table(("Serial", "Since", "State"), rows, context.environ)

    context.result({"certificates": shown}, show)
    return 0


def agent_revoke(ctx: typer.Context, name: Name, data_dir: DataDir = None, database: Database = None) -> int:
    """Make all certificates and join tokens of an agent worthless at once; it may be invited again."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="agent revoke") as found:  # noqa: SIM117 - two steps
        with found.changing("agent.revoke", f"user/{name}") as session:
            count = found.access.agents.revoke(session, by=found.by, name=name)
    context.result({"agent": name, "revoked": count}, lambda: context.say(f"revoked {plural(count, 'certificate')}"))
    return 0


def _state(view: CertificateView, now: datetime) -> str:
    if view.revoked_at is not None:
        return f"revoked {local_time(view.revoked_at)}"
    return f"{'ended' if view.expires_at <= now else 'until'} {local_time(view.expires_at)}"
