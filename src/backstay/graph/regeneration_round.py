"""One pass through a plan: what can be done is done in parallel, each node after those that it is made from.

One thread decides; it never waits for a node, only for whatever ends next, so that nothing can block for ever. What is
recomputed runs in the executor, what is restored on threads of this module's own.
"""

from __future__ import annotations

import heapq
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from shutil import rmtree
from typing import Final, Literal, TypeAlias

from backstay.core.events import Progress
from backstay.core.pipeline import Workers
from backstay.errors import BackstayError, Interrupted, OutputMismatch, RecomputeFailed, WorkerLost
from backstay.graph.executors import Task
from backstay.graph.inputs import Inputs
from backstay.graph.model import Node
from backstay.graph.new_version import with_inputs, with_output
from backstay.graph.outputs import DAMAGED, OutputState, read_through, require_size
from backstay.graph.produced import Produced
from backstay.graph.restore_plan import ONLY_FIRST, PlannedNode, RestorePlan
from backstay.graph.restore_report import NodeResult
from backstay.graph.result_shelf import ResultShelf
from backstay.graph.running import Ended, Running
from backstay.graph.surroundings import Surroundings
from backstay.graph.ways import Job

RESTORING: Final = 4  # threads that read outputs from the repository
_LOOK_S: Final = 0.5  # between two looks whether somebody wants to stop
_UNDER_WAY: Final = 4 * RESTORING  # restores that were begun
_INTACT: Final = OutputState(here="intact", stored=True)
State: TypeAlias = Literal["good", "changed", "bad", "later"]


