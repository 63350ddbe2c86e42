"""Restore the outputs of a graph: reuse what is good, restore what is stored, recompute what is lost.

from backstay.graph.regeneration import regenerate

report = regenerate(graph, StoredOutputs(cas))
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backstay.core.clock import Clock, SystemClock
from backstay.core.events import EventSink, Started, finished, ignore
from backstay.graph import recompute, validation
from backstay.graph.executor_names import executor_of
from backstay.graph.executors import Executor, ThreadExecutor
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.outputs import Outputs
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.recompute import Recomputers
from backstay.graph.regeneration_round import Round
from backstay.graph.restore_plan import RestorePlan, plan_restore
from backstay.graph.restore_report import RestoreReport
from backstay.graph.scope import Scope
from backstay.graph.standins import Standin
from backstay.graph.surroundings import Surroundings
from backstay.graph.survey import Survey
from backstay.graph.validation import Validators


@dataclass(frozen=True, kw_only=True)
class RegenerationOptions:
    """With what a graph is restored. `others` are the graphs that its nodes may refer to, by name, and `standins` those
    of them that took the place of deleted snapshots.

    The executor is one, or what `executor_of` reads; one that is given as an object is not closed.
    """

    policy: RegenerationPolicy = field(default_factory=RegenerationPolicy)
    others: Mapping[str, MetadataGraph] = field(default_factory=dict)
    standins: Mapping[str, Standin] = field(default_factory=dict)
    recomputers: Recomputers = recompute.DEFAULT
    validators: Validators = validation.DEFAULT
    executor: Executor | str | None = None
    clock: Clock = field(default_factory=SystemClock)
    events: EventSink = ignore


def plan_regeneration(
    graph: MetadataGraph, outputs: Outputs, options: RegenerationOptions | None = None
) -> RestorePlan:
    """What `regenerate` would do; changes nothing.

    Raises GraphError for a graph that cannot be restored at all, and UnknownNode for a node named in the policy.
    """
    options = options or RegenerationOptions()
    with ThreadExecutor() as executor, _surroundings(graph, outputs, options, executor) as around:
        return _plan(around, graph)


def regenerate(graph: MetadataGraph, outputs: Outputs, options: RegenerationOptions | None = None) -> RestoreReport:
    """Restore a graph. Nodes that cannot be had are told in the report; independent ones are done all the same.

    When something fails, files are as they were; what was recomputed stays in the repository, so that the next try
    need not do it again. Raises GraphError as `plan_regeneration`,
    OutputsBusy, RestoreFailed, InsufficientSpace, and what the
    repository raises.
    """
    options = options or RegenerationOptions()
    policy = options.policy
    with _executor(options) as executor, _surroundings(graph, outputs, options, executor) as around:
        outputs.begin(keep_history=policy.preserve_history, most=policy.max_snapshots, ttl_days=policy.ttl_days)
        try:
            options.events(Started(operation="graph restore", total_files=len(graph)))
            _run(around, graph)
            report = _report(around)
        except BaseException:
            outputs.rollback()
            raise
        if report.ok:
            outputs.commit()
        else:
            outputs.rollback()
        finished(options.events, "graph restore")
        return report


def _run(around: Surroundings, graph: MetadataGraph) -> None:
    """Plan and act; where outputs turn out to be lost meanwhile, again: each time there are fewer that can."""
    while True:
        this = Round(around, _plan(around, graph))
        this.run()
        if not this.damaged:
            return


def _plan(around: Surroundings, graph: MetadataGraph) -> RestorePlan:
    if around.policy.strategy != "selective":
        around.survey.look_ahead(around.scope.own)

    def why_not(number: int) -> str:
        way = around.way(number)
        return way if isinstance(way, str) else ""

    return plan_restore(around.scope, around.survey, around.policy, why_not, graph=graph.name)


def _report(around: Surroundings) -> RestoreReport:
    results = tuple(filter(None, around.results))
    scope = around.scope
    renamed = set(around.renamed.values())
    stale = {
        other
        for number, node in around.changed.items()
        if node.hash in renamed
        for other in scope.dependants[number]
        if around.results[other] is None
    }
    return RestoreReport(
        ok=all(result.action not in ("failed", "blocked") for result in results),
        nodes=results,
        changed={scope.keys[number]: node for number, node in sorted(around.changed.items())},
        stale=tuple(scope.keys[number] for number in sorted(stale)),
    )


@contextmanager
def _executor(options: RegenerationOptions) -> Iterator[Executor]:
    given = options.executor
    if given is not None and not isinstance(given, str):
        yield given
        return
    with executor_of(given) if given else ThreadExecutor(options.policy.parallel) as executor:
        yield executor


@contextmanager
def _surroundings(
    graph: MetadataGraph, outputs: Outputs, options: RegenerationOptions, executor: Executor
) -> Iterator[Surroundings]:
    scope = Scope.of(graph, options.others, options.standins)
    # A thread that was given up may still write there while it is removed.
    with tempfile.TemporaryDirectory(prefix="backstay-graph-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        survey = Survey(
            scope,
            outputs,
            options.validators,
            scratch,
            read=options.policy.validate_before_restore,
            threads=os.cpu_count() or 1,
        )
        yield Surroundings(
            scope=scope,
            survey=survey,
            outputs=outputs,
            policy=options.policy,
            recomputers=options.recomputers,
            validators=options.validators,
            executor=executor,
            scratch=scratch,
            clock=options.clock,
            events=options.events,
        )
