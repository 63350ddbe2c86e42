"""What a recovery did, as a document: each step with its times, and how long all of it took."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from backstay.control.manager.documents import preview_document, stamp
from backstay.control.manager.results import RestorePreview
from backstay.control.recovery.loading import LoadedPlan
from backstay.control.recovery.performing import told
from backstay.control.recovery.running import Recovery
from backstay.control.recovery.state import StepState
from backstay.core.version import VERSION
from backstay.errors import BackstayError
from backstay.errors.documents import problem_document


def report(recovery: Recovery, now: datetime) -> dict[str, Any]:
    """The report of a run that ended. `rto_s` is the time from the first beginning to the last end, over all runs;
    `work_s` what the steps took, one after another.
    """
    states = {name: recovery.state.of(name) for name in recovery.loaded.steps}
    ends = [state.ended_at for state in states.values() if state.ended_at is not None]
    last = max(ends, default=now)
    return {
        "plan": recovery.loaded.file,
        "digest": digest_of(recovery.loaded),
        "description": recovery.loaded.plan.description,
        "program": VERSION,
        "ok": recovery.ok,
        "started_at": stamp(recovery.state.begun_at),
        "finished_at": stamp(last),
        "rto_s": round((last - recovery.state.begun_at).total_seconds(), 3),
        "work_s": round(sum(state.seconds for state in states.values()), 3),
        "critical_path": critical_path(recovery.loaded, states),
        "steps": [_step(name, recovery, states[name], recovery.errors.get(name)) for name in recovery.loaded.steps],
    }


def _step(name: str, recovery: Recovery, state: StepState, error: BackstayError | None) -> dict[str, Any]:
    step = recovery.loaded.steps[name]
    return {
        "name": name,
        "type": step.type,
        "what": told(step),
        "needs": list(step.needs),
        "outcome": recovery.outcomes[name],
        "attempts": state.attempts,
        "started_at": None if state.begun_at is None else stamp(state.begun_at),
        "finished_at": None if state.ended_at is None else stamp(state.ended_at),
        "duration_s": round(state.seconds, 3),
        "result": dict(state.result),
        "error": None if error is None else problem_document(error),
    }


def critical_path(loaded: LoadedPlan, states: Mapping[str, StepState]) -> list[str]:
    """The steps that made it take so long: of all chains of steps that need each other, the longest in time."""
    longest: dict[str, tuple[float, list[str]]] = {}
    for name in (name for wave in loaded.waves() for name in wave):
        before = max((longest[needed] for needed in loaded.steps[name].needs), default=(0.0, []))
        longest[name] = (before[0] + states[name].seconds, [*before[1], name])
    return max(longest.values())[1]


def digest_of(loaded: LoadedPlan) -> str:
    """What tells whether two plans have the same steps."""
    return hashlib.sha256(json.dumps(dict(loaded.digests), sort_keys=True).encode()).hexdigest()


def step_preview(
    name: str, loaded: LoadedPlan, state: StepState, found: RestorePreview | BackstayError | None, wave: int
) -> dict[str, Any]:
    """What a step would do."""
    step = loaded.steps[name]
    return {
        "name": name,
        "type": step.type,
        "what": told(step),
        "wave": wave,
        "needs": list(step.needs),
        "confirm": step.confirm,
        "done": state.is_done,
        "backup": state.backup,
        "preview": preview_document(found) if isinstance(found, RestorePreview) else None,
        "error": problem_document(found) if isinstance(found, BackstayError) else None,
    }
