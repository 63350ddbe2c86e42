"""`graph restore`: let the outputs of a graph be there again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.graph_choice import GRAPH_SNAPSHOT_HELP, PolicyFile, in_force, managing, one_snapshot
from backstay.cli.options import argument, flag, option
from backstay.cli.render import out, print_table
from backstay.core.quantities import format_count
from backstay.errors import InvalidRequest, RestoreFailed

if TYPE_CHECKING:
    from backstay.graph.policy import RegenerationPolicy
    from backstay.graph.restore_plan import RestorePlan
    from backstay.graph.restore_report import RestoreReport

LATEST = "latest"
_SHOWN = 50  # nodes of which something is told


def graph_restore(
    ctx: typer.Context,
    snapshot: Annotated[str | None, argument("ID", GRAPH_SNAPSHOT_HELP + " The one in force if not given.")] = None,
    to: Annotated[
        Path | None,
        option("DIR", "Outputs of nodes with a path are files below DIR; else they are in the repository."),
    ] = None,
    strategy: Annotated[
        Literal["incremental", "full", "selective"] | None,
        option("HOW", "incremental: what is lost or wrong; full: everything anew; selective: the nodes named."),
    ] = None,
    node: Annotated[list[str] | None, option("NODE", "Only this node and what it needs; repeatable.")] = None,
    run_commands: Annotated[bool, flag("Run the commands that stand in the graph itself.", "--run-commands")] = False,
    import_: Annotated[
        list[str] | None,
        option("MODULE", "A module with functions that @recomputes registers.", "--import"),
    ] = None,
    path: Annotated[
        list[Path] | None, option("DIR", "Look for modules in this directory too; repeatable.", "--path")
    ] = None,
    executor: Annotated[
        str | None, option("WHERE", "threads, processes, threads:N, processes:N or dask://HOST:PORT.")
    ] = None,
    deadline: Annotated[float | None, option("SECONDS", "How long one recomputation may take.", min=0.001)] = None,
    retries: Annotated[int, option("N", "Try a recomputation that failed so often again.", min=0, max=100)] = 0,
    unchecked: Annotated[bool, flag("Trust outputs that are there, without reading them.", "--unchecked")] = False,
    no_history: Annotated[bool, flag("Keep no copy of files that are replaced.", "--no-history")] = False,
    accept_pending: Annotated[
        bool, flag("Take a snapshot that too few validators attested yet.", "--accept-pending")
    ] = False,
    dry_run: Annotated[bool, flag("Only tell what would be done with each node.", "--dry-run", "-n")] = False,
    policy: PolicyFile = None,
) -> int:
    """Bring back what a graph made: from the repository, or by making it again."""
    context = context_of(ctx)
    rules = _rules(
        strategy, node or [], run_commands=run_commands, deadline=deadline, retries=retries,
        validate_before_restore=not unchecked, preserve_history=not no_history,
    )  # fmt: skip
    _load(import_ or [], path or [])
    with context.committing("graph restore") as events, managing(context, policy, events=events) as manager:
        from backstay.graph.file_outputs import FileOutputs
        from backstay.graph.manager import RestoreMeans

        if accept_pending:
            ident = one_snapshot(context, manager, snapshot or LATEST).id
        else:
            ident = in_force(context, manager, snapshot)
        outputs = FileOutputs(to, manager.values, clock=context.clock) if to is not None else None
        means = RestoreMeans(outputs=outputs, executor=executor)
        if dry_run:
            plan = manager.plan_restore(ident, rules, means, accept_pending=accept_pending)
            context.result(_plan_document(ident, plan), lambda: _show_plan(context, plan))
            return 0 if plan.possible else RestoreFailed.exit_status
        report = manager.restore_snapshot(ident, rules, means, accept_pending=accept_pending)
    context.result(_report_document(ident, report), lambda: _show_report(context, report))
    return 0 if report.ok else RestoreFailed.exit_status


def _rules(strategy: str | None, nodes: Sequence[str], **rules: object) -> RegenerationPolicy:
    """The policy of the options; naming nodes means a selective restore. Raises InvalidRequest."""
    from backstay.graph.policy import RegenerationPolicy

    chosen = strategy or ("selective" if nodes else "incremental")
    return RegenerationPolicy.parse({"strategy": chosen, "nodes": list(nodes), **rules})


def _load(modules: Sequence[str], paths: Sequence[Path]) -> None:
    """Let modules register their functions. Raises InvalidRequest for one that cannot be imported."""
    sys.path[:0] = [str(directory.absolute()) for directory in paths]
    for name in modules:
        try:
            import_module(name)
        except Exception as error:
            raise InvalidRequest(
                f"cannot import {name}",
                cause=f"{type(error).__name__}: {error}",
                hint="--path names a directory to look for modules in",
            ) from error


def _plan_document(ident: str, plan: RestorePlan) -> dict[str, object]:
    return {
        "snapshot": ident,
        "dry_run": True,
        "possible": plan.possible,
        "counts": dict(plan.counts),
        "nodes": [node._asdict() for node in plan.nodes],
    }


def _show_plan(context: Context, plan: RestorePlan) -> None:
    touched = [(node.id, node.action, node.reason) for node in plan.nodes if node.action != "reuse"]
    _print_nodes(context, "Would", touched)
    told = ", ".join(f"{format_count(count)} {action}" for action, count in sorted(plan.counts.items()))
    context.say(told or "nothing to do")


def _report_document(ident: str, report: RestoreReport) -> dict[str, object]:
    return {
        "snapshot": ident,
        "ok": report.ok,
        "counts": dict(report.counts),
        "nodes": [node._asdict() for node in report.nodes],
        "changed": {name: node.hash for name, node in report.changed.items()},
        "stale": report.stale,
    }


def _show_report(context: Context, report: RestoreReport) -> None:
    touched = [(node.id, node.action, node.reason) for node in report.nodes if node.action != "reused"]
    _print_nodes(context, "Was", touched)
    told = ", ".join(f"{format_count(count)} {action}" for action, count in sorted(report.counts.items()))
    context.say(told or "nothing to do")
    if report.changed:
        context.say(f"{format_count(len(report.changed))} came back as new versions: store the graph anew")
    if not report.ok:
        context.warn("not every node is well; files are as they were before")


def _print_nodes(context: Context, verb: str, touched: Sequence[tuple[str, str, str]]) -> None:
    if touched and context.talks:
        print_table(("Node", verb, "Because"), touched[:_SHOWN], context.environ)
        if len(touched) > _SHOWN:
            out(f"and {format_count(len(touched) - _SHOWN)} more; --json tells all")
