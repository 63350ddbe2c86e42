"""Carry a recovery plan out: steps in their order, several at once, and each once over all runs.

Order: the backups are chosen and noted, then each step is noted as begun, done, and noted as done. A crash between
leaves a step that is begun: the next run does it again, which finds whole files as they are, replaces what it had put
into a database itself, and runs a program a second time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from backstay.control.manager.manager import BackupManager
from backstay.control.policies.values import expanded
from backstay.control.recovery.doing import Doing
from backstay.control.recovery.loading import LoadedPlan
from backstay.control.recovery.performing import perform
from backstay.control.recovery.plan import AnyStep, RestoreStep, VerifyStep, moment_of
from backstay.control.recovery.restoring import place_of
from backstay.control.recovery.state import RecoveryState
from backstay.core.clock import Clock, rest
from backstay.core.times import parse_length
from backstay.errors import BackstayError, Interrupted, InvalidRequest, RestoreConflict, StepFailed
from backstay.errors.documents import problem_document

Told: TypeAlias = Callable[[str, str, str], None]  # step, what became of it, more
Outcome: TypeAlias = Literal["done", "before", "failed", "blocked", "not begun"]

_LOOK_S: Final = 0.2  # between two looks at whether somebody asked for the end
_PAUSE_S: Final = 60.0  # between two attempts, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """Who is around a run. `ask` puts a question and says whether the answer was yes; `tell` is told of each step.

    `fit` makes of a failure what all may know who are told.
    """

    stop_if_asked: Callable[[], None]
    ask: Callable[[str], bool]
    tell: Told
    fit: Callable[[BackstayError], BackstayError] = field(default=lambda error: error)


@dataclass(slots=True, kw_only=True)
class Recovery:
    """One run of a plan."""

    loaded: LoadedPlan
    state: RecoveryState
    manager: BackupManager
    environ: Mapping[str, str]
    clock: Clock
    company: Company
    parallel: int | None = None
    job_id: str | None = None  # what is restored is recorded as a part of this job
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    errors: dict[str, BackstayError] = field(default_factory=dict)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _noting: threading.Lock = field(default_factory=threading.Lock)
    _begun: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every step came to a good end, in this run or before, or was allowed to fail."""
        steps = self.loaded.steps
        return all(
            self.outcomes.get(name) in ("done", "before")
            or (self.outcomes.get(name) == "failed" and step.on_error == "continue")
            for name, step in steps.items()
        )

    def run(self) -> None:
        """Failures of steps are in `outcomes` and `errors`. Raises Interrupted, InvalidRequest, NotFound."""
        self._require_same()
        self._begun = self.clock.monotonic()
        self.pin()
        for name in self.loaded.steps:
            if self.state.of(name).is_done:
                self.outcomes[name] = "before"
                self.company.tell(name, "before", "")
        with ThreadPoolExecutor(self.parallel or self.loaded.plan.parallel, "step") as pool:
            try:
                self._steps(pool)
            finally:
                self._stopped.set()  # whoever still works is waited for
        for name in self.loaded.steps:
            self.outcomes.setdefault(name, "not begun")

    def pin(self) -> None:
        """Choose the backups, once: `latest` means the same in all runs of a plan. Raises NotFound, InvalidRequest."""
        for name, step in self.loaded.steps.items():
            state = self.state.of(name)
            if state.is_done or not isinstance(step, (RestoreStep, VerifyStep)):
                continue
            if state.backup is None or state.digest != self.loaded.digests[name]:
                source = step.source if isinstance(step, RestoreStep) else None
                path = None if source is None else expanded(source, self.environ)
                chosen = self.manager.get(step.backup, at=moment_of(step.at), path=path)
                self.state.note(name, "pinned", backup=chosen.id, digest=self.loaded.digests[name])

    def _require_same(self) -> None:
        """What is done must be what the plan says. Raises InvalidRequest."""
        steps = self.loaded.steps
        done = {name: state for name, state in self.state.steps.items() if state.is_done}
        changed = [
            name for name, state in done.items() if name not in steps or state.digest != self.loaded.digests[name]
        ]
        if changed:
            raise InvalidRequest(
                "the plan was changed since a part of it was carried out",
                cause=f"done by another wording: {', '.join(changed)}",
                hint="put these steps back as they were, or begin anew with --restart",
            )
        for name, state in done.items():
            place = place_of(steps[name], self.environ)
            if state.place not in (None, place):
                raise InvalidRequest(
                    f"the step {name!r} was done for another place",
                    cause=f"it brought back {state.place}, and its variables say {place} now",
                    hint="set the variables as they were, or keep another state with --state",
                )

    # -- the order

    def _steps(self, pool: ThreadPoolExecutor) -> None:
        waiting = [name for name in self.loaded.steps if name not in self.outcomes]
        running: dict[Future[dict[str, Any]], str] = {}
        halted = False
        while waiting or running:
            if not halted:
                for name in self._ready(waiting, len(running)):
                    waiting.remove(name)
                    if self._blocked(name):
                        continue
                    if self._confirmed(name):
                        running[pool.submit(self._attempts, name, self.loaded.steps[name])] = name
                    elif self.loaded.steps[name].on_error == "stop":
                        halted = True
                        break
            if not running:
                if halted or not self._ready(waiting, 0):
                    return
                continue
            finished, _ = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            self.company.stop_if_asked()
            for future in finished:
                halted = self._ended(running.pop(future), future) or halted

    def _ready(self, waiting: Iterable[str], running: int) -> list[str]:
        """The steps that may begin now: all that they need has ended."""
        room = (self.parallel or self.loaded.plan.parallel) - running
        ready = [name for name in waiting if all(one in self.outcomes for one in self.loaded.steps[name].needs)]
        return ready[: max(0, room)]

    def _blocked(self, name: str) -> bool:
        """Whether something that a step needs did not come to a good end."""
        for needed in self.loaded.steps[name].needs:
            outcome, step = self.outcomes[needed], self.loaded.steps[needed]
            if outcome == "blocked" or (outcome == "failed" and step.on_error != "continue"):
                self.outcomes[name] = "blocked"
                self.company.tell(name, "blocked", f"it needs {needed}")
                return True
        return False

    def _confirmed(self, name: str) -> bool:
        question = self.loaded.steps[name].confirm
        if question is None or self.company.ask(f"{name}: {question}"):
            return True
        error = InvalidRequest(
            f"the step {name!r} was not confirmed", cause=question, hint="run the plan again, or with --yes"
        )
        place = place_of(self.loaded.steps[name], self.environ)
        with self._noting:
            self.state.note(name, "begun", digest=self.loaded.digests[name], place=place)
        self._note_failed(name, error, 0.0)
        self.outcomes[name], self.errors[name] = "failed", error
        self.company.tell(name, "failed", str(error))
        return False

    def _ended(self, name: str, future: Future[dict[str, Any]]) -> bool:
        """Note how a step ended; whether nothing further may begin."""
        error = future.exception()
        if error is None:
            self.outcomes[name] = "done"
            self.company.tell(name, "done", "")
            return False
        if not isinstance(error, BackstayError) or isinstance(error, Interrupted):
            raise error
        fit = self.company.fit(error)
        self.outcomes[name], self.errors[name] = "failed", fit
        self.company.tell(name, "failed", str(fit))
        return self.loaded.steps[name].on_error == "stop"

    # -- one step, on a thread of its own

    def _attempts(self, name: str, step: AnyStep) -> dict[str, Any]:
        for left in range(step.retries, -1, -1):
            begun = self.clock.monotonic()
            with self._noting:
                place = place_of(step, self.environ)
                self.state.note(name, "begun", digest=self.loaded.digests[name], place=place)
                own = self.state.of(name).writing
            self.company.tell(name, "begun", "")
            try:
                result = _performed(step, self._doing(name, step, own=own))
            except Interrupted:
                raise
            except BackstayError as error:
                self._note_failed(name, error, self.clock.monotonic() - begun)
                if not left or isinstance(error, (InvalidRequest, RestoreConflict)):
                    raise
                self.company.tell(name, "again", str(self.company.fit(error)))
                rest(self.clock, min(_PAUSE_S, 2.0 ** (step.retries - left)), self._stopped.is_set)
                continue
            with self._noting:
                self.state.note(name, "done", seconds=self.clock.monotonic() - begun, result=result)
            return result
        raise AssertionError("the last attempt returns or raises")

    def _doing(self, name: str, step: AnyStep, *, own: bool) -> Doing:
        ends = [] if step.timeout is None else [self.clock.monotonic() + parse_length(step.timeout).total_seconds()]
        if (whole := self.loaded.plan.timeout) is not None:
            ends.append(self._begun + parse_length(whole).total_seconds())
        return Doing(
            name=name,
            manager=self.manager,
            environ=self.environ,
            clock=self.clock,
            stopped=self._stopped,
            backup=self.state.of(name).backup,
            own=own,
            writing=partial(self._note_writing, name),
            until=min(ends, default=None),
            job_id=self.job_id,
        )

    def _note_writing(self, name: str) -> None:
        with self._noting:
            self.state.note(name, "writing")

    def _note_failed(self, name: str, error: BackstayError, seconds: float) -> None:
        with self._noting:
            self.state.note(name, "failed", seconds=seconds, error=problem_document(error))


def _performed(step: AnyStep, doing: Doing) -> dict[str, Any]:
    """Do a step. Raises what `perform` does; of the system's refusals StepFailed."""
    try:
        return perform(step, doing)
    except OSError as error:
        cause = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        raise StepFailed(f"the step {doing.name!r} failed", cause=cause) from error


def state_file(plan: Path) -> Path:
    """Where the state of a plan is kept if nobody says otherwise."""
    return plan.with_name(plan.name + ".state")
