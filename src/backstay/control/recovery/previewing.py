"""Look at a recovery plan without carrying it out: which backups, how much, what is in the way, is there room."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backstay.control.manager.manager import BackupManager
from backstay.control.manager.requests import room_at
from backstay.control.manager.results import RestorePreview
from backstay.control.policies.values import expanded
from backstay.control.recovery.doing import Doing
from backstay.control.recovery.loading import LoadedPlan
from backstay.control.recovery.performing import preview
from backstay.control.recovery.plan import AnyStep, RestoreStep, VerifyStep, moment_of
from backstay.control.recovery.report import digest_of, step_preview
from backstay.control.recovery.state import RecoveryState
from backstay.core.clock import Clock
from backstay.errors import BackstayError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPreview:
    """What a plan would do. `shortages` names the places with too little room for all that goes there."""

    document: dict[str, Any]
    error: BackstayError | None
    shortages: tuple[str, ...]


def preview_plan(
    loaded: LoadedPlan, state: RecoveryState, manager: BackupManager, *, environ: Mapping[str, str], clock: Clock
) -> PlanPreview:
    """Look at every step that is not done. What only an earlier step makes, such as a database, cannot be looked at
    yet, which is no mistake; `error` is the first that is one.
    """
    steps: list[dict[str, Any]] = []
    wanted: dict[str, int] = defaultdict(int)
    first: BackstayError | None = None
    for wave, names in enumerate(loaded.waves()):
        for name in names:
            step, known = loaded.steps[name], state.of(name)
            found = None if known.is_done else _look(name, step, state, manager, environ, clock)
            if isinstance(found, BackstayError) and not step.needs:
                first = first or found
            if isinstance(found, RestorePreview):
                for part in found.parts:
                    wanted[part.target] += part.bytes
            steps.append(step_preview(name, loaded, known, found, wave))
    shortages = tuple(_shortages(wanted))
    document = {
        "dry_run": True,
        "plan": loaded.file,
        "digest": digest_of(loaded),
        "bytes": sum(wanted.values()),
        "shortages": list(shortages),
        "steps": steps,
    }
    return PlanPreview(document=document, error=first, shortages=shortages)


def _look(
    name: str,
    step: AnyStep,
    state: RecoveryState,
    manager: BackupManager,
    environ: Mapping[str, str],
    clock: Clock,
) -> RestorePreview | BackstayError | None:
    try:
        backup = state.of(name).backup
        if backup is None and isinstance(step, (RestoreStep, VerifyStep)):
            source = step.source if isinstance(step, RestoreStep) else None
            path = None if source is None else expanded(source, environ)
            backup = manager.get(step.backup, at=moment_of(step.at), path=path).id
        doing = Doing(
            name=name,
            manager=manager,
            environ=environ,
            clock=clock,
            stopped=threading.Event(),
            backup=backup,
            own=state.of(name).writing,
            writing=lambda: None,
        )
        return preview(step, doing)
    except BackstayError as error:
        return error


def _shortages(wanted: Mapping[str, int]) -> list[str]:
    """The places of which all targets on one file system do not fit."""
    by_device: dict[int, list[str]] = defaultdict(list)
    for target in wanted:
        if target.startswith("/"):
            by_device[_device(Path(target))].append(target)
    found = []
    for targets in by_device.values():
        room, needed = room_at(Path(targets[0])), sum(wanted[target] for target in targets)
        if room is not None and needed > room:
            found.append(f"{', '.join(targets)}: {needed} bytes are needed, {room} are free")
    return found


def _device(place: Path) -> int:
    while not place.exists() and place != place.parent:
        place = place.parent
    return place.stat().st_dev
