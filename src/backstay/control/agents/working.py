"""What an agent does: it asks for work, does it, tells what became of it, and asks again.

Crash order: nothing is kept here. What a job stored is in the repository, where the next attempt finds it; the server
gives a job back when it hears nothing more. An end that the server did not hear is told until it does.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from backstay.control.agents.home import Home
from backstay.control.agents.joining import Renewing
from backstay.control.agents.reporting import Reporting, Told, plain_document
from backstay.control.agents.server import Server
from backstay.control.agents.work import PROTOCOL, Work, programs_of
from backstay.control.jobs.failures import failure_of
from backstay.control.manager.documents import outcome_document
from backstay.control.runs.run import PolicyOutcome
from backstay.core.clock import Clock, rest
from backstay.core.ids import Random
from backstay.core.version import VERSION
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    Forbidden,
    Interrupted,
    InvalidRequest,
    NotFound,
    Unauthorized,
)
from backstay.errors.documents import problem_document

WAIT_S: Final = 25.0  # that the server may wait for work to come
_SLACK_S: Final = 15.0  # for its answer on the way
_LOOK_S: Final = 0.1
_LAST_S: Final = 1.0  # for an answer that is on its way when a signal comes
_PAUSES_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # before the server is asked again that did not answer


class RunWork(Protocol):
    """Does the work of a job; raises Interrupted."""

    def __call__(self, work: Work, reporting: Reporting, job_id: str, notices: list[str]) -> PolicyOutcome: ...


@dataclass(slots=True, kw_only=True)
class Agent:
    """An agent at work. `warn` and `say` are told what its owner should know; programs run if `allow_programs`."""

    home: Home
    server: Server
    run: RunWork
    clock: Clock
    random: Random
    warn: Callable[[str], None]
    say: Callable[[str], None]
    stopped: Callable[[], bool]
    allow_programs: bool = False
    _about: Told = field(init=False)
    _renewing: Renewing = field(init=False)
    _told: str | None = None
    _failures: int = 0

    def __post_init__(self) -> None:
        self._renewing = Renewing(self.home, self.server, self.clock)
        self._about = {
            "instance": self.random(8).hex(),
            "host": socket.gethostname()[:255] or "unknown",
            "version": VERSION,
            "protocol": PROTOCOL,
        }

    def work(self) -> None:
        """Until it is stopped. Raises Unauthorized when the server does not know it any more."""
        while not self.stopped():
            try:
                self._renewing.if_due()
                job = self._ask()
            except (Unauthorized, Forbidden):
                raise
            except BackstayError as error:
                self._unreachable(error)
                continue
            self._reachable()
            if job is not None:
                self._do(job)

    # -- asking

    def _ask(self) -> Told | None:
        """The next job, None when there is none or a signal came; what comes too late is given back."""
        answers: queue.Queue[Told | BaseException] = queue.Queue()
        asked = self._about | {"wait_s": WAIT_S}

        def wait() -> None:
            try:
                answers.put(self.server.call("POST", "/api/agents/work", asked, timeout_s=WAIT_S + _SLACK_S))
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                answers.put(error)

        threading.Thread(target=wait, name="backstay-agent-asks", daemon=True).start()
        while not self.stopped():
            try:
                return _job_in(answers.get(timeout=_LOOK_S))
            except queue.Empty:
                continue
        try:
            late = _job_in(answers.get(timeout=_LAST_S))
        except (queue.Empty, BackstayError):
            return None
        if late is not None:
            self._end(late, {"status": "released", "lines": [], "progress": None}, patient=False)
        return None

    def _unreachable(self, error: BackstayError) -> None:
        """Tell once why the server cannot be asked, and wait."""
        text = str(error)
        if text != self._told:
            self._told = text
            self.warn(f"{text}; {error.hint or 'asked again and again'}")
        pause = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        rest(self.clock, pause * (0.75 + self.random(1)[0] / 512), self.stopped)  # agents do not all come at once

    def _reachable(self) -> None:
        if self._told is not None:
            self.warn("the server answers again")
        self._told, self._failures = None, 0

    # -- doing

    def _do(self, job: Told) -> None:
        """One job, from its first to its last word."""
        place = f"/api/agents/jobs/{job['id']}/report"
        about = self._about | {"attempt": job["attempt"]}

        def tell(told: Told) -> Told:
            self._renewing.if_due()  # a first backup may take days
            heard: Told = self.server.call("POST", place, about | told)
            return heard

        reporting = Reporting(tell, self.clock, self.stopped)
        self.say(f"job {job['id']} begins")
        with reporting.beating():
            end = self._outcome(job, reporting)
        if reporting.why == "lost":
            self.warn(f"job {job['id']} was given back by the server: what it stored is used by its next attempt")
            return
        end |= reporting.untold()
        accepted = self._end(job, end, patient=True)
        self.say(f"job {job['id']} ends: {end['status'] if accepted else 'given back before'}")

    def _outcome(self, job: Told, reporting: Reporting) -> Told:
        """What is told of a job at its end."""
        notices: list[str] = []
        begun = self.clock.monotonic()
        try:
            work = Work.parse(job.get("work"))
            if not self.allow_programs and (named := programs_of(work.policy)):
                raise InvalidRequest(
                    "this host runs no programs for the server",
                    cause=f"the policy {work.name} names {named[0]}",
                    hint="start it with `backstay agent run --allow-programs` if whoever writes the policy file may "
                    "run programs here",
                )
            outcome = self.run(work, reporting, job["id"], notices)
        except Interrupted as error:
            if reporting.why in (None, "stopping"):
                return {"status": "released"}
            return {"status": "cancelled", "error": _problem(error)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the job has an end
            return {"status": "failed", "error": _problem(failure_of(error))}
        result = _result(outcome, self.clock.monotonic() - begun, notices)
        if outcome.went_well:
            return {"status": "succeeded", "result": result}
        wrong = CorruptedBackup(f"the new backup of {work.name} is not good", cause="verification found mistakes")
        return {"status": "failed", "result": result, "error": _problem(next(iter(outcome.errors), wrong))}

    def _end(self, job: Told, end: Told, *, patient: bool) -> bool:
        """Tell the end of a job until the server has heard it; whether it counts."""
        said = self._about | {"attempt": job["attempt"]} | end
        while True:
            try:
                heard = self.server.call("POST", f"/api/agents/jobs/{job['id']}/end", said)
                return bool(heard.get("accepted"))
            except (Unauthorized, Forbidden, NotFound):
                return False
            except InvalidRequest as error:  # it never takes that: better a plain end than none
                if said.get("status") == "failed" and "result" not in said:
                    self.warn(f"the end of job {job['id']} is not taken: {error}")
                    return False
                said = self._about | {"attempt": job["attempt"], "status": "failed", "error": _problem(error)}
            except BackstayError as error:
                if not patient or self.stopped():
                    return False
                self._unreachable(error)


def _job_in(answer: Told | BaseException) -> Told | None:
    """The job in an answer. Raises what was raised."""
    if isinstance(answer, BaseException):
        raise answer
    job: Told | None = answer.get("job")
    return job


def _problem(error: BackstayError) -> Any:  # noqa: ANN401 - JSON
    return plain_document(problem_document(error))


def _result(outcome: PolicyOutcome, duration_s: float, notices: list[str]) -> Told:
    found: Told = plain_document(
        {
            "backups": [ulid for ulid in outcome.snapshots if ulid not in outcome.dropped],
            "dry_run": outcome.dry_run,
            "duration_s": round(duration_s, 3),
            "notices": notices[:100],
            "outcome": outcome_document(outcome),
        }
    )
    return found
