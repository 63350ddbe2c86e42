"""`pg backup` and `expire`: base backups of whole PostgreSQL clusters, and the WAL that goes with them."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Annotated

import typer

from backstay.cli import default_repository
from backstay.cli.context import context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.snapshot_words import host_of, tags_of
from backstay.core.names import require_utf8
from backstay.core.quantities import format_duration, format_size, plural

NAME = "NAME"
NAMED = "What the cluster is called in the repository."


def pg_backup(
    ctx: typer.Context,
    url: Annotated[str, argument("URL", "The server: postgresql://user@host:port/postgres; the role may replicate.")],
    name: Annotated[str, option(NAME, NAMED)],
    full: Annotated[bool, flag("Have all files sent, not only what changed.", "--full")] = False,
    tag: Annotated[list[str] | None, option("TAG", "Tag the snapshot; repeatable.")] = None,
    description: Annotated[str, option("TEXT", "A remark on the snapshot.")] = "",
    host: Annotated[str | None, option("HOST", "Another host name than this machine's.")] = None,
) -> int:
    """Make a base backup of a running cluster, with the WAL that it needs."""
    from backstay.operations.clusters.backup import ClusterBackupOptions, back_up_cluster

    context = context_of(ctx)
    options = ClusterBackupOptions(
        name=name,
        host=host_of(host),
        full=full,
        tags=tags_of(tag),
        description=require_utf8("description", description),
    )
    default_repository.ensure_default(context, context.location())
    with context.open(grows=True) as repository, context.committing("backup") as events:
        result = back_up_cluster(repository, url, options, events=events)

    def show() -> None:
        sent = "all files were sent" if result.parent is None else "what changed was sent"
        why = f" ({result.reason})" if result.reason else ""
        context.say(f"{plural(result.files, 'file')} with {format_size(result.bytes)}; {sent}{why}")
        context.say(
            f"{format_size(result.bytes_received)} received, {format_size(result.bytes_added)} added to the repository "
            f"in {format_duration(result.duration_s)}"
        )
        context.say(f"from {result.start_lsn} to {result.stop_lsn} on timeline {result.timeline}")
        if result.content_time is not None:
            behind = datetime.fromisoformat(result.stop_time) - datetime.fromisoformat(result.content_time)
            span = format_duration(max(0.0, behind.total_seconds()))
            context.say(
                f"the last commit in it is of {result.content_time}, {span} before: a standby shows no later one"
            )
        context.say(f"snapshot {result.snapshot} ({result.kind})")

    context.result(dataclasses.asdict(result), show)
    return 0