class Round:
    """One pass; `damaged` are outputs that turned out to be lost, for whose sake a new plan has to be made."""

    def __init__(self, around: Surroundings, plan: RestorePlan) -> None:
        self._around, self._scope = around, around.scope
        self._planned: list[PlannedNode | None] = [None] * len(around.scope.keys)  # what is still to be decided
        for number, node in zip(plan.numbers, plan.nodes, strict=True):
            self._planned[number] = node
        self._running = Running(around.executor, around.policy, around.clock)
        self._shelf = ResultShelf(around.outputs.values, around.clock)
        self._restored: deque[tuple[int, Future[float]]] = deque()
        self._restoring = 0
        self._waiting: dict[int, int] = {}
        self._waited_for: dict[int, list[int]] = {}
        self._recompute: list[int] = []  # heaps of what may begin
        self._restore: list[int] = []
        self._states: list[State | None] = [None] * len(around.scope.keys)
        self._decided = 0
        self._tries: dict[int, int] = {}
        self._excuses: dict[int, str] = {}
        self._unreadable: set[int] = set()
        self.damaged: dict[int, str] = {}

    def run(self) -> None:
        """Until everything is done that can be. Raises what the repository or the place of the outputs raises."""
        try:
            with Workers(RESTORING, "restore") as workers:
                self._begin()
                while self._step(workers):
                    pass
            self._shelf.store()
            self._confirm()
        except (KeyboardInterrupt, Interrupted):
            self._running.give_up()
            self._shelf.store()  # what is made is worth keeping
            raise
        finally:
            self._running.give_up()

    def _confirm(self) -> None:
        """What the repository had but could not read may still lie there as it was: then storing it changed nothing."""
        values = self._around.outputs.values
        for number in self._unreadable:
            node = self._scope.nodes[number]
            assert node.hash is not None
            if self._states[number] == "good" and (problem := read_through(values, node.hash, node)):
                reason = f"recomputed, but the repository's copy stays damaged ({problem}): run `backstay repair packs`"
                self._fail(number, "failed", reason)

    # -- what can be done when

    def _begin(self) -> None:
        for number, planned in enumerate(self._planned):
            if planned is None:
                continue
            missing = self._undecided(number) if planned.action == "recompute" or planned.may_change else []
            for dep in missing:
                self._waited_for.setdefault(dep, []).append(number)
            if missing:
                self._waiting[number] = len(missing)
            else:
                self._ready(number)

    def _undecided(self, number: int) -> list[int]:
        """The nodes that are looked after of which it is not known yet how they come back, of those needed by one."""
        planned, states = self._planned, self._states
        return [dep for dep in self._scope.deps[number] if planned[dep] is not None and states[dep] is None]

    def _plan_of(self, number: int) -> PlannedNode:
        planned = self._planned[number]
        assert planned is not None
        return planned

    def _ready(self, number: int) -> None:
        """All that this node waits for is decided; what can be decided at once about it and its dependants is."""
        front = [number]
        while front:
            number = front.pop()
            self._enter(number)
            if self._states[number] is not None:
                front.extend(self._freed(number))

    def _enter(self, number: int) -> None:
        planned, around = self._plan_of(number), self._around
        remaking = planned.action == "recompute" or self._inputs_changed(number, planned)
        if number in around.failed:  # in an earlier pass: its result tells how
            self._decide(number, "bad")
        elif planned.action == "blocked":
            self._fail(number, "blocked", planned.reason, planned.blame)
        elif remaking and not self._is_obstructed(number):
            heapq.heappush(self._recompute, number)
        elif not remaking and planned.action == "restore" and around.results[number] is None:
            heapq.heappush(self._restore, number)
        elif not remaking:
            self._decide(number, "good")
            if around.results[number] is None:
                around.results[number] = NodeResult(planned.id, "reused", planned.reason, planned.hash)

    def _inputs_changed(self, number: int, planned: PlannedNode) -> bool:
        """Whether something that a node is made from came back different; one that cannot be had changes nothing."""
        return planned.may_change and any(self._states[dep] == "changed" for dep in self._scope.deps[number])

    def _is_obstructed(self, number: int) -> bool:
        """Whether a node that has to be recomputed cannot be; then that is settled."""
        key = self._scope.keys[number]
        way = self._around.way(number)
        if self._is_free(number) and len(self._scope.nodes[number].values) > 1:
            way = ONLY_FIRST
        if isinstance(way, str):
            self._fail(number, "blocked", f"something that it is made from has changed; {way}", key)
            return True
        for dep in self._scope.deps[number]:
            if self._states[dep] == "bad":
                reason, blame = self._around.failed[dep]
                named = self._scope.keys[dep]
                self._fail(number, "blocked", f"it is made from {named}, which cannot be had: {reason}", blame)
                return True
            if self._states[dep] == "later":
                self._put_off(number)
                return True
        return False

    def _put_off(self, number: int) -> None:
        """A node has to wait for the next plan, which must know that its inputs have changed if they have."""
        self._decide(number, "later")
        if self._inputs_changed(number, self._plan_of(number)):
            detail = "something that it was made from has changed"
            outdated = OutputState(here="wrong", stored=False, outdated=True, detail=detail)
            self._around.survey.enter(number, outdated)

    def _freed(self, number: int) -> Iterator[int]:
        for other in self._waited_for.pop(number, ()):
            self._waiting[other] -= 1
            if not self._waiting[other]:
                del self._waiting[other]
                yield other

    def _decide(self, number: int, state: State) -> None:
        self._decided += self._states[number] is None
        self._states[number] = state

    def _settle(self, number: int, state: State) -> None:
        self._decide(number, state)
        self._tell(self._scope.keys[number])
        for other in list(self._freed(number)):
            self._ready(other)

    def _tell(self, current: str) -> None:
        self._around.events(Progress(files=self._decided, bytes=0, current=current))

    def _fail(self, number: int, outcome: Literal["failed", "blocked"], reason: str, blame: str = "") -> None:
        key = self._scope.keys[number]
        self._decide(number, "bad")
        self._around.failed[number] = (reason, blame or key)
        node = self._scope.nodes[number]
        self._around.results[number] = NodeResult(key, outcome, reason, node.hash, blame=blame or key)

    # -- one step

    def _step(self, workers: Workers) -> bool:
        """Begin what can begin, then wait for something to end; False when all is done."""
        while self._restore and self._restoring < _UNDER_WAY:
            self._begin_restore(workers, heapq.heappop(self._restore))
        while self._recompute and self._running.has_room_for(self._memory(self._recompute[0])):
            self._begin_recompute(heapq.heappop(self._recompute))
        if not self._running and not self._restoring:
            return False
        due = self._shelf.due_s()
        for ended in self._running.wait(_LOOK_S if due is None else min(due, _LOOK_S)):
            self._take(ended)
        self._tell("")  # also when nothing ended: whoever is told may want to stop
        while self._restored:
            self._take_restored(*self._restored.popleft())
        if self._shelf.due_s() == 0.0:
            self._shelf.store()
        return True

    def _memory(self, number: int) -> int:
        return self._scope.nodes[number].metadata.memory_usage

    # -- restoring

    def _begin_restore(self, workers: Workers, number: int) -> None:
        self._restoring += 1
        future = workers.submit(self._restore_one, number)

        def tell(done: Future[float]) -> None:
            self._restored.append((number, done))
            self._running.ring()

        future.add_done_callback(tell)

    def _restore_one(self, number: int) -> float:
        """Seconds that it took."""
        begun = self._around.clock.monotonic()
        node, validators = self._scope.placed(number), self._around.validators
        if validators.has(node):
            validators.apply(node, lambda: self._around.outputs.open(node), self._around.scratch)
        self._around.outputs.restore(node)
        return self._around.clock.monotonic() - begun

    def _take_restored(self, number: int, future: Future[float]) -> None:
        self._restoring -= 1
        planned = self._plan_of(number)
        try:
            seconds = future.result()
        except DAMAGED as error:
            self._find_damaged(number, str(error))
            self._settle(number, "later")
            return
        self._around.results[number] = NodeResult(planned.id, "restored", planned.reason, planned.hash, seconds)
        self._around.survey.enter(number, _INTACT)
        self._settle(number, "good")

    def _find_damaged(self, number: int, detail: str) -> None:
        """An output is not what the plan took it for."""
        self.damaged[number] = detail
        self._around.results[number] = None
        self._around.survey.enter(number, OutputState(here="wrong", stored=False, detail=detail))

    # -- recomputing

    def _begin_recompute(self, number: int) -> None:
        way = self._around.way(number)
        assert not isinstance(way, str)
        node, scratch = self._made_now(number), Path(tempfile.mkdtemp(dir=self._around.scratch))
        names = self._scope.names[number]
        by_name = dict(zip(names, self._scope.deps[number], strict=True))
        inputs = Inputs(names, lambda name: self._open(by_name[name]), scratch)
        self._tries[number] = self._tries.get(number, 0) + 1
        free = self._is_free(number)
        task = Task(
            job=Job(node=node, inputs=inputs, scratch=scratch),
            way=way,
            finish=lambda produced: self._finish(number, node, produced, scratch, free=free),
        )
        self._running.begin(number, task)

    def _made_now(self, number: int) -> Node:
        deps = [self._scope.nodes[dep] for dep in self._scope.deps[number]]
        return with_inputs(self._scope.nodes[number], deps, self._around.renamed)

    def _is_free(self, number: int) -> bool:
        """Whether another output than the recorded one is taken as a new version."""
        planned = self._plan_of(number)
        return planned.free or self._inputs_changed(number, planned)

    def _open(self, number: int) -> Iterator[bytes]:
        waiting = self._shelf.open(number)
        return self._around.outputs.open(self._scope.placed(number)) if waiting is None else waiting

    def _finish(self, number: int, node: Node, produced: Produced, scratch: Path, *, free: bool) -> None:
        """On the thread of the recomputation: refuse what is not the node's output, and put it where it belongs."""
        if not free:
            if produced.key != node.hash:
                raise OutputMismatch(
                    f"the recomputation of {node.id} gave another output than the recorded one",
                    cause=f"it has the id {produced.key} and {produced.size} bytes, recorded is {node.hash}",
                    hint="the code or its inputs have changed; if it may differ, record the node as not deterministic",
                )
            require_size(node, produced)
        self._around.validators.apply(node, produced.pieces, scratch)
        self._around.outputs.take(self._scope.placed(number, node), produced)

    def _take(self, ended: Ended) -> None:
        number, job = ended.attempt.number, ended.attempt.task.job
        if ended.produced is not None:
            self._accept(number, job.node, ended.produced, ended.seconds)
        elif job.inputs.lost:
            by_name = dict(zip(self._scope.names[number], self._scope.deps[number], strict=True))
            for name in job.inputs.lost:
                self._find_damaged(by_name[name], f"it could not be read: {ended.error}")
            self._put_off(number)
            self._settle(number, "later")
        elif ended.error is not None:
            self._retry_or_fail(number, ended.error)
        rmtree(job.scratch, ignore_errors=True)  # a thread that was given up may still write there

    def _accept(self, number: int, node: Node, produced: Produced, seconds: float) -> None:
        around, planned, before = self._around, self._plan_of(number), self._scope.nodes[number]
        produced = produced.moved(around.scratch / f"output-{number}")
        self._shelf.put(number, produced)
        if around.survey(number).here == "wrong":
            self._unreadable.add(number)
        around.survey.enter(number, _INTACT)
        reason = planned.reason if planned.action == "recompute" else "something that it was made from has changed"
        if excuse := self._excuses.get(number):
            reason += f"; {excuse}"
        same = produced.key == before.hash
        if not same:
            reason += "; it is a new version"
            assert before.hash is not None
            around.renamed[before.hash] = produced.key
        if not same or node is not before:
            around.changed[number] = self._scope.nodes[number] = with_output(node, produced, seconds)
        around.results[number] = NodeResult(planned.id, "recomputed", reason, produced.key, seconds)
        self._settle(number, "good" if same else "changed")

    def _retry_or_fail(self, number: int, error: BackstayError) -> None:
        tries, allowed = self._tries[number], 1 + self._around.policy.retries
        if isinstance(error, WorkerLost):
            allowed = max(allowed, 2)  # another worker may well do it
        if isinstance(error, RecomputeFailed) and tries < allowed:
            self._excuses[number] = f"try {tries} failed: {error}"
            heapq.heappush(self._recompute, number)
            return
        reason = str(error) if tries == 1 else f"{error} (after {tries} tries)"
        self._fail(number, "failed", reason)
        self._settle(number, "bad")
