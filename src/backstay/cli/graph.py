"""`graph snapshot|list|show|diff|verify`: store graphs of computed values, and look at what is stored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.graph_choice import GRAPH_SNAPSHOT_HELP, GraphSnapshotId, PolicyFile, managing, one_snapshot
from backstay.cli.options import argument, flag, option
from backstay.cli.render import local_time, out, print_pairs, print_table
from backstay.core.quantities import format_count, plural
from backstay.errors import CorruptedBackup, InvalidRequest

if TYPE_CHECKING:
    from backstay.graph.metadata_graph import MetadataGraph
    from backstay.graph.snapshots import GraphSnapshot
    from backstay.graph.verification import GraphVerification

_SHOWN = 20  # findings, and nodes


def graph_snapshot(
    ctx: typer.Context,
    document: Annotated[Path, argument("FILE", "The graph as a JSON document.")],
    files: Annotated[
        Path | None, option("DIR", "Store outputs that are not there yet from files: each node's path below DIR.")
    ] = None,
    description: Annotated[str, option("TEXT", "What to remember it by.", "--description", "-d")] = "",
    tag: Annotated[list[str] | None, option("TAG", "A mark; repeatable.", "--tag", "-t")] = None,
    policy: PolicyFile = None,
) -> int:
    """Store a graph: its nodes, and the values that they made."""
    from backstay.core.events import GraphSnapshotCreated
    from backstay.graph.documents import read_document
    from backstay.graph.output_files import store_files
    from backstay.operations.backup.scarce_room import warn_of_scarce_room
    from backstay.operations.locks.extend import extend_after_backup

    context = context_of(ctx)
    graph = read_document(_read(document), clock=context.clock)
    with (
        context.committing(GraphSnapshotCreated.topic) as events,
        managing(context, policy, events=events, grows=True) as manager,
    ):
        manager.graph = graph
        stored = store_files(graph, files, manager.values) if files is not None else 0
        made = manager.create_snapshot(description, tag or [])
        extend_after_backup(manager.repository, made.id, events=events)
        warn_of_scarce_room(manager.repository.backend, events)

    def show() -> None:
        if stored:
            context.say(f"stored {plural(stored, 'new output')}")
        context.say(f"snapshot {made.id} of graph {made.name}: {plural(made.nodes, 'node')}")
        if made.state == "pending":
            context.say(f"it is pending until validators attest it: {', '.join(made.missing)}")

    context.result(summary_of(made) | {"values_stored": stored}, show)
    return 0


def graph_list(
    ctx: typer.Context,
    name: Annotated[str | None, option("NAME", "Only those of this graph.")] = None,
    policy: PolicyFile = None,
) -> int:
    """List the snapshots of graphs, oldest first."""
    context = context_of(ctx)
    with managing(context, policy) as manager:
        found = [told for told in manager.list_snapshots() if name in (None, told.name)]

    def show() -> None:
        if not found:
            context.say("there is no snapshot of a graph")
            return
        columns = ("ID", "Time", "Graph", ">Nodes", "State", "Validated by", "Remarks")
        print_table(columns, [_row(told) for told in found], context.environ)

    context.result([summary_of(told) for told in found], show)
    return 0


def _row(told: GraphSnapshot) -> tuple[str, ...]:
    remarks = [*told.tags, *([f"“{told.description}”"] if told.description else [])]
    return (
        told.id,
        local_time(told.time)[:-3],
        told.name,
        format_count(told.nodes),
        told.state,
        ", ".join(told.validated_by),
        ", ".join(remarks),
    )


def graph_show(
    ctx: typer.Context,
    snapshot: GraphSnapshotId = "latest",
    nodes: Annotated[bool, flag("List every node.", "--nodes")] = False,
    policy: PolicyFile = None,
) -> int:
    """Tell all about one snapshot of a graph."""
    context = context_of(ctx)
    with managing(context, policy) as manager:
        told = one_snapshot(context, manager, snapshot)
        graph = told.graph
    document = summary_of(told) | {
        "version": graph.version,
        "timestamp": graph.timestamp,
        "statuses": dict(Counter(node.status for node in graph)),
        "edges": sum(map(len, graph.deps.values())),
        "nodes": [node.model_dump(mode="json", exclude_defaults=True) for node in graph] if nodes else told.nodes,
    }

    def show() -> None:
        print_pairs(_pairs(told, graph), context.environ)
        if nodes:
            out()
            rows = [(node.id, node.status, node.hash or "", ", ".join(node.deps)) for node in graph]
            print_table(("Node", "Status", "Output", "From"), rows, context.environ)

    context.result(document, show)
    return 0


def _pairs(told: GraphSnapshot, graph: MetadataGraph) -> list[tuple[str, str]]:
    statuses = Counter(node.status for node in graph)
    return [
        ("Snapshot", told.id),
        ("Graph", f"{told.name}, version {graph.version}"),
        ("Time", local_time(told.time)),
        ("Tags", ", ".join(told.tags)),
        ("Description", told.description),
        ("State", told.state),
        ("Validated by", ", ".join(told.validated_by)),
        ("Missing", ", ".join(told.missing) if told.state == "pending" else ""),
        ("Nodes", ", ".join(f"{format_count(count)} {status}" for status, count in sorted(statuses.items()))),
        ("Values", format_count(told.values)),
        ("Refers to", ", ".join(f"{name} {ulid}" for name, ulid in told.requires.items())),
    ]


def graph_diff(
    ctx: typer.Context,
    before: GraphSnapshotId,
    after: GraphSnapshotId,
) -> int:
    """Tell which nodes differ between two snapshots."""
    from backstay.graph.difference import difference

    context = context_of(ctx)
    with managing(context, None) as manager:
        found = difference(*(one_snapshot(context, manager, text).graph for text in (before, after)))
    document = {"unchanged": found.unchanged, "nodes": [node._asdict() for node in found.nodes]}

    def show() -> None:
        marks = {"added": "+", "removed": "-", "changed": "M"}
        for node in found.nodes:
            out(f"{marks[node.change]}  {node.id}{'  ' + ', '.join(node.fields) if node.fields else ''}")
        differ = plural(len(found.nodes), "node differs", "nodes differ")
        context.say(f"{differ}, {format_count(found.unchanged)} do not")

    context.result(document, show)
    return 0


def graph_verify(
    ctx: typer.Context,
    snapshot: Annotated[str | None, argument("ID", GRAPH_SNAPSHOT_HELP)] = None,
    read_data: Annotated[bool, flag("Read every value, and compare it with its id.", "--read-data")] = False,
    policy: PolicyFile = None,
) -> int:
    """Check that graphs are whole, their values there, and their attestations genuine."""
    context = context_of(ctx)
    with managing(context, policy) as manager:
        chosen = one_snapshot(context, manager, snapshot).id if snapshot is not None else None
        report = manager.verify(chosen, read_data=read_data)
    document = {
        "ok": report.ok,
        "snapshots": report.snapshots,
        "values": report.values,
        "values_read": report.values_read,
        "findings": report.findings,
    }
    context.result(document, lambda: _show_verification(context, report))
    return 0 if report.ok else CorruptedBackup.exit_status


def _show_verification(context: Context, report: GraphVerification) -> None:
    for finding in report.findings[:_SHOWN]:
        context.warn(f"{finding.subject}: {finding.message}")
        if finding.hint:
            context.warn(f"  hint: {finding.hint}")
    if len(report.findings) > _SHOWN:
        context.warn(f"and {plural(len(report.findings) - _SHOWN, 'more finding')}")
    looked = f"{plural(report.snapshots, 'snapshot')}, {plural(report.values, 'value')}"
    read = f", {format_count(report.values_read)} of them read" if report.values_read else ""
    context.say(f"{looked}{read}: {'no problem found' if report.ok else 'something is wrong'}")


def summary_of(told: GraphSnapshot) -> dict[str, object]:
    """A snapshot of a graph as JSON tells it."""
    return {
        "id": told.id,
        "graph": told.name,
        "time": told.time,
        "description": told.description,
        "tags": told.tags,
        "state": told.state,
        "validated_by": told.validated_by,
        "missing": told.missing,
        "nodes": told.nodes,
        "values": told.values,
        "requires": told.requires,
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read the graph {path}", cause=error.strerror or "") from error
